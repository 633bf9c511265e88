"""The plan: all that must exist in the kernel for a cluster, how two plans differ, and both as text.

Decides: in which order ops are made and removed, and what a change of one op means for others (a veth that is made anew takes its
addresses, routes and neighbours with it). Refuses to know: how an op is carried out, and why a part of the cluster wants it.

Pure and deterministic: no clock, no randomness, no environment.
Over 400 lines: a diff needs to know each op's dependants, and so does the text.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import unified_diff
from itertools import chain
from typing import assert_never

from netlab import discovery, fabric, ingress, programs, proxy, routing, variables, volumes
from netlab.model import NOTHING, Address, Cluster, Container, Pod
from netlab.ops import (
    ORDER,
    Announcement,
    Bridge,
    Daemon,
    DeviceAddress,
    Dummy,
    File,
    Forwarding,
    Identity,
    IngressProxy,
    Learned,
    Listener,
    Neighbour,
    Netns,
    Op,
    Process,
    Qdisc,
    Relay,
    RelayPort,
    Route,
    Ruleset,
    Sysctl,
    Veth,
    VirtualServer,
    Vxlan,
)
from netlab.ruleset import Family
from netlab.ruleset import Ruleset as Rules

Device = tuple[str, str]
"""A namespace and a device in it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Ops by identity, in the order in which they are made."""

    ops: Mapping[Identity, Op] = NOTHING


@dataclass(frozen=True, slots=True)
class Diff:
    """What leads from one plan to another.

    added: to be made or, where something of that identity is there, overwritten; in execution order.
    removed: identities that are gone; in execution order (the reverse of making). What vanishes with a namespace is left out;
    what is on a device that was made anew or set down is in, though the kernel has forgotten it already.
    changed: (old, new) of every identity whose value differs; the new ones stand in `added`, too.

    No removed op shares its identity with an added one, so that a change can be made before the removals: new pods answer before
    the rules name them, and old ones go when no rule does any more.
    """

    removed: tuple[Op, ...] = ()
    added: tuple[Op, ...] = ()
    changed: tuple[tuple[Op, Op], ...] = ()

    def __bool__(self) -> bool:
        return bool(self.removed or self.added)


def build_nothing() -> Plan:
    """The plan of no lab at all."""
    return Plan()


def build(cluster: Cluster) -> Plan:
    """The plan of the cluster. Raises: InputError where a topology cannot be built."""

    def environment(pod: Pod, container: Container) -> tuple[tuple[str, ...], Mapping[str, str]]:
        return variables.resolved(cluster, pod, container, discovery.environment(cluster, pod))

    routes, rules = _joined(routing.plan(cluster), proxy.plan(cluster))
    ops = chain(
        fabric.plan(cluster),
        routes,
        discovery.plan(cluster),
        volumes.plan(cluster),
        rules,
        programs.plan(cluster, environment),
        ingress.plan(cluster),
    )
    dead = _dead(cluster)
    return plan_of(op for op in ops if not (dead and isinstance(op, RUNNING) and op.netns in dead))


RUNNING = Listener | Process | Relay | Daemon | IngressProxy
"""What ends with the machine that it runs on."""


def _dead(cluster: Cluster) -> frozenset[str]:
    """The namespaces of nodes that were killed and of their pods: nothing runs in them."""
    names = {name for name, outage in cluster.outages.items() if outage.killed}
    pods = (str(pod.ref) for pod in cluster.pods.values() if pod.node in names)
    return frozenset((*(f"node/{name}" for name in names), *pods))


def _joined(routes: Iterable[Op], rules: Iterable[Op]) -> tuple[tuple[Op, ...], tuple[Op, ...]]:
    """Rules that a routing wants in the dialect of the proxy's are loaded with them: one namespace has one ruleset a dialect."""
    extra = {op.identity: op for op in routes if isinstance(op, Ruleset)}
    if not extra:
        return tuple(routes), tuple(rules)
    joined: list[Op] = []
    for op in rules:
        more = extra.pop(op.identity, None) if isinstance(op, Ruleset) else None
        value = replace(op.value, tables=(*op.value.tables, *more.value.tables)) if more and isinstance(op, Ruleset) else None
        joined.append(replace(op, value=value) if value and isinstance(op, Ruleset) else op)
    alone = tuple(op for op in routes if not isinstance(op, Ruleset) or op.identity in extra)
    return alone, tuple(joined)


def plan_of(ops: Iterable[Op]) -> Plan:
    """A plan of these ops, sorted by kind; within a kind they stay as they come. Two different ops of one identity are a bug.

    Routes and neighbours of a device that is set down are left out: the kernel forgets them then, and takes no new ones.
    """
    by_kind: dict[type, dict[Identity, Op]] = {kind: {} for kind in ORDER}
    for op in ops:
        identity = op.identity
        known = by_kind[type(op)].setdefault(identity, op)
        assert known is op or known == op, f"two ops claim to be {identity}: {known} and {op}"
    down = {end for op in by_kind[Veth].values() if isinstance(op, Veth) and not (op.up and op.peer_up) for end in _down(op)}
    for kind in (Route, Neighbour) if down else ():
        kept = {
            i: op for i, op in by_kind[kind].items() if isinstance(op, Route | Neighbour) and (op.netns, op.device) not in down
        }
        by_kind[kind] = dict(kept)
    return Plan({identity: op for kind in ORDER for identity, op in by_kind[kind].items()})


# ---------------------------------------------------------------- difference


def diff(old: Plan, new: Plan) -> Diff:
    """What must be done to the kernel so that it is as `new` says, when it is as `old` says."""
    before, after = old.ops, new.ops
    others = {identity: op for identity, op in after.items() if before.get(identity) is not op}  # most are the very same
    kept = [(was, op) for identity, op in others.items() if (was := before.get(identity)) is not None]
    changed = [(was, op) for was, op in kept if was != op and not _keeps_running(was, op)]
    alike = len(before) == len(after) - len(others) + len(kept)
    gone = [] if alike else [op for identity, op in before.items() if identity not in after]
    remade = _remade(changed)
    anew = {op.identity for _, op in changed}
    if remade:
        kinds = Qdisc | DeviceAddress | Route | Neighbour | Forwarding
        on_device = ((identity, op) for identity, op in after.items() if isinstance(op, kinds))
        anew.update(identity for identity, op in on_device if (op.netns, op.device) in remade)
    among = after if remade else others
    added = tuple(op for identity, op in among.items() if identity in anew or identity not in before)
    return Diff(tuple(reversed(_to_remove(gone))), added, tuple(changed))


def _keeps_running(was: Op, op: Op) -> bool:
    """A process is told its variables when it starts: that others would be told now is no reason to restart it."""
    return (
        isinstance(was, Process)
        and isinstance(op, Process)
        and replace(was, env=op.env, command=op.command if op.uid else was.command) == op
    )


def _ends(op: Op) -> tuple[Device, ...]:
    match op:
        case Veth():
            return (op.netns, op.device), (op.peer_netns, op.peer_device)
        case Bridge() | Vxlan() | Dummy():
            return ((op.netns, op.device),)
        case _:
            return ()


def _remade(changed: Iterable[tuple[Op, Op]]) -> frozenset[Device]:
    """Devices that are deleted and made anew, because their link differs in more than being up."""
    found: set[Device] = set()
    for was, op in changed:
        if isinstance(was, Veth) and isinstance(op, Veth):
            if replace(was, up=op.up, peer_up=op.peer_up) != op:
                found.update((*_ends(was), *_ends(op)))
        elif isinstance(was, Bridge | Veth | Vxlan | Dummy):
            found.update((*_ends(was), *_ends(op)))
    return frozenset(found)


def _down(op: Veth) -> set[Device]:
    return {end for end, up in zip(_ends(op), (op.up, op.peer_up), strict=True) if not up}


def _to_remove(gone: Iterable[Op]) -> list[Op]:
    """Without what vanishes with a namespace, and without sysctls, of which nobody knows what they were before.

    What vanished with a device (made anew, or set down) is kept: whoever remembers what is installed must forget it.
    """
    ops = list(gone)
    dead = {op.name for op in ops if isinstance(op, Netns)}
    kept: list[Op] = []
    for op in ops:
        match op:
            case Veth():
                vanishes = op.netns in dead or op.peer_netns in dead
            case (
                Bridge()
                | Vxlan()
                | Dummy()
                | Qdisc()
                | DeviceAddress()
                | Route()
                | Neighbour()
                | Forwarding()
                | VirtualServer()
                | Ruleset()
            ):
                vanishes = op.netns in dead
            case Sysctl() | Learned():
                vanishes = True
            case Netns() | Listener() | Process() | File() | Relay() | Daemon() | IngressProxy() | Announcement():
                # A listening socket and a process keep their namespace alive: they are ended one by one.
                vanishes = False
            case _:
                assert_never(op)
        if not vanishes:
            kept.append(op)
    return kept


# ---------------------------------------------------------------- text


def text(plan: Plan) -> str:
    """The plan for people, the same byte for byte for the same plan: namespace by namespace, then the files."""
    places: dict[str, list[str]] = {}
    for op in plan.ops.values():
        places.setdefault(place(op), []).extend(_lines(op))
    return "".join(f"{name}\n" + "".join(f"  {line}\n" if line else "\n" for line in lines) for name, lines in places.items())


def text_diff(difference: Diff) -> str:
    """The difference for people: `-` removed, `+` made, of rules and files the lines that change; empty when nothing does."""
    was = {op.identity: old for old, op in difference.changed}
    out: list[str] = []
    for op in difference.removed:
        out += [f"- {place(op)}: {line}" for line in _lines(op)[:1]]
    for op in difference.added:
        old = was.get(op.identity)
        if old is None or len(_lines(op)) + len(_lines(old)) == 2:
            out += [f"- {place(op)}: {line}" for line in (_lines(old) if old is not None else [])]
            out += [f"+ {place(op)}: {line}" for line in _lines(op)]
        else:
            out.append(f"~ {place(op)}: {_lines(op)[0]}")
            out += [
                f"    {line}" for line in list(unified_diff(_lines(old), _lines(op), n=0, lineterm=""))[2:] if line[:2] != "@@"
            ]
    return "".join(line + "\n" for line in out)


def place(op: Op) -> str:
    """Under which heading an op is shown: its namespace, or the directory of a file."""
    match op:
        case Netns(name):
            return name
        case File(path):
            return f"files of {path.rpartition('/')[0]}"
        case _:
            return op.netns


def _lines(op: Op) -> list[str]:
    """The op in the words of ip(8) and sysctl(8); a ruleset as its own tool reads it."""
    match op:
        case Ruleset():
            return [f"{op.value.dialect} rules:", *(f"  {line}" if line else "" for line in _rules(op).splitlines())]
        case Relay():
            return [line(op), *(f"  {_relayed(port)}" for port in op.ports)]
        case VirtualServer():
            return [line(op), *(f"  -> {_socket(one.address, one.port)} weight {one.weight}" for one in op.real_servers)]
        case IngressProxy():
            return [line(op), *(f"  {one}" for one in _routes(op))]
        case File():
            return [f"{op.path.rpartition('/')[2]}:", *(f"  {line}" for line in op.text.splitlines())]
        case Daemon():
            files = (f"  {text}" for name, body in op.files for text in (f"{name}:", *(f"  {one}" for one in body.splitlines())))
            return [line(op), *files]
        case _:
            return [line(op)]


def _rules(op: Ruleset) -> str:
    from netlab.rendering import ipset, iptables, nftables

    if op.value.dialect == "nftables":
        return nftables.text(op.value, None)
    return ipset.text(op.value.ipsets) + "".join(iptables.text(op.value, None, family) for family in _families(op.value))


def _families(rules: Rules) -> tuple[Family, ...]:
    return tuple(dict.fromkeys(table.family for table in rules.tables))


def line(op: Op) -> str:
    """One op on one line."""
    match op:
        case Netns(name):
            return f"netns {name}"
        case Bridge():
            return f"bridge {op.device} address {op.mac} mtu {op.mtu_bytes}"
        case Veth():
            return _veth(op)
        case Vxlan():
            carried = f"id {op.vni} local {op.local} dstport {op.port} nolearning"
            return f"vxlan {op.device} address {op.mac} {carried} mtu {op.mtu_bytes}"
        case Qdisc():
            return f"qdisc {op.device} {op.value}"
        case Dummy():
            return f"dummy {op.device}"
        case DeviceAddress():
            flags = "" if op.prefix_route else " noprefixroute"
            return f"address {op.address}/{op.prefixlen} dev {op.device}{flags}"
        case Route():
            return _route(op)
        case Neighbour():
            return f"neighbour {op.address} lladdr {op.mac} dev {op.device} permanent"
        case Forwarding():
            return f"fdb {op.mac} dev {op.device} dst {op.remote} permanent"
        case Learned():
            ways = " nexthop ".join(f"via {gateway} dev {device}" for gateway, device in op.hops)
            return f"route {op.destination} {'nexthop ' if len(op.hops) > 1 else ''}{ways} proto {op.protocol}  # learned"
        case Announcement():
            return f"announce {op.address} lladdr {op.mac} dev {op.device}"
        case Daemon():
            return f"daemon {op.name}: {' '.join(op.command)}"
        case Sysctl():
            return f"sysctl {op.key} = {op.value}{' (where the kernel has it)' if op.optional else ''}"
        case VirtualServer():
            return f"virtual server {_socket(op.address, op.port)}/{op.protocol.lower()} {_choice(op)}"
        case Ruleset():
            return f"{op.value.dialect} rules"
        case Listener():
            own = f" on {', '.join(map(str, op.addresses))}" if op.addresses else ""
            if op.health is not None:
                return _health(op, own)
            return f"responder {op.port}/{op.protocol.lower()}{own} as {op.persona or 'any image'} for {op.pod}"
        case Process():
            return f"process {' '.join(op.command)!r} for {op.pod} container {op.container}"
        case File(path):
            return f"file {path}"
        case Relay():
            return f"proxy process for {len(op.ports)} Service ports, UDP clients forgotten after {op.udp_idle_s:g} s"
        case IngressProxy():
            return f"{op.proxy} for {len(op.table.routes)} HTTP routes of {op.pod}"
        case _:
            assert_never(op)


def _health(op: Listener, where: str) -> str:
    """A health check and what it says now."""
    health = op.health
    assert health is not None
    if health.service is None:
        return f"health check {op.port}/tcp{where} of the proxy: {'well' if health.eligible else 'the node is going'}"
    return f"health check {op.port}/tcp{where} of {op.pod}: {health.local_endpoints} local endpoints"


def _socket(address: Address, port: int) -> str:
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _choice(op: VirtualServer) -> str:
    """As ipvsadm(8) writes it."""
    sticky = f" persistent {op.persistence_s}" if op.persistence_s is not None else ""
    owner = f"  # {op.owner}" if op.owner is not None else ""
    return f"{op.scheduler}{sticky}{owner}"


def _routes(op: IngressProxy) -> Iterator[str]:
    """The routes of an Ingress controller, and where they lead."""
    found = {
        one.name: ", ".join(f"{address}:{port}" for address, port in one.endpoints) or "nobody (503)"
        for one in op.table.upstreams
    }
    for route in op.table.routes:
        yield f"{'exact' if route.exact else 'prefix'} {route.host or '*'}{route.path or '/'} to {found[route.upstream]}"
    yield f"anything else {'to ' + found[op.table.default] if op.table.default else '404'}"
    yield from (f"certificate {one.name} for {', '.join(one.hosts)}" for one in op.table.certificates)


def _relayed(port: RelayPort) -> str:
    endpoints = ", ".join(f"{address}:{number}" for address, number in port.endpoints) or "nobody"
    sticky = f", a client keeps its own for {port.affinity_s} s" if port.affinity_s is not None else ""
    return f"{port.port}/{port.protocol.lower()} {port.name} to {endpoints} in turn{sticky}"


def _veth(op: Veth) -> str:
    ports = f" master {op.master}" if op.master else ""
    peer_master = f" master {op.peer_master}" if op.peer_master else ""
    down = "" if op.up else " DOWN"
    peer_down = "" if op.peer_up else " DOWN"
    there = f"{op.peer_device} in {op.peer_netns} address {op.peer_mac}{peer_master}{peer_down}"
    return f"veth {op.device} address {op.mac}{ports}{down} mtu {op.mtu_bytes} peer {there}"


def _route(op: Route) -> str:
    if op.type == "blackhole":
        return f"route blackhole {op.destination}"
    via = f" via {op.gateway}" if op.gateway is not None else ""
    source = f" src {op.source}" if op.source is not None else ""
    owner = f"  # {op.owner}" if op.owner is not None else ""
    return f"route {op.destination}{via} dev {op.device}{source}{' onlink' if op.onlink else ''}{owner}"
