"""One round of changes: rtnetlink sockets inside the namespaces, what is queued for each of them, and whose fault an error is.

Decides how many system calls a change costs: a namespace is entered once to open its socket, and everything queued for it goes
out together. Knows device names and indices, which it chooses itself for new links. Refuses to know what the operations are
for.

Indices are chosen above every index in use: those of a namespace that was there before are listed first (someone may have made
or deleted links by hand), and new namespaces all look alike (`lo`, and on some machines tunl0, sit0 and the like).
"""

import errno
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from netlab.errors import KernelError
from netlab.kernel import listing
from netlab.kernel.listing import Link
from netlab.kernel.namespaces import entered
from netlab.kernel.netlink import Message, Socket
from netlab.ops import Op

GONE: Collection[int] = frozenset({errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO})
"""Answers to a deletion that mean: it is not there."""
_SHOWN = 8


@dataclass(slots=True)
class Table:
    """The links of one namespace: what the kernel lists, then what is queued."""

    indices: dict[str, int]
    listed: dict[str, Link]
    next_index: int

    def reserve(self, device: str) -> int:
        """The index of a link that is about to be made."""
        self.indices[device] = index = self.next_index
        self.next_index += 1
        return index

    def forget(self, device: str) -> None:
        self.indices.pop(device, None)
        self.listed.pop(device, None)


@dataclass(frozen=True, slots=True)
class _Queued:
    message: Message
    op: Op
    tolerated: Collection[int]


@dataclass(slots=True)
class Session:
    """Use as a context manager: its sockets are closed at the end. `home` is the process's own namespace."""

    fds: Mapping[str, int]
    home: int
    _sockets: dict[str, Socket] = field(default_factory=dict)
    _tables: dict[str, Table] = field(default_factory=dict)
    _queues: dict[str, list[_Queued]] = field(default_factory=dict)
    _fresh: list[Link] | None = None

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        for sock in self._sockets.values():
            sock.close()

    def adopt_new(self, netns: str) -> None:
        """Take in a namespace that has just been made, while the process is inside it."""
        self._sockets[netns] = sock = Socket()
        if self._fresh is None:
            self._fresh = listing.links(sock)
        indices = {link.name: link.ifindex for link in self._fresh}
        self._tables[netns] = Table(indices, {}, max(indices.values(), default=1) + 1)

    def socket(self, netns: str) -> Socket:
        sock = self._sockets.get(netns)
        if sock is None:
            if netns not in self.fds:
                raise KernelError(f"the lab has no namespace {netns}")
            with entered(self.fds[netns], self.home):
                sock = self._sockets[netns] = Socket()
        return sock

    def table(self, netns: str) -> Table:
        table = self._tables.get(netns)
        if table is None:
            listed = {link.name: link for link in listing.links(self.socket(netns))}
            indices = {name: link.ifindex for name, link in listed.items()}
            table = self._tables[netns] = Table(indices, listed, max(indices.values(), default=1) + 1)
        return table

    def index(self, netns: str, device: str) -> int | None:
        return self.table(netns).indices.get(device)

    def queue(self, netns: str, message: Message, op: Op, tolerated: Collection[int] = ()) -> None:
        """Send with the next flush. An error in `tolerated` is none."""
        self._queues.setdefault(netns, []).append(_Queued(message, op, tolerated))

    def flush(self) -> None:
        """Send what is queued, namespace by namespace. Raises KernelError that names every op refused (the rest is done)."""
        queues, self._queues = self._queues, {}
        failures: list[str] = []
        for netns, queued in queues.items():
            sock = self.socket(netns)
            for refused in sock.run([item.message for item in queued]):
                item = queued[refused.position]
                if refused.errno not in item.tolerated:
                    failures.append(f"{netns}: {_words(item.op)}: {refused.text}")
        raise_all(failures)


def raise_all(failures: list[str]) -> None:
    if failures:
        more = [f"and {len(failures) - _SHOWN} more"] if len(failures) > _SHOWN else []
        raise KernelError("the kernel refused:\n" + "\n".join(f"  {line}" for line in failures[:_SHOWN] + more))


def _words(op: Op) -> str:
    from netlab.plan import line  # only where something went wrong

    return line(op)
