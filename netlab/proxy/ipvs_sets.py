"""The sets of mode `ipvs`: which there are, their names and types, and what is in them on a node.

Decides elements only; which rule asks which set is in ipvs_rules.py. All sets are always there, empty or not.
Source: kubernetes pkg/proxy/ipvs/{ipset,proxier}.go, v1.36.
"""

from collections.abc import Iterable, Iterator

from netlab.model import Address, Protocol
from netlab.proxy.service_ports import PortEndpoints
from netlab.proxy.settings import Settings
from netlab.ruleset import Family, IpSet, IpSetType, Key

NAME_MAX = 31
TYPES: dict[str, IpSetType] = {
    "LOOP-BACK": "hash:ip,port,ip",
    "CLUSTER-IP": "hash:ip,port",
    "EXTERNAL-IP": "hash:ip,port",
    "EXTERNAL-IP-LOCAL": "hash:ip,port",
    "LOAD-BALANCER": "hash:ip,port",
    "LOAD-BALANCER-FW": "hash:ip,port",
    "LOAD-BALANCER-LOCAL": "hash:ip,port",
    "LOAD-BALANCER-SOURCE-IP": "hash:ip,port,ip",
    "LOAD-BALANCER-SOURCE-CIDR": "hash:ip,port,net",
    "NODE-PORT-TCP": "bitmap:port",
    "NODE-PORT-LOCAL-TCP": "bitmap:port",
    "NODE-PORT-UDP": "bitmap:port",
    "NODE-PORT-LOCAL-UDP": "bitmap:port",
    "NODE-PORT-SCTP-HASH": "hash:ip,port",
    "NODE-PORT-LOCAL-SCTP-HASH": "hash:ip,port",
    "HEALTH-CHECK-NODE-PORT": "bitmap:port",
    "IPVS-IPS": "hash:ip",
}


def name_of(family: Family, which: str) -> str:
    """`KUBE-CLUSTER-IP`; of IPv6 `KUBE-6-CLUSTER-IP`, cut to what the kernel takes."""
    return f"KUBE-{which}" if family == "ip" else f"KUBE-6-{which}"[:NAME_MAX]


def sets(
    family: Family,
    node: str,
    ports: Iterable[PortEndpoints],
    set_: Settings,
    serving: tuple[Address, ...],
    bound: tuple[Address, ...],
) -> tuple[IpSet, ...]:
    """Every set of the family. `serving`: addresses that serve NodePorts; `bound`: those of kube-ipvs0."""
    found: dict[str, dict[Key, None]] = {which: {} for which in TYPES}
    for port in ports:
        for which, key in _elements(port, node, set_, serving):
            found[which][key] = None
    found["IPVS-IPS"] = {(address,): None for address in bound}
    return tuple(IpSet(family, name_of(family, which), type_, tuple(found[which])) for which, type_ in TYPES.items())


def _elements(port: PortEndpoints, node: str, set_: Settings, serving: tuple[Address, ...]) -> Iterator[tuple[str, Key]]:
    front = port.front
    for endpoint in port.endpoints:
        if endpoint.node == node:  # whatever its conditions
            yield "LOOP-BACK", (endpoint.address, front.protocol, endpoint.port, endpoint.address)
    yield "CLUSTER-IP", (front.cluster_ip, front.protocol, front.port)
    for address in front.external_ips:
        yield "EXTERNAL-IP-LOCAL" if front.external_local else "EXTERNAL-IP", (address, front.protocol, front.port)
    for address in front.load_balancer_ips:
        at: Key = (address, front.protocol, front.port)
        yield "LOAD-BALANCER", at
        if front.external_local:
            yield "LOAD-BALANCER-LOCAL", at
        if front.source_ranges:
            yield "LOAD-BALANCER-FW", at
            for network in front.source_ranges:
                yield "LOAD-BALANCER-SOURCE-CIDR", (*at, network)
            if set_.allows_node(front.source_ranges):
                yield "LOAD-BALANCER-SOURCE-IP", (*at, address)
    if front.node_port is not None:
        for which in ("", "LOCAL-") if front.external_local else ("",):
            if front.protocol is Protocol.SCTP:
                for address in serving:
                    yield f"NODE-PORT-{which}SCTP-HASH", (address, front.protocol, front.node_port)
            elif serving:
                yield f"NODE-PORT-{which}{front.protocol}", (front.node_port,)
    if front.health_check_node_port is not None:
        yield "HEALTH-CHECK-NODE-PORT", (front.health_check_node_port,)
