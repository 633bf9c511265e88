"""Waiting until routing daemons have put into the kernel what a plan expects, and taken away what it no longer does.

Waits for the kernel's own notice of each change of a route: nothing is polled. Where the time runs out, the daemons are asked
over their control sockets which of their sessions is not established.
"""

import errno
import os
import select
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack

from netlab.kernel import listing
from netlab.kernel.namespaces import entered
from netlab.kernel.netlink import NETLINK_ROUTE, Socket
from netlab.kernel.rules import opened
from netlab.kernel.verify import LEARNED, learned_problem
from netlab.ops import Learned
from netlab.rendering import bird

_GROUPS = 0x40 | 0x400
"""RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE"""
_RECEIVE_BYTES = 1 << 20


class _Watched:
    """One namespace: what shall be there, what shall not, and a socket that says when to look again."""

    def __init__(self, stack: ExitStack, netns: str, path: str, wanted: Sequence[Learned], gone: Sequence[Learned]) -> None:
        self.netns, self._wanted, self._gone = netns, wanted, gone
        fd = stack.enter_context(opened(path))
        with entered(fd):
            self.notices = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))
            self._sock = stack.enter_context(Socket())
        self.notices.setblocking(False)
        self.notices.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
        self.notices.bind((0, _GROUPS))

    def drain(self) -> None:
        """Forget what was noticed: the table is read after it. An overrun (ENOBUFS) is a notice, too."""
        while True:
            try:
                self.notices.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def problems(self) -> Iterator[str]:
        links = {link.ifindex: link for link in listing.links(self._sock)}
        routes = listing.routes(self._sock)
        there = {route.destination for route in routes if route.protocol in LEARNED}
        for op in self._wanted:
            if problem := learned_problem(op, routes, links):
                yield f"{self.netns}: {problem}"
        for op in self._gone:
            if op.destination in there:
                yield f"{self.netns}: route {op.destination} is still there"


def wait(paths: Mapping[str, str], wanted: Sequence[Learned], gone: Sequence[Learned], deadline_s: float) -> list[str]:
    """[] once every route is as wanted; what is not, when the time has run out."""
    deadline = time.monotonic() + deadline_s
    with ExitStack() as stack:
        names = dict.fromkeys(op.netns for op in (*wanted, *gone))
        todo = [
            _Watched(stack, name, paths[name], [op for op in wanted if op.netns == name], [op for op in gone if op.netns == name])
            for name in names
        ]
        found: dict[str, list[str]] = {}
        while True:
            for one in todo:
                one.drain()
                found[one.netns] = [*one.problems()]
            todo = [one for one in todo if found[one.netns]]
            left = deadline - time.monotonic()
            if not todo or left <= 0:
                return [problem for problems in found.values() for problem in problems]
            select.select([one.notices for one in todo], [], [], left)


def sessions(sockets: Mapping[str, str]) -> list[str]:
    """Which session of which daemon is not established and why, by the daemons' own words. `sockets`: netns -> control socket."""
    found = []
    for netns, path in sockets.items():
        try:
            answer = _ask(path, "show protocols")
        except OSError as error:
            found.append(f"{netns}: its bird does not answer: {error.strerror or error}")
            continue
        found += [f"{netns}: session {name} is not established: {state}" for name, state in bird.down(answer)]
    return found


def _ask(path: str, question: str) -> str:
    """One question over BIRD's control socket. Its last line begins with a code and a space."""
    directory, _, name = path.rpartition("/")
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY)  # a Unix socket's path holds only 107 bytes
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(2.0)
        try:
            sock.connect(f"/proc/self/fd/{fd}/{name}")
        finally:
            os.close(fd)
        _reply(sock)  # its greeting
        sock.sendall(question.encode() + b"\n")
        return _reply(sock)


def _reply(sock: socket.socket) -> str:
    data = b""
    while True:
        more = sock.recv(1 << 16)
        data += more
        last = data.rstrip(b"\n").rpartition(b"\n")[2]
        if not more or (data.endswith(b"\n") and last[:4].isdigit() and last[4:5] == b" "):
            return data.decode(errors="replace")
