"""The speaker: answers ARP requests and neighbour solicitations for load balancers' addresses in the name of nodes.

A node that announces an address (`loadBalancer: {announce: l2}`) does not have it: packets to it are the Service proxy's. So the
kernel would not answer; this process does, as MetalLB's speaker does, with a packet socket on the node's own interface. When a
node takes an address over, it says so unasked (gratuitous ARP, unsolicited neighbour advertisement, RFC 4861 7.2.6), and once
more after a second. Refuses to know who announces what, and why.
"""

import contextlib
import errno
import selectors
import socket
import struct
import time
from collections.abc import Mapping, Sequence
from ctypes import addressof, create_string_buffer
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from netlab.kernel import agent
from netlab.kernel.namespaces import current_netns, entered
from netlab.kernel.netlink import mac_bytes
from netlab.kernel.rules import opened
from netlab.model import Address
from netlab.ops import Announcement, Identity

AGAIN_S = 1.0
_ETH_ARP, _ETH_IPV6, _ICMPV6 = 0x0806, 0x86DD, 58
_REQUEST, _REPLY = 1, 2
_SOLICITATION, _ADVERTISEMENT = 135, 136
_SOLICITED, _OVERRIDE = 0x40000000, 0x20000000
_ALL_NODES = IPv6Address("ff02::1")
_BROADCAST, _ALL_NODES_MAC = b"\xff" * 6, bytes.fromhex("333300000001")
_SO_ATTACH_FILTER = 26
_ONLY_SOLICITATIONS = (
    (0x30, 0, 0, 20),
    (0x15, 0, 3, _ICMPV6),
    (0x30, 0, 0, 54),
    (0x15, 0, 1, _SOLICITATION),
    (6, 0, 0, 0x40000),
    (6, 0, 0, 0),
)
"""Classic BPF on the whole frame: next header ICMPv6, type 135."""
_DOWN = (errno.ENETDOWN, errno.ENXIO, errno.ENOBUFS)


@dataclass(slots=True)
class _Ear:
    """A packet socket on one interface for one protocol, and the addresses that are answered for there."""

    sock: socket.socket
    spoken_for: dict[Address, Announcement]


class Speaker:
    """All announcements of one lab."""

    def __init__(self) -> None:
        self._home = current_netns()
        self._selector = selectors.DefaultSelector()
        self._ears: dict[tuple[str, str, int], _Ear] = {}
        self._known: dict[Identity, tuple[tuple[str, str, int], Announcement]] = {}
        self._again: list[tuple[float, Identity]] = []

    def announce(self, wanted: Sequence[tuple[str, Announcement]]) -> None:
        """Answer for these from now on, and say so; `wanted`: (path of the namespace, what)."""
        for path, op in wanted:
            self._forget(op.identity)
            place = (path, op.device, op.address.version)
            if place not in self._ears:
                self._ears[place] = ear = _Ear(self._open(*place), {})
                self._selector.register(ear.sock, selectors.EVENT_READ, ear)
            self._ears[place].spoken_for[op.address] = op
            self._known[op.identity] = (place, op)
            self._say(op.identity)
            self._again.append((time.monotonic() + AGAIN_S, op.identity))

    def withdraw(self, gone: Sequence[Identity]) -> None:
        """Answer for these no more. Nobody is told: whoever asks again gets no answer, or another's."""
        for identity in gone:
            self._forget(identity)

    def announcing(self) -> list[Identity]:
        return list(self._known)

    def serve(self, orders: socket.socket) -> None:
        """Answer the lab's requests and the network's, until the lab has gone."""
        methods: Mapping[str, Any] = {"announce": self.announce, "withdraw": self.withdraw, "announcing": self.announcing}
        self._selector.register(orders, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select(self._pause()):
                if key.fileobj is orders:
                    try:
                        agent.answer_one(orders, methods)
                    except (EOFError, ConnectionError):
                        return
                elif isinstance(key.data, _Ear):
                    self._hear(key.data)
            self._repeat()

    def _open(self, path: str, device: str, version: int) -> socket.socket:
        protocol = _ETH_ARP if version == 4 else _ETH_IPV6
        with opened(path) as fd, entered(fd, self._home):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
            if version == 6:
                program = b"".join(struct.pack("=HBBI", *step) for step in _ONLY_SOLICITATIONS)
                buffer = create_string_buffer(program)
                header = struct.pack("@HP", len(_ONLY_SOLICITATIONS), addressof(buffer))
                sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
            sock.bind((device, protocol))
        return sock

    def _forget(self, identity: Identity) -> None:
        known = self._known.pop(identity, None)
        if known is None:
            return
        place, op = known
        ear = self._ears[place]
        ear.spoken_for.pop(op.address, None)
        if not ear.spoken_for:
            self._selector.unregister(ear.sock)
            ear.sock.close()
            del self._ears[place]

    # ------------------------------------------------------------ saying

    def _pause(self) -> float | None:
        return max(0.0, self._again[0][0] - time.monotonic()) if self._again else None

    def _repeat(self) -> None:
        while self._again and self._again[0][0] <= time.monotonic():
            self._say(self._again.pop(0)[1])

    def _say(self, identity: Identity) -> None:
        if identity not in self._known:
            return
        place, op = self._known[identity]
        for frame in unasked(op):
            _send(self._ears[place].sock, frame)

    def _hear(self, ear: _Ear) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data, (_, _, kind, *_) = ear.sock.recvfrom(2048)
                except OSError as error:
                    if error.errno in _DOWN:  # the interface went down; what it hears when it is up again comes here, too
                        return
                    raise
                if kind != socket.PACKET_OUTGOING:
                    frame = answer(data, ear.spoken_for)
                    if frame:
                        _send(ear.sock, frame)


def _send(sock: socket.socket, frame: bytes) -> None:
    try:
        sock.send(frame)
    except OSError as error:
        if error.errno not in _DOWN:
            raise


# ---------------------------------------------------------------- frames


def unasked(op: Announcement) -> list[bytes]:
    """What tells everyone on the LAN to send to this machine from now on: both forms of gratuitous ARP, or an advertisement."""
    mac = mac_bytes(op.mac)
    if isinstance(op.address, IPv4Address):
        own = op.address.packed
        return [
            _arp(_BROADCAST, mac, _REQUEST, own, b"\0" * 6, own),
            _arp(_BROADCAST, mac, _REPLY, own, _BROADCAST, own),
        ]
    return [_advertisement(op, _ALL_NODES_MAC, _ALL_NODES, _OVERRIDE)]


def answer(frame: bytes, spoken_for: Mapping[Address, Announcement]) -> bytes:
    """The answer to an ARP request or a neighbour solicitation for one of the addresses; b'' for anything else."""
    kind = int.from_bytes(frame[12:14], "big")
    if kind == _ETH_ARP and len(frame) >= 42 and frame[20:22] == b"\0\1":
        op = spoken_for.get(IPv4Address(frame[38:42]))
        asker, asks_from = frame[22:28], frame[28:32]
        # Who asks with the address as its own does not ask, but says that it has it (RFC 5227).
        if op is None or asks_from == op.address.packed:
            return b""
        return _arp(asker, mac_bytes(op.mac), _REPLY, op.address.packed, asker, asks_from)
    if kind == _ETH_IPV6 and len(frame) >= 78 and frame[20] == _ICMPV6 and frame[54] == _SOLICITATION:
        asked, source = spoken_for.get(ip_address(frame[62:78])), IPv6Address(frame[22:38])
        if asked is None or source.is_unspecified:
            return b""
        return _advertisement(asked, frame[6:12], source, _SOLICITED | _OVERRIDE)
    return b""


def _arp(to: bytes, mac: bytes, operation: int, sender: bytes, target_mac: bytes, target: bytes) -> bytes:
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + mac + sender + target_mac + target
    return to + mac + _ETH_ARP.to_bytes(2, "big") + body


def _advertisement(op: Announcement, to: bytes, destination: IPv6Address, flags: int) -> bytes:
    mac = mac_bytes(op.mac)
    source = op.source.packed
    body = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, flags) + op.address.packed + b"\2\1" + mac
    pseudo = source + destination.packed + struct.pack("!II", len(body), _ICMPV6)
    body = body[:2] + _checksum(pseudo + body).to_bytes(2, "big") + body[4:]
    header = struct.pack("!IHBB", 0x60000000, len(body), _ICMPV6, 255) + source + destination.packed
    return to + mac + _ETH_IPV6.to_bytes(2, "big") + header + body


def _checksum(data: bytes) -> int:
    """RFC 1071."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def serve(sock: socket.socket) -> None:
    """Be the speaker until the lab has gone."""
    Speaker().serve(sock)
