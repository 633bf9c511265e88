"""hostPort: the rules that the CNI plugin portmap makes on a node for the pods that run there, laid into the node's Ruleset.

Decides the chains and their place among the Service proxy's, which is asked first. Refuses to know which node a pod fits on.
Source: containernetworking/plugins plugins/meta/portmap, v1.9 (portmap_iptables.go, portmap_nftables.go).

Two departures. iptables: a rule a port where portmap gathers up to fifteen in a `multiport`. nftables: in prerouting, too, only
what is addressed to the node itself is looked at; portmap's table there also takes what the node merely forwards.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha512
from ipaddress import ip_network

from netlab import ipam
from netlab.memory import last_kept
from netlab.model import Address, Cluster, Key, Network, Node, Pod, Protocol, Ref
from netlab.ops import Op, Ruleset, Sysctl
from netlab.ruleset import (
    Base,
    Chain,
    Destination,
    DestinationLocal,
    DestinationPort,
    Dnat,
    Family,
    Hook,
    Jump,
    L4Proto,
    MarkSet,
    Masquerade,
    Match,
    OrMark,
    Rule,
    Source,
    Table,
)
from netlab.ruleset import Ruleset as RulesetValue

MARK = 0x2000
NETWORK = "cbr0"
TABLE = "cni_hostport"


@dataclass(frozen=True, slots=True)
class HostPort:
    """One port of the node that leads to a port of a pod. `near`: whose packets come back only if they are masqueraded."""

    owner: Ref
    uid: str
    protocol: Protocol
    host_port: int
    host_ip: Address | None
    address: Address
    port: int
    near: Network


def plan(cluster: Cluster, node: Node, ops: Iterable[Op]) -> Iterator[Op]:
    """The ops of a Service proxy for this node, with the rules for host ports laid into its Ruleset."""
    found = _mappings(cluster, node)
    for op in ops:
        yield replace(op, value=_joined(op.value, found)) if found and isinstance(op, Ruleset) else op
    # So that the node itself reaches 127.0.0.1:PORT: the kernel would call such a packet a martian on the way to the pod.
    bridge = cluster.topology.cluster.fabric == "bridge"
    for owner in dict.fromkeys(one.owner for one in found if one.address.version == 4):
        device = ipam.NODE_BRIDGE if bridge else ipam.host_device(str(owner))
        yield Sysctl(f"node/{node.meta.name}", f"net/ipv4/conf/{device}/route_localnet", "1")


@last_kept
def _pods_by_node(pods: Mapping[Key, Pod]) -> Mapping[str, list[Pod]]:
    """The pods with host ports that are on the network, the newest first: it wins."""
    found: dict[str, list[Pod]] = {}
    for pod in pods.values():
        ports = (port for container in pod.all_containers for port in container.ports)
        is_up = pod.node and pod.addresses and pod.phase in ("Pending", "Running")
        if is_up and not pod.spec.host_network and any(port.host_port for port in ports):
            found.setdefault(pod.node, []).insert(0, pod)
    return found


def _mappings(cluster: Cluster, node: Node) -> tuple[HostPort, ...]:
    return tuple(one for pod in _pods_by_node(cluster.pods).get(node.meta.name, ()) for one in _of_pod(cluster, node, pod))


def _of_pod(cluster: Cluster, node: Node, pod: Pod) -> Iterator[HostPort]:
    bridge = cluster.topology.cluster.fabric == "bridge"
    for container in pod.all_containers:
        for port in container.ports:
            for address in pod.addresses if port.host_port else ():
                if port.host_ip is None or port.host_ip.version == address.version:
                    own = ip_network(address)
                    near = next((cidr for cidr in node.pod_cidrs if bridge and address in cidr), own)
                    yield HostPort(pod.ref, pod.meta.uid, port.protocol, port.host_port, port.host_ip, address, port.port, near)


def _joined(value: RulesetValue, found: tuple[HostPort, ...]) -> RulesetValue:
    if value.dialect == "nftables":
        families: tuple[Family, ...] = ("ip", "ip6")
        tables = (_table(family, tuple(one for one in found if _family(one) == family)) for family in families)
        return replace(value, tables=(*value.tables, *(table for table in tables if table.chains)))
    return replace(value, tables=tuple(_with_chains(table, found) if table.name == "nat" else table for table in value.tables))


def _family(one: HostPort) -> Family:
    return "ip" if one.address.version == 4 else "ip6"


# ---------------------------------------------------------------- iptables


def _with_chains(table: Table, found: tuple[HostPort, ...]) -> Table:
    mine = [one for one in found if _family(one) == table.family]
    if not mine:
        return table
    dispatch = Rule((DestinationLocal(),), (Jump("CNI-HOSTPORT-DNAT"),))
    masquerade = Rule((), (Jump("CNI-HOSTPORT-MASQ"),), "CNI portfwd requiring masquerade")
    chains = []
    for chain in table.chains:
        match chain.base.hook if chain.base is not None else None:
            case Hook.PREROUTING | Hook.OUTPUT:  # behind the Service proxy's jump, which is put in front of everything
                chain = replace(chain, rules=(*chain.rules, dispatch))
            case Hook.POSTROUTING:  # in front: the masquerading of other plugins would take the packet
                chain = replace(chain, rules=(masquerade, *chain.rules))
            case _:
                pass
        chains.append(chain)
    own = dict.fromkeys((one.owner, one.uid) for one in mine)
    return replace(
        table,
        chains=(
            *chains,
            Chain("CNI-HOSTPORT-DNAT", tuple(_entry(one) for one in mine)),
            Chain("CNI-HOSTPORT-SETMARK", (Rule((), (OrMark(MARK),), "CNI portfwd masquerade mark"),)),
            Chain("CNI-HOSTPORT-MASQ", (Rule((MarkSet(MARK),), (Masquerade(),)),)),
            *(Chain(_chain(uid), tuple(rule for one in mine if one.uid == uid for rule in _forwarding(one))) for _, uid in own),
        ),
    )


def _chain(uid: str) -> str:
    return f"CNI-DN-{sha512(f'{NETWORK}{uid}'.encode()).hexdigest()[:21]}"


def _to(one: HostPort) -> tuple[Match, ...]:
    """What is sent to the host port; iptables-save has the address first."""
    at = (Destination((ip_network(one.host_ip),)),) if one.host_ip is not None else ()
    return (*at, L4Proto(one.protocol), DestinationPort(one.host_port))


def _entry(one: HostPort) -> Rule:
    comment = f'dnat name: "{NETWORK}" id: "{one.uid}"'
    return Rule((L4Proto(one.protocol), DestinationPort(one.host_port)), (Jump(_chain(one.uid)),), comment, one.owner)


def _forwarding(one: HostPort) -> Iterator[Rule]:
    mark = (Jump("CNI-HOSTPORT-SETMARK"),)
    yield Rule((Source((one.near,)), *_to(one)), mark, "", one.owner)
    if one.address.version == 4:
        yield Rule((Source((ip_network("127.0.0.1"),)), *_to(one)), mark, "", one.owner)
    yield Rule(_to(one), (Dnat(one.address, one.port),), "", one.owner)


# ---------------------------------------------------------------- nftables


def _table(family: Family, mine: tuple[HostPort, ...]) -> Table:
    if not mine:
        return Table(family, TABLE, ())
    anywhere = tuple(_dnat(one) for one in mine if one.host_ip is None)
    somewhere = tuple(_dnat(one) for one in mine if one.host_ip is not None)
    dispatch = (Rule((), (Jump("hostip_hostports"),)), Rule((DestinationLocal(),), (Jump("hostports"),)))
    return Table(
        family,
        TABLE,
        (
            Chain("hostports", anywhere),
            Chain("hostip_hostports", somewhere),
            Chain("prerouting", dispatch, Base(Hook.PREROUTING, "nat", -100)),
            Chain("output", dispatch, Base(Hook.OUTPUT, "nat", -100)),
            Chain("masquerading", tuple(_masquerading(mine)), Base(Hook.POSTROUTING, "nat", 100)),
        ),
        comment="CNI portmap plugin",
    )


def _dnat(one: HostPort) -> Rule:
    return Rule(_to(one), (Dnat(one.address, one.port),), one.uid, one.owner)


def _masquerading(mine: tuple[HostPort, ...]) -> Iterator[Rule]:
    for address, uid, owner in dict.fromkeys((one.address, one.uid, one.owner) for one in mine):
        pod = ip_network(address)
        for source in (pod, ip_network("127.0.0.1")) if address.version == 4 else (pod,):
            yield Rule((Source((source,)), Destination((pod,))), (Masquerade(),), uid, owner)
