"""Packets that carry a token: how they are made, and how they are known again wherever they turn up.

Decides where the token stands. A run is a random 16-bit number, an index tells the flows of one run apart:
    TCP    initial sequence number = run << 16 | index; the answer acknowledges it plus one, whatever NAT did to addresses
    SCTP   initiate tag, the same number; the answer carries it as verification tag
    UDP    payload `netl` + run and index as eight hexadecimal digits
    ICMP   the same payload in an echo request, whose sequence number is the index
ICMP errors quote the packet's start and so the token. The first packet of a flow is packed by hand (plain.py), SCTP's built by
scapy (never its conf or sockets, and imported on first use: it takes 0.25 s); further ones differ in a few 16-bit words,
patched with their checksum.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from netlab.model import Address, Protocol
from netlab.probes import plain
from netlab.probes.plain import ICMPV6, MAGIC, NUMBERS, number_of, payload

MAX_INDEX = 0xFFF0
OWN_TEST = 0xFFF8
"""The index of the watchers' own test packets; flows have indices below MAX_INDEX."""

LOOPBACK: dict[int, Address] = {4: IPv4Address("127.0.0.1"), 6: IPv6Address("::1")}
_CHECKSUM_AT = {6: 16, 17: 6, ICMPV6: 2}
_ICMP_OF_ICMPV6 = {(1, 0): (3, 0), (1, 1): (3, 13), (1, 3): (3, 1), (1, 4): (3, 3), (1, 5): (3, 13), (1, 6): (3, 0)}
"""ICMPv6 errors in ICMP's words: flows need not know which it was."""
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


Words = tuple[tuple[int, int], ...]
"""(offset, value) of 16-bit words."""


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


class Header(NamedTuple):
    """What every IP header says: where it ends, the protocol behind it, and from whom to whom."""

    length: int
    protocol: int
    source: bytes
    destination: bytes


def header(data: bytes) -> Header:
    """The IP header at the start of the data. IPv6 extension headers are nobody's here."""
    if data[0] >> 4 == 6:
        return Header(40, data[6], data[8:24], data[24:40])
    return Header((data[0] & 15) * 4, data[9], data[12:16], data[16:20])


def address(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def template(run: int, protocol: Protocol, source: Address, destination: Address, port: int, count: int = 2) -> Template:
    """The packets of `count` flows of one kind. Source port 0 of a filled packet stands for 0."""

    def build(index: int, source_port: int) -> bytes:
        return packet(run, protocol, source, destination, port, index, source_port)

    if count == 1:
        return Template(build)
    words: Callable[[int, int], Words]
    at = 20 if source.version == 4 else 40  # where the IP header ends
    match protocol:
        case Protocol.SCTP:  # a CRC-32c cannot be patched cheaply, and nobody sends many
            return Template(build)
        case Protocol.TCP:
            words = lambda index, source_port: ((at, source_port), (at + 6, index))  # noqa: E731
            return Template(_patcher(build(0, 0), at + 16, words))
        case Protocol.UDP:
            words = lambda index, source_port: ((at, source_port), *_hex_words(at + 16, index))  # noqa: E731
            return Template(_patcher(build(0, 0), at + 6, words))
        case Protocol.ICMP:
            words = lambda index, source_port: ((at + 4, source_port), (at + 6, index), *_hex_words(at + 16, index))  # noqa: E731
            return Template(_patcher(build(0, 0), at + 2, words))


def packet(run: int, protocol: Protocol, source: Address, destination: Address, port: int, index: int, source_port: int) -> bytes:
    """One packet, from its IP header on."""
    if protocol is not Protocol.SCTP:
        return plain.packet(run, protocol, source, destination, port, index, source_port)
    if isinstance(source, IPv4Address) and isinstance(destination, IPv4Address):
        return bytes(scapy_packet(run, protocol, source, destination, port, index, source_port))
    home = IPv4Address("127.0.0.1")
    data = bytes(scapy_packet(run, protocol, home, home, port, index, source_port))[20:]  # its checksum covers no address
    return struct.pack("!IHBB", 0x60000000, len(data), NUMBERS[protocol], 64) + source.packed + destination.packed + data


def _checksum(total: int) -> int:
    """The Internet checksum of words whose sum is `total`."""
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def _hex_words(offset: int, index: int) -> tuple[tuple[int, int], tuple[int, int]]:
    text = f"{index:04x}".encode()
    return (offset, int.from_bytes(text[:2], "big")), (offset + 2, int.from_bytes(text[2:], "big"))


def _patcher(model: bytes, checksum_at: int, words: Callable[[int, int], Words]) -> Callable[[int, int], bytes]:
    """Sets 16-bit words and mends the checksum by the difference (RFC 1624)."""
    original = {at: int.from_bytes(model[at : at + 2], "big") for at, _ in words(0, 0)}
    base = int.from_bytes(model[checksum_at : checksum_at + 2], "big") ^ 0xFFFF
    base += sum(value ^ 0xFFFF for value in original.values())
    version, udp = model[0] >> 4, header(model).protocol == 17

    def fill(index: int, source_port: int) -> bytes:
        packet = bytearray(model)
        total = base
        for at, value in words(index, source_port):
            packet[at], packet[at + 1] = value >> 8, value & 0xFF
            total += value
        if version == 4:
            packet[4], packet[5] = (index + 1) >> 8 & 0xFF, (index + 1) & 0xFF  # IP id: not zero, or the kernel picks one
        total = (total & 0xFFFF) + (total >> 16)
        total = ((total & 0xFFFF) + (total >> 16)) ^ 0xFFFF
        if udp and total == 0:
            total = 0xFFFF
        packet[checksum_at], packet[checksum_at + 1] = total >> 8, total & 0xFF
        return bytes(packet)

    return fill


def own_test(run: int, protocol: Protocol, version: int = 4) -> Callable[[Address], bytes]:
    """The packet by which a watcher proves itself: from an address to itself, port 1."""
    home = LOOPBACK[version]
    model = packet(run, protocol, home, home, 1, OWN_TEST, 1)
    start, places = (20, slice(12, 20)) if version == 4 else (40, slice(8, 40))
    number = number_of(protocol, version)
    # The checksums of SCTP and of IPv4's ICMP do not cover addresses.
    checksum_at = start + _CHECKSUM_AT[number] if number in _CHECKSUM_AT else None
    words = struct.Struct("!2H" if version == 4 else "!8H")
    bare = int.from_bytes(model[checksum_at : checksum_at + 2], "big") ^ 0xFFFF if checksum_at is not None else 0
    bare += sum(2 * (word ^ 0xFFFF) for word in words.unpack(home.packed))

    def fill(address: Address) -> bytes:
        packet, packed = bytearray(model), address.packed
        packet[places] = packed * 2
        if checksum_at is not None:
            packet[checksum_at : checksum_at + 2] = _checksum(bare + 2 * sum(words.unpack(packed))).to_bytes(2, "big")
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
    if data[0] >> 4 == 6:
        from scapy.layers.inet6 import IPv6

        return str(IPv6(data).summary())
    from scapy.layers.inet import IP

    return str(IP(data).summary())


def seen(data: bytes, run: int) -> Seen | None:
    """What a packet (from its IP header on) is to this run; None for a stranger's or a cut-off one."""
    if len(data) < 28 or data[0] >> 4 not in (4, 6):
        return None
    ip = header(data)
    try:
        match ip.protocol:
            case 6:
                return _seen_tcp(data, ip, run)
            case 17:
                source_port, destination_port = struct.unpack_from("!HH", data, ip.length)
                index = _payload_index(data, ip.length + 8, run)
                if index is None:
                    return None
                return Seen(Kind.REQUEST, index, ip.source, ip.destination, source_port, destination_port)
            case 1:
                return _seen_icmp(data, ip, run)
            case 58:
                return _seen_icmpv6(data, ip, run)
            case 132:
                return _seen_sctp(data, ip, run)
    except (struct.error, IndexError):
        pass
    return None


def _seen_tcp(data: bytes, ip: Header, run: int) -> Seen | None:
    source_port, destination_port, sequence, acknowledged, _, flags = _TCP.unpack_from(data, ip.length)
    if flags & 0x16 == 0x02:  # SYN, neither ACK nor RST
        if sequence >> 16 != run:
            return None
        return Seen(Kind.REQUEST, sequence & 0xFFFF, ip.source, ip.destination, source_port, destination_port)
    if flags & 0x10 and acknowledged >> 16 == run and flags & 0x06:
        kind = Kind.REFUSAL if flags & 0x04 else Kind.REPLY
        return Seen(kind, (acknowledged - 1) & 0xFFFF, ip.source, ip.destination, source_port, destination_port)
    return None


def _seen_sctp(data: bytes, ip: Header, run: int) -> Seen | None:
    start = ip.length
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
    return Seen(kind, tag & 0xFFFF, ip.source, ip.destination, source_port, destination_port)


def _seen_icmp(data: bytes, ip: Header, run: int) -> Seen | None:
    kind, code = data[ip.length], data[ip.length + 1]
    if kind in (0, 8):
        return _seen_echo(data, ip, run, request=kind == 8)
    return _seen_error(data, ip, run, kind, code) if kind in (3, 5, 11) else None


def _seen_icmpv6(data: bytes, ip: Header, run: int) -> Seen | None:
    kind, code = data[ip.length], data[ip.length + 1]
    if kind in (128, 129):
        return _seen_echo(data, ip, run, request=kind == 128)
    if kind not in (1, 3):
        return None
    return _seen_error(data, ip, run, *_ICMP_OF_ICMPV6.get((kind, code), (3 if kind == 1 else 11, code)))


def _seen_echo(data: bytes, ip: Header, run: int, request: bool) -> Seen | None:
    index = _payload_index(data, ip.length + 8, run)
    return None if index is None else Seen(Kind.REQUEST if request else Kind.REPLY, index, ip.source, ip.destination, 0, 0)


def _seen_error(data: bytes, ip: Header, run: int, kind: int, code: int) -> Seen | None:
    quoted = data[ip.length + 8 :]
    if len(quoted) < 28:
        return None
    inner = header(quoted)
    ports = (0, 0) if inner.protocol in (1, ICMPV6) else struct.unpack_from("!HH", quoted, inner.length)
    index = _quoted_index(quoted, inner.length, inner.protocol, run)
    if index is None:
        return None
    error = (kind, code, inner.source, inner.destination, ports[0], ports[1])
    return Seen(Kind.ICMP_ERROR, index, ip.source, ip.destination, 0, 0, error)


def _quoted_index(quoted: bytes, inner: int, protocol: int, run: int) -> int | None:
    if protocol in (1, 17, ICMPV6):
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
