"""What the kernel lists: links, addresses, routes and neighbours of one namespace, as typed rows.

Decides how rtnetlink's answers are read. Refuses to know how they are shown (observe.py) or judged (verify.py). Needs a Socket
that was opened inside the namespace; takes some 50 us a list, where `ip -j` takes two milliseconds.
"""

import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from typing import NamedTuple

from netlab.kernel import netlink as nl
from netlab.kernel.netlink import Message, Socket
from netlab.model import Address, Network

MAIN_TABLE = 254
UP = nl.IFF_UP


class Link(NamedTuple):
    """A network device. `link` is the index of a veth's other end (in namespace `netnsid`, if not here); `master` an index."""

    ifindex: int
    name: str
    flags: int
    mac: str
    mtu_bytes: int
    master: int
    kind: str
    altnames: tuple[str, ...]
    link: int
    netnsid: int | None
    operstate: int

    @property
    def up(self) -> bool:
        return bool(self.flags & UP)


class DeviceAddress(NamedTuple):
    ifindex: int
    address: Address
    prefixlen: int
    scope: int
    flags: int
    broadcast: str
    label: str


class Route(NamedTuple):
    """A unicast hop is (gateway, index); several of them, if `hops` has more than one."""

    destination: Network
    type: int
    table: int
    protocol: int
    scope: int
    metric: int
    source: Address | None
    hops: tuple[tuple[Address | None, int, int], ...]
    """(gateway, device index, flags)"""


class Forwarding(NamedTuple):
    """An entry of a device's own forwarding database that names a machine (of a VXLAN device; bridges' name none)."""

    ifindex: int
    mac: str
    remote: Address
    state: int


class Neighbour(NamedTuple):
    ifindex: int
    address: Address
    mac: str
    state: int
    flags: int


def told(kind: int, body: bytes) -> Link | DeviceAddress | Route | Neighbour | None:
    """The row that a message of rtnetlink's groups is about; None for what the lists leave out, too."""
    match kind:
        case nl.RTM_NEWLINK | nl.RTM_DELLINK:
            return _link(body)
        case nl.RTM_NEWADDR | nl.RTM_DELADDR:
            return _address(body)
        case nl.RTM_NEWROUTE | nl.RTM_DELROUTE:
            return _route(body)
        case nl.RTM_NEWNEIGH | nl.RTM_DELNEIGH:
            return _neighbour(body)
        case _:
            return None


def some_links(sock: Socket, indices: Iterable[int]) -> list[Link]:
    """The links with these indices that there are."""
    return [_link(body) for body in sock.ask([nl.get_link(index) for index in indices])]


def links(sock: Socket) -> list[Link]:
    """Every link, in order of index."""
    return sorted(_link(body) for kind, body in sock.dump(nl.get_links()) if kind == nl.RTM_NEWLINK)


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = nl.IFINFO.unpack_from(body)
    found = nl.attributes(body, nl.IFINFO.size)
    info = nl.attributes(found.get(nl.IFLA_LINKINFO, b""))
    netnsid = found.get(nl.IFLA_LINK_NETNSID)
    return Link(
        index,
        _text(found.get(nl.IFLA_IFNAME, b"")),
        flags,
        found.get(nl.IFLA_ADDRESS, b"").hex(":"),
        _u32(found.get(nl.IFLA_MTU)),
        _u32(found.get(nl.IFLA_MASTER)),
        _text(info.get(nl.IFLA_INFO_KIND, b"")),
        tuple(_altnames(found.get(nl.IFLA_PROP_LIST, b""))),
        _u32(found.get(nl.IFLA_LINK)),
        struct.unpack("=i", netnsid)[0] if netnsid else None,
        found.get(nl.IFLA_OPERSTATE, b"\0")[0],
    )


def _altnames(data: bytes) -> Iterator[str]:
    """A list of attributes of one type, which `attributes` would fold into one."""
    offset = 0
    while offset + 4 <= len(data):
        length, _ = struct.unpack_from("=HH", data, offset)
        if length < 4:
            return
        yield _text(data[offset + 4 : offset + length])
        offset += (length + 3) & ~3


def addresses(sock: Socket) -> list[DeviceAddress]:
    """Every address of either family, in the kernel's order."""
    request = Message(nl.RTM_GETADDR, 0, nl.IFADDR.pack(0, 0, 0, 0, 0))
    return [_address(body) for kind, body in sock.dump(request) if kind == nl.RTM_NEWADDR]


def _address(body: bytes) -> DeviceAddress:
    _, prefixlen, flags, scope, index = nl.IFADDR.unpack_from(body)
    found = nl.attributes(body, nl.IFADDR.size)
    raw = found.get(2) or found[1]
    broadcast = str(ip_address(found[4])) if 4 in found else ""
    return DeviceAddress(
        index, ip_address(raw), prefixlen, scope, _u32(found.get(8)) or flags, broadcast, _text(found.get(3, b""))
    )


def routes(sock: Socket, table: int = MAIN_TABLE) -> list[Route]:
    """Every route of one table, either family, in the kernel's order; cached and cloned ones are left out."""
    found: list[Route] = []
    for af in (socket.AF_INET, socket.AF_INET6):
        request = Message(nl.RTM_GETROUTE, 0, nl.RTMSG.pack(af, 0, 0, 0, 0, 0, 0, 0, 0))
        try:
            rows = sock.dump(request)
        except OSError:  # a kernel without IPv6
            continue
        for kind, body in rows:
            if kind == nl.RTM_NEWROUTE and (route := _route(body)) is not None and route.table == table:
                found.append(route)
    return found


def _route(body: bytes) -> Route | None:
    af, prefixlen, _, _, table, protocol, scope, kind, flags = nl.RTMSG.unpack_from(body)
    if af not in (socket.AF_INET, socket.AF_INET6) or flags & 0x200:  # RTM_F_CLONED
        return None
    found = nl.attributes(body, nl.RTMSG.size)
    destination = found.get(1, b"\0" * (4 if af == socket.AF_INET else 16))
    hops = [(_gateway(found), _u32(found.get(4)), flags & 0xFF)]
    if 9 in found:  # RTA_MULTIPATH
        hops = list(_multipath(found[9]))
    return Route(
        ip_network((destination, prefixlen)),
        kind,
        _u32(found.get(15)) or table,
        protocol,
        scope,
        _u32(found.get(6)),
        ip_address(found[7]) if 7 in found else None,
        tuple(hops),
    )


def _gateway(found: dict[int, bytes]) -> Address | None:
    if 5 in found:
        return ip_address(found[5])
    return ip_address(found[18][2:]) if 18 in found else None


def _multipath(data: bytes) -> Iterator[tuple[Address | None, int, int]]:
    offset = 0
    while offset + 8 <= len(data):
        length, flags, _, index = struct.unpack_from("=HBBi", data, offset)
        if length < 8:
            return
        yield _gateway(nl.attributes(data[offset + 8 : offset + length])), index, flags
        offset += (length + 3) & ~3


def neighbours(sock: Socket) -> list[Neighbour]:
    """Every neighbour entry of either family that has a state (not NOARP, which the kernel makes for itself)."""
    request = Message(nl.RTM_GETNEIGH, 0, nl.NDMSG.pack(0, 0, 0, 0, 0))
    rows = (_neighbour(body) for kind, body in sock.dump(request) if kind == nl.RTM_NEWNEIGH)
    return [row for row in rows if row is not None]


def _neighbour(body: bytes) -> Neighbour | None:
    af, index, state, flags, _ = nl.NDMSG.unpack_from(body)
    attributes = nl.attributes(body, nl.NDMSG.size)
    if af not in (socket.AF_INET, socket.AF_INET6) or state & 0x40 or 1 not in attributes:
        return None
    return Neighbour(index, ip_address(attributes[1]), attributes.get(2, b"").hex(":"), state, flags)


def forwarding(sock: Socket) -> list[Forwarding]:
    """Every entry of a forwarding database that says to which machine frames are carried."""
    request = Message(nl.RTM_GETNEIGH, 0, nl.NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0))
    found = []
    for kind, body in sock.dump(request):
        _, index, state, _, _ = nl.NDMSG.unpack_from(body)
        attributes = nl.attributes(body, nl.NDMSG.size)
        if kind == nl.RTM_NEWNEIGH and 1 in attributes and 2 in attributes:
            found.append(Forwarding(index, attributes[2].hex(":"), ip_address(attributes[1]), state))
    return found


def static_stations(sock: Socket) -> set[tuple[int, str]]:
    """(index of the port, MAC) of every static entry of bridges' forwarding databases."""
    request = Message(nl.RTM_GETNEIGH, 0, nl.NDMSG.pack(socket.AF_BRIDGE, 0, 0, 0, 0))
    found = set()
    for kind, body in sock.dump(request):
        _, index, state, _, _ = nl.NDMSG.unpack_from(body)
        attributes = nl.attributes(body, nl.NDMSG.size)
        if kind == nl.RTM_NEWNEIGH and state & nl.NUD_NOARP and 2 in attributes and 9 in attributes:  # NDA_LLADDR, NDA_MASTER
            found.add((index, attributes[2].hex(":")))
    return found


def _u32(data: bytes | None) -> int:
    return int(struct.unpack("=I", data)[0]) if data else 0


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
