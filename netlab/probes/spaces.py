"""Namespaces that a prober has entered, and the sockets that it has open there: kept from one probe to the next.

Why: to open a raw socket in every namespace of a lab, have the kernel compile its filter and close it again costs more than all
else of a probe. Decides what is kept, and for how long it is good. Refuses to know what is watched for.

The filter of what is kept is the same for all probes of a prober (filters.token_filter, every_run), and is attached once; which
run a packet is of, who reads it sees. A socket that was kept proves itself in each probe as a new one does
(watching.send_own_tests). A namespace is known by its inode, which no other can have while a descriptor of it is open: a path or
a name that means another one now gets other sockets.

Never kept: sockets with any other filter, which others' packets would fill; packet sockets (see kernel/packet_sockets.py); raw
SCTP sockets, because where the kernel has no SCTP their mere presence stops its ICMP errors (ip_protocol_deliver_rcu). Who
has had no request for REST_S, or gets one that is no probe (agents/worker.py), closes everything, so that a namespace that the
lab has given up is freed.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from netlab.kernel import packet_sockets
from netlab.kernel.namespaces import entered
from netlab.kernel.packet_sockets import Delivered, Program
from netlab.model import Protocol
from netlab.probes.plain import number_of

REST_S = 2.0
MOST_DESCRIPTORS = 4096
"""What one prober keeps at most; what is beyond is closed after each probe."""
Inode = tuple[int, int]
KEPT = (Protocol.TCP, Protocol.UDP, Protocol.ICMP)


def inode(file: os.stat_result) -> Inode:
    return (file.st_dev, file.st_ino)


@dataclass(slots=True, eq=False)
class Space:
    """One namespace, entered, and its open sockets. `fd`: its descriptor."""

    netns: str
    fd: int
    identity: Inode | None = None
    raw: dict[tuple[int, Protocol], Delivered] = field(default_factory=dict)
    injectors: dict[int, socket.socket] = field(default_factory=dict)

    def watch(self, version: int, protocol: Protocol, program: Program) -> Delivered:
        """What the namespace's stack accepts of a protocol of KEPT; give the same program always. Raises OSError, NetlabError."""
        known = self.raw.get((version, protocol))
        if known is None:
            known = self.raw[version, protocol] = self.opened(version, protocol, program)
        else:
            known.forget_drops()
        return known

    def opened(self, version: int, protocol: Protocol, program: Program) -> Delivered:
        """The same for any protocol and program, not kept: to be closed by who asked for it."""
        with entered(self.fd):
            return packet_sockets.delivered(number_of(protocol, version), program, version)

    def injector(self, version: int) -> socket.socket:
        """A socket for packets of our own making. Raises OSError, NetlabError."""
        known = self.injectors.get(version)
        if known is None:
            with entered(self.fd):
                known = self.injectors[version] = packet_sockets.injector(version)
        return known

    @property
    def descriptors(self) -> int:
        return 1 + len(self.raw) + len(self.injectors)

    def close(self) -> None:
        for raw in self.raw.values():
            raw.close()
        for sock in self.injectors.values():
            sock.close()
        os.close(self.fd)


class Spaces:
    """The namespaces of a prober. `open_netns`: a name or path -> a new descriptor. `identify`: the file that it means now.

    Without `identify` nothing is kept.
    """

    def __init__(self, open_netns: Callable[[str], int], identify: Callable[[str], os.stat_result] | None = None) -> None:
        self._open = open_netns
        self._identify = identify
        self._kept: dict[str, Space] = {}
        self._descriptors = 0

    def take(self, netns: str) -> Space:
        """The namespace for one user at a time, until it is given back. Raises what `open_netns` raises."""
        if self._identify is None:
            return Space(netns, self._open(netns))
        kept = self._pop(netns)
        if kept is not None:
            try:
                if inode(self._identify(netns)) == kept.identity:
                    return kept
            except OSError:
                pass  # opening says why
            kept.close()
        fd = self._open(netns)
        return Space(netns, fd, inode(os.fstat(fd)))

    def give_back(self, space: Space) -> None:
        """Nobody uses it any more."""
        count = space.descriptors
        if self._identify is None or space.netns in self._kept or self._descriptors + count > MOST_DESCRIPTORS:
            space.close()
            return
        self._kept[space.netns] = space
        self._descriptors += count

    def keep_only(self, used: Iterable[str]) -> None:
        """Give up what is not among these: the lab has no such namespace now."""
        for netns in self._kept.keys() - set(used):
            self._close(netns)

    def close(self) -> None:
        """Give up everything that is kept."""
        for netns in list(self._kept):
            self._close(netns)

    def _pop(self, netns: str) -> Space | None:
        space = self._kept.pop(netns, None)
        if space is not None:
            self._descriptors -= space.descriptors
        return space

    def _close(self, netns: str) -> None:
        space = self._pop(netns)
        if space is not None:
            with contextlib.suppress(OSError):
                space.close()
