"""The namespaces of a plan as the kernel would hold them: devices, addresses, routes, rules, indexed for a walk.

Decides: which address is local, which route is taken, which source address a route implies, and where a frame comes out.
Refuses to know: Kubernetes, hooks, and the order in which a packet meets things.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import ip_network
from typing import Protocol as Interface
from typing import assert_never

from netlab.ingresses import ADMIN_PORT, HTTP_PORT, HTTPS_PORT
from netlab.model import Address, Network, Protocol
from netlab.ops import (
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
from netlab.trace.rules import Rules

MOST_CARRIERS = 64
"""Machines that a packet of an overlay may pass."""
_FAMILIES: tuple[tuple[int, Family], ...] = ((4, "ip"), (6, "ip6"))
End = tuple[str, str]
"""A namespace and a device in it."""
Stop = tuple[End, tuple[End, ...]]
"""Where a frame meets an IP stack, and the ends of links that it passed."""


class HasOps(Interface):
    """A plan, as far as a walk is concerned."""

    @property
    def ops(self) -> Mapping[Identity, Op]: ...


@dataclass(slots=True)
class Device:
    """`master` '' for none; `peer` None for a bridge and lo. `up`: not set down; `carrier`: nor is the other end."""

    end: End
    mac: str
    up: bool = True
    carrier: bool = True
    master: str = ""
    peer: End | None = None
    ports: list[str] = field(default_factory=list)
    addresses: list[DeviceAddress] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Way:
    """A routing decision: out of `device` to `hop` (the destination itself when it is on the link).

    `others`: the ways that are as good as this one (a learned route with several next hops).
    """

    device: str
    hop: Address
    source: Address | None
    route: str
    others: tuple["Way", ...] = ()


class Place:
    """One namespace. Filled while the plan is read, not changed afterwards: what was worked out once is kept."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.devices: dict[str, Device] = {"lo": Device((name, "lo"), "")}
        self.routes: list[Route] = []
        self.learned: list[Learned] = []
        self.announced: set[tuple[str, Address]] = set()
        self.tunnels: dict[str, Vxlan] = {}
        self.forwarding: dict[tuple[str, str], Address] = {}
        self.neighbours: dict[tuple[str, Address], str] = {}
        self.sysctls: dict[str, str] = {}
        self.rulesets: list[Ruleset] = []
        self.listeners: set[tuple[Protocol, int, Address | None]] = set()
        self.runs_programs = False
        self.relays: dict[tuple[Protocol, int, int], RelayPort] = {}
        self.virtual_servers: dict[tuple[Address, Protocol, int], VirtualServer] = {}
        self._ways: dict[Address, Way | str] = {}
        self._sources: dict[Address, str] = {}

    @cached_property
    def local(self) -> frozenset[Address]:
        """The addresses of all devices, also of those that are down (their local routes stay)."""
        return frozenset(op.address for device in self.devices.values() for op in device.addresses)

    def is_local(self, address: Address) -> bool:
        return address in self.local or address.is_loopback

    def on(self, key: str) -> bool:
        return self.sysctls.get(key, "0") != "0"

    @cached_property
    def _table(self) -> list[tuple[Network, Way | Route | Learned | None, str]]:
        """(destination, its route or None if connected, device), the longest prefix first, connected ones before others.

        A route by a gateway is there as the way that it is, the same for every destination.
        """
        table: list[tuple[Network, Way | Route | Learned | None, str]] = []
        for name, device in self.devices.items():
            for op in device.addresses:
                if device.up and op.prefix_route and op.prefixlen < op.address.max_prefixlen:
                    table.append((network_of(op), None, name))
        for route in self.routes:
            there = self.devices.get(route.device)
            if route.type == "blackhole" or (there is not None and there.up):
                way = self._routed(route, route.gateway) if route.gateway is not None else route
                table.append((route.destination, way, route.device))
        # Of two routes to one network the kernel takes the one with the lower metric, and a daemon's have a higher one.
        table += ((learned.destination, learned, learned.hops[0][1]) for learned in self.learned)
        return sorted(table, key=lambda row: -row[0].prefixlen)

    def foreign(self, source: Address) -> str:
        """Why a packet from outside may not have this source, which is `own` or `loopback`; '' when it may."""
        found = self._sources.get(source)
        if found is None:
            found = "own" if source in self.local else "loopback" if source.is_loopback else ""
            self._sources[source] = found
        return found

    def any_way(self, destination: Address) -> Way | str:
        """The same as `way`; an address of its own has a way, too, out of lo."""
        found = self._ways.get(destination)
        if found is None:
            found = self._ways[destination] = self._local_way(destination) or self.way(destination)
        return found

    def _local_way(self, destination: Address) -> Way | None:
        return Way("lo", destination, destination, f"local {destination}") if self.is_local(destination) else None

    def way(self, destination: Address) -> Way | str:
        """The route to an address that is not local, or in words why there is none: `blackhole ...` or `no route ...`."""
        for network, route, device in self._table:
            if destination not in network:
                continue
            match route:
                case None:
                    return Way(device, destination, self.address_on(device, destination), f"{network} dev {device}")
                case Way():
                    return route
                case Learned():
                    return self._learned_way(route, destination)
                case Route(type="blackhole"):
                    return f"blackhole {network}"
                case Route():
                    return self._routed(route, destination)
                case _:
                    assert_never(route)
        return f"no route to {destination}"

    def _routed(self, route: Route, hop: Address) -> Way:
        via = f" via {route.gateway}" if route.gateway is not None else ""
        note = self._carried(route.device, hop)
        source = route.source or self.address_on(route.device, hop)
        return Way(route.device, hop, source, f"{route.destination}{via} dev {route.device}{note}")

    def _learned_way(self, route: Learned, destination: Address) -> Way:
        """By each of its next hops; which one a flow takes, a hash of its addresses and ports says."""
        said = f"learned by {route.protocol}"
        if len(route.hops) > 1:
            said += f", one of {len(route.hops)} ways"
        ways = [
            Way(device, hop, self.address_on(device, hop), f"{route.destination} via {hop} dev {device} ({said})")
            for hop, device in route.hops
        ]
        return replace(ways[0], others=tuple(ways[1:]))

    def _carried(self, device: str, hop: Address) -> str:
        """Inside which packet an overlay carries what goes to `hop`."""
        tunnel = self.tunnels.get(device)
        remote = self.forwarding.get((device, self.neighbours.get((device, hop), ""))) if tunnel else None
        return f" (inside UDP from {tunnel.local} to {remote}:{tunnel.port})" if tunnel and remote else ""

    def address_on(self, device: str, hop: Address) -> Address | None:
        """The kernel's choice (inet_select_addr): the device's address in the hop's network, its first, or another device's."""
        own = [op.address for op in self.devices[device].addresses if op.address.version == hop.version]
        for address, network in self._networks[device]:
            if hop in network:
                return address
        if own:
            return own[0]
        others = (op for other in self.devices.values() for op in other.addresses if op.address.version == hop.version)
        return next((op.address for op in others), None)

    @cached_property
    def _networks(self) -> dict[str, list[tuple[Address, Network]]]:
        """The addresses of each device, and the network that each lies in."""
        return {name: [(op.address, network_of(op)) for op in device.addresses] for name, device in self.devices.items()}

    def primary(self, device: str) -> Address | None:
        """The first IPv4 address of the device, which REDIRECT sends packets to."""
        there = self.devices.get(device)
        return next((op.address for op in there.addresses if op.address.version == 4), None) if there is not None else None

    def rules(self, version: int) -> Rules:
        return self._rules[version]

    @cached_property
    def _rules(self) -> dict[int, Rules]:
        return {version: self._rules_of(family) for version, family in _FAMILIES}

    def _rules_of(self, family: Family) -> Rules:
        values = [ruleset.value for ruleset in self.rulesets]
        tables = [table for value in values for table in value.tables if table.family == family]
        return Rules(tables, self, [one for value in values for one in value.ipsets if one.family == family])

    def answers(self, protocol: Protocol, port: int, address: Address) -> str:
        """Who takes a packet for an own address and this port; '' when nobody does."""
        if protocol is Protocol.ICMP:
            return "the kernel (echo)"
        if (protocol, port, None) in self.listeners or (protocol, port, address) in self.listeners:
            return "the built-in responder"
        return "a program of its own, which may listen on any port" if self.runs_programs else ""


def network_of(op: DeviceAddress) -> Network:
    """The network that an address with its prefix length lies in."""
    return ip_network((op.address, op.prefixlen), strict=False)


class World:
    """All namespaces of a plan. Reading it once serves any number of flows."""

    def __init__(self, plan: HasOps) -> None:
        self.places: dict[str, Place] = {}
        self._stops: dict[tuple[End, Address], Stop | str] = {}
        self._veths: list[Veth] = []
        for op in plan.ops.values():
            self._read(op)
        for veth in self._veths:
            self._connect(veth)

    def _at(self, netns: str) -> Place:
        place = self.places.get(netns)
        if place is None:
            place = self.places[netns] = Place(netns)
        return place

    def _read(self, op: Op) -> None:
        match op:
            case Netns(name):
                self._at(name)
            case Bridge():
                self._at(op.netns).devices[op.device] = Device((op.netns, op.device), op.mac)
            case Dummy():
                self._at(op.netns).devices[op.device] = Device((op.netns, op.device), "", up=False)
            case VirtualServer():
                self._at(op.netns).virtual_servers[op.address, op.protocol, op.port] = op
            case Veth():
                self._veths.append(op)
                self._add_ends(op)
            case DeviceAddress():
                self._at(op.netns).devices[op.device].addresses.append(op)
            case Route():
                self._at(op.netns).routes.append(op)
            case Neighbour():
                self._at(op.netns).neighbours[op.device, op.address] = op.mac
            case Sysctl():
                self._at(op.netns).sysctls[op.key] = op.value
            case Ruleset():
                self._at(op.netns).rulesets.append(op)
            case Listener():
                for address in op.addresses or (None,):
                    anywhere = address is None or address.is_unspecified
                    self._at(op.netns).listeners.add((op.protocol, op.port, None if anywhere else address))
            case Process():
                self._at(op.netns).runs_programs = True
            case Relay():
                self._at(op.netns).relays.update({port.key: port for port in op.ports})
            case IngressProxy():
                ports = (HTTP_PORT, ADMIN_PORT, *((HTTPS_PORT,) if op.table.certificates else ()))
                self._at(op.netns).listeners |= {(Protocol.TCP, port, None) for port in ports}
            case Vxlan():
                place = self._at(op.netns)
                place.devices[op.device] = Device((op.netns, op.device), op.mac)
                place.tunnels[op.device] = op
            case Forwarding():
                self._at(op.netns).forwarding[op.device, op.mac] = op.remote
            case Learned():
                self._at(op.netns).learned.append(op)
            case Announcement():
                self._at(op.netns).announced.add((op.device, op.address))
            case File() | Daemon() | Qdisc():  # what an impaired link does to a flow is chance, which no walk can foretell
                pass
            case _:
                assert_never(op)

    def _add_ends(self, op: Veth) -> None:
        near, far = (op.netns, op.device), (op.peer_netns, op.peer_device)
        carrier = op.up and op.peer_up
        self._at(op.netns).devices[op.device] = Device(near, op.mac, op.up, carrier, op.master, far)
        self._at(op.peer_netns).devices[op.peer_device] = Device(far, op.peer_mac, op.peer_up, carrier, op.peer_master, near)

    def _connect(self, op: Veth) -> None:
        for netns, device, master in ((op.netns, op.device, op.master), (op.peer_netns, op.peer_device, op.peer_master)):
            if master:
                self.places[netns].devices[master].ports.append(device)

    def device(self, end: End) -> Device:
        return self.places[end[0]].devices[end[1]]

    # ------------------------------------------------------------ frames

    def next_stop(self, start: End, hop: Address) -> Stop | str:
        """Where a frame sent out of `start` to the machine `hop` meets an IP stack, and the ends passed; or why it does not."""
        found = self._stops.get((start, hop))
        if found is None:
            found = self._stops[start, hop] = self._followed(start, hop)
        return found

    def _followed(self, start: End, hop: Address) -> Stop | str:
        mac = self.places[start[0]].neighbours.get((start[1], hop))
        tunnel = self.places[start[0]].tunnels.get(start[1])
        if tunnel is not None:
            return self._through(tunnel, mac, hop)
        if not self.device(start).carrier:
            return f"the link of {start[1]} in {start[0]} is down"
        for end, passed in self._segment(start):
            if self.device(end).mac == mac if mac is not None else self._answers(end, hop):
                return end, passed
        return f"nobody on the link of {start[1]} in {start[0]} {'has the MAC of' if mac else 'answers for'} {hop}"

    def _answers(self, end: End, hop: Address) -> bool:
        """Whether ARP or neighbour discovery for `hop` is answered at this interface. arp_ignore: only for its own addresses."""
        place = self.places[end[0]]
        if hop.version == 4 and place.on("net/ipv4/conf/all/arp_ignore"):
            local = any(op.address == hop for op in self.device(end).addresses)
        else:
            local = hop in place.local
        return local or (end[1], hop) in place.announced

    def _through(self, tunnel: Vxlan, mac: str | None, hop: Address) -> Stop | str:
        """The far end of an overlay, if the packets that carry the frame come there. On links they are not the flow's own."""
        place = self.places[tunnel.netns]
        remote = place.forwarding.get((tunnel.device, mac or ""))
        if mac is None or remote is None:
            return f"{tunnel.device} in {tunnel.netns} knows no machine that has {hop}"
        for _ in range(MOST_CARRIERS):
            if place.is_local(remote):
                far = (one for one in place.tunnels.values() if (one.vni, one.port, one.mac) == (tunnel.vni, tunnel.port, mac))
                end = next(((place.name, one.device) for one in far), None)
                return (end, ()) if end is not None else f"{place.name} has no overlay device with the MAC of {hop}"
            way = place.way(remote)
            stop = way if isinstance(way, str) else self.next_stop((place.name, way.device), way.hop)
            if isinstance(stop, str):
                return f"the packet that carries it to {remote} is lost in {place.name}: {stop}"
            place = self.places[stop[0][0]]
        return f"the packet that carries it to {remote} goes round in circles"

    def _segment(self, start: End) -> Iterable[Stop]:
        """The devices with an IP stack that a frame out of `start` can come to, and the ends passed on the way."""
        begin = self.device(start)
        first = [(start[0], port) for port in begin.ports] if begin.peer is None else [start]
        todo: list[Stop] = [(end, ()) for end in first]
        seen: set[End] = set()
        while todo:
            out, passed = todo.pop()
            leaving = self.device(out)
            if out in seen or leaving.peer is None or not leaving.carrier:
                continue
            seen |= {out, leaving.peer}
            arriving = self.device(leaving.peer)
            way: tuple[End, ...] = (*passed, leaving.peer) if out == start else (*passed, out, leaving.peer)
            if not arriving.master:
                yield leaving.peer, way
                continue
            bridge = (leaving.peer[0], arriving.master)
            yield bridge, way
            todo.extend(((bridge[0], port), way) for port in self.device(bridge).ports if port != arriving.end[1])
