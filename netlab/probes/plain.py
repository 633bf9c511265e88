"""One packet with a probe's token, packed by hand: the same bytes as scapy's (packets.scapy_packet) in no time.

Decides bytes. SCTP, whose checksum is a CRC-32c, is left to scapy.
"""

import struct

from netlab.model import Flow, Protocol
from netlab.probes import packets


def packet(run: int, flow: Flow, index: int) -> bytes:
    """The flow's packet from its IP header on."""
    source, destination = flow.source, flow.destination
    version = source.version
    match flow.protocol:
        case Protocol.TCP:
            options = struct.pack("!BBH", 2, 4, 1460)
            head = struct.pack("!HHIIBBHHH", flow.source_port, flow.port, run << 16 | index, 0, 6 << 4, 2, 64240, 0, 0)
            body, at = head + options, 16
        case Protocol.UDP:
            data = packets.payload(run, index)
            body, at = struct.pack("!HHHH", flow.source_port, flow.port, 8 + len(data), 0) + data, 6
        case Protocol.ICMP:
            kind = 8 if version == 4 else 128
            body, at = struct.pack("!BBHHH", kind, 0, 0, flow.source_port, index) + packets.payload(run, index), 2
        case Protocol.SCTP:
            return packets.template(run, flow.protocol, source, destination, flow.port).fill(index, flow.source_port)
    number = packets.number_of(flow.protocol, version)
    pseudo = b"" if number == 1 else source.packed + destination.packed + struct.pack("!II", len(body), number)
    total = checksum(pseudo + body) or (0xFFFF if flow.protocol is Protocol.UDP else 0)
    body = body[:at] + struct.pack("!H", total) + body[at + 2 :]
    if version == 6:
        return struct.pack("!IHBB", 0x60000000, len(body), number, 64) + source.packed + destination.packed + body
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
