"""Decides on which node a pod runs and which addresses it gets; refuses to know why the pod exists.

The node with the fewest pods wins, the first one among equals; one with a PreferNoSchedule taint comes last. What the user gave
(nodeName, status.podIP) is kept. A pod that fits nowhere stays Pending and says why, in the scheduler's words.
"""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace

from netlab import ipam
from netlab.controllers import taints
from netlab.controllers.pods import is_active
from netlab.dns import is_server
from netlab.model import Address, Cluster, Node, Pod, PodSpec

CORDONED = "node(s) were unschedulable"
UNSELECTED = "node(s) didn't match Pod's node affinity/selector"
PORT_TAKEN = "node(s) didn't have free ports for the requested pod ports"
FULL = "Too many pods"
NAME_FIELD = "metadata.name"
"""What a term of nodeAffinity calls the node's name (matchFields)."""


_HostPort = tuple[str, int, str, str]
"""Node, port, protocol, and the address that it is taken at ('' for every one)."""


@dataclass(slots=True)
class _Load:
    """What one round of placing needs to know of every node; local to that round, so that placing n pods is one scan."""

    pods: dict[str, int]
    host_ports: set[_HostPort]
    free: dict[str, "_Free"]


@dataclass(slots=True)
class _Free:
    """The free addresses of one node, one iterator a family; `next` is what the next pod gets, () when they are used up."""

    iterators: tuple[Iterator[Address], ...]
    next: tuple[Address, ...] = ()
    last: tuple[Address, ...] = ()

    def advance(self) -> None:
        found = tuple(next(iterator, None) for iterator in self.iterators)
        self.next = tuple(address for address in found if address is not None) if None not in found else ()


def place(cluster: Cluster) -> Cluster:
    """The cluster with every pod placed that fits somewhere; the same object when nothing changed."""
    waiting = [pod for pod in cluster.pods.values() if not (pod.node and pod.addresses) and is_active(pod)]
    if not waiting:
        return cluster
    load = _load(cluster)
    placed = {pod.meta.key: _placed(cluster, pod, load) for pod in waiting}
    if all(placed[pod.meta.key] is pod for pod in waiting):
        return cluster
    last = {(name, f"IPv{one.version}"): one for name, free in load.free.items() for one in free.last}
    return cluster.with_(
        pods={key: placed.get(key, pod) for key, pod in cluster.pods.items()}, last_addresses={**cluster.last_addresses, **last}
    )


def host_addresses(node: Node) -> tuple[Address, ...]:
    """The addresses of a hostNetwork pod: its node's first, and where pods have both families the first of the other."""
    other = [address for address in node.addresses if address.version != node.addresses[0].version]
    return (*node.addresses[:1], *(other[:1] if len(node.pod_cidrs) > 1 else ()))


def unfit(spec: PodSpec, node: Node) -> str:
    """Why a pod of this kind may not run on a node; '' when it may."""
    taint = taints.untolerated(spec, node)
    if taint is not None:
        return CORDONED if taint.key == taints.UNSCHEDULABLE else f"node(s) had untolerated taint {{{taint.key}: {taint.value}}}"
    return unselected(spec, node)


def unselected(spec: PodSpec, node: Node) -> str:
    """Why a pod's nodeSelector or nodeAffinity excludes a node; '' when they do not."""
    if any(node.meta.labels.get(key) != value for key, value in spec.node_selector.items()):
        return UNSELECTED
    known = {**node.meta.labels, NAME_FIELD: node.meta.name} if spec.node_affinity else {}
    if spec.node_affinity and not any(term.matches(known) for term in spec.node_affinity):
        return UNSELECTED
    return ""


def _load(cluster: Cluster) -> _Load:
    load = _Load(dict.fromkeys(cluster.nodes, 0), set(), {})
    for pod in cluster.pods.values():
        if pod.node and is_active(pod):
            _count(load, pod)
        elif pod.node and pod.terminating:
            load.host_ports.update(_host_ports(pod, pod.node))
    return load


def _count(load: _Load, pod: Pod) -> None:
    # DNS pods weigh nothing: what is tried in a lab lies on the same nodes with and without them.
    load.pods[pod.node] = load.pods.get(pod.node, 0) + (not is_server(pod.meta.namespace, pod.meta.labels))
    load.host_ports.update(_host_ports(pod, pod.node))


def _free(cluster: Cluster, node: Node, load: _Load) -> _Free:
    name = node.meta.name
    if name not in load.free:
        families: tuple[ipam.Family, ...] = tuple(f"IPv{cidr.version}" for cidr in node.pod_cidrs)  # type: ignore[misc]  # 4 or 6
        load.free[name] = _Free(tuple(ipam.free_pod_addresses(cluster, node, family) for family in families))
        load.free[name].advance()
    return load.free[name]


def _host_ports(pod: Pod, node: str) -> Iterator[_HostPort]:
    """The ports that the pod takes on its node: on the node's own network every port that it declares, else its hostPorts."""
    for container in pod.all_containers:
        for port in container.ports:
            number = port.port if pod.spec.host_network else port.host_port
            if number:
                yield node, number, port.protocol, str(port.host_ip or "")


def _collides(taken: Set[_HostPort], wanted: Iterable[_HostPort]) -> bool:
    for node, number, protocol, address in wanted:
        if (node, number, protocol, address) in taken or (node, number, protocol, "") in taken:
            return True
        if not address and any(one[:3] == (node, number, protocol) for one in taken):
            return True
    return False


def _placed(cluster: Cluster, pod: Pod, load: _Load) -> Pod:
    node, message = _node(cluster, pod, load)
    if node is None:
        return pod if pod.message == message else replace(pod, message=message)
    addresses = host_addresses(node) if pod.spec.host_network else pod.addresses
    if not addresses:
        free = _free(cluster, node, load)
        addresses = free.last = free.next
        free.advance()
    if not addresses:
        ranges = ", ".join(map(str, node.pod_cidrs)) or "none"
        message = f"failed to allocate for range 0: no IP addresses available in range set: {ranges} of node {node.meta.name}"
        return pod if pod.message == message else replace(pod, message=message)
    placed = replace(pod, node=node.meta.name, addresses=addresses, message="")
    if not pod.node:
        _count(load, placed)
    return placed


def _node(cluster: Cluster, pod: Pod, load: _Load) -> tuple[Node | None, str]:
    name = pod.node or pod.spec.node_name or _node_of_address(cluster, pod)
    if name:
        node = cluster.nodes.get(name)
        return node, "" if node else f'node "{name}" not found'
    reasons: dict[str, int] = {}
    fitting: list[Node] = []
    for node in cluster.nodes.values():
        reason = unfit(pod.spec, node) or _crowded(cluster, pod, node, load)
        if reason:
            reasons[reason] = reasons.get(reason, 0) + 1
        else:
            fitting.append(node)
    if fitting:
        return min(fitting, key=lambda node: (taints.dislikes(pod.spec, node), load.pods[node.meta.name])), ""
    counted = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    return None, f"0/{len(cluster.nodes)} nodes are available: {counted}."


def _node_of_address(cluster: Cluster, pod: Pod) -> str:
    """The node whose podCIDR holds a given podIP."""
    if not pod.addresses or pod.spec.host_network:
        return ""
    first = pod.addresses[0]
    return next((name for name, node in cluster.nodes.items() if any(first in cidr for cidr in node.pod_cidrs)), "")


def _crowded(cluster: Cluster, pod: Pod, node: Node, load: _Load) -> str:
    if _collides(load.host_ports, _host_ports(pod, node.meta.name)):
        return PORT_TAKEN
    if not pod.spec.host_network and not pod.addresses and not _free(cluster, node, load).next:
        return FULL
    return ""
