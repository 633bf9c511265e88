"""Mode `userspace`: as kube-proxy's first back end was, until Kubernetes 1.25: rules lead to a process, the process to endpoints.

Decides the chains and the node's proxy process (ops.Relay) with a port of its own for each Service port. Refuses to know how the
process works (agents/relay.py). Source: kubernetes pkg/proxy/userspace/{proxier,roundrobin}.go, v1.25, --proxy-mode=userspace.

Theory. What comes in goes through KUBE-PORTALS-CONTAINER, what the node itself sends through KUBE-PORTALS-HOST: one rule a
Service address, which rewrites the destination to the proxy process. What is then left and addressed to the node meets
KUBE-NODEPORT-CONTAINER and KUBE-NODEPORT-HOST. The process takes the connection and makes its own, from the node's address.

What the old proxier did not know is not there: traffic policies, source ranges, hints, terminating endpoints, nodePortAddresses,
SCTP. It served one IP family, that of the node's address; here each family of the node is served, as by one such proxier each
(today's modes do so). Not made: `-m physdev ! --physdev-is-in` (externalIPs; always true where bridges do not call iptables),
the sockets that only hold node ports.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Literal
from zlib import crc32

from netlab.errors import InputError
from netlab.model import Address, Cluster, Network, Node, Protocol
from netlab.ops import Op, Relay, RelayPort, Ruleset, Sysctl
from netlab.proxy.port_blocks import every_port
from netlab.proxy.service_ports import Frontend, PortEndpoints
from netlab.ruleset import (
    Accept,
    Base,
    Chain,
    CtState,
    Destination,
    DestinationLocal,
    DestinationPort,
    Dnat,
    Family,
    Hook,
    Jump,
    L4Proto,
    Match,
    Redirect,
    Rule,
    Statement,
    Table,
)
from netlab.ruleset import Ruleset as RulesetValue

NAME = "userspace"
VERSIONS: dict[Family, Literal[4, 6]] = {"ip": 4, "ip6": 6}
FIRST_PORT, PORTS = 61000, 4500
"""Above the ports that the kernel chooses for connections, so that no client of the node happens to hold one."""

PORTALS = "handle ClusterIPs; NOTE: this must be before the NodePort rules"
NODE_PORTS = "handle service NodePorts; NOTE: this must be the last rule in the chain"
NON_LOCAL = "Ensure that non-local NodePort traffic can flow"


def plan(cluster: Cluster, node: Node) -> tuple[Op, ...]:
    """The node's Ruleset (tables filter and nat, IPv4) and its proxy process. Raises: InputError beyond 4,500 Service ports."""
    served = {family: [port for port in ports if _is_known(port.front)] for family, ports in every_port(cluster).items()}
    numbers = proxy_ports([port.front for ports in served.values() for port in ports])
    netns = f"node/{node.meta.name}"
    tables: list[Table] = []
    relayed: list[RelayPort] = []
    for family, ports_here in served.items():
        version = VERSIONS[family]
        host_ip = next((address for address in node.addresses if address.version == version), None)
        if host_ip is not None:
            fronts = [port.front for port in ports_here]
            to_host = {_key(front): Dnat(host_ip, numbers[_key(front)]) for front in fronts}
            from_pods: dict[str, Statement] = dict(to_host)
            if version == 4 and _redirects(cluster, node):
                from_pods = {_key(front): Redirect(numbers[_key(front)]) for front in fronts}
            tables += (_filter(family, fronts, numbers), _nat(family, fronts, from_pods, to_host))
            relayed += (_relay_port(port, numbers[_key(port.front)], version) for port in ports_here)
    localnet = Sysctl(netns, "net/ipv4/conf/all/route_localnet", "0")
    rules = RulesetValue("iptables", tuple(tables), cluster.topology.cluster.proxy.backend)
    return (localnet, Relay(netns, tuple(relayed)), Ruleset(netns, rules))


def _is_known(front: Frontend) -> bool:
    return front.protocol in (Protocol.TCP, Protocol.UDP)


def proxy_ports(fronts: list[Frontend]) -> dict[str, int]:
    """The proxy process' own port of each Service port, one for both families.

    By a hash of its name, so that it stays when others come and go.
    """
    keys = {_key(front) for front in fronts}
    if len(keys) > PORTS:
        raise InputError(f"mode userspace: {len(keys)} Service ports are more than the {PORTS} that a proxy process can have")
    numbers: dict[str, int] = {}
    taken: set[int] = set()
    for key in sorted(keys):
        number = crc32(key.encode()) % PORTS
        while number in taken:
            number = (number + 1) % PORTS
        taken.add(number)
        numbers[key] = FIRST_PORT + number
    return numbers


def _key(front: Frontend) -> str:
    return f"{front.name}/{front.protocol}"


def _redirects(cluster: Cluster, node: Node) -> bool:
    """REDIRECT means the address of the incoming interface. Without a bridge pods come in through interfaces that have none:
    then the rules are those of `kube-proxy --bind-address=NODE`. IPv6 always has those: until Linux 6.7 REDIRECT there takes any
    address of the interface, its link-local one too.
    """
    off_bridge = (
        pod.node == node.meta.name and not pod.spec.host_network and not any(address in cidr for cidr in node.pod_cidrs)
        for pod in cluster.pods.values()
        for address in pod.addresses
        if address.version == 4
    )
    return cluster.topology.cluster.fabric == "bridge" and not any(off_bridge)


def _relay_port(port: PortEndpoints, number: int, version: Literal[4, 6]) -> RelayPort:
    """The old proxier read Endpoints objects: ready addresses, and nothing else about them."""
    front = port.front
    endpoints = tuple((endpoint.address, endpoint.port) for endpoint in port.endpoints if endpoint.ready)
    return RelayPort(front.name, front.protocol, number, endpoints, front.affinity_s, version)


def _filter(family: Family, fronts: list[Frontend], numbers: dict[str, int]) -> Table:
    jump = Rule((), (Jump("KUBE-NODEPORT-NON-LOCAL"),), NON_LOCAL)
    non_local = tuple(
        Rule((CtState(("new",)), *_match(front, numbers[_key(front)])), (Accept(),), front.name, front.owner)
        for front in fronts
        if front.node_port
    )
    return Table(
        family,
        "filter",
        (
            Chain("INPUT", (jump,), Base(Hook.INPUT, "filter", 0)),
            Chain("FORWARD", (), Base(Hook.FORWARD, "filter", 0)),
            Chain("OUTPUT", (), Base(Hook.OUTPUT, "filter", 0)),
            Chain("KUBE-NODEPORT-NON-LOCAL", non_local),
        ),
    )


def _nat(family: Family, fronts: list[Frontend], from_pods: dict[str, Statement], to_host: dict[str, Dnat]) -> Table:
    def jumps(origin: str) -> tuple[Rule, ...]:
        return (
            Rule((), (Jump(f"KUBE-PORTALS-{origin}"),), PORTALS),
            Rule((DestinationLocal(),), (Jump(f"KUBE-NODEPORT-{origin}"),), NODE_PORTS),
        )

    def node_ports(targets: dict[str, Statement] | dict[str, Dnat]) -> tuple[Rule, ...]:
        return tuple(
            Rule(_match(front, front.node_port), (targets[_key(front)],), front.name, front.owner)
            for front in fronts
            if front.node_port
        )

    return Table(
        family,
        "nat",
        (
            Chain("PREROUTING", jumps("CONTAINER"), Base(Hook.PREROUTING, "nat", -100)),
            Chain("INPUT", (), Base(Hook.INPUT, "nat", 100)),
            Chain("OUTPUT", jumps("HOST"), Base(Hook.OUTPUT, "nat", -100)),
            Chain("POSTROUTING", (), Base(Hook.POSTROUTING, "nat", 100)),
            Chain("KUBE-PORTALS-CONTAINER", tuple(rule for front in fronts for rule in _portals(front, from_pods, host=False))),
            Chain("KUBE-PORTALS-HOST", tuple(rule for front in fronts for rule in _portals(front, to_host, host=True))),
            Chain("KUBE-NODEPORT-CONTAINER", node_ports(from_pods)),
            Chain("KUBE-NODEPORT-HOST", node_ports(to_host)),
        ),
    )


def _portals(front: Frontend, targets: dict[str, Statement] | dict[str, Dnat], host: bool) -> Iterator[Rule]:
    """A rule for each of the Service's addresses. externalIPs: what the node itself sends is taken only where it has the address
    itself, because else it would never reach the real one.
    """
    statement = (targets[_key(front)],)
    for address in (front.cluster_ip, *front.external_ips, *front.load_balancer_ips):
        local: tuple[Match, ...] = (DestinationLocal(),) if host and address in front.external_ips else ()
        matches = (Destination((_only(address),)), *local, *_match(front, front.port))
        yield Rule(matches, statement, front.name, front.owner)


def _match(front: Frontend, port: int | None) -> tuple[Match, ...]:
    assert port is not None
    return (L4Proto(front.protocol), DestinationPort(port))


def _only(address: Address) -> Network:
    return ip_network(f"{address}/{address.max_prefixlen}")
