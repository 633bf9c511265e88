"""Real TCP clients for probes: the sender's own kernel makes the connection, and many are under way at the same time.

Decides what each step of one exchange means for its flow. Which backend a connection reached is known by its initial sequence
number: the SYN-ACK that the sender's stack accepted acknowledges it, and the receiver's stack saw the SYN that carries it.
"""

import contextlib
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

import h11

from netlab.kernel.namespaces import entered
from netlab.kernel.packet_sockets import Delivered
from netlab.model import FrozenDict, OutcomeKind, Protocol
from netlab.probes import filters, packets, watching
from netlab.probes.flows import Batch, Sent
from netlab.probes.packets import OWN_TEST, Kind, Seen, Template
from netlab.probes.prober import Prober
from netlab.probes.rounds import watched_of
from netlab.probes.values import HttpRequest, HttpResponse, ProbeRequest, name_of, place
from netlab.probes.watching import Eye

MAX_BODY_BYTES = 4 * 1024 * 1024
_UNREACHABLE = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES)
_SYN, _ACK = 0x02, 0x10


@dataclass(slots=True, eq=False)
class Client:
    """One connection and the exchange that is under way on it."""

    sent: Sent
    sock: socket.socket
    request: HttpRequest
    http: h11.Connection
    connected: bool = False
    done: bool = False
    sequence: int | None = None
    status: int = 0
    headers: FrozenDict = field(default_factory=FrozenDict)
    body: bytearray = field(default_factory=bytearray)
    problem: str = ""

    def ready(self) -> None:
        """The socket can be written (when it was connecting) or read."""
        try:
            if not self.connected:
                number = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if number:
                    raise OSError(number, os.strerror(number))
                self.connected = True
                self.start()
            else:
                self._take(self.sock.recv(65536))
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(error)
        except h11.RemoteProtocolError as error:
            closed = "ConnectionClosed" in str(error)  # h11's own words are about its states
            self.finished("closed without a whole answer" if closed else f"the answer is no HTTP: {error}")

    def start(self) -> None:
        """Send the request."""
        flow, wanted = self.sent.batch.flow, self.request
        host = wanted.host or place(flow.destination, flow.port)
        headers = [("Host", host), ("User-Agent", "netlab"), *wanted.headers]
        event = h11.Request(method=wanted.method, target=wanted.path or "/", headers=headers)
        self.sock.send((self.http.send(event) or b"") + (self.http.send(h11.EndOfMessage()) or b""))

    def failed(self, error: OSError) -> None:
        words = os.strerror(error.errno or 0)
        if not self.connected and error.errno in _UNREACHABLE:
            self.sent.outcome, self.sent.detail = OutcomeKind.REJECTED, f"the client was told: {words}"
        elif not self.connected:
            self.sent.stray = f"the client was told: {words}"
        self.finished(words)

    def finished(self, problem: str = "") -> None:
        self.done, self.problem = True, problem
        if not problem:
            self.sent.outcome = OutcomeKind.DELIVERED
        elif self.connected:
            self.sent.stray = f"the connection was made, but then: {problem}"

    def _take(self, data: bytes) -> None:
        self.http.receive_data(data)
        while True:
            match self.http.next_event():
                case h11.Response() as response:
                    self.status = response.status_code
                    self.headers = FrozenDict(
                        {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}
                    )
                case h11.Data() as part:
                    self.body += part.data
                    if len(self.body) > MAX_BODY_BYTES:
                        self.finished("the answer is too long")
                        return
                case h11.EndOfMessage():
                    self.finished()
                    return
                case h11.InformationalResponse():
                    continue
                case h11.ConnectionClosed():
                    self.finished("the connection was closed without an answer")
                    return
                case _:  # NEED_DATA, PAUSED
                    return

    def response(self) -> HttpResponse:
        return HttpResponse(self.status, self.headers, self.body.decode("utf-8", "replace"), self.problem, self.backend())

    def backend(self) -> str:
        """The receiver, as its own namespace saw it; '' when it was not seen."""
        if not self.sent.arrivals:
            return ""
        _, address, port, _ = self.sent.arrivals[0]
        return name_of(self.sent.batch.request.names, packets.address(address), port)


@dataclass(slots=True)
class Exchange:
    """Eyes on every watched namespace, and clients whose flows they can follow."""

    prober: Prober
    request: ProbeRequest
    run: int
    eyes: dict[str, Eye]
    batch: Batch
    starts: dict[int, list[tuple[str, Seen]]] = field(default_factory=dict)
    accepted: dict[int, int] = field(default_factory=dict)

    def connect(self, count: int) -> list[Client]:
        """That many clients, their connections begun."""
        eye, clients = self.eyes[self.request.netns], []
        ports = [self.request.flow.source_port] * count if self.request.flow.source_port else self.prober.ports(eye.netns, count)
        if eye.fd < 0:
            return []
        family = socket.AF_INET if self.request.flow.destination.version == 4 else socket.AF_INET6
        with entered(eye.fd):
            socks = [socket.socket(family, socket.SOCK_STREAM) for _ in ports]
        for sock, port in zip(socks, ports, strict=True):
            sent = Sent(self.batch, len(self.batch.flows), port)
            self.batch.flows.append(sent)
            client = Client(sent, sock, self.request.http or HttpRequest(), h11.Connection(h11.CLIENT))
            clients.append(client)
            self._begin(client)
        return clients

    def _begin(self, client: Client) -> None:
        flow, sock = self.request.flow, client.sock
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            try:
                sock.bind((str(flow.source), client.sent.source_port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                sock.bind((str(flow.source), 0))
            client.sent.source_port = sock.getsockname()[1]
            sock.connect((str(flow.destination), flow.port))
        except BlockingIOError:
            return
        except OSError as error:
            client.failed(error)

    def run_until_done(self, clients: list[Client], deadline: float) -> None:
        """Serve the clients until each is done or the time is over."""
        with select.epoll() as poller:
            by_fd = {client.sock.fileno(): client for client in clients if not client.done}
            for fd, client in by_fd.items():
                poller.register(fd, select.EPOLLIN if client.connected else select.EPOLLOUT)
            raws = {raw.fileno(): (eye, raw) for eye in self.eyes.values() for raw in eye.raw}
            for fd in raws:
                poller.register(fd, select.EPOLLIN)
            waiting = len(by_fd)
            while waiting and (left := deadline - self.prober.clock()) > 0:
                for fd, _ in poller.poll(left, 256):
                    if fd in raws:
                        self._watch(*raws[fd])
                        continue
                    client, connecting = by_fd[fd], not by_fd[fd].connected
                    client.ready()
                    if client.done:
                        poller.unregister(fd)
                        waiting -= 1
                    elif connecting and client.connected:
                        poller.modify(fd, select.EPOLLIN)
            for eye, raw in raws.values():
                self._watch(eye, raw)
        for client in clients:
            if not client.done:
                client.finished("no answer before the deadline")

    def follow(self, clients: list[Client]) -> None:
        """Tell each client's flow where its SYN arrived."""
        for client in clients:
            client.sequence = self.accepted.get(client.sent.source_port, client.sequence)
            for netns, seen in self.starts.get(-1 if client.sequence is None else client.sequence, ()):
                client.sent.arrived(netns, seen)

    def _watch(self, eye: Eye, raw: Delivered) -> None:
        for data in raw.new():
            ip = packets.header(data)
            start = ip.length
            if len(data) < start + 14 or ip.protocol != 6:
                continue
            source_port, destination_port, sequence, acknowledged = struct.unpack_from("!HHII", data, start)
            flags = data[start + 13] & 0x16
            if flags == _SYN and sequence == self.run << 16 | OWN_TEST:
                eye.proved.add((data[0] >> 4, 6, False))
            elif flags == _SYN and eye.receiver:
                seen = Seen(Kind.REQUEST, 0, ip.source, ip.destination, source_port, destination_port)
                self.starts.setdefault(sequence, []).append((eye.netns, seen))
            elif flags == _SYN | _ACK and eye.netns == self.batch.netns and ip.source == self.request.flow.destination.packed:
                self.accepted[destination_port] = (acknowledged - 1) & 0xFFFFFFFF

    def blind(self) -> list[str]:
        """Sentences about eyes that did not see."""
        found = []
        for eye in self.eyes.values():
            found += [f"{eye.label}: {problem}" for problem in (*eye.problems, *watching.lost(eye))]
            if not eye.problems and not eye.proved:
                watching.send_own_tests(eye, (_own_test(self.request, self.run),), packets.LOOPBACK)
                for raw in eye.raw:
                    self._watch(eye, raw)
                if not eye.proved:
                    found.append(f"{eye.label}: the watcher did not see its own test packet")
        return found


def _own_test(request: ProbeRequest, run: int) -> watching.OwnTest:
    version = request.flow.destination.version
    return watching.OwnTest(version, packets.own_test(run, Protocol.TCP, version))


@contextlib.contextmanager
def exchange(prober: Prober, request: ProbeRequest) -> Iterator[Exchange]:
    """Open eyes for real clients; closed at the end, while the clients' sockets are the caller's."""
    run = prober.token()
    plan = watching.Plan(
        filters.handshake_filter(),
        filters.handshake_filter(),
        ((request.flow.destination.version, Protocol.TCP),),
        frozenset({request.netns}),
        False,
    )
    with watching.eyes(prober.spaces, watched_of((request,)), plan) as eyes:
        for eye in eyes.values():
            watching.send_own_tests(eye, (_own_test(request, run),), eye.addresses)
        batch = Batch(request.netns, eyes[request.netns].label, request.flow, request, Template(lambda index, port: b""), True)
        yield Exchange(prober, request, run, eyes, batch)
