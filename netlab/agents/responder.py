"""The built-in responder: one event loop that answers for every pod which has no program of its own.

Decides when sockets are read, written and closed. What is answered stands in answers.py; requests that a pod makes itself
(/dial) in dialling.py. Refuses to know the cluster: it is told pods and listeners. Over 400 lines: a client's life is one
state machine and is read in one piece.

Theory of operation. Listening sockets are opened inside each pod's network namespace and belong to it for ever; the loop itself
lives nowhere in particular. All descriptors are in one epoll set, which is itself a descriptor (`fileno`), so that an agent can
either call `poll` in a loop with its own sockets added by `watch`, or put the whole responder into a loop of its own. A TCP
client that stays silent for SILENCE_S gets the pod's name and the end of the stream (as the serve-hostname images do); an HTTP
client speaks at once and never sees it. Buffers are bounded, the number of clients is bounded (the oldest goes first), and one
descriptor is kept spare so that a full descriptor table still refuses clients instead of spinning.
"""

import contextlib
import errno
import os
import resource
import select
import socket
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NoReturn

from netlab.agents import answers, health
from netlab.agents.answers import PodFacts
from netlab.agents.dialling import Dialling
from netlab.agents.listening import listen_each, listening_sockets, reply_from
from netlab.kernel import agent
from netlab.kernel.namespaces import current_netns, entered, raise_descriptor_limit
from netlab.model import Protocol
from netlab.ops import Identity, Listener

SILENCE_S = 0.8
"""Long for an HTTP client on a busy machine, whose request must not be taken for silence; less than the second of `nc -w 1`."""
IDLE_S = 900.0
LINGER_S = 1.0
MAX_CLIENTS = 8192
MAX_OUT_BYTES = 256 * 1024
MAX_IN_BYTES = answers.MAX_BODY_BYTES + answers.MAX_HEAD_BYTES + 65536
MAX_DIALS = 256
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_IN = select.EPOLLIN | select.EPOLLRDHUP
Callback = Callable[[], None]

__all__ = ["PodFacts", "Responder"]


@dataclass(slots=True)
class _Home:
    """A namespace that listeners live in: kept open for the sockets of /dial."""

    fd: int
    users: int = 0


@dataclass(slots=True, eq=False)
class _Door:
    """One listening socket. `since`: when what a health check says was last changed, in seconds since the epoch."""

    op: Listener
    pod: PodFacts
    sock: socket.socket
    clients: "set[_Client]" = field(default_factory=set)
    ending: bool = False
    """Its pod ends: what was asked is answered, and then the connection is closed."""
    since: float = field(default_factory=time.time)

    @property
    def named(self) -> PodFacts | None:
        """The pod that answers; a health check of the Service proxy has none."""
        return self.pod if self.op.health is None else None


@dataclass(slots=True, eq=False)
class _Client:
    """One accepted connection. `over`: nothing more will be sent once `out` is empty."""

    door: _Door
    sock: socket.socket
    peer: tuple[str, int]
    seen: float
    inbox: bytearray = field(default_factory=bytearray)
    out: bytearray = field(default_factory=bytearray)
    spoke: bool = False
    eof: bool = False
    over: bool = False
    shut: bool = False
    waiting: bool = False
    events: int = _IN


class Responder:
    """Listens in pods and answers. Not thread-safe; nothing here waits except `poll`."""

    def __init__(self, silence_s: float = SILENCE_S, max_clients: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._epoll = select.epoll()
        self._clock = clock
        self._silence_s = silence_s
        self._calls: dict[int, Callable[[int], None]] = {}
        self._doors: dict[Identity, list[_Door]] = {}
        self._homes: dict[str, _Home] = {}
        self._stores: dict[str, dict[bytes, bytes]] = {}
        self._clients: dict[int, _Client] = {}
        self._silent: OrderedDict[_Client, float] = OrderedDict()
        self._lingering: OrderedDict[_Client, float] = OrderedDict()
        self._dials: set[Dialling] = set()
        self._swept = clock()
        self._home = current_netns()
        self._spare: int | None = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._max_clients = max_clients or max(64, min(MAX_CLIENTS, limit // 2 if limit > 0 else MAX_CLIENTS))

    # ---------------------------------------------------------------- listeners

    def listen(self, netns_fd: int, op: Listener, pod: PodFacts) -> None:
        """Open `op` in the namespace `netns_fd` (the caller keeps and closes that descriptor). Listening twice replaces.

        Raises KernelError (port taken, address absent), MachineError (protocol that this kernel has not).
        """
        if self._renewed(op):
            return
        self.close(op.identity)
        with entered(netns_fd, self._home):
            sockets = listening_sockets(op)
        if op.netns not in self._homes:
            self._homes[op.netns] = _Home(os.dup(netns_fd))
        self._homes[op.netns].users += 1
        doors = [_Door(op, pod, sock) for sock in sockets]
        self._doors[op.identity] = doors
        for door in doors:
            self._add(door.sock, partial(_serve_udp if op.protocol is Protocol.UDP else self._accept, door))

    def _renewed(self, op: Listener) -> bool:
        """Only what a health check says has changed: the sockets stay, and so do their connections."""
        doors = self._doors.get(op.identity)
        if op.health is None or doors is None or replace(doors[0].op, health=op.health) != op:
            return False
        for door in doors:
            if door.op != op:
                door.op, door.since = op, time.time()
        return True

    def close(self, identity: Identity, gently: bool = False) -> bool:
        """Stop listening, and end the connections that came through that listener. False when there was no such listener.

        `gently`: who is connected already is answered first; `draining` says where there are such.
        """
        doors = self._doors.pop(identity, None)
        if doors is None:
            return False
        for door in doors:
            door.ending = gently and door.op.protocol is Protocol.TCP
            if door.ending:
                self._accept_all(door)
            self._remove(door.sock)
            for client in tuple(door.clients):
                if door.ending:
                    self._end(client)
                else:
                    self._drop(client)
        home = self._homes[doors[0].op.netns]
        home.users -= 1
        if not home.users:
            del self._homes[doors[0].op.netns]
            self._stores.pop(doors[0].op.netns, None)
            os.close(home.fd)
        return True

    def draining(self) -> list[str]:
        """The namespaces of closed listeners in which connections are still open."""
        return sorted({client.door.op.netns for client in self._clients.values() if client.door.ending})

    def cut(self, netns: str) -> None:
        """End the connections of closed listeners in this namespace, whatever they wait for."""
        for client in [one for one in self._clients.values() if one.door.ending and one.door.op.netns == netns]:
            self._drop(client)

    def _accept_all(self, door: _Door) -> None:
        """Take those in whom the kernel has greeted already."""
        before = -1
        while len(door.clients) != before:
            before = len(door.clients)
            self._accept(door)

    def _end(self, client: _Client) -> None:
        """Answer what was asked; who has asked nothing since the last answer is told that this is the end."""
        if not (client.waiting or client.over):
            self._read(client)
        if client.sock.fileno() >= 0 and client.spoke and not (client.inbox or client.out or client.waiting or client.over):
            client.over = True
            self._flush(client)

    def listeners(self) -> tuple[Identity, ...]:
        """What is being listened on, in the order in which it was opened."""
        return tuple(self._doors)

    def close_all(self) -> None:
        """Close every descriptor; the responder is of no further use."""
        for dial in tuple(self._dials):
            dial.abandon()
        for identity in tuple(self._doors):
            self.close(identity)
        self._epoll.close()
        os.close(self._home)
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None

    # ---------------------------------------------------------------- the loop

    def fileno(self) -> int:
        """The epoll descriptor: readable when `poll(0)` has something to do (timers apart: see `deadline`)."""
        return self._epoll.fileno()

    def watch(self, fd: int, ready: Callback) -> None:
        """Call `ready` from `poll` whenever `fd` is readable or closed by its peer."""
        self._calls[fd] = lambda _: ready()
        self._epoll.register(fd, select.EPOLLIN)

    def deadline(self) -> float | None:
        """Seconds until `poll` must be called again even if nothing is readable; None: no timer runs."""
        times = [next(iter(queue.values())) for queue in (self._silent, self._lingering) if queue]
        times += [dial.deadline for dial in self._dials]
        return max(0.0, min(times) - self._clock()) if times else None

    def poll(self, timeout_s: float | None = None) -> int:
        """Wait at most `timeout_s` (None: for ever), serve what is ready, run due timers. The number of ready descriptors."""
        due = self.deadline()
        wait = due if timeout_s is None else timeout_s if due is None else min(due, timeout_s)
        ready = self._epoll.poll(None if wait is None else wait, 256)
        for fd, events in ready:
            call = self._calls.get(fd)
            if call is not None:
                call(events)
        self._run_timers()
        return len(ready)

    def _run_timers(self) -> None:
        now = self._clock()
        while self._silent and next(iter(self._silent.values())) <= now:
            client, _ = self._silent.popitem(last=False)
            self._greet(client)
        while self._lingering and next(iter(self._lingering.values())) <= now:
            self._drop(next(iter(self._lingering)))
        for dial in tuple(self._dials):
            if dial.deadline <= now:
                dial.expire()
        if now - self._swept > 10.0:
            self._swept = now
            for client in tuple(self._clients.values()):
                if now - client.seen > IDLE_S:
                    self._drop(client)

    def _add(self, sock: socket.socket, call: Callable[[int], None], events: int = _IN) -> None:
        self._calls[sock.fileno()] = call
        self._epoll.register(sock.fileno(), events)

    def _change(self, sock: socket.socket, events: int) -> None:
        self._epoll.modify(sock.fileno(), events)

    def _remove(self, sock: socket.socket) -> None:
        self._calls.pop(sock.fileno(), None)
        sock.close()  # a closed descriptor leaves the epoll set by itself

    # ---------------------------------------------------------------- stream clients

    def _accept(self, door: _Door, _events: int = 0) -> None:
        for _ in range(64):
            try:
                sock, peer = door.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._refuse_one(door)
                return
            sock.setblocking(False)
            now = self._clock()
            client = _Client(door, sock, (peer[0], peer[1]), now)
            if len(self._clients) >= self._max_clients:
                self._drop(next(iter(self._clients.values())))
            self._clients[sock.fileno()] = client
            door.clients.add(client)
            self._add(sock, partial(self._serve, client))
            if door.op.protocol is Protocol.TCP:
                if door.op.persona != "redis":  # a redis client may connect early and stay silent: a greeting would break it
                    self._silent[client] = now + self._silence_s
                self._serve(client, select.EPOLLIN)  # most clients have spoken already

    def _refuse_one(self, door: _Door) -> None:
        """No descriptor is left: the oldest client goes, and the one at the door is refused with the spare descriptor."""
        if self._spare is not None:
            os.close(self._spare)
            self._spare = None
        with contextlib.suppress(OSError):
            door.sock.accept()[0].close()
        if self._clients:
            self._drop(next(iter(self._clients.values())))
        with contextlib.suppress(OSError):
            self._spare = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)

    def _serve(self, client: _Client, events: int) -> None:
        if client.waiting and events & (select.EPOLLHUP | select.EPOLLERR):
            self._drop(client)
            return
        if events & select.EPOLLOUT:
            self._answer(client)
        if events & ~select.EPOLLOUT and client.sock.fileno() >= 0:
            self._read(client)

    def _read(self, client: _Client) -> None:
        try:
            data = client.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.seen = self._clock()
        if client.over:  # the answer is complete: what still comes is read away, so that closing does not reset it
            if not data:
                client.eof = True
                self._flush(client)
            return
        if data:
            if not client.spoke:
                client.spoke = True
                self._silent.pop(client, None)
            client.inbox += data
        else:
            client.eof = True
            if not client.spoke:
                self._silent.pop(client, None)
                self._greet(client)
                return
        if not client.waiting:
            self._answer(client)

    def _greet(self, client: _Client) -> None:
        """The pod's name for a client that said nothing, and the end of the stream."""
        client.out += f"{client.door.pod.name}\n".encode()
        client.over = True
        self._flush(client)

    def _answer(self, client: _Client) -> None:
        """Answer the whole requests in the inbox and send, for as long as the client takes its answers."""
        while True:
            before = len(client.inbox)
            if before and not client.over and not client.waiting:
                self._take(client)
            if client.eof and not client.waiting and not _unread(client, before):
                client.over = True
            if len(client.inbox) > MAX_IN_BYTES:
                self._drop(client)
                return
            self._flush(client)
            if client.sock.fileno() < 0 or client.out or client.over or not _unread(client, before):
                return

    def _take(self, client: _Client) -> None:
        """Move answers to requests from the inbox to `out`."""
        try:
            if client.door.op.protocol is Protocol.SCTP:
                self._answer_message(client)
            elif client.door.op.persona == "redis" and not _looks_like_http(client.inbox):
                self._answer_redis(client)
            else:
                self._answer_http(client)
        except answers.Malformed as error:
            client.inbox.clear()
            client.over = True
            redis = client.door.op.persona == "redis"
            refusal = answers.Answer(f"{error}\n", error.status)
            client.out += f"-ERR {error}\r\n".encode() if redis else answers.http_bytes(refusal, client.door.named, close=True)

    def _answer_http(self, client: _Client) -> None:
        pod = client.door.pod
        while client.inbox and not client.over and not client.waiting and len(client.out) < MAX_OUT_BYTES:
            request = answers.take_request(client.inbox)
            if request is None:
                return
            if request == "continue":
                client.out += b"HTTP/1.1 100 Continue\r\n\r\n"
                client.inbox[:] = client.inbox.replace(b"100-continue", b"100-answered", 1)
                return
            op = client.door.op
            answer = (
                health.http_answer(request, op.health, time.time(), client.door.since)
                if op.health is not None
                else answers.http_answer(request, op.persona, pod, client.peer)
            )
            if isinstance(answer, answers.Dial):
                self._dial(client, request, answer)
                return
            client.over = not request.keep_alive or client.door.ending
            client.out += answers.http_bytes(answer, client.door.named, request.method == "HEAD", client.over)

    def _answer_redis(self, client: _Client) -> None:
        store = self._stores.setdefault(client.door.op.netns, {})
        while client.inbox and not client.over and len(client.out) < MAX_OUT_BYTES:
            words = answers.take_command(client.inbox)
            if words is None:
                return
            client.out += answers.redis_answer(words, store, client.door.pod)
            client.over = (bool(words) and words[0].upper() == b"QUIT") or (client.door.ending and not client.inbox)

    def _answer_message(self, client: _Client) -> None:
        message = bytes(client.inbox)
        client.inbox.clear()
        if message:
            client.out += answers.datagram_answer(message, client.door.pod, client.peer)

    def _dial(self, client: _Client, request: answers.Request, dial: answers.Dial) -> None:
        """Start the requests of /dial; the client is answered when the last of them is done."""
        pod = client.door.pod
        if len(self._dials) >= MAX_DIALS or client.door.ending:
            client.out += answers.http_bytes(answers.Answer("too many dials at once\n", 503), pod, close=True)
            client.over = True
            return

        def done(dialling: Dialling, answer: answers.Answer) -> None:
            self._dials.discard(dialling)
            if client.sock.fileno() < 0:
                return
            client.waiting = False
            client.over = not request.keep_alive or client.door.ending
            client.out += answers.http_bytes(answer, pod, request.method == "HEAD", client.over)
            self._answer(client)

        home = self._homes[client.door.op.netns]
        dialling = Dialling(dial, pod, os.dup(home.fd), self._add, self._change, self._remove, self._clock, done)
        client.waiting = True
        self._dials.add(dialling)
        dialling.start()

    def _flush(self, client: _Client) -> None:
        while client.out and client.sock.fileno() >= 0:
            try:
                sent = client.sock.send(client.out)
            except BlockingIOError:
                break
            except OSError:
                self._drop(client)
                return
            del client.out[:sent]
        if client.sock.fileno() < 0:
            return
        if client.over and not client.out:
            self._finish(client)
            return
        # a client that does not take its answers is not listened to either, and neither is one that waits for /dial
        events = select.EPOLLOUT if client.out else 0
        if not (client.eof or client.waiting or (client.out and not client.over)):
            events |= _IN
        self._listen_for(client, events)

    def _listen_for(self, client: _Client, events: int) -> None:
        if events != client.events:
            client.events = events
            self._epoll.modify(client.sock.fileno(), events)

    def _finish(self, client: _Client) -> None:
        """Everything is sent: end the stream, and linger so that unread input does not turn the end into a reset."""
        if client.eof:
            self._drop(client)
            return
        if not client.shut:
            client.shut = True
            try:
                client.sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._drop(client)
                return
            self._lingering[client] = self._clock() + LINGER_S
            self._listen_for(client, _IN)

    def _drop(self, client: _Client) -> None:
        fd = client.sock.fileno()
        if fd < 0:
            return
        self._silent.pop(client, None)
        self._lingering.pop(client, None)
        del self._clients[fd]
        client.door.clients.discard(client)
        self._remove(client.sock)


def _unread(client: _Client, before: int) -> bool:
    """Whether the inbox shrank and still holds something, so that there may be another whole request in it."""
    return 0 < len(client.inbox) < before


def _looks_like_http(inbox: bytearray) -> bool:
    return b" HTTP/1." in inbox[: answers.MAX_HEAD_BYTES].split(b"\n", 1)[0]


def _serve_udp(door: _Door, _events: int = 0) -> None:
    """Answer the datagrams that are there, each from the address that it was sent to."""
    for _ in range(64):
        try:
            data, ancillary, _flags, peer = door.sock.recvmsg(65535, 128)
        except BlockingIOError:
            return
        except OSError:
            continue  # a pending ICMP error of an earlier reply
        reply = answers.datagram_answer(data, door.pod, (peer[0], peer[1]))
        with contextlib.suppress(OSError):  # no buffer space, the client has gone: datagrams may be lost
            door.sock.sendmsg([reply[:65507]], reply_from(ancillary), 0, peer)


def serve(sock: socket.socket) -> NoReturn:
    """Be the lab's responder agent: answer for the pods, and take the holder's orders from `sock` until the holder has gone.

    Orders: listen([(path of the namespace, Listener)]) -> one sentence for each listener that could not be opened;
    close([identity], gently), draining() -> namespaces where connections of closed listeners are open, and cut([namespace]) ends
    them; listening() -> identities.
    """
    raise_descriptor_limit()
    responder = Responder()

    def listen(fd: int, op: Listener) -> None:
        *_, namespace, name = op.pod.split("/")
        responder.listen(fd, op, PodFacts(name, namespace))

    def close(identities: Sequence[Identity], gently: bool = False) -> list[str]:
        for identity in identities:
            responder.close(identity, gently)
        return responder.draining()

    def cut(netns: Sequence[str]) -> None:
        for one in netns:
            responder.cut(one)

    methods: dict[str, agent.Method] = {
        "listen": lambda wanted: listen_each(wanted, listen),
        "close": close,
        "draining": responder.draining,
        "cut": cut,
        "listening": responder.listeners,
    }

    responder.watch(sock.fileno(), lambda: agent.answer_or_end(sock, methods))
    while True:
        responder.poll()
