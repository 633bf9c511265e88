"""The namespaces of a plan as the kernel would hold them: devices, addresses, routes, rules, indexed for a walk.

Decides: which address is local, which route is taken, which source address a route implies, and where a frame comes out.
Refuses to know: Kubernetes, hooks, and the order in which a packet meets things.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_network
from typing import Protocol as Interface

from netlab.model import Address, Network, Protocol
from netlab.ops import (
    Bridge,
    DeviceAddress,
    Dummy,
    File,
    Identity,
    Listener,
    Neighbour,
    Netns,
    Op,
    Process,
    Relay,
    RelayPort,
    Route,
    Ruleset,
    Sysctl,
    Veth,
    VirtualServer,
)
from netlab.ruleset import Family
from netlab.trace.rules import Rules

_FAMILIES: tuple[tuple[int, Family], ...] = ((4, "ip"), (6, "ip6"))

End = tuple[str, str]
"""A namespace and a device in it."""


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
    """A routing decision: out of `device` to `hop` (the destination itself when it is on the link)."""

    device: str
    hop: Address
    source: Address | None
    route: str


class Place:
    """One namespace. Filled while the plan is read, not changed afterwards."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.devices: dict[str, Device] = {"lo": Device((name, "lo"), "")}
        self.routes: list[Route] = []
        self.neighbours: dict[tuple[str, Address], str] = {}
        self.sysctls: dict[str, str] = {}
        self.rulesets: list[Ruleset] = []
        self.listeners: set[tuple[Protocol, int, Address | None]] = set()
        self.runs_programs = False
        self.relays: dict[tuple[Protocol, int], RelayPort] = {}
        self.virtual_servers: dict[tuple[Address, Protocol, int], VirtualServer] = {}

    @cached_property
    def local(self) -> frozenset[Address]:
        """The addresses of all devices, also of those that are down (their local routes stay)."""
        return frozenset(op.address for device in self.devices.values() for op in device.addresses)

    def is_local(self, address: Address) -> bool:
        return address.is_loopback or address in self.local

    def on(self, key: str) -> bool:
        return self.sysctls.get(key, "0") != "0"

    def device_of(self, address: Address) -> str:
        """The device that has the address; lo for loopback."""
        for name, device in self.devices.items():
            if any(op.address == address for op in device.addresses):
                return name
        return "lo"

    @cached_property
    def _table(self) -> list[tuple[Network, Route | None, str]]:
        """(destination, its route or None if connected, device), the longest prefix first, connected ones before others."""
        table: list[tuple[Network, Route | None, str]] = []
        for name, device in self.devices.items():
            for op in device.addresses:
                if device.up and op.prefix_route and op.prefixlen < op.address.max_prefixlen:
                    table.append((network_of(op), None, name))
        for route in self.routes:
            there = self.devices.get(route.device)
            if route.type == "blackhole" or (there is not None and there.up):
                table.append((route.destination, route, route.device))
        return sorted(table, key=lambda row: -row[0].prefixlen)

    def way(self, destination: Address) -> Way | str:
        """The route to an address that is not local, or in words why there is none: `blackhole ...` or `no route ...`."""
        for network, route, device in self._table:
            if destination not in network:
                continue
            if route is None:
                return Way(device, destination, self.address_on(device, destination), f"{network} dev {device}")
            if route.type == "blackhole":
                return f"blackhole {network}"
            hop = route.gateway or destination
            via = f" via {route.gateway}" if route.gateway is not None else ""
            return Way(device, hop, route.source or self.address_on(device, hop), f"{network}{via} dev {device}")
        return f"no route to {destination}"

    def address_on(self, device: str, hop: Address) -> Address | None:
        """The kernel's choice (inet_select_addr): the device's address in the hop's network, its first, or another device's."""
        own = [op for op in self.devices[device].addresses if op.address.version == hop.version]
        for op in own:
            if hop in network_of(op):
                return op.address
        if own:
            return own[0].address
        others = (op for other in self.devices.values() for op in other.addresses if op.address.version == hop.version)
        return next((op.address for op in others), None)

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
        tables = (table for value in values for table in value.tables if table.family == family)
        return Rules(tables, (one for value in values for one in value.ipsets if one.family == family))

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
                self._at(op.netns).relays.update({(port.protocol, port.port): port for port in op.ports})
            case File():
                pass

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

    def next_stop(self, start: End, hop: Address) -> tuple[End, tuple[End, ...]] | str:
        """Where a frame sent out of `start` to the machine `hop` meets an IP stack, and the ends passed; or why it does not."""
        mac = self.places[start[0]].neighbours.get((start[1], hop))
        if not self.device(start).carrier:
            return f"the link of {start[1]} in {start[0]} is down"
        for end, passed in self._segment(start):
            device = self.device(end)
            if device.mac == mac if mac is not None else hop in self.places[end[0]].local:
                return end, passed
        return f"nobody on the link of {start[1]} in {start[0]} {'has the MAC of' if mac else 'answers for'} {hop}"

    def _segment(self, start: End) -> Iterable[tuple[End, tuple[End, ...]]]:
        """The devices with an IP stack that a frame out of `start` can come to, and the ends passed on the way."""
        begin = self.device(start)
        first = [(start[0], port) for port in begin.ports] if begin.peer is None else [start]
        todo: list[tuple[End, tuple[End, ...]]] = [(end, ()) for end in first]
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
