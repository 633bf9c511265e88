"""Capture files as bytes: pcapng with named interfaces, and classic pcap for piping into tcpdump. Pure.

Decides nothing but the encoding (IETF draft-ietf-opsawg-pcapng; pcap with nanosecond time stamps; LINUX_SLL2 for `-i any`).
"""

import struct
from collections.abc import Mapping

from netlab.model import Address

ETHERNET, LINUX_SLL2 = 1, 276
OUTGOING = 4
_END, _COMMENT, _NAME, _DESCRIPTION, _RESOLUTION, _FLAGS = 0, 1, 2, 3, 9, 2
_DROPS = 5


def section(application: str, comment: str = "") -> bytes:
    """The block that starts a pcapng file."""
    options = (_option(_COMMENT, comment.encode()) if comment else b"") + _option(4, application.encode())
    return _block(0x0A0D0D0A, struct.pack("=IHHq", 0x1A2B3C4D, 1, 0, -1) + options + _option(_END))


def names(known: Mapping[Address, str]) -> bytes:
    """A name resolution block: Wireshark shows these names for the addresses. b"" where none is known."""
    records = b"".join(_record(address, name) for address, name in known.items() if name)
    return _block(4, records + struct.pack("=HH", 0, 0)) if records else b""


def _record(address: Address, name: str) -> bytes:
    body = address.packed + name.encode() + b"\0"
    return struct.pack("=HH", 1 if address.version == 4 else 2, len(body)) + _padded(body)


def interface(name: str, description: str = "", snap_bytes: int = 0) -> bytes:
    """An interface, numbered from 0 in the order in which they are written; its packets' time stamps are in nanoseconds."""
    options = _option(_NAME, name.encode()) + (_option(_DESCRIPTION, description.encode()) if description else b"")
    options += _option(_RESOLUTION, b"\x09") + _option(_END)
    return _block(1, struct.pack("=HHI", ETHERNET, 0, snap_bytes) + options)


def packet(number: int, time_ns: int, data: bytes, length: int, outgoing: bool | None = None, comment: str = "") -> bytes:
    """One packet of interface `number`. `length` is what it had on the wire."""
    options = _option(_COMMENT, comment.encode()) if comment else b""
    if outgoing is not None:
        options += _option(_FLAGS, struct.pack("=I", 2 if outgoing else 1))
    options += _option(_END) if options else b""
    head = struct.pack("=IIIII", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length)
    return _block(6, head + _padded(data) + options)


def statistics(number: int, time_ns: int, drops: int) -> bytes:
    """How many packets of interface `number` were lost before they could be read."""
    head = struct.pack("=III", number, time_ns >> 32, time_ns & 0xFFFFFFFF)
    return _block(5, head + _option(_DROPS, struct.pack("=Q", drops)) + _option(_END))


def pcap_header(link_type: int, snap_bytes: int) -> bytes:
    """The start of a classic pcap file with nanosecond time stamps."""
    return struct.pack("=IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, snap_bytes, link_type)


def pcap_record(time_ns: int, data: bytes, length: int) -> bytes:
    """One packet of a classic pcap file."""
    return struct.pack("=IIII", time_ns // 1_000_000_000, time_ns % 1_000_000_000, len(data), length) + data


def sll2(data: bytes, interface_index: int, pkttype: int) -> bytes:
    """An Ethernet frame in the cooked form that `tcpdump -i any` shows: direction and interface instead of two MACs."""
    sender, protocol = data[6:12], data[12:14]
    head = protocol + b"\0\0" + struct.pack("!IHBB", interface_index, 1, pkttype, 6) + sender + b"\0\0"
    return head + data[14:]


def _option(code: int, value: bytes = b"") -> bytes:
    return struct.pack("=HH", code, len(value)) + _padded(value)


def _block(kind: int, body: bytes) -> bytes:
    length = len(body) + 12
    return struct.pack("=II", kind, length) + body + struct.pack("=I", length)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
