"""The load generator: a process in the sender's namespace that sends requests at a constant rate and records their fates.

Open loop: request i is due at begin + i / rate and leaves then (or as soon as the process runs), with a deadline of its own.
Latency counts from the moment when the request was due, so that a stalled generator does not flatter the server. Time in which
this process did not run counts against no deadline. The judging is netlab.probes.load's.

HTTP uses a new connection for each request or, with `keep_alive`, idle ones first. A kept connection that turns out to have been
closed before a byte of the answer came is no loss: the request is sent once more on a new one, as HTTP clients do (RFC 9110,
9.2.2).
"""

import contextlib
import errno
import heapq
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any, NoReturn

import h11

from netlab.kernel import agent
from netlab.kernel import namespaces as ns
from netlab.probes.load import UNNAMED, Fate, LoadRecord, LoadRequest
from netlab.probes.values import place

STALL_S = 0.02
QUIET_S = 0.2
"""How long a TCP server that took the connection may think about saying its name."""
IP_BIND_ADDRESS_NO_PORT = 24
POD_HEADER = b"x-netlab-pod"
_REFUSALS = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EPERM)
_OURS = (errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def serve(sock: socket.socket) -> NoReturn:
    """(id, "start", (request,)), then (id, "finish", (stop,)), answered with the LoadRecord. Ends with the holder."""
    try:
        number, _, (request,) = agent.receive(sock)
        fd = os.open(request.netns, os.O_RDONLY | os.O_CLOEXEC)
        ns.setns(fd, ns.CLONE_NEWNET)  # for good: this process does nothing else
        os.close(fd)
        with contextlib.suppress(OSError):  # the measuring shall suffer last where the machine is busy; an ordinary user may not
            os.setpriority(os.PRIO_PROCESS, 0, -10)
        generator = Generator(request, sock)
        agent.send(sock, (number, True, None))
        record = generator.run()
        while generator.asked is None:
            generator.hear()
        agent.send(sock, (generator.asked, True, record))
        sock.recv(1)
    except (EOFError, ConnectionError):
        pass
    raise SystemExit(0)


class _Exchange:
    """One request under way. `conn` is a kept connection's state, or a new one's."""

    __slots__ = ("connected", "data", "deadline", "done", "due", "fd", "http", "index", "name", "reused", "sock", "status")

    def __init__(self, index: int, due: float, deadline: float) -> None:
        self.index, self.due, self.deadline = index, due, deadline
        self.sock: socket.socket | None = None
        self.fd = -1
        self.http: h11.Connection | None = None
        self.connected = self.reused = self.done = False
        self.data = b""
        self.status = 0
        self.name = ""


class Generator:
    """Sends until its time is over or it is told to stop, then waits for what is still under way."""

    def __init__(self, request: LoadRequest, wire: socket.socket, clock: Callable[[], float] = time.monotonic) -> None:
        self._request, self._wire, self._clock = request, wire, clock
        self._poller = select.epoll()
        self._poller.register(wire, select.EPOLLIN)
        self._under_way: list[tuple[float, int, _Exchange]] = []  # a heap by deadline; what is done leaves it when it is first
        self._by_fd: dict[int, _Exchange] = {}
        self._idle: dict[int, tuple[socket.socket, h11.Connection]] = {}
        self._stopped = False
        self._grace_s = 0.0
        self._begun = self._last = 0.0
        self.asked: int | None = None
        self.record = LoadRecord()
        host = request.http.host or place(request.destination, request.port)
        headers = [("Host", host), ("User-Agent", "netlab"), *request.http.headers]
        self._headers = headers if request.keep_alive else [*headers, ("Connection", "close")]

    def hear(self) -> None:
        """Take "finish" from the holder."""
        number, _, (stop,) = agent.receive(self._wire)
        self.asked = number
        self._stopped = self._stopped or stop

    def run(self) -> LoadRecord:
        """The whole load."""
        interval, self._begun = 1.0 / self._request.rate, self._clock()
        self._last = self._begun
        count = max(1, round(self._request.for_s * self._request.rate))
        sent, ended = 0, 0.0
        while True:
            now = self._clock()
            while not self._stopped and sent < count and (due := self._begun + sent * interval) <= now:
                self._launch(sent, due)
                sent, now = sent + 1, self._clock()
            if (self._stopped or sent == count) and not ended:
                ended = now if self._stopped else self._begun + count * interval
            if ended and not self._under_way:
                break
            until = [self._under_way[0][0] + self._grace_s] if self._under_way else []
            if not ended:
                until.append(self._begun + sent * interval)
            self._wait(max(0.0, min(until) - self._clock()))
        while not self._stopped and (left := ended - self._clock()) > 0:  # the last interval is part of the load
            self._wait(left)
        self.record.seconds = ended - self._begun
        return self.record

    def _wait(self, timeout_s: float) -> None:
        begun = self._clock()
        events = self._poller.poll(timeout_s, 512)
        now = self._clock()
        for over in (begun - self._last, now - begun - timeout_s):
            if over > STALL_S:
                self._grace_s += over
        self._last = now
        for fd, _ in events:
            if fd == self._wire.fileno():
                self.hear()
            elif (exchange := self._by_fd.get(fd)) is not None:
                self._guarded(exchange, lambda exchange=exchange: self._advance(exchange))  # type: ignore[misc]  # bound now
            elif fd in self._idle:  # the other end has no use for it any more
                self._idle.pop(fd)[0].close()
        now = self._clock() - self._grace_s
        while self._under_way and (self._under_way[0][2].done or self._under_way[0][0] <= now):
            deadline, _, exchange = heapq.heappop(self._under_way)
            if not exchange.done and deadline >= exchange.deadline:
                self._end(exchange, Fate.TIMED_OUT)

    # ------------------------------------------------------------ one request

    def _launch(self, index: int, due: float) -> None:
        now, record = self._clock(), self.record
        record.sent_s.append(now - self._begun)
        record.late_s.append(now - due)
        record.latency_s.append(0.0)
        record.fates.append(Fate.UNSENT)
        exchange = _Exchange(index, due, now - self._grace_s + self._request.timeout_s)
        heapq.heappush(self._under_way, (exchange.deadline, index, exchange))
        if self._idle:
            _, (exchange.sock, exchange.http) = self._idle.popitem()
            exchange.fd, exchange.connected, exchange.reused = exchange.sock.fileno(), True, True
            self._by_fd[exchange.fd] = exchange
            self._guarded(exchange, lambda: self._say(exchange))
        else:
            self._open(exchange)

    def _open(self, exchange: _Exchange) -> None:
        request = self._request
        family = socket.AF_INET if request.destination.version == 4 else socket.AF_INET6
        kind = socket.SOCK_DGRAM if request.protocol == "udp" else socket.SOCK_STREAM

        def connect() -> None:
            exchange.sock = sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            exchange.fd = sock.fileno()
            self._by_fd[exchange.fd] = exchange
            with contextlib.suppress(OSError):  # the port is chosen with the peer known, so that many peers may share one
                sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((str(request.source), 0))
            with contextlib.suppress(BlockingIOError):
                sock.connect((str(request.destination), request.port))
            if request.protocol == "udp":
                exchange.connected = True
                self._poller.register(exchange.fd, select.EPOLLIN)
                sock.send(request.datagram)
            else:
                self._poller.register(exchange.fd, select.EPOLLOUT)

        self._guarded(exchange, connect)

    def _guarded(self, exchange: _Exchange, step: Callable[[], None]) -> None:
        """One step of an exchange; an error of the network or of HTTP ends it with the fate that it stands for."""
        try:
            step()
        except BlockingIOError:
            return
        except h11.ProtocolError:
            self._broken(exchange)
        except OSError as error:
            if error.errno in _OURS and not exchange.connected:
                words = os.strerror(error.errno or 0)
                self.record.problems[words] = self.record.problems.get(words, 0) + 1
                self._end(exchange, Fate.UNSENT)
            elif error.errno in _REFUSALS and (not exchange.connected or self._request.protocol == "udp"):
                self._end(exchange, Fate.REFUSED)
            elif error.errno == errno.ETIMEDOUT:
                self._end(exchange, Fate.TIMED_OUT)
            else:
                self._broken(exchange)

    def _broken(self, exchange: _Exchange) -> None:
        """The connection ended before the answer did."""
        if exchange.reused and not exchange.data:
            self.record.retried += 1
            self._forget(exchange)
            exchange.reused = exchange.connected = False
            exchange.http = None
            self._open(exchange)
        else:
            self._end(exchange, Fate.RESET)

    def _advance(self, exchange: _Exchange) -> None:
        sock = exchange.sock
        assert sock is not None
        if not exchange.connected:
            if number := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(number, os.strerror(number))
            exchange.connected = True
            self._poller.modify(exchange.fd, select.EPOLLIN)
            self._greet(exchange)
            return
        data, request = sock.recv(65536), self._request
        exchange.data = exchange.data or data[:256]
        match request.protocol:
            case "http":
                self._take(exchange, data)
            case "udp":
                self._answered(exchange, "" if request.port == 53 else _said(data))
            case "tcp":
                if data or request.accepting:
                    self._answered(exchange, _said(data))
                else:
                    self._broken(exchange)

    def _greet(self, exchange: _Exchange) -> None:
        assert exchange.sock is not None
        if self._request.protocol == "http":
            exchange.http = h11.Connection(h11.CLIENT)
            self._say(exchange)
            return
        exchange.sock.shutdown(socket.SHUT_WR)  # nothing will be said: the built-in responder then tells its name
        if self._request.accepting:
            self.record.latency_s[exchange.index] = self._clock() - exchange.due
            exchange.deadline = min(exchange.deadline, self._clock() - self._grace_s + QUIET_S)
            heapq.heappush(self._under_way, (exchange.deadline, exchange.index, exchange))

    def _say(self, exchange: _Exchange) -> None:
        assert exchange.http is not None and exchange.sock is not None
        asked = self._request.http
        event = h11.Request(method=asked.method, target=asked.path or "/", headers=self._headers)
        exchange.sock.send((exchange.http.send(event) or b"") + (exchange.http.send(h11.EndOfMessage()) or b""))

    def _take(self, exchange: _Exchange, data: bytes) -> None:
        assert exchange.http is not None
        if not data and not exchange.data:
            self._broken(exchange)
            return
        exchange.http.receive_data(data)
        while True:
            match exchange.http.next_event():
                case h11.Response() as response:
                    exchange.status = response.status_code
                    exchange.name = next((value.decode("latin-1") for key, value in response.headers if key == POD_HEADER), "")
                case h11.EndOfMessage():
                    self._finished(exchange)
                    return
                case h11.ConnectionClosed():
                    self._broken(exchange)
                    return
                case h11.Data() | h11.InformationalResponse():
                    continue
                case _:  # NEED_DATA, PAUSED
                    return

    def _finished(self, exchange: _Exchange) -> None:
        status = exchange.status
        self.record.statuses[status] = self.record.statuses.get(status, 0) + 1
        if 200 <= status < 400:
            self._answered(exchange, exchange.name)
        else:
            self._end(exchange, Fate.WRONG_STATUS)

    def _answered(self, exchange: _Exchange, name: str) -> None:
        self.record.latency_s[exchange.index] = self.record.latency_s[exchange.index] or self._clock() - exchange.due
        name = name or UNNAMED
        self.record.backends[name] = self.record.backends.get(name, 0) + 1
        self._end(exchange, Fate.ANSWERED)

    def _end(self, exchange: _Exchange, fate: Fate) -> None:
        if fate is Fate.TIMED_OUT and exchange.connected and self._request.protocol == "tcp" and self._request.accepting:
            self._answered(exchange, "")  # the connection was made, which is all that was asked
            return
        exchange.done = True
        self.record.fates[exchange.index] = fate
        self._forget(exchange, keep=fate in (Fate.ANSWERED, Fate.WRONG_STATUS) and self._request.keep_alive)

    def _forget(self, exchange: _Exchange, keep: bool = False) -> None:
        """Let the connection go, or keep it for another request where both ends may."""
        sock, http = exchange.sock, exchange.http
        self._by_fd.pop(exchange.fd, None)
        exchange.sock, exchange.fd = None, -1
        if sock is None:
            return
        if keep and http is not None and http.our_state is h11.DONE and http.their_state is h11.DONE:
            http.start_next_cycle()
            self._idle[sock.fileno()] = (sock, http)
        else:
            sock.close()  # which also takes it out of the poller


def _said(data: bytes) -> str:
    """The name in what a server said: its first line, where that can be a pod's name."""
    first: Any = data.split(b"\n", 1)[0].strip()
    words = first.decode("ascii", "replace").split()
    name = str(words[-1]) if words else ""
    return name if name.replace("-", "").replace(".", "").isalnum() else ""
