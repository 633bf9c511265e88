"""Netlink messages packed by hand: the hot path of building a lab, and everything that asks the kernel for lists.

Decides byte layouts only (rtnetlink(7), linux/rtnetlink.h, if_link.h, veth.h, if_addr.h, neighbour.h). Refuses to know
operations, namespaces or names of a lab. Theory: the kernel works through every message of one sendmsg in order, before sendmsg
returns, and answers each failed one; so only the last message asks for an acknowledgement, and whatever came before it is an
error, told apart by sequence number. A new link's index is chosen by us, so nothing has to be read back between messages.

Above 400 lines because the numbers of these headers have no other reader: they are together here, and nowhere else.
"""

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from netlab.model import Address, Network

NETLINK_ROUTE, NETLINK_NETFILTER, NETLINK_GENERIC = 0, 12, 16
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x100, 0x200, 0x400
NLM_F_DUMP_INTR, NLM_F_ACK_TLVS = 0x10, 0x200
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30
RTM_NEWLINKPROP = 108
IFF_UP = 1
RTN_UNICAST, RTN_LOCAL, RTN_ANYCAST, RTN_BLACKHOLE = 1, 2, 4, 6
NUD_PERMANENT = 0x80
NUD_NOARP = 0x40
"""Of a bridge's forwarding entry: static, it does not age."""
NTF_SELF, NTF_MASTER = 0x02, 0x04
IFA_F_NODAD, IFA_F_NOPREFIXROUTE = 0x02, 0x200

_HEADER = struct.Struct("=IHHII")
_ATTR = struct.Struct("=HH")
_U32 = struct.Struct("=I")
IFINFO = struct.Struct("=BxHiII")
IFADDR = struct.Struct("=BBBBI")
RTMSG = struct.Struct("=BBBBBBBBI")
NDMSG = struct.Struct("=BxxxiHBB")
_PADS = (b"", b"\0\0\0", b"\0\0", b"\0")
_SOL_NETLINK, _NETLINK_CAP_ACK, _NETLINK_EXT_ACK = 270, 10, 11
_BATCH = 128
"""Messages in one sendmsg: were all of them refused, the answers must fit into the default receive buffer (212,992 bytes)."""
_QUESTIONS = 16
"""Questions in one sendmsg: an answer is some kilobytes."""
_ACCEPTS_DUMP_BYTES = 1 << 18


class Message(NamedTuple):
    """A request without its header; `flags` beside NLM_F_REQUEST."""

    kind: int
    flags: int
    body: bytes


class Refused(NamedTuple):
    """The kernel refused the message at `position`: errno and its own words."""

    position: int
    errno: int
    text: str


class Socket:
    """A netlink socket, bound for good to the network namespace in which it was opened."""

    def __init__(self, protocol: int = NETLINK_ROUTE) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, messages: Sequence[Message]) -> list[Refused]:
        """Send all messages, in order; a refused one does not stop those after it. Returns the refusals."""
        refused: list[Refused] = []
        for start in range(0, len(messages), _BATCH):
            refused += self._run(messages[start : start + _BATCH], start)
        return refused

    def transact(self, messages: Sequence[Message], acked: int) -> list[Refused]:
        """As run, for an nfnetlink batch: its last message is not answered, the one at index `acked` is."""
        return self._run(messages, 0, acked)

    def _run(self, messages: Sequence[Message], start: int, acked: int = -1) -> list[Refused]:
        first = self._sequence + 1
        self._sequence += len(messages)
        last = first + (acked if acked >= 0 else len(messages) - 1)
        parts: list[bytes] = []
        for sequence, (kind, flags, body) in enumerate(messages, first):
            ack = NLM_F_ACK if sequence == last else 0
            parts += (_HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | flags | ack, sequence, 0), body, _PADS[len(body) & 3])
        self._socket.send(b"".join(parts))
        refused: list[Refused] = []
        while True:
            for kind, flags, sequence, body in split_messages(self._socket.recv(65536)):
                if kind != NLMSG_ERROR or sequence < first:
                    continue
                number, text = _error(flags, body)
                if number:
                    refused.append(Refused(start + sequence - first, number, text))
                if sequence == last:
                    return refused

    def ask(self, messages: Sequence[Message]) -> list[bytes]:
        """The answers to questions that have one answer each; a refused one is left out."""
        found: list[bytes] = []
        for start in range(0, len(messages), _QUESTIONS):
            found += self._ask(messages[start : start + _QUESTIONS])
        return found

    def _ask(self, messages: Sequence[Message]) -> list[bytes]:
        first = self._sequence + 1
        self._sequence += len(messages)
        parts: list[bytes] = []
        for sequence, (kind, flags, body) in enumerate(messages, first):
            parts += (_HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | flags, sequence, 0), body, _PADS[len(body) & 3])
        self._socket.send(b"".join(parts))
        answers: dict[int, bytes] = {}
        while len(answers) < len(messages):
            for kind, _, sequence, body in split_messages(self._socket.recv(_ACCEPTS_DUMP_BYTES)):
                if sequence >= first:
                    answers[sequence] = b"" if kind == NLMSG_ERROR else body
        return [body for body in answers.values() if body]

    def dump(self, message: Message) -> list[tuple[int, bytes]]:
        """Every (message type, body) that the kernel lists. Shape: kernel order. Raises OSError."""
        while True:
            complete, rows = self._dump(message)
            if complete:
                return rows

    def _dump(self, message: Message) -> tuple[bool, list[tuple[int, bytes]]]:
        self._sequence += 1
        header = _HEADER.pack(16 + len(message.body), message.kind, NLM_F_REQUEST | NLM_F_DUMP | message.flags, self._sequence, 0)
        self._socket.send(header + message.body)
        rows: list[tuple[int, bytes]] = []
        complete = True
        while True:
            for kind, flags, sequence, body in split_messages(self._socket.recv(_ACCEPTS_DUMP_BYTES)):
                if sequence != self._sequence:
                    continue
                complete = complete and not flags & NLM_F_DUMP_INTR
                if kind in (NLMSG_DONE, NLMSG_ERROR):
                    number, text = _error(flags, body)
                    if number:
                        raise OSError(number, text)
                    return complete, rows
                rows.append((kind, body))


def _error(flags: int, body: bytes) -> tuple[int, str]:
    """errno and the kernel's words of an NLMSG_ERROR or NLMSG_DONE."""
    number = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
    if number <= 0:
        return 0, ""
    text = ""
    if flags & NLM_F_ACK_TLVS and len(body) >= 20:
        text = attributes(body[20:]).get(1, b"").rstrip(b"\0").decode(errors="replace")
    return number, f"{os.strerror(number)}: {text}" if text else os.strerror(number)


def split_messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message in one datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, offset)
        if length < 16:
            return
        yield kind, flags, sequence, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """Type -> payload of a row of attributes (the last one wins); the nested and byte-order bits are taken off."""
    found: dict[int, bytes] = {}
    while offset + 4 <= len(data):
        length, kind = _ATTR.unpack_from(data, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def attr(kind: int, data: bytes) -> bytes:
    length = 4 + len(data)
    return _ATTR.pack(length, kind) + data + _PADS[length & 3]


def attr_u32(kind: int, value: int) -> bytes:
    return _ATTR.pack(8, kind) + _U32.pack(value)


def attr_text(kind: int, text: str) -> bytes:
    return attr(kind, text.encode() + b"\0")


def mac_bytes(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


# ---------------------------------------------------------------- links

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_LINK, IFLA_MASTER, IFLA_OPERSTATE, IFLA_LINKINFO = 1, 3, 4, 5, 10, 16, 18
IFLA_GROUP, IFLA_NET_NS_FD, IFLA_EXT_MASK, IFLA_LINK_NETNSID = 27, 28, 29, 37
IFLA_PROP_LIST, IFLA_ALT_IFNAME = 52, 53
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
_IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 31, 32
_BR_FORWARD_DELAY, _BR_STP_STATE, _BR_MCAST_SNOOPING = 1, 5, 23
_VETH_INFO_PEER = 1
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT, _VXLAN_LOCAL6 = 1, 4, 7, 15, 17
_NESTED = 0x8000
_ONE_QUEUE = attr_u32(_IFLA_NUM_TX_QUEUES, 1) + attr_u32(_IFLA_NUM_RX_QUEUES, 1)
"""One queue an end: the kernel's default is one a processor, which only costs time and memory here."""
_NEW = NLM_F_CREATE | NLM_F_EXCL


class End(NamedTuple):
    """One end of a veth pair to be made."""

    ifindex: int
    name: str
    mac: str
    up: bool


def veth(end: End, peer: End, peer_netns_fd: int, mtu_bytes: int, master: int = 0) -> Message:
    """Both ends in one message: names, MACs, MTU, state; `end` a port of `master`; `peer` in another namespace.

    The peer is made down whatever it says: the kernel brings it up before the two are joined, and refuses (ENOTCONN).
    """
    info = _end(peer._replace(up=False), mtu_bytes) + attr_u32(IFLA_NET_NS_FD, peer_netns_fd)
    data = attr(_VETH_INFO_PEER | _NESTED, info)
    body = _end(end, mtu_bytes) + _linkinfo("veth", data)
    return Message(RTM_NEWLINK, _NEW, body + attr_u32(IFLA_MASTER, master) if master else body)


def _end(end: End, mtu_bytes: int) -> bytes:
    up = IFF_UP if end.up else 0
    mac = attr(IFLA_ADDRESS, mac_bytes(end.mac)) if end.mac else b""
    name = attr_text(IFLA_IFNAME, end.name)
    return IFINFO.pack(0, 0, end.ifindex, up, up) + name + mac + attr_u32(IFLA_MTU, mtu_bytes) + _ONE_QUEUE


def bridge(index: int, name: str, mac: str, mtu_bytes: int) -> Message:
    """A bridge that is up: no spanning tree, no forward delay, no multicast snooping."""
    settings = attr_u32(_BR_FORWARD_DELAY, 0) + attr_u32(_BR_STP_STATE, 0) + attr(_BR_MCAST_SNOOPING, b"\0")
    names = attr_text(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, mac_bytes(mac)) + attr_u32(IFLA_MTU, mtu_bytes)
    return Message(RTM_NEWLINK, _NEW, IFINFO.pack(0, 0, index, IFF_UP, IFF_UP) + names + _linkinfo("bridge", settings))


def _linkinfo(kind: str, data: bytes = b"") -> bytes:
    body = attr(IFLA_INFO_KIND, kind.encode())
    return attr(IFLA_LINKINFO | _NESTED, body + attr(IFLA_INFO_DATA | _NESTED, data) if data else body)


def vxlan(index: int, name: str, mac: str, mtu_bytes: int, vni: int, local: Address, port: int) -> Message:
    """A VXLAN device that is up, learns no addresses, and has nobody to flood to."""
    data = attr_u32(_VXLAN_ID, vni) + attr(_VXLAN_LOCAL if local.version == 4 else _VXLAN_LOCAL6, local.packed)
    data += attr(_VXLAN_LEARNING, b"\0") + attr(_VXLAN_PORT, port.to_bytes(2, "big"))
    names = attr_text(IFLA_IFNAME, name) + attr(IFLA_ADDRESS, mac_bytes(mac)) + attr_u32(IFLA_MTU, mtu_bytes)
    return Message(RTM_NEWLINK, _NEW, IFINFO.pack(0, 0, index, IFF_UP, IFF_UP) + names + _linkinfo("vxlan", data))


def new_link(name: str, kind: str, index: int = 0) -> Message:
    """Any other kind of link, with its defaults and down (also used to ask the kernel whether it has the kind)."""
    return Message(RTM_NEWLINK, _NEW, IFINFO.pack(0, 0, index, 0, 0) + attr_text(IFLA_IFNAME, name) + _linkinfo(kind))


def set_link(
    ifindex: int,
    *,
    up: bool | None = None,
    mac: str = "",
    mtu_bytes: int = 0,
    master: int | None = None,
    group: int | None = None,
) -> Message:
    """Change a link; what is not given stays. `master` 0 takes it out of its bridge."""
    body = IFINFO.pack(0, 0, ifindex, IFF_UP if up else 0, 0 if up is None else IFF_UP)
    if mac:
        body += attr(IFLA_ADDRESS, mac_bytes(mac))
    if mtu_bytes:
        body += attr_u32(IFLA_MTU, mtu_bytes)
    if master is not None:
        body += attr_u32(IFLA_MASTER, master)
    if group is not None:
        body += attr_u32(IFLA_GROUP, group)
    return Message(RTM_NEWLINK, 0, body)


def add_altname(index: int, altname: str) -> Message:
    properties = attr(IFLA_PROP_LIST | _NESTED, attr_text(IFLA_ALT_IFNAME, altname))
    return Message(RTM_NEWLINKPROP, _NEW, IFINFO.pack(0, 0, index, 0, 0) + properties)


def del_link(index: int) -> Message:
    return Message(RTM_DELLINK, 0, IFINFO.pack(0, 0, index, 0, 0))


def del_link_group(group: int) -> Message:
    """Delete every link of the group: many cost hardly more than one (a single RCU barrier)."""
    return Message(RTM_DELLINK, 0, IFINFO.pack(0, 0, 0, 0, 0) + attr_u32(IFLA_GROUP, group))


def get_links() -> Message:
    """To be dumped: every link, without its counters."""
    return get_link(0)


def get_link(ifindex: int) -> Message:
    """One link. Since Linux 6.5 the kernel first takes note of a change of its carrier that it has not dealt with yet."""
    skip_statistics = 8
    return Message(RTM_GETLINK, 0, IFINFO.pack(0, 0, ifindex, 0, 0) + attr_u32(IFLA_EXT_MASK, skip_statistics))


# ---------------------------------------------------------------- addresses, routes, neighbours

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_PREFSRC, _RTA_VIA = 1, 4, 5, 6, 7, 18
_NDA_DST, _NDA_LLADDR = 1, 2
_MAIN_TABLE, _PROTOCOL_KERNEL, _PROTOCOL_STATIC, _SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_HOST, _SCOPE_NOWHERE = (
    254,
    2,
    4,
    0,
    253,
    254,
    255,
)
_ONLINK = 4


def family(version: int) -> int:
    return socket.AF_INET if version == 4 else socket.AF_INET6


def add_address(index: int, address: Address, prefixlen: int, prefix_route: bool) -> Message:
    """Add an address; an IPv6 one is usable at once (no duplicate address detection: the plan made sure)."""
    return Message(RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, _address(index, address, prefixlen, prefix_route))


def del_address(index: int, address: Address, prefixlen: int) -> Message:
    return Message(RTM_DELADDR, 0, _address(index, address, prefixlen, True))


def _address(index: int, address: Address, prefixlen: int, prefix_route: bool) -> bytes:
    raw = address.packed
    flags = (0 if prefix_route else IFA_F_NOPREFIXROUTE) | (IFA_F_NODAD if address.version == 6 else 0)
    scope = (
        _SCOPE_HOST if address.is_loopback else _SCOPE_LINK if address.version == 6 and address.is_link_local else _SCOPE_UNIVERSE
    )
    body = IFADDR.pack(family(address.version), prefixlen, flags & 0xFF, scope, index)
    body += attr(_IFA_LOCAL, raw) + attr(_IFA_ADDRESS, raw) + attr_u32(_IFA_FLAGS, flags)
    if address.version == 4 and prefixlen < 31:
        host_bits = (1 << (32 - prefixlen)) - 1
        body += attr(_IFA_BROADCAST, (int(address) | host_bits).to_bytes(4, "big"))
    return body


class Hop(NamedTuple):
    """Where a route leads. Ifindex 0 with a gateway: the kernel finds the device. `blackhole` has neither."""

    ifindex: int = 0
    gateway: Address | None = None
    source: Address | None = None
    onlink: bool = False
    blackhole: bool = False


def set_route(destination: Network, hop: Hop) -> Message:
    """Add the route, or put it in the place of the one with the same destination."""
    return Message(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, _route(destination, hop, _PROTOCOL_STATIC, None))


def connected_route(network: Network, ifindex: int, source: Address) -> Message:
    """The route that the kernel makes with an address, as the kernel makes it."""
    hop = Hop(ifindex, source=source if network.version == 4 else None)
    body = _route(network, hop, _PROTOCOL_KERNEL, None)
    return Message(
        RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, body + attr_u32(_RTA_PRIORITY, 256) if network.version == 6 else body
    )


def get_route(destination: Address) -> Message:
    """To be asked: the route that a packet for this address takes."""
    body = RTMSG.pack(family(destination.version), destination.max_prefixlen, 0, 0, 0, 0, 0, 0, 0)
    return Message(RTM_GETROUTE, 0, body + attr(_RTA_DST, destination.packed))


def del_route(destination: Network, hop: Hop, metric: int = 0) -> Message:
    """Delete the route to `destination` that has what the hop says, whoever made it; metric 0: whatever its metric is."""
    body = _route(destination, hop, 0, _SCOPE_NOWHERE)
    return Message(RTM_DELROUTE, 0, body + attr_u32(_RTA_PRIORITY, metric) if metric else body)


def _route(destination: Network, hop: Hop, protocol: int, scope: int | None) -> bytes:
    if scope is None:
        scope = _SCOPE_UNIVERSE if hop.gateway or hop.blackhole or destination.version == 6 else _SCOPE_LINK
    kind = RTN_BLACKHOLE if hop.blackhole else RTN_UNICAST if protocol else 0  # 0 in a deletion: any
    flags = _ONLINK if hop.onlink else 0
    af = family(destination.version)
    body = RTMSG.pack(af, destination.prefixlen, 0, 0, _MAIN_TABLE, protocol, scope, kind, flags)
    if destination.prefixlen:
        body += attr(_RTA_DST, destination.network_address.packed)
    if hop.gateway is not None and hop.gateway.version != destination.version:
        body += attr(_RTA_VIA, struct.pack("=H", family(hop.gateway.version)) + hop.gateway.packed)
    elif hop.gateway is not None:
        body += attr(_RTA_GATEWAY, hop.gateway.packed)
    if hop.ifindex:
        body += attr_u32(_RTA_OIF, hop.ifindex)
    return body + attr(_RTA_PREFSRC, hop.source.packed) if hop.source else body


def set_neighbour(index: int, address: Address, mac: str) -> Message:
    """A permanent neighbour entry, new or in the place of what was there."""
    body = NDMSG.pack(family(address.version), index, NUD_PERMANENT, 0, 0) + attr(_NDA_DST, address.packed)
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body + attr(_NDA_LLADDR, mac_bytes(mac)))


def set_forwarding(index: int, mac: str, remote: Address) -> Message:
    """A permanent entry in a VXLAN device's own forwarding database, new or in the place of what was there."""
    body = NDMSG.pack(socket.AF_BRIDGE, index, NUD_PERMANENT, NTF_SELF, 0) + attr(_NDA_LLADDR, mac_bytes(mac))
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body + attr(_NDA_DST, remote.packed))


def set_port_forwarding(port: int, mac: str) -> Message:
    """A static entry in the forwarding database of the port's bridge, new or in the place of what was there."""
    body = NDMSG.pack(socket.AF_BRIDGE, port, NUD_NOARP, NTF_MASTER, 0) + attr(_NDA_LLADDR, mac_bytes(mac))
    return Message(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, body)


def del_forwarding(index: int, mac: str) -> Message:
    return Message(RTM_DELNEIGH, 0, NDMSG.pack(socket.AF_BRIDGE, index, 0, NTF_SELF, 0) + attr(_NDA_LLADDR, mac_bytes(mac)))


def del_neighbour(index: int, address: Address) -> Message:
    return Message(RTM_DELNEIGH, 0, NDMSG.pack(family(address.version), index, 0, 0, 0) + attr(_NDA_DST, address.packed))
