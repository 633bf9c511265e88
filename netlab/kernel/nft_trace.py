"""The kernel's own account of a packet: nftables' trace of one namespace, and where the rule behind a handle stands.

Decides bytes only (linux/netfilter/nf_tables.h: NFT_MSG_TRACE, NFT_MSG_GETRULE) and what the tracing table looks like. Refuses to
know packets' meaning and the plan.

Theory. A packet is traced while its nftrace bit is set, which a rule of a table of our own does, ahead of everything else; the
bit does not outlive the namespace (skb_scrub_packet), so each namespace has such a table. The kernel then multicasts a message
for every base chain's rule that held, and for every policy; a socket that has joined the group before the packet is sent misses
none (no program to wait for, no text to parse). iptables-nft's rules are nftables rules to the kernel, and are told as well, by
handle. The table has the flag `owner`: it belongs to the netlink socket that made it, and the kernel removes it when that closes,
even if this process is killed.
"""

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from netlab.errors import KernelError
from netlab.kernel import netlink as nl
from netlab.kernel.libnftables import Nftables
from netlab.kernel.namespaces import entered

TABLE = "netlab-explain"
"""How the names of tracing tables begin; each run has one of its own, so that several may be under way."""
_GROUP_TRACE = 9
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_NFTABLES = 10 << 8
_NEWCHAIN, _GETCHAIN, _NEWRULE, _GETRULE, _TRACE = (_NFTABLES | number for number in (3, 4, 6, 7, 17))
_HOOKS = ("prerouting", "input", "forward", "output", "postrouting", "ingress")
_TYPES = {1: "policy", 2: "return", 3: "rule"}
_CODES = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    4: "repeat",
    -1: "continue",
    -2: "break",
    -3: "jump",
    -4: "goto",
    -5: "return",
}
_FAMILIES = {"inet": 1, "ip": 2, "netdev": 5, "bridge": 7, "ip6": 10}
_NAMES = {number: name for name, number in _FAMILIES.items()}


class Told(NamedTuple):
    """One trace message. `number` is the kernel's id of the packet; `handle` 0 where it is no rule. `packet` is what the kernel
    showed of it from the IP header on, b"" in all but the first message of a base chain. `iif`, `oif`: device indices, 0 none."""

    number: int
    table: str
    chain: str
    kind: str
    handle: int
    verdict: str
    target: str
    packet: bytes
    iif: int
    oif: int
    mark: int
    family: str = "ip"
    """The table's, as nft calls it: `inet` holds rules for both."""


class Trace:
    """Listens to one namespace and has packets traced there that one of `matches` describes. Use: start, send, read, close."""

    def __init__(self, fd: int, run: int, matches: Sequence[str], late_matches: Sequence[str] = (), family: str = "ip") -> None:
        """Raises KernelError, MachineError. When this returns, every packet that matches is told."""
        self._family = family
        with entered(fd):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, nl.NETLINK_NETFILTER)
            try:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
                self._socket.bind((0, 0))  # a socket without a port id counts as the kernel's own, which is not told
                self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_TRACE)
                self._rules = Nftables()
            except BaseException:
                self._socket.close()
                raise
        error, _ = self._rules.run(table_text(run, matches, late_matches, family))
        if error:
            self.close()
            raise KernelError(f"the kernel takes no tracing rule: {' '.join(error.split())[:300]}")

    def fileno(self) -> int:
        return self._socket.fileno()

    def told(self) -> Iterator[Told]:
        """What the kernel has told so far, in its order. The tracing table (TABLE) tells too: it is the first to see a packet.

        Raises KernelError when the kernel had to leave something out.
        """
        while True:
            try:
                data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:  # ENOBUFS
                raise KernelError(f"the kernel's trace is incomplete: {os.strerror(error.errno or 0)}") from None
            for kind, _, _, body in nl.split_messages(data):
                if kind == _TRACE:
                    yield parsed(body)

    def chain_text(self, table: str, chain: str, family: str = "") -> list[str]:
        """The rules of a chain in nft's words, in order; [] where it cannot be listed. `family`: the packets' unless told."""
        error, output = self._rules.run(f"list chain {family or self._family} {table} {chain}")
        rows = [line.strip() for line in output.splitlines() if line.startswith("\t\t")]
        return [] if error else [row for row in rows if not row.startswith(("type ", "comment "))]

    def close(self) -> None:
        """The table goes with the socket that made it."""
        self._socket.close()
        if hasattr(self, "_rules"):
            self._rules.close()


def table_text(run: int, matches: Sequence[str], late_matches: Sequence[str] = (), family: str = "ip") -> str:
    """The tracing table: packets that come in and packets that are made here, before any other rule sees them.

    `late_matches` ask conntrack, which has nothing to say before its own hook (-200).
    """
    out = [f"table {family} {TABLE}-{run} {{ flags owner;"]
    for hook in ("prerouting", "output"):
        for name, priority, rules in ((hook, -350, matches), (f"{hook}-late", -199, late_matches)):
            if rules:
                lines = " ".join(f"{match} meta nftrace set 1;" for match in rules)
                out.append(f"chain {name} {{ type filter hook {hook} priority {priority}; policy accept; {lines} }}")
    return "\n".join((*out, "}"))


def parsed(body: bytes) -> Told:
    """One NFT_MSG_TRACE."""
    found = nl.attributes(body, 4)
    verdict = nl.attributes(found.get(5, b""))
    code = struct.unpack(">i", verdict.get(1, b"\0\0\0\1"))[0]
    if code >= 0:
        code &= 0xFF
    if 16 in found and 5 not in found:
        code = struct.unpack(">i", found[16])[0]
    return Told(
        _number(found.get(6)), _text(found.get(1)), _text(found.get(2)), _TYPES.get(_number(found.get(4)), "other"),
        _number(found.get(3)), _CODES.get(code, str(code)), _text(verdict.get(2)),
        found.get(8, b"") + found.get(9, b""), _number(found.get(10)), _number(found.get(12)), _number(found.get(14)),
        _NAMES.get(body[0], str(body[0])) if body else "",
    )  # fmt: skip


def handles(sock: nl.Socket, table: str, chain: str, family: str = "ip") -> list[int]:
    """The handles of a chain's rules, in order. `sock` is a netfilter socket of the namespace. [] when there is no such chain."""
    body = struct.pack("=BBH", _FAMILIES[family], 0, 0) + nl.attr_text(1, table) + nl.attr_text(2, chain)
    found = []
    try:
        rows = sock.dump(nl.Message(_GETRULE, 0, body))
    except OSError:
        return []
    for kind, row in rows:
        attributes = nl.attributes(row, 4)
        # A kernel that does not filter lists every chain.
        if kind == _NEWRULE and (_text(attributes.get(1)), _text(attributes.get(2))) == (table, chain):
            found.append(_number(attributes.get(3)))
    return found


def base_chains(sock: nl.Socket, family: str = "ip") -> dict[tuple[str, str], tuple[str, int]]:
    """(table, chain) -> (hook, priority) of every base chain of the family in the namespace; `sock` as for `handles`."""
    found = {}
    for kind, row in sock.dump(nl.Message(_GETCHAIN, 0, struct.pack("=BBH", _FAMILIES[family], 0, 0))):
        attributes = nl.attributes(row, 4)
        hook = nl.attributes(attributes.get(4, b""))
        if kind == _NEWCHAIN and 1 in hook:
            priority = struct.unpack(">i", hook[2])[0]
            found[_text(attributes.get(1)), _text(attributes.get(3))] = (_HOOKS[_number(hook[1])], priority)
    return found


def _number(data: bytes | None) -> int:
    return int.from_bytes(data, "big") if data else 0


def _text(data: bytes | None) -> str:
    return (data or b"").rstrip(b"\0").decode(errors="replace")
