"""Packets that carry a token: how they are made, and how they are known again wherever they turn up.

Decides where the token stands. A run is a random 16-bit number, an index tells the flows of one run apart:
    TCP    initial sequence number = run << 16 | index; the answer acknowledges it plus one, whatever NAT did to addresses
    SCTP   initiate tag, the same number; the answer carries it as verification tag
    UDP    payload `netl` + run and index as eight hexadecimal digits
    ICMP   the same payload in an echo request, whose sequence number is the index
ICMP errors quote the packet's start and so the token. The first packet of a kind is built by scapy (never its conf or sockets,
and imported on first use: it takes 0.25 s); further ones differ in a few 16-bit words, patched with their checksum.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Any, NamedTuple

from netlab.model import Protocol

MAGIC = b"netl"
MAX_INDEX = 0xFFF0
OWN_TEST = 0xFFF8
"""The index of the watchers' own test packets; flows have indices below MAX_INDEX."""

NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132, Protocol.ICMP: 1}
_TCP = struct.Struct("!HHIIBB")
_SCTP = struct.Struct("!HHI")

UNREACHABLE = {
    0: "net",
    1: "host",
    2: "protocol",
    3: "port",
    9: "net prohibited",
    10: "host prohibited",
    13: "administratively prohibited",
}


class Kind(IntEnum):
    """What a packet is to its flow."""

    REQUEST = 1
    REPLY = 2
    REFUSAL = 3
    ICMP_ERROR = 4


class Seen(NamedTuple):
    """One packet of a run; `number` is its index. `error` of an ICMP error: type, code, quoted source, destination, ports."""

    kind: Kind
    number: int
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    error: tuple[int, int, bytes, bytes, int, int] | None = None


@dataclass(frozen=True, slots=True)
class Template:
    """Makes the packets of one flow: `fill(index, source_port)` gives the bytes from the IP header on."""

    fill: Callable[[int, int], bytes]


def payload(run: int, index: int) -> bytes:
    return MAGIC + f"{run:04x}{index:04x}".encode()


def template(run: int, protocol: Protocol, source: IPv4Address, destination: IPv4Address, port: int) -> Template:
    """The packets of one flow. Source port 0 of a filled packet stands for 0."""

    def build(index: int, source_port: int) -> bytes:
        return bytes(scapy_packet(run, protocol, source, destination, port, index, source_port))

    match protocol:
        case Protocol.SCTP:  # a CRC-32c cannot be patched cheaply, and nobody sends many
            return Template(build)
        case Protocol.TCP:
            return Template(_patcher(build(0, 0), 36, lambda index, source_port: ((20, source_port), (26, index))))
        case Protocol.UDP:
            return Template(_patcher(build(0, 0), 26, lambda index, source_port: ((20, source_port), *_hex_words(36, index))))
        case Protocol.ICMP:
            words = lambda index, source_port: ((24, source_port), (26, index), *_hex_words(36, index))  # noqa: E731
            return Template(_patcher(build(0, 0), 22, words))


def _hex_words(offset: int, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
    text = f"{index:04x}".encode()
    return (offset, int.from_bytes(text[:2], "big")), (offset + 2, int.from_bytes(text[2:], "big"))


def _patcher(
    model: bytes, checksum_at: int, words: Callable[[int, int], tuple[tuple[int, int], ...]]
) -> Callable[[int, int], bytes]:
    """Sets 16-bit words and mends the checksum by the difference (RFC 1624)."""
    original = {at: int.from_bytes(model[at : at + 2], "big") for at, _ in words(0, 0)}
    base = int.from_bytes(model[checksum_at : checksum_at + 2], "big") ^ 0xFFFF
    base += sum(value ^ 0xFFFF for value in original.values())
    udp = model[9] == 17

    def fill(index: int, source_port: int) -> bytes:
        packet = bytearray(model)
        total = base
        for at, value in words(index, source_port):
            packet[at], packet[at + 1] = value >> 8, value & 0xFF
            total += value
        packet[4], packet[5] = (index + 1) >> 8 & 0xFF, (index + 1) & 0xFF  # IP id: not zero, or the kernel picks one
        total = (total & 0xFFFF) + (total >> 16)
        total = ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF
        if udp and total == 0:
            total = 0xFFFF
        packet[checksum_at], packet[checksum_at + 1] = total >> 8, total & 0xFF
        return bytes(packet)

    return fill


def own_test(run: int, protocol: Protocol) -> Callable[[IPv4Address], bytes]:
    """The packet by which a watcher proves itself: from an address to itself, port 1."""
    home = IPv4Address("127.0.0.1")
    model = bytes(scapy_packet(run, protocol, home, home, 1, OWN_TEST, 1))
    checksum_at = {Protocol.TCP: 36, Protocol.UDP: 26}.get(protocol)  # the others' checksums do not cover addresses

    def fill(address: IPv4Address) -> bytes:
        packet = bytearray(model)
        packet[12:16] = packet[16:20] = address.packed
        if checksum_at is not None:
            high, low = struct.unpack("!HH", address.packed)
            total = int.from_bytes(model[checksum_at : checksum_at + 2], "big") ^ 0xFFFF
            total += 2 * (0x7F00 ^ 0xFFFF) + 2 * (0x0001 ^ 0xFFFF) + 2 * (high + low)
            total = (total & 0xFFFF) + (total >> 16)
            total = ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF
            packet[checksum_at : checksum_at + 2] = total.to_bytes(2, "big")
        return bytes(packet)

    return fill


def scapy_packet(
    run: int, protocol: Protocol, source: IPv4Address, destination: IPv4Address, port: int, index: int, source_port: int
) -> Any:
    """One packet as scapy builds it: what the templates are made of and tested against."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP

    ip = IP(src=str(source), dst=str(destination), id=index + 1, flags="DF")
    match protocol:
        case Protocol.TCP:
            options = [("MSS", 1460)]
            return ip / TCP(sport=source_port, dport=port, flags="S", seq=run << 16 | index, window=64240, options=options)
        case Protocol.UDP:
            return ip / UDP(sport=source_port, dport=port) / payload(run, index)
        case Protocol.ICMP:
            return ip / ICMP(type=8, id=source_port, seq=index) / payload(run, index)
        case Protocol.SCTP:
            from scapy.layers.sctp import SCTP, SCTPChunkInit

            init = SCTPChunkInit(init_tag=run << 16 | index, a_rwnd=65535, n_out_streams=1, n_in_streams=1, init_tsn=1)
            return ip / SCTP(sport=source_port, dport=port) / init


def summary(data: bytes) -> str:
    """One line about a packet, as scapy dissects it: `IP / TCP 10.0.0.1:1025 > 10.0.0.2:http S`."""
    from scapy.layers.inet import IP

    return str(IP(data).summary())


def seen(data: bytes, run: int) -> Seen | None:
    """What a packet (from its IP header on) is to this run; None for a stranger's or a cut-off one."""
    if len(data) < 28 or data[0] >> 4 != 4:
        return None
    start = (data[0] & 15) * 4
    try:
        match data[9]:
            case 6:
                return _seen_tcp(data, start, run)
            case 17:
                source_port, destination_port = struct.unpack_from("!HH", data, start)
                index = _payload_index(data, start + 8, run)
                if index is None:
                    return None
                return Seen(Kind.REQUEST, index, data[12:16], data[16:20], source_port, destination_port)
            case 1:
                return _seen_icmp(data, start, run)
            case 132:
                return _seen_sctp(data, start, run)
    except struct.error:
        pass
    return None


def _seen_tcp(data: bytes, start: int, run: int) -> Seen | None:
    source_port, destination_port, sequence, acknowledged, _, flags = _TCP.unpack_from(data, start)
    if flags & 0x16 == 0x02:  # SYN, neither ACK nor RST
        if sequence >> 16 != run:
            return None
        return Seen(Kind.REQUEST, sequence & 0xFFFF, data[12:16], data[16:20], source_port, destination_port)
    if flags & 0x10 and acknowledged >> 16 == run and flags & 0x06:
        kind = Kind.REFUSAL if flags & 0x04 else Kind.REPLY
        return Seen(kind, (acknowledged - 1) & 0xFFFF, data[12:16], data[16:20], source_port, destination_port)
    return None


def _seen_sctp(data: bytes, start: int, run: int) -> Seen | None:
    source_port, destination_port, tag = _SCTP.unpack_from(data, start)
    chunk = data[start + 12]
    if chunk == 1:
        (tag,) = struct.unpack_from("!I", data, start + 16)
        kind = Kind.REQUEST
    elif chunk in (2, 6):
        kind = Kind.REPLY if chunk == 2 else Kind.REFUSAL
    else:
        return None
    if tag >> 16 != run:
        return None
    return Seen(kind, tag & 0xFFFF, data[12:16], data[16:20], source_port, destination_port)


def _seen_icmp(data: bytes, start: int, run: int) -> Seen | None:
    kind, code = data[start], data[start + 1]
    if kind in (0, 8):
        index = _payload_index(data, start + 8, run)
        if index is None:
            return None
        return Seen(Kind.REQUEST if kind == 8 else Kind.REPLY, index, data[12:16], data[16:20], 0, 0)
    quoted = data[start + 8 :]
    if kind not in (3, 5, 11) or len(quoted) < 28:
        return None
    inner = (quoted[0] & 15) * 4
    protocol = quoted[9]
    ports = (0, 0) if protocol == 1 else struct.unpack_from("!HH", quoted, inner)
    index = _quoted_index(quoted, inner, protocol, run)
    if index is None:
        return None
    error = (kind, code, quoted[12:16], quoted[16:20], ports[0], ports[1])
    return Seen(Kind.ICMP_ERROR, index, data[12:16], data[16:20], 0, 0, error)


def _quoted_index(quoted: bytes, inner: int, protocol: int, run: int) -> int | None:
    if protocol in (1, 17):
        return _payload_index(quoted, inner + 8, run)
    if protocol not in (6, 132):
        return None
    at = inner + (4 if protocol == 6 else 16)
    if len(quoted) < at + 4:
        return None
    number = int.from_bytes(quoted[at : at + 4], "big")
    return number & 0xFFFF if number >> 16 == run else None


def _payload_index(data: bytes, at: int, run: int) -> int | None:
    if data[at : at + 4] != MAGIC or data[at + 4 : at + 8] != f"{run:04x}".encode():
        return None
    try:
        return int(data[at + 8 : at + 12], 16)
    except ValueError:
        return None


def reset(run: int, source: IPv4Address, destination: IPv4Address, port: int, index: int, source_port: int) -> bytes:
    """The RST that ends what a SYN began: the sender's kernel sends it by itself where the source address is its own."""
    from scapy.layers.inet import IP, TCP

    sequence = (run << 16 | index) + 1
    return bytes(IP(src=str(source), dst=str(destination)) / TCP(sport=source_port, dport=port, flags="R", seq=sequence))
