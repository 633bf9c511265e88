"""Connection tracking of one namespace over ctnetlink, packed by hand: list, flush, and delete what went stale.

Decides which UDP entries are stale (kubernetes pkg/proxy/conntrack/cleanup.go): the flow was sent to a Service's address and
port, or to its node port, and the answers come from something that is not one of its serving endpoints. Services without a
serving endpoint are left alone; TCP and SCTP entries are never touched.
"""

import errno
import socket
import struct
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from netlab.kernel import netlink as nl
from netlab.kernel.netlink import Message, Socket
from netlab.model import Address

Wanted = Mapping[tuple[Address | None, int], Collection[tuple[Address, int]]]
"""(Service address, or None for a node port; port) -> its serving endpoints."""

_CTNETLINK = 1 << 8
_NEW, _GET, _DELETE = _CTNETLINK | 0, _CTNETLINK | 1, _CTNETLINK | 2
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _MARK, _COUNTERS_ORIG, _COUNTERS_REPLY, _ID = (
    1,
    2,
    3,
    4,
    7,
    8,
    9,
    10,
    12,
)
_PROTOCOLS = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "icmpv6", 132: "sctp", 136: "udplite"}
_TCP_STATES = (
    "NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2",
)  # fmt: skip
_STATUS_NAMES = {0: "EXPECTED", 1: "SEEN_REPLY", 2: "ASSURED", 3: "CONFIRMED", 4: "SRC_NAT", 5: "DST_NAT", 9: "DYING"}


class Tuple(NamedTuple):
    """One direction of a connection."""

    source: Address
    destination: Address
    protocol: int
    source_port: int
    destination_port: int


class Entry(NamedTuple):
    """`key` is the entry's original direction as the kernel packed it, to name it in a deletion."""

    original: Tuple
    reply: Tuple
    status: int
    timeout_s: int
    mark: int
    tcp_state: str
    packets: tuple[int, int] | None
    key: bytes


def is_own_test(entry: Entry) -> bool:
    """Whether a watcher's test packet left it (probes/packets.own_test): from port 1 of an address to port 1 of the same one.

    Nobody else sends such; reports of what a lab does leave it out, and only `conntrack -L` shows it, for half a minute.
    """
    one = entry.original
    return one.source == one.destination and one.source_port == one.destination_port == 1


class Table:
    """The conntrack table of the namespace in which this was opened."""

    def __init__(self) -> None:
        self._socket = Socket(nl.NETLINK_NETFILTER)

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def entries(self) -> list[Entry]:
        """Every entry. Shape: kernel order. Raises OSError where the kernel has no conntrack."""
        rows = self._socket.dump(Message(_GET, 0, bytes((socket.AF_UNSPEC, 0, 0, 0))))
        return [entry for kind, body in rows if kind == _NEW and (entry := _entry(body)) is not None]

    def flush(self) -> None:
        """Delete every entry."""
        refused = self._socket.run([Message(_DELETE, 0, bytes((socket.AF_UNSPEC, 0, 0, 0)))])
        if refused:
            raise OSError(refused[0].errno, refused[0].text)

    def delete(self, entries: Collection[Entry]) -> None:
        """Delete these; one that is gone already is no error."""
        self._socket.run([Message(_DELETE, 0, bytes((_family(entry), 0, 0, 0)) + entry.key) for entry in entries])

    def delete_stale_udp(self, wanted: Wanted) -> int:
        stale = [entry for entry in self.entries() if is_stale(entry, wanted)]
        self.delete(stale)
        return len(stale)


class Events:
    """New connections of the namespace in which this was opened, as conntrack learns of them. Wait on `fileno` for more."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, nl.NETLINK_NETFILTER)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._socket.bind((0, 1))  # the group NFNLGRP_CONNTRACK_NEW
        self._socket.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def new(self) -> list[Entry]:
        """What came since. Events that found the socket full are lost, and nothing is said of them."""
        found: list[Entry] = []
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue
            for kind, _, _, body in nl.split_messages(data):
                if kind == _NEW and (entry := _entry(body)) is not None:
                    found.append(entry)

    def close(self) -> None:
        self._socket.close()


def is_stale(entry: Entry, wanted: Wanted) -> bool:
    """Whether a UDP entry leads to something that is no serving endpoint of the Service it was sent to."""
    original = entry.original
    if original.protocol != socket.IPPROTO_UDP:
        return False
    serving = wanted.get((original.destination, original.destination_port))
    if serving is None:
        serving = wanted.get((None, original.destination_port))
    version = original.destination.version  # a family without a serving endpoint is left alone, too
    known = [end for end in serving or () if end[0].version == version]
    return bool(known) and (entry.reply.source, entry.reply.source_port) not in known


def told(kind: int, body: bytes) -> tuple[str, Entry] | None:
    """A message of ctnetlink's groups as (what happened, entry): `new` for NEW and UPDATE alike, or `destroyed`."""
    entry = _entry(body) if kind in (_NEW, _DELETE) else None
    return None if entry is None else ("new" if kind == _NEW else "destroyed", entry)


def _family(entry: Entry) -> int:
    return nl.family(entry.original.source.version)


def _entry(body: bytes) -> Entry | None:
    found = nl.attributes(body, 4)
    if _TUPLE_ORIG not in found or _TUPLE_REPLY not in found:
        return None
    packets = None
    if _COUNTERS_ORIG in found:
        packets = (_packets(found[_COUNTERS_ORIG]), _packets(found.get(_COUNTERS_REPLY, b"")))
    key = nl.attr(_TUPLE_ORIG | 0x8000, found[_TUPLE_ORIG]) + (nl.attr(_ID, found[_ID]) if _ID in found else b"")
    return Entry(
        _tuple(found[_TUPLE_ORIG]),
        _tuple(found[_TUPLE_REPLY]),
        _be(found.get(_STATUS)),
        _be(found.get(_TIMEOUT)),
        _be(found.get(_MARK)),
        _tcp_state(found.get(_PROTOINFO, b"")),
        packets,
        key,
    )


def _tuple(data: bytes) -> Tuple:
    found = nl.attributes(data)
    ip, proto = nl.attributes(found.get(1, b"")), nl.attributes(found.get(2, b""))
    source, destination = (ip[1], ip[2]) if 1 in ip else (ip[3], ip[4])
    return Tuple(ip_address(source), ip_address(destination), proto[1][0], _be(proto.get(2)), _be(proto.get(3)))


def _tcp_state(protoinfo: bytes) -> str:
    tcp = nl.attributes(nl.attributes(protoinfo).get(1, b""))
    state = tcp.get(1, b"")
    return _TCP_STATES[state[0]] if state and state[0] < len(_TCP_STATES) else ""


def _packets(counters: bytes) -> int:
    value = nl.attributes(counters).get(1)
    return int(struct.unpack(">Q", value)[0]) if value else 0


def _be(data: bytes | None) -> int:
    return int.from_bytes(data, "big") if data else 0


def as_json(entry: Entry) -> dict[str, Any]:
    """Plain values: the original direction, and the reply's with `reply_` in front."""
    row: dict[str, Any] = {
        "protocol": _PROTOCOLS.get(entry.original.protocol, str(entry.original.protocol)),
        "state": entry.tcp_state,
    }
    for prefix, one in (("", entry.original), ("reply_", entry.reply)):
        row[f"{prefix}src"], row[f"{prefix}dst"] = str(one.source), str(one.destination)
        row[f"{prefix}sport"], row[f"{prefix}dport"] = one.source_port, one.destination_port
    row["timeout"], row["mark"] = entry.timeout_s, entry.mark
    row["status"] = [name for bit, name in _STATUS_NAMES.items() if entry.status >> bit & 1]
    if entry.packets is not None:
        row["packets"], row["reply_packets"] = entry.packets
    return row
