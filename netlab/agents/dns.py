"""The cluster's DNS server: one event loop that answers on port 53, UDP and TCP, in every DNS pod.

Decides when sockets are read, written and closed; what is answered stands in dns_answers.py. Refuses to know the cluster: it is
told records and listeners. Sockets are opened inside a pod's network namespace and belong to it for ever; the loop lives nowhere
in particular. No packet can end it, and it sends nothing but answers to whoever asked.
"""

import contextlib
import errno
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

from netlab.agents.dns_answers import Resolver
from netlab.agents.listening import listen_each, listening_sockets, reply_from
from netlab.kernel import agent
from netlab.kernel.namespaces import current_netns, entered, raise_descriptor_limit
from netlab.kernel.scheduling import answer_soon
from netlab.model import Protocol
from netlab.ops import Identity, Listener

IDLE_S = 10.0
MOST_CLIENTS = 512
MOST_OUT_BYTES = 256 * 1024
_IN = select.EPOLLIN | select.EPOLLRDHUP


@dataclass(slots=True, eq=False)
class _Client:
    """One TCP connection: questions and answers, each behind its length."""

    sock: socket.socket
    seen: float
    inbox: bytearray = field(default_factory=bytearray)
    out: bytearray = field(default_factory=bytearray)
    eof: bool = False


class Server:
    """Listens in DNS pods and answers. Not thread-safe; nothing here waits except `poll`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.resolver = Resolver()
        self._clock = clock
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._doors: dict[Identity, list[socket.socket]] = {}
        self._clients: dict[int, _Client] = {}
        self._home = current_netns()

    # ---------------------------------------------------------------- listeners

    def listen(self, netns_fd: int, op: Listener) -> None:
        """Open `op` in the namespace. Listening twice replaces. Raises: KernelError (port taken, address absent)."""
        self.close(op.identity)
        with entered(netns_fd, self._home):
            sockets = listening_sockets(op)
        self._doors[op.identity] = sockets
        serve = self._datagrams if op.protocol is Protocol.UDP else self._accept
        for sock in sockets:
            self._add(sock, partial(serve, sock))

    def close(self, identity: Identity) -> bool:
        """Stop listening. False when there was no such listener."""
        sockets = self._doors.pop(identity, None)
        for sock in sockets or ():
            self._remove(sock)
        return sockets is not None

    def listeners(self) -> tuple[Identity, ...]:
        return tuple(self._doors)

    def close_all(self) -> None:
        """Close every descriptor; the server is of no further use."""
        for identity in tuple(self._doors):
            self.close(identity)
        for client in tuple(self._clients.values()):
            self._drop(client)
        self._epoll.close()
        os.close(self._home)

    # ---------------------------------------------------------------- the loop

    def watch(self, fd: int, ready: Callable[[], None]) -> None:
        """Call `ready` from `poll` whenever `fd` is readable or closed by its peer."""
        self._calls[fd] = lambda _: ready()
        self._epoll.register(fd, select.EPOLLIN)

    def poll(self, timeout_s: float | None = None) -> None:
        """Wait at most `timeout_s` (None: for ever) and serve what is ready."""
        wait = IDLE_S if self._clients and timeout_s is None else timeout_s
        for fd, events in self._epoll.poll(wait, 256):
            if (call := self._calls.get(fd)) is not None:
                call(events)
        now = self._clock()
        for client in [client for client in self._clients.values() if now - client.seen > IDLE_S]:
            self._drop(client)

    def _add(self, sock: socket.socket, call: Callable[[int], None]) -> None:
        self._calls[sock.fileno()] = call
        self._epoll.register(sock.fileno(), _IN)

    def _remove(self, sock: socket.socket) -> None:
        self._calls.pop(sock.fileno(), None)
        sock.close()  # a closed descriptor leaves the epoll set by itself

    # ---------------------------------------------------------------- UDP

    def _datagrams(self, sock: socket.socket, _events: int) -> None:
        """Answer the datagrams that are there, each from the address that it was sent to."""
        for _ in range(64):
            try:
                data, ancillary, _flags, peer = sock.recvmsg(65535, 128)
            except BlockingIOError:
                return
            except OSError:
                continue  # a pending ICMP error of an earlier answer
            answer = self.resolver.answer(data)
            if answer is not None:
                with contextlib.suppress(OSError):  # no buffer space, the client has gone: datagrams may be lost
                    sock.sendmsg([answer], reply_from(ancillary), 0, peer)

    # ---------------------------------------------------------------- TCP

    def _accept(self, door: socket.socket, _events: int) -> None:
        for _ in range(64):
            try:
                sock = door.accept()[0]
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._clients:
                    self._drop(next(iter(self._clients.values())))
                return
            sock.setblocking(False)
            if len(self._clients) >= MOST_CLIENTS:
                self._drop(next(iter(self._clients.values())))
            client = _Client(sock, self._clock())
            self._clients[sock.fileno()] = client
            self._add(sock, partial(self._serve, client))

    def _serve(self, client: _Client, events: int) -> None:
        if events & ~select.EPOLLOUT:
            try:
                data = client.sock.recv(65536)
            except BlockingIOError:
                return
            except OSError:
                self._drop(client)
                return
            client.seen = self._clock()
            client.eof |= not data
            client.inbox += data
        self._take(client)
        self._flush(client)

    def _take(self, client: _Client) -> None:
        while len(client.inbox) >= 2 and len(client.out) < MOST_OUT_BYTES:
            length = int.from_bytes(client.inbox[:2], "big")
            if len(client.inbox) < 2 + length:
                return
            answer = self.resolver.answer(bytes(client.inbox[2 : 2 + length]), stream=True)
            del client.inbox[: 2 + length]
            if answer is not None:
                client.out += len(answer).to_bytes(2, "big") + answer

    def _flush(self, client: _Client) -> None:
        try:
            while client.out:
                del client.out[: client.sock.send(client.out)]
                self._take(client)
        except BlockingIOError:
            self._epoll.modify(client.sock.fileno(), select.EPOLLOUT)  # it takes no answers: it is not listened to either
            return
        except OSError:
            self._drop(client)
            return
        if client.eof:
            self._drop(client)
        else:
            self._epoll.modify(client.sock.fileno(), _IN)

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.sock.fileno(), None) is not None:
            self._remove(client.sock)


def serve(sock: socket.socket) -> NoReturn:
    """Be the lab's DNS agent: take the holder's orders from `sock` until the holder has gone.

    Orders: update({origin: records}); listen([(path of the namespace, Listener)]) -> one sentence for each listener that could
    not be opened; close([identity]) -> number closed; listening() -> identities.
    """
    raise_descriptor_limit()
    answer_soon()
    server = Server()

    def close(identities: Sequence[Identity]) -> int:
        return sum(server.close(identity) for identity in identities)

    methods: dict[str, agent.Method] = {
        "update": server.resolver.update,
        "listen": lambda wanted: listen_each(wanted, server.listen),
        "close": close,
        "listening": server.listeners,
    }
    server.watch(sock.fileno(), lambda: agent.answer_or_end(sock, methods))
    while True:
        server.poll()
