"""What would have let a packet live that died: advice from the cluster's own state. Pure.

Decides what is worth saying, most likely first. Refuses to know rules: where the packet died is told to it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from netlab.endpoints import ServiceEndpoint, endpoints_of, family_of
from netlab.fabric.impairments import in_force
from netlab.model import Address, Cluster, Flow, Protocol, Service, ServicePort


@dataclass(frozen=True, slots=True)
class Death:
    """Where a packet ended: its namespace, `rejected` or `dropped`, whether by a rule, and what it was then addressed to."""

    netns: str
    outcome: str
    by_rule: bool
    planned: bool
    arrived: bool
    destination: Address
    port: int
    link_down: bool = False
    answer: Literal["none", "lost", "stranger"] = "none"
    """What became of the receiver's answer: there was none, it was lost, or it came from another address than was asked."""


ROUTER = (
    "the router between the LANs knows neither pod nor Service addresses: the sender needs a route to a node "
    "(`routes:` of the host in the topology)"
)
ANSWERS = {
    "none": "the receiver got it and said nothing: a program that answers is missing, or its own rules keep it from answering",
    "lost": "the receiver got it, and answered: what has to be mended is the way back",
    "stranger": "the answer has to come back through the machine that translated the request, which would put back the address "
    "that was asked: masquerade there, or a route to the sender through it, sees to that",
}


def remedies(cluster: Cluster, flow: Flow, death: Death) -> tuple[str, ...]:
    """Sentences, the likeliest first; () where nothing is known."""
    return tuple(dict.fromkeys(_remedies(cluster, flow, death)))


def _remedies(cluster: Cluster, flow: Flow, death: Death) -> Iterator[str]:
    if death.link_down or any(netns == death.netns for netns, _ in cluster.links_down):
        yield "a link is down: `netlab fault link-up` plugs it in again"
    apart = next((pair for pair in sorted(cluster.apart) if death.netns in pair), None)
    if apart is not None and not death.by_rule:
        yield f"{apart[0]} and {apart[1]} are parted on purpose; `netlab fault heal` ends it"
    lossy = next((value for (netns, _), value in in_force(cluster).items() if value.loss and netns == death.netns), None)
    if lossy is not None and not death.by_rule:
        yield f"a link here is impaired on purpose ({lossy}): chance may have taken it; `netlab fault clear` ends faults"
    if death.by_rule and not death.planned:
        yield "the rule is not netlab's: `netlab verify` names it, `netlab verify --repair` removes it"
        return
    if death.arrived and death.outcome == "rejected":
        yield from _nobody_listens(cluster, flow, death)
        return
    if death.arrived:
        yield ANSWERS[death.answer]
        return
    found = False
    for service, port, how in services_at(cluster, flow):
        found = True
        yield from _service(cluster, flow, death, service, port, how)
    if not found:
        yield from _no_service(cluster, flow, death)


def services_at(cluster: Cluster, flow: Flow) -> Iterator[tuple[Service, ServicePort, str]]:
    """Services that answer for the flow's destination, with the way in: cluster-ip, node-port, external-ip or load-balancer."""
    nodes = {address for node in cluster.nodes.values() for address in node.addresses}
    for service in cluster.services.values():
        balancers = {one.ip for one in service.load_balancer if one.ip is not None}
        for port in service.ports:
            if port.protocol is not flow.protocol:
                continue
            if port.port == flow.port:
                for how, addresses in (
                    ("cluster-ip", set(service.cluster_ips)),
                    ("external-ip", set(service.external_ips)),
                    ("load-balancer", balancers),
                ):
                    if flow.destination in addresses:
                        yield service, port, how
            if port.node_port and port.node_port == flow.port and flow.destination in nodes:
                yield service, port, "node-port"


def _service(cluster: Cluster, flow: Flow, death: Death, service: Service, port: ServicePort, how: str) -> Iterator[str]:
    name = str(service.ref)
    known = endpoints_of(cluster, service, port, family_of(flow.destination))
    usable = [one for one in known if one.ready] or [one for one in known if one.serving and one.terminating]
    if not usable:
        yield from _no_endpoints(cluster, service, port, known)
        return
    policy, key = (
        (service.internal_traffic_policy, "internalTrafficPolicy")
        if how == "cluster-ip"
        else (service.external_traffic_policy, "externalTrafficPolicy")
    )
    node = death.netns.removeprefix("node/")
    here = [one for one in usable if one.node == node]
    if policy == "Local" and death.netns.startswith("node/") and not here:
        there = sorted({one.node for one in usable if one.node})
        addresses = [f"{cluster.nodes[one].addresses[0]}:{flow.port}" for one in there if one in cluster.nodes]
        yield (
            f"{name} has {key}: Local and no ready endpoint on {node}; its endpoints are on {', '.join(there)}"
            + (f": send to {' or '.join(addresses)}" if how == "node-port" else "")
        )
        yield f"{key}: Cluster would let {node} send it to an endpoint of another node"
        yield f"an endpoint of {name} on {node} would be used (a DaemonSet puts one on every node)"
        return
    if how == "load-balancer" and service.source_ranges and not any(flow.source in one for one in service.source_ranges):
        ranges = ", ".join(map(str, service.source_ranges))
        yield f"{flow.source} is in none of the loadBalancerSourceRanges of {name} ({ranges})"
    if death.netns.startswith("router/") and how == "cluster-ip":
        yield ROUTER
    elif not death.by_rule:
        yield f"{name} has {len(usable)} usable endpoints; the packet was lost on its way, not by the Service"


def _no_endpoints(cluster: Cluster, service: Service, port: ServicePort, known: tuple[ServiceEndpoint, ...]) -> Iterator[str]:
    name = str(service.ref)
    if known:
        waiting = ", ".join(str(one.target or one.address) for one in known[:3])
        yield f"{name} has {len(known)} endpoints and none is ready: {waiting}; see their readiness probes"
        return
    if not service.selector:
        yield f"{name} has no selector: give it an EndpointSlice labelled kubernetes.io/service-name: {service.meta.name}"
        return
    labels = ", ".join(f"{key}={value}" for key, value in service.selector.items())
    matching = [
        pod
        for pod in cluster.pods.values()
        if pod.meta.namespace == service.meta.namespace
        and all(pod.meta.labels.get(key) == value for key, value in service.selector.items())
    ]
    if not matching:
        yield f"{name} has no endpoints: no pod in namespace {service.meta.namespace} has the labels {labels}"
        yield f"a ready pod with the labels {labels} would have been sent the packet"
    elif isinstance(port.target_port, str):
        yield f"{name}: no pod with {labels} has a container port named {port.target_port!r}"
    else:
        yield f"{name}: the pods with {labels} have no address yet, or have ended"


def _nobody_listens(cluster: Cluster, flow: Flow, death: Death) -> Iterator[str]:
    pod = next((pod for pod in cluster.pods.values() if death.destination in pod.addresses), None)
    if pod is None:
        yield f"nothing in {death.netns} listens on {flow.protocol} port {death.port}"
        return
    ports = ", ".join(str(port.port) for container in pod.spec.containers for port in container.ports) or "none"
    yield f"no program in {pod.ref} listens on {flow.protocol} port {death.port}; its containerPorts: {ports}"
    for service, port, _ in services_at(cluster, flow):
        yield f"{service.ref} sends port {port.port} to targetPort {port.target_port}: is that the port of the program?"


def _no_service(cluster: Cluster, flow: Flow, death: Death) -> Iterator[str]:
    same = [service for service in cluster.services.values() if flow.destination in (*service.cluster_ips, *service.external_ips)]
    if same and flow.protocol is Protocol.ICMP:
        yield f"{flow.destination} is {same[0].ref}'s: Services have no ICMP, only pods, nodes and hosts answer it"
        return
    for service in same:
        ports = ", ".join(f"{port.port}/{port.protocol}" for port in service.ports)
        yield f"{service.ref} has this address, but only the ports {ports}: port {flow.port}/{flow.protocol} is not declared"
    if same:
        return
    if any(flow.destination in network for network in cluster.topology.cluster.service_cidrs):
        yield f"{flow.destination} is in the service CIDR, but no Service has it"
    elif any(flow.destination in network for network in cluster.topology.cluster.pod_cidrs):
        known = any(flow.destination in pod.addresses for pod in cluster.pods.values())
        if not known:
            yield f"{flow.destination} is in the pod CIDR, but no pod has it"
    elif any(flow.destination in node.addresses for node in cluster.nodes.values()):
        opened = sorted({port.node_port for one in cluster.services.values() for port in one.ports if port.node_port})
        yield f"nothing on the node listens on port {flow.port}; the node ports are {', '.join(map(str, opened)) or 'none'}"
    if death.netns.startswith("router/"):
        config = cluster.topology.cluster
        inside = any(flow.destination in network for network in (*config.service_cidrs, *config.pod_cidrs))
        yield ROUTER if inside else f"nobody in the lab has {flow.destination}, and the router leads nowhere else"
