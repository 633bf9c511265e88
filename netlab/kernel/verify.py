"""How the kernel differs from a plan: one sentence a difference, with the identity of what mends it.

Reads everything back and trusts nothing that was remembered. Extra links, addresses, routes, permanent neighbours, tables and
rules are differences, too; what the kernel makes for itself (loopback, link-local addresses, connected routes, learned
neighbours) is not. Rules are compared in rule_drift.py. An identity that is in the plan means: make that op again; one that is
not: take it away. Over 400 lines: one reader and one comparison a kind of thing, and none makes sense without the others.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import ip_interface

from netlab.errors import KernelError
from netlab.kernel import ipvs_drift, listing, qdisc, rule_drift, sysctls
from netlab.kernel.namespaces import entered
from netlab.kernel.netlink import Socket
from netlab.kernel.observe import destination, route_row
from netlab.kernel.rule_texts import Netns
from netlab.kernel.rules import opened
from netlab.model import Impairment
from netlab.ops import (
    Bridge,
    DeviceAddress,
    Dummy,
    Forwarding,
    Identity,
    Learned,
    Neighbour,
    Op,
    Qdisc,
    Route,
    Ruleset,
    Sysctl,
    Veth,
    VirtualServer,
    Vxlan,
)
from netlab.ops import Netns as NetnsOp

Drift = tuple[str, Identity | None]
_FALLBACK = frozenset(
    ("lo", "tunl0", "sit0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6tnl0", "ip6gre0", "teql0", "ifb0", "ifb1")
)
"""Devices that some kernels put into every new namespace (net.core.fb_tunnels_only_for_init_net)."""
_KERNEL_MADE = frozenset({1, 2, 9})
LEARNED = frozenset({12, 42, 186, 187, 188, 189, 192})
"""Routes of routing daemons, by their protocol number (linux/rtnetlink.h; 12 is BIRD's)."""
_NOPREFIXROUTE, _PERMANENT = 0x200, 0x80
_UNICAST, _BLACKHOLE = 1, 6
DUMMIES = ("dummy", "bridge")
"""What may stand for an ops.Dummy: links.py takes the second where the kernel lacks the first."""


@dataclass(frozen=True, slots=True)
class _End:
    """One device that the plan wants in a namespace."""

    device: str
    kind: str
    mac: str
    mtu_bytes: int
    master: str
    up: bool
    altname: str
    op: Bridge | Veth | Vxlan | Dummy


@dataclass(slots=True)
class _Wanted:
    """What the plan wants of one namespace."""

    ends: dict[str, _End] = field(default_factory=dict)
    addresses: list[DeviceAddress] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    forwarding: list[Forwarding] = field(default_factory=list)
    stations: list[tuple[str, str, Veth]] = field(default_factory=list)
    """A bridge's port, and the MAC of its other end."""
    qdiscs: dict[str, Qdisc] = field(default_factory=dict)
    learned: list[Learned] = field(default_factory=list)
    sysctls: list[Sysctl] = field(default_factory=list)
    rulesets: list[Ruleset] = field(default_factory=list)
    virtual_servers: list[VirtualServer] = field(default_factory=list)
    netns: NetnsOp | None = None

    def is_down(self, device: str) -> bool:
        """The device, or where a route names none any device, is down on purpose: what lived on it is gone.

        A dummy is always down, and keeps its addresses.
        """
        ends = (self.ends[device],) if device in self.ends else () if device else tuple(self.ends.values())
        return any(not end.up and end.kind != "dummy" for end in ends)


@dataclass(frozen=True, slots=True)
class _Facts:
    links: dict[int, listing.Link]
    addresses: list[listing.DeviceAddress]
    routes: list[listing.Route]
    neighbours: list[listing.Neighbour]
    forwarding: list[listing.Forwarding]
    stations: set[tuple[int, str]]
    shaped: dict[int, qdisc.Shaped]
    sysctls: dict[str, str | None]


def drift(paths: Mapping[str, Netns], ops: Sequence[Op]) -> list[Drift]:
    """Every difference, namespace by namespace in the plan's order. `paths` open the namespaces that there are."""
    found: list[Drift] = []
    wanted = _by_namespace(ops)
    with ExitStack() as stack:
        fds: dict[str, int] = {}
        for netns in wanted:
            if netns not in paths:
                found.append((f"{netns}: the namespace is missing", ("netns", netns)))
                continue
            try:
                fds[netns] = stack.enter_context(opened(paths[netns]))
            except KernelError as error:
                found.append((f"{netns}: {error}", ("netns", netns)))
        entrance = stack.enter_context(sysctls.Entrance())
        for netns, fd in fds.items():
            found += _drift(netns, fd, wanted[netns], entrance.next())
            if wanted[netns].virtual_servers:
                found += _virtual_servers(netns, fd, wanted[netns].virtual_servers)
        found += rule_drift.drift({netns: (fd, wanted[netns].rulesets) for netns, fd in fds.items()})
    return found


def _virtual_servers(netns: str, fd: int, planned: list[VirtualServer]) -> Iterator[Drift]:
    try:
        yield from ipvs_drift.drift(netns, fd, planned)
    except (KernelError, OSError) as error:
        yield f"{netns}: the virtual servers cannot be read: {error}", planned[0].identity


def _by_namespace(ops: Sequence[Op]) -> dict[str, _Wanted]:
    wanted: dict[str, _Wanted] = {}

    def of(netns: str) -> _Wanted:
        return wanted.setdefault(netns, _Wanted())

    for op in ops:
        match op:
            case NetnsOp(name):
                of(name).netns = op
            case Bridge():
                of(op.netns).ends[op.device] = _End(op.device, "bridge", op.mac, op.mtu_bytes, "", True, "", op)
            case Dummy():
                of(op.netns).ends[op.device] = _End(op.device, "dummy", "", 0, "", False, "", op)
            case VirtualServer():
                of(op.netns).virtual_servers.append(op)
            case Veth():
                of(op.netns).ends[op.device] = _End(op.device, "veth", op.mac, op.mtu_bytes, op.master, op.up, op.altname, op)
                of(op.peer_netns).ends[op.peer_device] = _End(
                    op.peer_device, "veth", op.peer_mac, op.mtu_bytes, op.peer_master, op.peer_up, "", op
                )
                if op.master:
                    of(op.netns).stations.append((op.device, op.peer_mac, op))
                if op.peer_master:
                    of(op.peer_netns).stations.append((op.peer_device, op.mac, op))
            case Vxlan():
                of(op.netns).ends[op.device] = _End(op.device, "vxlan", op.mac, op.mtu_bytes, "", True, "", op)
            case Forwarding():
                of(op.netns).forwarding.append(op)
            case Qdisc():
                of(op.netns).qdiscs[op.device] = op
            case Learned():
                of(op.netns).learned.append(op)
            case DeviceAddress():
                of(op.netns).addresses.append(op)
            case Route():
                of(op.netns).routes.append(op)
            case Neighbour():
                of(op.netns).neighbours.append(op)
            case Sysctl():
                of(op.netns).sysctls.append(op)
            case Ruleset():
                of(op.netns).rulesets.append(op)
            case _:
                pass
    return wanted


def _drift(netns: str, fd: int, wanted: _Wanted, proc: int | None) -> Iterator[Drift]:
    facts = _read(fd, wanted, proc)
    for part in (_links, _qdiscs, _addresses, _routes, _learned, _neighbours, _forwarding, _sysctls):
        for sentence, identity in part(netns, wanted, facts):
            yield f"{netns}: {sentence}", identity


def _read(fd: int, wanted: _Wanted, proc: int | None) -> _Facts:
    with entered(fd):
        sock = Socket()
        values = {op.key: sysctls.read(op.key, proc) for op in wanted.sysctls}
    with sock:
        links = {link.ifindex: link for link in listing.links(sock)}
        forwarding = listing.forwarding(sock) if wanted.forwarding else []
        stations = listing.static_stations(sock) if wanted.stations else set()
        neighbours, shaped = listing.neighbours(sock), qdisc.shaped(sock)
        return _Facts(links, listing.addresses(sock), listing.routes(sock), neighbours, forwarding, stations, shaped, values)


# ---------------------------------------------------------------- links


def _links(netns: str, wanted: _Wanted, facts: _Facts) -> Iterator[Drift]:
    by_name = {link.name: link for link in facts.links.values()}
    if wanted.netns is not None and "lo" in by_name and not by_name["lo"].up:
        yield "link lo is down", wanted.netns.identity
    for end in wanted.ends.values():
        link = by_name.get(end.device)
        if link is None:
            yield f"link {end.device} is missing", end.op.identity
            continue
        for sentence in _link_differences(end, link, facts):
            yield f"link {end.device} {sentence}", end.op.identity
    for name in by_name:
        if name not in wanted.ends and name not in _FALLBACK:
            yield f"link {name} is not planned", ("link", netns, name)


def _link_differences(end: _End, link: listing.Link, facts: _Facts) -> Iterator[str]:
    if end.kind == "dummy":
        if link.kind not in DUMMIES:
            yield f"is a {link.kind or 'device'}, not a dummy"
        return
    if link.kind != end.kind:
        yield f"is a {link.kind or 'device'}, not a {end.kind}"
        return
    if link.mac != end.mac.lower():
        yield f"has address {link.mac}, not {end.mac}"
    if link.mtu_bytes != end.mtu_bytes:
        yield f"has mtu {link.mtu_bytes}, not {end.mtu_bytes}"
    master = facts.links[link.master].name if link.master in facts.links else ""
    if master != end.master:
        yield f"is a port of {master or 'no bridge'}, not of {end.master or 'any'}"
    if link.up != end.up:
        yield f"is {'up' if link.up else 'down'}, not {'up' if end.up else 'down'}"
    if end.altname and end.altname not in link.altnames:
        yield f"lacks its other name {end.altname}"


def _qdiscs(netns: str, wanted: _Wanted, facts: _Facts) -> Iterator[Drift]:
    there = {facts.links[index].name: shaped for index, shaped in facts.shaped.items() if index in facts.links}
    devices = {link.name for link in facts.links.values()}
    for device, op in wanted.qdiscs.items():
        if device not in devices:
            continue  # said of the link
        found = there.get(device, qdisc.Shaped(Impairment()))
        if found.foreign or not qdisc.same(op.value, found.value):
            yield f"what {device} sends has {found}, not {op.value}", op.identity
    for device, found in there.items():
        if device not in wanted.qdiscs:
            yield f"what {device} sends has {found}, which is not planned", ("qdisc", netns, device)


# ---------------------------------------------------------------- addresses


def _addresses(netns: str, wanted: _Wanted, facts: _Facts) -> Iterator[Drift]:
    names = {index: link.name for index, link in facts.links.items()}
    there = {(names.get(one.ifindex, ""), f"{one.address}/{one.prefixlen}"): one for one in facts.addresses}
    planned = {(op.device, f"{op.address}/{op.prefixlen}"): op for op in wanted.addresses}
    for key, op in planned.items():
        one = there.get(key)
        if one is None:
            if not (op.address.version == 6 and wanted.is_down(op.device)):
                yield f"address {key[1]} on {key[0]} is missing", op.identity
        elif bool(one.flags & _NOPREFIXROUTE) == op.prefix_route:
            yield (
                f"address {key[1]} on {key[0]} has the flag noprefixroute{' not' if op.prefix_route else ''} as planned",
                op.identity,
            )
    for (device, text), one in there.items():
        if (device, text) not in planned and not one.address.is_link_local and not (device == "lo" and one.address.is_loopback):
            yield f"address {text} on {device} is not planned", ("address", netns, device, text)


# ---------------------------------------------------------------- routes


def _routes(netns: str, wanted: _Wanted, facts: _Facts) -> Iterator[Drift]:
    there = [route for route in facts.routes if route.protocol not in _KERNEL_MADE]
    matched: set[int] = set()
    for op in wanted.routes:
        same = [route for route in there if route.destination == op.destination]
        exact = next((route for route in same if _is(route, op, facts)), None)
        if exact is not None:
            matched.add(id(exact))
        elif same:
            matched.add(id(same[0]))
            yield f"route {_shown(same[0], facts)} should be {_planned(op)}", op.identity
        elif not wanted.is_down(op.device) or op.type == "blackhole":
            yield f"route {_planned(op)} is missing", op.identity
    for route in there:
        if id(route) not in matched and route.protocol not in LEARNED:
            identity = ("route", netns, str(route.destination), str(route.metric))
            yield f"route {_shown(route, facts)} is not planned", identity
    yield from _connected(wanted, facts)


def _learned(netns: str, wanted: _Wanted, facts: _Facts) -> Iterator[Drift]:
    """What a routing daemon should have learned. What it learned besides is its own business; nobody can make such a route."""
    for op in wanted.learned:
        problem = learned_problem(op, facts.routes, facts.links)
        if problem:
            yield problem, None


def learned_problem(op: Learned, routes: Sequence[listing.Route], links: Mapping[int, listing.Link]) -> str:
    """'' when the route is there with exactly its hops; else what is wrong."""
    there = [route for route in routes if route.destination == op.destination and route.protocol in LEARNED]
    if not there:
        return f"route {op.destination} has not been learned"
    found = {(gateway, links[index].name if index in links else "") for gateway, index, _ in there[0].hops}
    if found == set(op.hops):
        return ""
    shown = ", ".join(sorted(f"via {gateway} dev {device}" for gateway, device in found))
    expected = ", ".join(f"via {gateway} dev {device}" for gateway, device in op.hops)
    return f"route {op.destination} was learned {shown}, not {expected}"


def _connected(wanted: _Wanted, facts: _Facts) -> Iterator[Drift]:
    """The kernel makes the route of a connected network with the address, and anyone may delete it."""
    there = {(route.destination, hop[1]) for route in facts.routes for hop in route.hops if hop[0] is None}
    indices = {link.name: link for link in facts.links.values()}
    replaced = {op.destination for op in wanted.routes}
    for op in wanted.addresses:
        network = ip_interface(f"{op.address}/{op.prefixlen}").network
        link = indices.get(op.device)
        if link is None or not link.up or not op.prefix_route or network.prefixlen == network.max_prefixlen:
            continue
        if (network, link.ifindex) not in there and network not in replaced and op.device != "lo":
            yield f"route {network} dev {op.device} of the connected network is missing", op.identity


def _is(route: listing.Route, op: Route, facts: _Facts) -> bool:
    if op.type == "blackhole":
        return route.type == _BLACKHOLE
    if route.type != _UNICAST or len(route.hops) != 1:
        return False
    gateway, index, _ = route.hops[0]
    device = facts.links[index].name if index in facts.links else ""
    return gateway == op.gateway and op.device in ("", device) and (op.source is None or route.source == op.source)


def _shown(route: listing.Route, facts: _Facts) -> str:
    row = route_row(route, facts.links)
    words = [str(row["type"])] if "type" in row else []
    words.append(str(row["dst"]))
    for key, word in (("gateway", "via"), ("dev", "dev"), ("prefsrc", "src"), ("metric", "metric")):
        if key in row:
            words += [word, str(row[key])]
    return " ".join(words)


def _planned(op: Route) -> str:
    words = ["blackhole"] if op.type == "blackhole" else []
    words.append(destination(op.destination))
    for word, value in (("via", op.gateway), ("dev", op.device), ("src", op.source)):
        if value:
            words += [word, str(value)]
    return " ".join(words)


# ---------------------------------------------------------------- neighbours and sysctls


def _neighbours(netns: str, wanted: _Wanted, facts: _Facts) -> Iterator[Drift]:
    names = {index: link.name for index, link in facts.links.items()}
    there = {(names.get(one.ifindex, ""), str(one.address)): one for one in facts.neighbours}
    planned = {(op.device, str(op.address)): op for op in wanted.neighbours}
    for key, op in planned.items():
        one = there.get(key)
        words = f"neighbour {key[1]} on {key[0]}"
        if one is None or not one.state & _PERMANENT:
            if not wanted.is_down(op.device):
                yield f"{words} is {'missing' if one is None else 'learned, not permanent'}", op.identity
        elif one.mac != op.mac.lower():
            yield f"{words} has lladdr {one.mac}, not {op.mac}", op.identity
    for (device, address), one in there.items():
        if one.state & _PERMANENT and (device, address) not in planned:
            yield f"neighbour {address} lladdr {one.mac} on {device} is not planned", ("neighbour", netns, device, address)


def _forwarding(netns: str, wanted: _Wanted, facts: _Facts) -> Iterator[Drift]:
    names = {index: link.name for index, link in facts.links.items()}
    there = {(names.get(one.ifindex, ""), one.mac): one for one in facts.forwarding}
    planned = {(op.device, op.mac.lower()): op for op in wanted.forwarding}
    for key, op in planned.items():
        one = there.get(key)
        words = f"forwarding entry for {key[1]} on {key[0]}"
        if one is None:
            yield f"{words} is missing", op.identity
        elif one.remote != op.remote:
            yield f"{words} leads to {one.remote}, not {op.remote}", op.identity
    for (device, mac), one in there.items():
        if (device, mac) not in planned:
            yield f"forwarding entry for {mac} on {device} to {one.remote} is not planned", ("forwarding", netns, device, mac)
    indices = {link.name: link.ifindex for link in facts.links.values() if link.master}
    for port, mac, veth in wanted.stations:
        if mac and port in indices and (indices[port], mac.lower()) not in facts.stations:
            yield f"forwarding entry for {mac} at the port {port} is missing: its frames are flooded", veth.identity


def _sysctls(netns: str, wanted: _Wanted, facts: _Facts) -> Iterator[Drift]:
    for op in wanted.sysctls:
        value = facts.sysctls[op.key]
        if value is None and not op.optional:
            yield f"sysctl {op.key} cannot be read", op.identity
        elif value is not None and value != " ".join(op.value.split()):
            yield f"sysctl {op.key} is {value}, not {op.value}", op.identity
