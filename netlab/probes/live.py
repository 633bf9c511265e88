"""A packet of a real program: which one opens what was asked for, and by what it is known again behind any translation.

A TCP connection has its initial sequence number, which packets.py takes for the token. Datagrams have none: a UDP datagram is
known by the length and the first bytes of its data, an echo request by its length, its sequence number and the first bytes of its
data; translation leaves these alone, and they are as much as the kernel's nftables trace shows (NFT_TRACETYPE_TRANSPORT_HSIZE: 20
bytes). An answer in UDP is known by the addresses of a request, turned round. Refuses to know sockets. Pure.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from netlab.model import Flow, Protocol
from netlab.probes import filters, packets, plain
from netlab.probes.filters import Instruction
from netlab.probes.witnessed import Shown

HEAD = 12
UDP = 17
ECHOES = {1: (8, 0), plain.ICMPV6: (128, 129)}
ERRORS = {1: (3, 5, 11), plain.ICMPV6: (1, 3)}
NUMBERS = {6: "TCP", UDP: "UDP", 132: "SCTP", 1: "ICMP", plain.ICMPV6: "ICMP"}
FOLLOWED = (Protocol.TCP, Protocol.UDP, Protocol.ICMP)
WORDS = {Protocol.TCP: "TCP connection", Protocol.UDP: "UDP datagram", Protocol.ICMP: "ping"}
"""What is waited for, in words."""


class Datagram(NamedTuple):
    """What translation leaves alone of a UDP datagram or an echo: length, sequence number (0 of UDP), first bytes of the data."""

    protocol: int
    length: int
    sequence: int
    head: bytes


class Opening(NamedTuple):
    """The flow as the program opened it; `run` and `number` of a TCP connection's number, `mark` of a datagram."""

    flow: Flow
    run: int
    number: int
    mark: Datagram | None


def filter_for(protocol: Protocol, run: int) -> tuple[Instruction, ...]:
    """Every packet that may belong to a flow of a real program."""
    match protocol:
        case Protocol.UDP:
            return filters.token_filter(run, any_udp=True)
        case Protocol.ICMP:
            return filters.echo_filter()
        case _:
            return filters.handshake_filter()


def matches(protocol: Protocol, version: int) -> tuple[list[str], list[str]]:
    """nft matches of the same packets, for the kernel's trace."""
    kinds = "icmp type { destination-unreachable, time-exceeded }"
    errors = kinds if version == 4 else "icmpv6 type { destination-unreachable, time-exceeded }"
    match protocol:
        case Protocol.UDP:
            own = "meta l4proto udp"
        case Protocol.ICMP:
            own = f"{'icmp' if version == 4 else 'icmpv6'} type {{ echo-request, echo-reply }}"
        case _:
            own = "meta l4proto tcp tcp flags & (syn | rst) != 0x0"
    return [own, errors], []


def opening(data: bytes, wanted: Flow, sources: Collection[bytes]) -> Opening | None:
    """What these bytes (from the IP header on) open, if it is what is waited for. Source port 0 of `wanted`: any."""
    if len(data) < 28 or data[0] >> 4 not in (4, 6):
        return None
    ip = packets.header(data)
    if ip.source not in sources or ip.destination != wanted.destination.packed:
        return None
    if ip.protocol != plain.number_of(wanted.protocol, wanted.destination.version):
        return None
    source_port, port, run, index, mark = 0, 0, 0, 0, None
    if wanted.protocol is Protocol.TCP:
        if len(data) < ip.length + 14 or data[ip.length + 13] & 0x16 != 0x02:
            return None
        sequence = int.from_bytes(data[ip.length + 4 : ip.length + 8])
        run, index = sequence >> 16, sequence & 0xFFFF
    elif (mark := datagram(data)) is None or (mark.protocol in ECHOES and data[ip.length] != ECHOES[mark.protocol][0]):
        return None
    if wanted.protocol is not Protocol.ICMP:
        source_port, port = _ports(data, ip.length)
    if port != wanted.port or wanted.source_port not in (0, source_port):
        return None
    return Opening(replace(wanted, source=packets.address(ip.source), source_port=source_port), run, index, mark)


def datagram(data: bytes) -> Datagram | None:
    """The datagram or echo that the data (from the IP header on) is; None for everything else."""
    ip = packets.header(data)
    body = data[ip.length :]
    if len(body) < 8:
        return None
    if ip.protocol == UDP:
        length = int.from_bytes(body[4:6])
        return Datagram(UDP, length, 0, body[8 : min(8 + HEAD, length)])
    if body[0] not in ECHOES.get(ip.protocol, ()):
        return None
    length = int.from_bytes(data[2:4]) - ip.length if len(ip.source) == 4 else int.from_bytes(data[4:6])
    return Datagram(ip.protocol, length, int.from_bytes(body[6:8]), body[8 : min(8 + HEAD, length)])


def part(data: bytes, mark: Datagram, requests: Collection[Shown]) -> tuple[str, Shown] | None:
    """What the data is to the datagram `mark`: request, reply or icmp-error, and how it looks; None for a stranger's."""
    if len(data) < 28 or data[0] >> 4 not in (4, 6):
        return None
    ip = packets.header(data)
    if len(data) < ip.length + 8:
        return None
    shown = plain_shown(data)
    if data[ip.length] in ERRORS.get(ip.protocol, ()):
        return ("icmp-error", shown) if _quotes(data[ip.length + 8 :], mark) else None
    found = datagram(data)
    if mark.protocol == UDP:
        if found is not None and Shown(shown.dst, shown.src, shown.dport, shown.sport, shown.proto) in requests:
            return "reply", shown
        return ("request", shown) if found == mark else None
    if found != mark:
        return None
    return "request" if data[ip.length] == ECHOES[ip.protocol][0] else "reply", shown


def _quotes(quoted: bytes, mark: Datagram) -> bool:
    """Whether an ICMP error quotes it. The kernel's trace shows too little to tell: it is taken for ours."""
    if len(quoted) < 28 or quoted[0] >> 4 not in (4, 6):
        return True
    found = datagram(quoted)
    return found is not None and found[:3] == mark[:3] and mark.head.startswith(found.head)


def plain_shown(data: bytes) -> Shown:
    """How a packet looks, whoever's it is."""
    ip = packets.header(data)
    ports = (0, 0) if ip.protocol in ECHOES else _ports(data, ip.length)
    addresses = str(packets.address(ip.source)), str(packets.address(ip.destination))
    return Shown(*addresses, *ports, NUMBERS.get(ip.protocol, str(ip.protocol)))


def _ports(data: bytes, at: int) -> tuple[int, int]:
    return int.from_bytes(data[at : at + 2]), int.from_bytes(data[at + 2 : at + 4])
