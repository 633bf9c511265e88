"""Which UDP flows may go on after a change: what kube-proxy's conntrack clean-up asks of each node (row 39 of its behaviour).

Pure: (Cluster) -> Service address and port -> serving endpoints. Services without a serving endpoint are left out, and so
are untouched.
"""

from collections.abc import Iterable, Mapping

from netlab.endpoints import Family, endpoints_of, external_ips, is_proxied, load_balancer_ips, proxied_services
from netlab.memory import last_kept
from netlab.model import Address, Cluster, Key, Protocol, Service
from netlab.ops import Relay

Serving = Mapping[tuple[Address | None, int], frozenset[tuple[Address, int]]]
"""(Service address, None for node ports; port) -> (address, port) of every endpoint that serves, terminating ones included."""


FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")


def serving_udp(cluster: Cluster) -> Serving:
    """The frontends of every UDP port that a proxy handles, with where their flows may lead."""
    found: dict[tuple[Address | None, int], frozenset[tuple[Address, int]]] = {}
    for service in _with_udp(cluster.services):
        for port in service.ports:
            if port.protocol is not Protocol.UDP or not is_proxied(service):
                continue
            both = (one for family in FAMILIES for one in endpoints_of(cluster, service, port, family))
            serving = frozenset((one.address, one.port) for one in both if one.serving)
            if not serving:
                continue
            outside = (a for family in FAMILIES for a in (*external_ips(service, family), *load_balancer_ips(service, family)))
            for address in (*service.cluster_ips, *outside):
                found[address, port.port] = serving
            if port.node_port is not None:
                found[None, port.node_port] = serving
    return found


@last_kept
def _with_udp(services: Mapping[Key, Service]) -> tuple[Service, ...]:
    return tuple(one for one in services.values() if any(port.protocol is Protocol.UDP for port in one.ports))


def relayed_udp(cluster: Cluster, relays: Iterable[Relay]) -> Serving:
    """The same in mode userspace, where flows lead to the proxy processes: at any address of a node, at the port's own number.

    What was sent before the Service was there has been forwarded as it was, and would be for as long as its sender goes on.
    """
    numbers = {port.name: port.port for relay in relays for port in relay.ports if port.protocol is Protocol.UDP}
    nodes = cluster.nodes.values()
    local = {address for node in nodes for address in (*node.addresses, *(cidr[1] for cidr in node.pod_cidrs))}
    found: dict[tuple[Address | None, int], frozenset[tuple[Address, int]]] = {}
    for service in proxied_services(cluster):
        for port in service.ports:
            number = numbers.get(f"{service.meta.namespace}/{service.meta.name}" + (f":{port.name}" if port.name else ""))
            if port.protocol is Protocol.UDP and number is not None:
                led = frozenset((address, number) for address in local)
                outside = (
                    a for family in FAMILIES for a in (*external_ips(service, family), *load_balancer_ips(service, family))
                )
                for address in (*service.cluster_ips, *outside):
                    found[address, port.port] = led
                if port.node_port is not None:
                    found[None, port.node_port] = led
    return found
