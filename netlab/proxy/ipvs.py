"""Mode `ipvs`: what kube-proxy's ipvs back end makes on a node: virtual servers, the addresses of all Services on a device of
their own, sets, and the few iptables rules that ask the sets.

Decides the virtual servers, their real servers and the device kube-ipvs0; sets and rules are in ipvs_sets.py and ipvs_rules.py.
Refuses to know how any of it is loaded. Source: kubernetes pkg/proxy/ipvs/{proxier,ipset,netlink_linux}.go, v1.36.

Theory. Every Service address is an address of the node (on kube-ipvs0, which stays down), so a packet for it goes to INPUT, where
IPVS takes it after the filter table, chooses a real server, rewrites the destination and sends it on through OUTPUT and
POSTROUTING; FORWARD never sees it. The node's own packets meet IPVS in OUTPUT, between nat and filter. IPVS knows no masquerade:
nat's PREROUTING and OUTPUT mark what needs it, POSTROUTING does it, and net.ipv4.vs.conntrack lets the two go together. What is
for an address of kube-ipvs0 but for no virtual server is refused by KUBE-IPVS-FILTER.

Policy, where it differs from other modes: a Local policy without an endpoint here falls back to all endpoints (the answer to a
client from outside is then lost), and pods and the node itself have no short cut past it. Real servers have weight 1, as
kube-proxy's all have; netlab takes another from the pod's annotation `netlab/ipvs-weight`, for schedulers that ask for it.

Not made: `-m physdev ! --physdev-is-in` (it loads br_netfilter on the whole machine), canary chains, IPVS's own timeouts.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache

from netlab.errors import InputError
from netlab.model import Address, Cluster, Key, Node
from netlab.numerals import natural
from netlab.ops import DeviceAddress, Dummy, Op, RealServer, Ruleset, Sysctl, VirtualServer
from netlab.proxy.ipvs_rules import tables
from netlab.proxy.ipvs_sets import sets
from netlab.proxy.port_blocks import every_port
from netlab.proxy.service_ports import Chosen, Frontend, PortEndpoints, Target, choose
from netlab.proxy.settings import Settings, own_addresses, settings
from netlab.ruleset import IpSet, Table
from netlab.ruleset import Ruleset as RulesetValue

NAME = "ipvs"
DEVICE = "kube-ipvs0"
WEIGHT = "netlab/ipvs-weight"
SYSCTLS = ("conntrack", "expire_nodest_conn", "expire_quiescent_template")
"""All are 1: masquerading needs conntrack; what leads to a real server that has gone is forgotten, as are clients' choices."""


def plan(cluster: Cluster, node: Node) -> tuple[Op, ...]:
    """The node's device and addresses, virtual servers, Ruleset with its sets, and sysctls."""
    config = cluster.topology.cluster.proxy
    netns = f"node/{node.meta.name}"
    servers: dict[tuple[str, ...], VirtualServer] = {}
    bound: dict[Address, None] = {}
    all_tables: list[Table] = []
    all_sets: list[IpSet] = []
    for family, known in every_port(cluster).items():
        set_ = settings(cluster, node, family, primary_by_default=False)
        nodes_own = tuple(a for a in own_addresses(cluster, node, 4 if family == "ip" else 6) if not a.is_loopback)
        serving = node_port_addresses(set_, nodes_own)
        chosen = [(port, choose(port, node)[0]) for port in known]
        for server in _virtual_servers(cluster, netns, chosen, serving):
            servers.setdefault(server.identity, server)
        here = {address: None for port, _ in chosen for address in _addresses(port.front) if address not in nodes_own}
        bound |= here
        family_sets = sets(family, node.meta.name, known, set_, serving, tuple(here))
        all_sets += family_sets
        all_tables += tables(family, set_, known, family_sets)
    return (
        Dummy(netns, DEVICE),
        *(DeviceAddress(netns, DEVICE, address, address.max_prefixlen) for address in bound),
        *_sysctls(netns, config.strict_arp),
        *servers.values(),
        Ruleset(netns, RulesetValue("iptables", tuple(all_tables), config.backend, tuple(all_sets))),
    )


def node_port_addresses(set_: Settings, nodes_own: tuple[Address, ...]) -> tuple[Address, ...]:
    """The node's addresses that serve NodePorts: never loopback."""
    if set_.node_port_addresses is None:
        return nodes_own
    return tuple(address for address in set_.node_port_addresses if not address.is_loopback)


def _sysctls(netns: str, strict_arp: bool) -> Iterator[Sysctl]:
    for key in SYSCTLS:
        yield Sysctl(netns, f"net/ipv4/vs/{key}", "1")
    yield Sysctl(netns, "net/ipv4/conf/all/route_localnet", "0")
    if strict_arp:
        yield Sysctl(netns, "net/ipv4/conf/all/arp_ignore", "1")
        yield Sysctl(netns, "net/ipv4/conf/all/arp_announce", "2")


def _addresses(front: Frontend) -> tuple[Address, ...]:
    return (front.cluster_ip, *front.external_ips, *front.load_balancer_ips)


def _virtual_servers(
    cluster: Cluster, netns: str, chosen: list[tuple[PortEndpoints, Chosen]], serving: tuple[Address, ...]
) -> Iterator[VirtualServer]:
    """Those at Services' own addresses first: they have precedence over NodePorts, and of two Services the first has it."""
    scheduler = cluster.topology.cluster.proxy.scheduler

    def server(front: Frontend, address: Address, number: int, real: tuple[RealServer, ...]) -> VirtualServer:
        return VirtualServer(netns, address, front.protocol, number, scheduler, real, front.affinity_s, front.owner)

    later: list[VirtualServer] = []
    for port, one in chosen:
        front = port.front
        weights = _weights(cluster, port)
        inside = _real(_targets(one, front.internal_local), weights)
        outside = _real(_targets(one, front.external_local), weights)
        yield server(front, front.cluster_ip, front.port, inside)
        for address in (*front.external_ips, *front.load_balancer_ips):
            yield server(front, address, front.port, outside)
        if front.node_port is not None:
            later += (server(front, address, front.node_port, outside) for address in serving)
    yield from later


def _targets(chosen: Chosen, local: bool) -> tuple[Target, ...]:
    """kubernetes/kubernetes#97081: a Local policy that finds nobody here uses what the Cluster policy would."""
    return (chosen.local or chosen.cluster) if local else chosen.cluster


@lru_cache(maxsize=1 << 12)
def _plain(targets: tuple[Target, ...]) -> tuple[RealServer, ...]:
    return tuple(RealServer(target.address, target.port) for target in targets)


def _real(targets: tuple[Target, ...], weights: Mapping[Address, int]) -> tuple[RealServer, ...]:
    if not weights:
        return _plain(targets)
    return tuple(RealServer(target.address, target.port, weights.get(target.address, 1)) for target in targets)


def _weights(cluster: Cluster, port: PortEndpoints) -> Mapping[Address, int]:
    """Of the endpoints whose pod says one."""
    found: dict[Address, int] = {}
    for endpoint in port.endpoints:
        target = endpoint.target
        pod = cluster.pods.get(Key(target.namespace, target.name)) if target is not None and target.kind == "pod" else None
        said = pod.meta.annotations.get(WEIGHT) if pod is not None else None
        if said is not None:
            weight = natural(said)
            if weight is None or weight > 65535:
                raise InputError(
                    f"{target}: annotation {WEIGHT}: {said!r} is no weight: a whole number from 0 to 65535, in quotes"
                )
            found[endpoint.address] = weight
    return found
