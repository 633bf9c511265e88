"""Decides what becomes of a node that is out of reach, and of its pods: NotReady after a grace, not ready, evicted, replaced.

Theory: a fault cuts the node's links (`cut`). For `nodeMonitorGracePeriod` nobody notices. Then the node is NotReady and its pods
are not ready, so that they leave the endpoints. A pod's toleration of that state ends after `unreachableToleration` (or what its
own tolerations say): it is deleted, which nobody on the node hears, so that it stays, terminating, until the node is back; its
workload makes another elsewhere, but for a StatefulSet, which never has two pods of one name. `heal` undoes the fault. Source:
Kubernetes pkg/controller/nodelifecycle and pkg/controller/tainteviction.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import inf

from netlab import ipam
from netlab.controllers.lifecycle import end
from netlab.controllers.taints import eviction_at
from netlab.errors import InputError
from netlab.model import Cluster, ContainerStatus, Ended, Node, Outage, Pod

UNKNOWN = 255
"""The exit code that a kubelet gives to a container of which it cannot know how it ended."""


def cut(cluster: Cluster, name: str, killed: bool) -> Cluster:
    """The cluster with this node out of reach from now on, not settled. Raises: InputError when it is already."""
    if name in cluster.outages:
        state = "dead" if cluster.outages[name].killed else "cut off"
        raise InputError(f"node/{name} is {state} already; `netlab fault heal node/{name}` brings it back")
    outage = Outage(cluster.clock, killed, cluster.with_(outages={}))
    return cluster.with_(
        outages={**cluster.outages, name: outage}, links_down=cluster.links_down | _links(cluster, cluster.nodes[name])
    )


def heal(cluster: Cluster, name: str) -> Cluster:
    """The cluster with the node in reach again, not settled; its kubelet then ends the pods that were deleted."""
    outage = cluster.outages.get(name)
    if outage is None:
        return cluster
    node = cluster.nodes[name]
    left = {other: one for other, one in cluster.outages.items() if other != name}
    links = cluster.links_down - _links(cluster, node)
    back = node if node.ready else replace(node, ready=True, ready_changed=cluster.clock)
    cluster = cluster.with_(outages=left, links_down=links, nodes={**cluster.nodes, name: back})
    pods = dict(cluster.pods)
    for key, pod in cluster.pods.items():
        if pod.node != name:
            continue
        if pod.terminating and not pod.statuses:
            del pods[key]  # one of a dump, of which nothing runs
        elif pod.phase == "Running":
            pods[key] = _back(pod, outage.killed, cluster.clock)
    return cluster.with_(pods=pods)


def _back(pod: Pod, restarted: bool, clock: float) -> Pod:
    """The pod as its kubelet reports it: after a reboot its containers are started anew. Readiness follows from them."""
    if not pod.statuses:
        ready = pod.phase == "Running" and all(container.readiness is None for container in pod.spec.containers)
        return replace(pod, ready=ready, serving=ready, restarts=pod.restarts + restarted)
    return replace(pod, statuses=tuple(_rebooted(one, clock) for one in pod.statuses)) if restarted else pod


def _rebooted(status: ContainerStatus, clock: float) -> ContainerStatus:
    if status.state != "running":
        return status
    last = Ended(UNKNOWN, status.started_at, clock, "Unknown")
    return ContainerStatus(status.name, reason="Unknown", restarts=status.restarts, backoff_s=status.backoff_s, last=last)


def _links(cluster: Cluster, node: Node) -> frozenset[tuple[str, str]]:
    """Where the node is plugged into its switches."""
    port = ipam.lan_port(f"node/{node.meta.name}")
    return frozenset((f"lan/{one.lan}", port) for one in ipam.attachments(cluster.topology, node.addresses))


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every node's state and every eviction that is due; the same object when nothing changed."""
    if not cluster.outages and not any(node.taints for node in cluster.nodes.values()):
        return cluster
    nodes = dict(cluster.nodes)
    for name, outage in cluster.outages.items():
        lost_at = outage.since + cluster.topology.cluster.node_monitor_grace_s
        if nodes[name].ready and cluster.clock >= lost_at:
            nodes[name] = replace(nodes[name], ready=False, ready_changed=lost_at)
    if any(nodes[name] is not node for name, node in cluster.nodes.items()):
        cluster = cluster.with_(nodes=nodes)
    pods: dict[object, Pod] = {}
    gone: list[Pod] = []
    for key, pod in cluster.pods.items():
        if cluster.clock >= eviction_at(cluster, pod):
            gone.append(pod)
        elif pod.node in cluster.outages and not nodes[pod.node].ready and (pod.ready or pod.serving):
            pods[key] = replace(pod, ready=False, serving=False)
    if not pods and not gone:
        return cluster
    after = {key: pods.get(key, pod) for key, pod in cluster.pods.items()}
    for pod in gone:
        end(after, pod, cluster)
    return cluster.with_(pods=after)


def due(cluster: Cluster) -> Iterator[float]:
    """When `reconcile` has something to do next."""
    for name, outage in cluster.outages.items():
        if cluster.nodes[name].ready:
            yield outage.since + cluster.topology.cluster.node_monitor_grace_s
    if cluster.outages or any(node.taints for node in cluster.nodes.values()):
        yield from (at for pod in cluster.pods.values() if (at := eviction_at(cluster, pod)) != inf)
