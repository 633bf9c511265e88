"""Counters that the kernel keeps of one namespace: packets of its links, its connections, its iptables rules.

Numbers only, and since when the kernel counts; differences and names are observe/top.py's. Conntrack counts packets of
connections that begin while net.netfilter.nf_conntrack_acct is on.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from netlab.errors import KernelError
from netlab.kernel import netlink as nl
from netlab.kernel import rule_listing
from netlab.kernel.conntrack import Table
from netlab.kernel.namespaces import entered

_IFLA_STATS64 = 23
_STATS = struct.Struct("=8Q")
_ACCOUNTING = Path("/proc/sys/net/netfilter/nf_conntrack_acct")


class LinkCount(NamedTuple):
    """rtnl_link_stats64, as far as it is shown. `dropped`: both directions."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    dropped: int


class Counters:
    """One namespace's; its sockets stay open, so that asking again is cheap."""

    def __init__(self, fd: int, connections: bool) -> None:
        """Raises OSError. `connections`: whether there is conntrack to ask."""
        self._fd = fd
        with entered(fd):
            self._links = nl.Socket()
            self.conntrack = Table() if connections else None

    def links(self) -> dict[str, LinkCount]:
        """By device, without lo."""
        found = {}
        for kind, body in self._links.dump(nl.get_links()):
            attributes = nl.attributes(body, nl.IFINFO.size)
            if kind != nl.RTM_NEWLINK or _IFLA_STATS64 not in attributes:
                continue
            name = attributes[nl.IFLA_IFNAME].rstrip(b"\0").decode(errors="replace")
            rx, tx, rx_bytes, tx_bytes, _, _, rx_dropped, tx_dropped = _STATS.unpack_from(attributes[_IFLA_STATS64])
            if name != "lo":
                found[name] = LinkCount(rx, tx, rx_bytes, tx_bytes, rx_dropped + tx_dropped)
        return found

    def rules(self) -> dict[str, int]:
        """`TABLE LINE` of iptables-save -> packets that the rule counted; {} where there are no rules of iptables."""
        found: dict[str, int] = {}
        for backend in ("nft", "legacy"):
            present = rule_listing.legacy_tables(self._fd, "ip") if backend == "legacy" else True
            if present:
                found |= _counted(rule_listing.save(self._fd, "iptables", backend, counters=True))
        return found

    def close(self) -> None:
        self._links.close()
        if self.conntrack is not None:
            self.conntrack.close()


def _counted(text: str) -> dict[str, int]:
    found, table = {}, ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("["):
            count, _, rule = line.partition("] ")
            found[f"{table} {rule}"] = int(count[1:].split(":")[0])
    return found


@contextmanager
def accounting(fds: list[int]) -> Iterator[None]:
    """Inside, conntrack of these namespaces counts the packets of new connections; afterwards it is as it was."""
    before: list[tuple[int, str]] = []
    try:
        for fd in fds:
            with entered(fd):
                try:
                    was = _ACCOUNTING.read_text().strip()
                    if was != "1":
                        _ACCOUNTING.write_text("1")
                        before.append((fd, was))
                except OSError as error:
                    raise KernelError(f"conntrack cannot be told to count packets: {error.strerror}") from None
        yield
    finally:
        for fd, was in before:
            with entered(fd):
                _ACCOUNTING.write_text(was)
