"""One packet with a probe's token, packed by hand: the same bytes as scapy's (packets.scapy_packet) in no time.

Decides bytes. SCTP, whose checksum is a CRC-32c, is left to scapy.
"""

import struct
from ipaddress import IPv4Address

from netlab.model import Flow, Protocol
from netlab.probes import packets


def packet(run: int, flow: Flow, index: int) -> bytes:
    """The flow's packet from its IP header on; IPv4 only."""
    source, destination = flow.source, flow.destination
    assert isinstance(source, IPv4Address) and isinstance(destination, IPv4Address)
    match flow.protocol:
        case Protocol.TCP:
            options = struct.pack("!BBH", 2, 4, 1460)
            head = struct.pack("!HHIIBBHHH", flow.source_port, flow.port, run << 16 | index, 0, 6 << 4, 2, 64240, 0, 0)
            body, at = head + options, 16
        case Protocol.UDP:
            data = packets.payload(run, index)
            body, at = struct.pack("!HHHH", flow.source_port, flow.port, 8 + len(data), 0) + data, 6
        case Protocol.ICMP:
            body, at = struct.pack("!BBHHH", 8, 0, 0, flow.source_port, index) + packets.payload(run, index), 2
        case Protocol.SCTP:
            return packets.template(run, flow.protocol, source, destination, flow.port).fill(index, flow.source_port)
    number = packets.NUMBERS[flow.protocol]
    pseudo = b"" if flow.protocol is Protocol.ICMP else source.packed + destination.packed + struct.pack("!HH", number, len(body))
    total = checksum(pseudo + body) or (0xFFFF if flow.protocol is Protocol.UDP else 0)
    body = body[:at] + struct.pack("!H", total) + body[at + 2 :]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), index + 1, 0x4000, 64, number, 0) + source.packed + destination.packed
    return ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:] + body


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
