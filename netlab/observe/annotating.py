"""What a capture says about a packet: who sends it to whom by name, and the NAT of its connection.

Decides the words of a packet's comment. Its evidence: the lab's names for addresses, and the connections that the nodes'
conntrack told of (a connection is told when its first packet has passed the node, so a capture holds packets back a little).
Refuses to know namespaces and files.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

from netlab.kernel.conntrack import Entry
from netlab.kernel.conntrack import Tuple as Direction
from netlab.model import Address

_PORTS = frozenset((6, 17, 132))
_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}
MOST = 1 << 16
"""Comments that are kept; beyond, they are forgotten and made again."""


class Known(Protocol):
    """Names of a lab: lab.naming.Names."""

    def destination(self, address: Address, port: int, protocol: str) -> str: ...

    def owner(self, address: Address) -> str: ...


@dataclass(slots=True)
class Annotator:
    """Makes comments. `nat`: a direction of a connection -> what is rewritten of it, one sentence a node."""

    known: Known
    nat: dict[bytes, dict[str, str]] = field(default_factory=dict)
    made: dict[bytes, str] = field(default_factory=dict)

    def learn(self, node: str, entries: Iterable[Entry]) -> None:
        """Connections of a node; those without NAT tell nothing."""
        for entry in entries:
            sentence = self._rewriting(node, entry)
            if not sentence:
                continue
            for direction in (entry.original, _reverse(entry.original), entry.reply, _reverse(entry.reply)):
                key = _key_of(direction)
                self.nat.setdefault(key, {})[node] = sentence
                self.made.pop(key, None)

    def comment(self, frame: bytes) -> str:
        """Of an Ethernet frame; '' where nothing is known of it."""
        key = key_of(frame)
        if not key:
            return ""
        text = self.made.get(key)
        if text is None:
            if len(self.made) >= MOST:
                self.made.clear()
            text = self.made[key] = self._comment(key)
        return text

    def _comment(self, key: bytes) -> str:
        source, source_port, destination, port, number = _parts(key)
        protocol = _NAMES.get(number, "")
        # An answer comes from a Service's port: both ends are asked whether they are one.
        sender = self.known.destination(source, source_port, protocol) or f"{source}"
        receiver = self.known.destination(destination, port, protocol) or f"{destination}"
        named = sender != f"{source}" or receiver != f"{destination}"
        said = [f"{sender} > {receiver}"] if named else []
        return "; ".join((*said, *self.nat.get(key, {}).values()))

    def _rewriting(self, node: str, entry: Entry) -> str:
        sent, answered = entry.original, entry.reply
        parts = []
        asked = (sent.destination, sent.destination_port)
        if asked != (answered.source, answered.source_port):
            chosen = self.known.owner(answered.source)
            parts.append(
                f"DNAT {_end(*asked)} to {_end(answered.source, answered.source_port)}{f' ({chosen})' if chosen else ''}"
            )
        came = (sent.source, sent.source_port)
        if came != (answered.destination, answered.destination_port):
            parts.append(f"SNAT {_end(*came)} to {_end(answered.destination, answered.destination_port)}")
        return f"{node}: {', '.join(parts)}" if parts else ""


def _end(address: Address, port: int) -> str:
    if not port:
        return str(address)
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _reverse(one: Direction) -> Direction:
    return Direction(one.destination, one.source, one.protocol, one.destination_port, one.source_port)


def key_of(frame: bytes) -> bytes:
    """Protocol, addresses and ports of an Ethernet frame as they stand in it; b"" for what has none (ARP, fragments, options)
    and for one that is cut off before, by the capture or by its sender.
    """
    match frame[12:14]:
        case b"\x08\x00" if len(frame) >= 34 and frame[14] == 0x45 and not (frame[20] & 0x1F or frame[21]):
            protocol, start, end = frame[23], 26, 34
        case b"\x86\xdd" if len(frame) >= 54:
            protocol, start, end = frame[20], 22, 54
        case _:
            return b""
    end += 4 if protocol in _PORTS else 0
    return bytes((protocol,)) + frame[start:end] if len(frame) >= end else b""


def _key_of(one: Direction) -> bytes:
    ports = struct.pack("!HH", one.source_port, one.destination_port) if one.protocol in _PORTS else b""
    return bytes((one.protocol,)) + one.source.packed + one.destination.packed + ports


def _parts(key: bytes) -> tuple[Address, int, Address, int, int]:
    number, ports = key[0], 4 if key[0] in _PORTS else 0
    length = (len(key) - 1 - ports) // 2
    source, destination = ip_address(key[1 : 1 + length]), ip_address(key[1 + length : 1 + 2 * length])
    source_port, port = struct.unpack("!HH", key[-4:]) if ports else (0, 0)
    return source, source_port, destination, port, number
