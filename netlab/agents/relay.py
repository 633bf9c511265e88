"""A node's proxy process in mode userspace: takes connections and datagrams at its ports, and calls endpoints in turn.

Decides which endpoint is next, and when a client is forgotten. Refuses to know Services and rules: it is told ports
(ops.RelayPort). It does as kube-proxy's first back end did (kubernetes pkg/proxy/userspace/{proxysocket,roundrobin}.go, v1.25):
- Round robin for each port. With affinity, a client's address keeps its endpoint until it was silent for the timeout.
- Over TCP an endpoint that cannot be reached within 0.25, 0.5, 1 and 2 s is passed over for the next, four in all; then the
  client's connection is closed. Without endpoints it is closed at once.
- Each UDP client has a socket of its own until it was silent for `udp_idle_s`. Without endpoints datagrams are dropped.
Otherwise than there: a stream may be closed in one direction only, a UDP answer leaves from the address that was asked, and
endpoints are taken in their order instead of a shuffled one.

Theory of operation. One epoll loop, one process a node, which joins the node's network namespace when it starts and for ever.
New settings change what the next connection gets; what is under way goes on, and a port that is gone takes only its UDP clients
along. Over 400 lines: the life of a connection in both directions is one state machine.
"""

import contextlib
import errno
import os
import select
import socket
import struct
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

from netlab.agents.listening import IP_PKTINFO, listen
from netlab.errors import KernelError
from netlab.kernel import agent, namespaces
from netlab.model import Protocol
from netlab.ops import Relay, RelayPort

DIALS_S = (0.25, 0.5, 1.0, 2.0)
BUFFER_BYTES = 65536
_IN, _OUT = select.EPOLLIN, select.EPOLLOUT
Endpoint = tuple[str, int]
Port = tuple[Protocol, int, int]
"""Protocol, number, IP version."""
UdpKey = tuple[str, int, bytes]
"""A client's address and port, and the address that it asked (as IP_PKTINFO gives it)."""


@dataclass(slots=True)
class Balancer:
    """Whose turn it is. `clients`: address -> the endpoint that it keeps, and when it was last seen."""

    endpoints: tuple[Endpoint, ...] = ()
    affinity_s: int | None = None
    turn: int = 0
    clients: dict[str, tuple[Endpoint, float]] = field(default_factory=dict)

    def update(self, endpoints: tuple[Endpoint, ...], affinity_s: int | None) -> None:
        """New endpoints begin a new round, and clients of those that are gone are free again."""
        if affinity_s != self.affinity_s:
            self.affinity_s = affinity_s
            self.clients.clear()
        if endpoints != self.endpoints:
            self.endpoints, self.turn = endpoints, 0
            self.clients = {client: kept for client, kept in self.clients.items() if kept[0] in endpoints}

    def next(self, client: str, now: float, afresh: bool = False) -> Endpoint | None:
        """The endpoint for this client; `afresh`: not the one that it had, which failed."""
        if not self.endpoints:
            return None
        kept = self.clients.get(client) if self.affinity_s is not None and not afresh else None
        if kept is not None and self.affinity_s is not None and now - kept[1] < self.affinity_s:
            chosen = kept[0]
        else:
            chosen = self.endpoints[self.turn]
            self.turn = (self.turn + 1) % len(self.endpoints)
        if self.affinity_s is not None:
            self.clients[client] = (chosen, now)
        return chosen


@dataclass(slots=True, eq=False)
class Door:
    """One port of the process."""

    port: RelayPort
    sock: socket.socket
    balancer: Balancer
    clients: "dict[UdpKey, UdpClient]" = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class UdpClient:
    """One UDP client, with its socket to its endpoint."""

    door: Door
    key: UdpKey
    sock: socket.socket
    deadline: float


@dataclass(slots=True, eq=False)
class End:
    """One end of a spliced connection. `out`: what it has still to be sent. `eof`: it has said all that it will say."""

    sock: socket.socket
    out: bytearray = field(default_factory=bytearray)
    eof: bool = False
    shut: bool = False
    events: int = -1


@dataclass(slots=True, eq=False)
class Pair:
    """A client's connection and, once one could be made, that to its endpoint."""

    door: Door
    client: End
    peer: str
    server: End | None = None
    dials: int = 0


class Proxy:
    """Serves ports. Not thread-safe; nothing here waits except `poll`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._epoll = select.epoll()
        self._calls: dict[int, Callable[[int], None]] = {}
        self._doors: dict[Port, Door] = {}
        self._pairs: OrderedDict[Pair, None] = OrderedDict()
        self._dialling: dict[Pair, float] = {}
        self._udp: OrderedDict[UdpClient, None] = OrderedDict()
        self._udp_idle_s = 0.25

    # ---------------------------------------------------------------- settings

    def configure(self, op: Relay, keep: bool = False) -> None:
        """Serve these ports, and no others unless `keep`. Raises KernelError for a port that is taken."""
        self._udp_idle_s = op.udp_idle_s
        wanted = {port.key: port for port in op.ports}
        for key, door in tuple(self._doors.items()):
            if (key not in wanted and not keep) or (key in wanted and wanted[key].name != door.port.name):
                self._close_door(key)
        for key, port in wanted.items():
            known = self._doors.get(key)
            if known is None:
                known = self._doors[key] = Door(port, _listening(port), Balancer())
                self._add(known.sock, partial(self._accept if port.protocol is Protocol.TCP else self._datagrams, known))
            known.port = port
            known.balancer.update(tuple((str(address), number) for address, number in port.endpoints), port.affinity_s)

    def ports(self) -> tuple[Port, ...]:
        return tuple(self._doors)

    def _close_door(self, key: Port) -> None:
        door = self._doors.pop(key)
        for client in tuple(door.clients.values()):
            self._forget(client)
        self._remove(door.sock)

    # ---------------------------------------------------------------- the loop

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call whenever there is something to read there."""
        self._calls[fd] = lambda _: call()
        self._epoll.register(fd, _IN)

    def poll(self) -> None:
        """Wait for something to happen, and take it up."""
        for fd, events in self._epoll.poll(self._patience(), 256):
            call = self._calls.get(fd)
            if call is not None:
                call(events)
        now = self._clock()
        for pair in [pair for pair, deadline in self._dialling.items() if deadline <= now]:
            self._dial_failed(pair)
        while self._udp and (client := next(iter(self._udp))).deadline <= now:
            self._forget(client)

    def _patience(self) -> float | None:
        deadlines = list(self._dialling.values())
        if self._udp:
            deadlines.append(next(iter(self._udp)).deadline)
        return max(0.0, min(deadlines) - self._clock()) if deadlines else None

    def _add(self, sock: socket.socket, call: Callable[[int], None], events: int = _IN) -> None:
        self._calls[sock.fileno()] = call
        self._epoll.register(sock.fileno(), events)

    def _remove(self, sock: socket.socket) -> None:
        self._calls.pop(sock.fileno(), None)
        sock.close()  # a closed descriptor leaves the epoll set by itself

    # ---------------------------------------------------------------- TCP

    def _accept(self, door: Door, _events: int) -> None:
        for _ in range(64):
            try:
                sock, peer = door.sock.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._pairs:
                    self._drop(next(iter(self._pairs)))
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            pair = Pair(door, End(sock), peer[0])
            self._pairs[pair] = None
            self._dial(pair)

    def _dial(self, pair: Pair) -> None:
        """Call the next endpoint. The client is not read meanwhile."""
        endpoint = pair.door.balancer.next(pair.peer, self._clock(), afresh=pair.dials > 0)
        if endpoint is None or pair.dials >= len(DIALS_S):
            self._drop(pair)
            return
        sock = socket.socket(_family(pair.door.port), socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pair.server = End(sock)
        self._dialling[pair] = self._clock() + DIALS_S[pair.dials]
        pair.dials += 1
        try:
            sock.connect(endpoint)
        except BlockingIOError:
            pass
        except OSError:
            self._dial_failed(pair)
            return
        self._add(sock, partial(self._dialled, pair), _OUT)

    def _dialled(self, pair: Pair, _events: int) -> None:
        server = pair.server
        assert server is not None
        if server.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._dial_failed(pair)
            return
        del self._dialling[pair]
        server.events = _OUT
        self._calls[server.sock.fileno()] = partial(self._pump, pair, server, pair.client)
        self._add(pair.client.sock, partial(self._pump, pair, pair.client, server), 0)
        pair.client.events = 0
        self._pump(pair, pair.client, server, _IN)

    def _dial_failed(self, pair: Pair) -> None:
        self._dialling.pop(pair, None)
        if pair.server is not None:
            self._remove(pair.server.sock)
            pair.server = None
        self._dial(pair)

    def _pump(self, pair: Pair, end: End, other: End, events: int) -> None:
        """Something happened at one end: take what it says, give it what it is owed."""
        try:
            if events & (_IN | select.EPOLLHUP | select.EPOLLERR) and not end.eof and len(other.out) < BUFFER_BYTES:
                data = end.sock.recv(BUFFER_BYTES)
                other.out += data
                end.eof = not data
        except BlockingIOError:
            pass
        except OSError:
            self._drop(pair)
            return
        for one, from_ in ((end, other), (other, end)):
            if not self._give(one, from_.eof):
                self._drop(pair)
                return
        if end.shut and other.shut:
            self._drop(pair)
            return
        for one, to in ((end, other), (other, end)):
            self._listen(one, (0 if one.eof or len(to.out) >= BUFFER_BYTES else _IN) | (_OUT if one.out else 0))

    def _give(self, end: End, last: bool) -> bool:
        """Send what is owed and, when nothing more will come, say so; False when the end is broken."""
        try:
            while end.out:
                del end.out[: end.sock.send(end.out)]
            if last and not end.shut:
                end.shut = True
                end.sock.shutdown(socket.SHUT_WR)
        except BlockingIOError:
            pass
        except OSError:
            return False
        return True

    def _listen(self, end: End, events: int) -> None:
        if end.events != events:
            end.events = events
            self._epoll.modify(end.sock.fileno(), events)

    def _drop(self, pair: Pair) -> None:
        self._pairs.pop(pair, None)
        self._dialling.pop(pair, None)
        for end in (pair.client, pair.server):
            if end is not None and end.sock.fileno() >= 0:
                self._remove(end.sock)

    # ---------------------------------------------------------------- UDP

    def _datagrams(self, door: Door, _events: int) -> None:
        for _ in range(64):
            try:
                data, ancillary, _flags, peer = door.sock.recvmsg(65535, 64)
            except BlockingIOError:
                return
            except OSError:
                continue  # an ICMP error of an earlier answer
            client = self._client(door, (peer[0], peer[1], _asked(ancillary)))
            if client is not None:
                self._seen(client)
                with contextlib.suppress(OSError):  # lost, as datagrams may be
                    client.sock.send(data)

    def _client(self, door: Door, key: UdpKey) -> UdpClient | None:
        known = door.clients.get(key)
        endpoint = None if known is not None else door.balancer.next(key[0], self._clock())
        if endpoint is None:
            return known
        sock = socket.socket(_family(door.port), socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect(endpoint)
        except OSError:
            sock.close()
            return None
        client = door.clients[key] = UdpClient(door, key, sock, 0.0)
        self._udp[client] = None
        self._add(sock, partial(self._answers, client))
        return client

    def _answers(self, client: UdpClient, _events: int) -> None:
        address, port, asked = client.key
        for _ in range(64):
            try:
                data = client.sock.recv(65535)
            except BlockingIOError:
                return
            except OSError:  # the endpoint refused: the client's next datagram gets another
                self._forget(client)
                return
            self._seen(client)
            with contextlib.suppress(OSError):
                client.door.sock.sendmsg([data], [_from(asked)], 0, (address, port))

    def _seen(self, client: UdpClient) -> None:
        client.deadline = self._clock() + self._udp_idle_s
        self._udp.move_to_end(client)

    def _forget(self, client: UdpClient) -> None:
        self._udp.pop(client, None)
        client.door.clients.pop(client.key, None)
        self._remove(client.sock)


def _family(port: RelayPort) -> socket.AddressFamily:
    return socket.AF_INET if port.version == 4 else socket.AF_INET6


def _asked(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The address that a datagram was sent to."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):
            return data[4:8]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):
            return data[:16]
    return b"\0" * 4


def _from(address: bytes) -> tuple[int, int, bytes]:
    """The ancillary datum that makes a datagram leave from this address."""
    if len(address) == 4:
        return (socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", 0, address, b"\0" * 4))
    return (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16sI", address, 0))


def _listening(port: RelayPort) -> socket.socket:
    sock = socket.socket(_family(port), socket.SOCK_STREAM if port.protocol is Protocol.TCP else socket.SOCK_DGRAM)
    try:
        listen(sock, "0.0.0.0" if port.version == 4 else "::", port.port)
    except OSError as error:
        raise KernelError(
            f"the proxy process cannot listen on {port.port}/{port.protocol.lower()} for {port.name}: {error.strerror}"
        ) from error
    return sock


def serve(sock: socket.socket, netns: str) -> NoReturn:
    """Be the proxy process of the node whose namespace this path opens, by the holder's orders, until the holder has gone.

    Orders: configure(Relay, keep); ports() -> what is served.
    """
    namespaces.raise_descriptor_limit()
    fd = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    namespaces.setns(fd)
    os.close(fd)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("kube-proxy")
    proxy = Proxy()
    methods: dict[str, agent.Method] = {"configure": proxy.configure, "ports": proxy.ports}

    proxy.watch(sock.fileno(), lambda: agent.answer_or_end(sock, methods))
    while True:
        proxy.poll()
