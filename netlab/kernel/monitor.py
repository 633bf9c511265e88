"""What the kernel says by itself when something of a namespace changes: links, addresses, routes, neighbours, connections.

Sockets that have joined rtnetlink's and ctnetlink's multicast groups, so that nothing is polled. Decides which messages are worth
telling and how they are put into words; a burst that the kernel had to leave out is told as such, never hidden.
"""

import errno
import socket
from collections.abc import Iterator
from typing import Any, assert_never

from netlab.kernel import conntrack, listing, observe
from netlab.kernel import netlink as nl
from netlab.kernel.listing import DeviceAddress, Link, Neighbour, Route
from netlab.kernel.namespaces import entered

Event = dict[str, Any]
_SOL_NETLINK, _ADD_MEMBERSHIP, _RCVBUF = 270, 1, 4 << 20
_ROUTE_GROUPS = (1, 3, 5, 7, 9, 11)  # link, neighbour, IPv4 address, IPv4 route, IPv6 address, IPv6 route
_CONNTRACK_GROUPS = (1, 3)  # new, destroyed
_DELETIONS = (nl.RTM_DELLINK, nl.RTM_DELADDR, nl.RTM_DELROUTE, nl.RTM_DELNEIGH)
_UP, _RUNNING, _FAILED = 0x1, 0x40, 0x20


class Monitor:
    """One namespace's changes, from when this was made. `sockets` are for a poller; each is read with `events`."""

    def __init__(self, name: str, fd: int, connections: bool = True) -> None:
        """Raises OSError. `fd`: the namespace; it is kept alive until `close`."""
        self.name = name
        self.sockets: list[socket.socket] = []
        with entered(fd):
            try:
                self.sockets.append(_joined(nl.NETLINK_ROUTE, _ROUTE_GROUPS))
                if connections:
                    self.sockets.append(_joined(nl.NETLINK_NETFILTER, _CONNTRACK_GROUPS))
                with nl.Socket() as sock:
                    self._links = {link.ifindex: link for link in listing.links(sock)}
                    self._neighbours = {_key(one): one for one in listing.neighbours(sock)}
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()

    def events(self, sock: socket.socket) -> Iterator[Event]:
        """What one of the sockets has to tell now."""
        is_route = sock is self.sockets[0]
        while True:
            try:
                data = sock.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                text = f"{self.name}: the kernel left out events, they came too fast"
                yield {"type": "lab", "action": "lost", "where": self.name, "text": text}
                continue
            for kind, _, _, body in nl.split_messages(data):
                found = self._route_event(kind, body) if is_route else self._connection(kind, body)
                if found is not None:
                    yield {**found, "where": self.name}

    def _connection(self, kind: int, body: bytes) -> Event | None:
        told = conntrack.told(kind & 0xFF | 0x100, body)
        if told is None or conntrack.is_own_test(told[1]):
            return None
        row = conntrack.as_json(told[1])
        there = f"{_end(row['src'], row['sport'])} -> {_end(row['dst'], row['dport'])}"
        back = f"{_end(row['reply_src'], row['reply_sport'])} -> {_end(row['reply_dst'], row['reply_dport'])}"
        changed = "" if (row["src"], row["dst"]) == (row["reply_dst"], row["reply_src"]) else f", answered {back}"
        text = f"{self.name}: {row['protocol']} {there}{changed} {told[0]}"
        return {"type": "conntrack", "action": told[0], "connection": row, "text": text}

    def _route_event(self, kind: int, body: bytes) -> Event | None:
        row = listing.told(kind, body)
        gone = kind in _DELETIONS
        match row:
            case None:
                return None
            case Link():
                return self._link(row, gone)
            case DeviceAddress():
                words = f"{row.address}/{row.prefixlen} on {observe.name_of(row.ifindex, self._links)}"
                return self._told("address", gone, words, address=str(row.address))
            case Route():
                if row.table != listing.MAIN_TABLE:
                    return None
                shown = observe.route_row(row, self._links)
                via = f" via {shown['gateway']}" if "gateway" in shown else ""
                dev = f" dev {shown['dev']}" if "dev" in shown else ""
                return self._told("route", gone, f"{shown.get('type', '')} {shown['dst']}{via}{dev}".strip(), route=shown)
            case Neighbour():
                return self._neighbour(row, gone)
            case _:
                assert_never(row)

    def _link(self, row: Link, gone: bool) -> Event | None:
        """The kernel repeats a link for every trifle: told is that it came, went, or is up or down otherwise than before."""
        old = self._links.pop(row.ifindex, None)
        if gone:
            return self._told("link", True, row.name, device=row.name) if old is not None else None
        self._links[row.ifindex] = row
        if old is None:
            return self._told("link", False, f"{row.name} ({row.kind or 'link'})", device=row.name)
        if (old.flags ^ row.flags) & (_UP | _RUNNING):
            state = "up" if row.flags & _UP and row.flags & _RUNNING else "no carrier" if row.flags & _UP else "down"
            return {"type": "link", "action": "changed", "device": row.name, "text": f"{self.name}: link {row.name} is {state}"}
        if old.master != row.master:
            master = observe.name_of(row.master, self._links) if row.master else "no bridge"
            return {"type": "link", "action": "changed", "device": row.name, "text": f"{self.name}: {row.name} is on {master}"}
        return None

    def _neighbour(self, row: Neighbour, gone: bool) -> Event | None:
        """States that only age are left out: told are new entries, other addresses, failures."""
        old = self._neighbours.get(_key(row))
        failed = bool(row.state & _FAILED)
        if failed and not gone and old is not None and old.state & nl.NUD_PERMANENT:
            return None  # the kernel fails a permanent entry on its way to removing it
        if gone:
            row = self._neighbours.pop(_key(row), row)
        shown = observe.neighbour_row(row, self._links)
        states = " ".join(shown["state"])
        words = f"{row.address} dev {shown['dev']}{' is ' + row.mac if row.mac else ''} {states}".rstrip()
        if gone:
            return self._told("neighbour", True, words, neighbour=shown)
        self._neighbours[_key(row)] = row
        if old is not None and old.mac == row.mac and not (failed and not old.state & _FAILED):
            return None
        return self._told("neighbour", False, words, neighbour=shown)

    def _told(self, what: str, gone: bool, words: str, **more: Any) -> Event:
        action = "removed" if gone else "added"
        return {"type": what, "action": action, **more, "text": f"{self.name}: {what} {words} {action}"}


def _joined(protocol: int, groups: tuple[int, ...]) -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RCVBUF)
        sock.bind((0, 0))
        for group in groups:
            sock.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
    except BaseException:
        sock.close()
        raise
    return sock


def _key(one: Neighbour) -> tuple[int, str]:
    return one.ifindex, str(one.address)


def _end(address: str, port: int) -> str:
    host = f"[{address}]" if ":" in address and port else address
    return f"{host}:{port}" if port else host
