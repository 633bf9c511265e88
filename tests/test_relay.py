"""The proxy process of mode userspace over the loopback: whose turn it is, and what becomes of connections."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest

from netlab.agents.relay import Balancer, Proxy
from netlab.errors import KernelError
from netlab.model import Protocol
from netlab.ops import Relay, RelayPort
from tests.waiting import PATIENCE_S

A, B, C = ("10.0.0.1", 80), ("10.0.0.2", 80), ("10.0.0.3", 80)
HOME = ip_address("127.0.0.1")


# ---------------------------------------------------------------- whose turn it is


def test_endpoints_take_turns_whoever_asks() -> None:
    balancer = Balancer()
    balancer.update((A, B, C), None)
    assert [balancer.next(f"client-{number % 2}", 0.0) for number in range(7)] == [A, B, C, A, B, C, A]


def test_a_client_keeps_its_endpoint_until_it_was_silent_for_the_timeout() -> None:
    balancer = Balancer()
    balancer.update((A, B), 10)
    assert [balancer.next(client, 0.0) for client in ("x", "y", "x", "y")] == [A, B, A, B]
    assert balancer.next("y", 5.0) == B
    assert balancer.next("x", 9.0) == A, "renewed by every use"
    assert balancer.next("x", 18.9) == A
    assert balancer.next("y", 18.9) == A, "forgotten after ten silent seconds: the next in turn"


def test_an_endpoint_that_failed_is_given_up_by_its_client() -> None:
    balancer = Balancer()
    balancer.update((A, B), 10)
    assert balancer.next("x", 0.0) == A
    assert balancer.next("x", 1.0, afresh=True) == B
    assert balancer.next("x", 2.0) == B


def test_clients_of_a_vanished_endpoint_are_free_and_others_stay() -> None:
    balancer = Balancer()
    balancer.update((A, B), 10)
    assert [balancer.next(client, 0.0) for client in ("x", "y")] == [A, B]
    balancer.update((B, C), 10)
    assert [balancer.next(client, 1.0) for client in ("y", "x")] == [B, B]
    balancer.update((B, C), None)
    assert [balancer.next("y", 1.0) for _ in range(3)] == [C, B, C]


def test_nobody_without_endpoints() -> None:
    assert Balancer().next("x", 0.0) is None


# ---------------------------------------------------------------- over the loopback


@dataclass
class Server:
    """Says its name on every TCP connection, then what it is told; answers datagrams with its name."""

    name: str
    tcp: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    udp: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def __post_init__(self) -> None:
        self.udp.bind(("127.0.0.1", 0))
        for run in (self._accept, self._answer):
            threading.Thread(target=run, daemon=True).start()

    @property
    def tcp_at(self) -> tuple[object, int]:
        return HOME, self.tcp.getsockname()[1]

    @property
    def udp_at(self) -> tuple[object, int]:
        return HOME, self.udp.getsockname()[1]

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                sock, _ = self.tcp.accept()
                threading.Thread(target=self._echo, args=(sock,), daemon=True).start()

    def _echo(self, sock: socket.socket) -> None:
        with suppress(OSError), sock:
            sock.sendall(self.name.encode())
            while data := sock.recv(65536):
                sock.sendall(data)
            sock.sendall(b"!")

    def _answer(self) -> None:
        with suppress(OSError):
            while True:
                _, peer = self.udp.recvfrom(100)
                self.udp.sendto(self.name.encode(), peer)


class Running:
    """A Proxy in a thread of its own; `configure` is carried out there."""

    def __init__(self) -> None:
        self.proxy = Proxy()
        self._orders: list[Callable[[], None]] = []
        self._wake, ours = socket.socketpair()
        self._done = threading.Event()
        self._ours = ours
        self.over = False
        self.error: KernelError | None = None
        self.proxy.watch(ours.fileno(), self._obey)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self.over:
            self.proxy.poll()

    def _obey(self) -> None:
        self._ours.recv(1)
        try:
            self._orders.pop()()
        except KernelError as error:
            self.error = error
        self._done.set()

    def do(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._done.clear()
        self._wake.send(b"x")
        assert self._done.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error

    def configure(self, *ports: RelayPort, udp_idle_s: float = 5.0) -> None:
        self.do(lambda: self.proxy.configure(Relay("node/n", ports, udp_idle_s)))

    def stop(self) -> None:
        self.error = None

        def end() -> None:
            self.proxy.configure(Relay("node/n", ()))
            self.over = True

        self.do(end)
        self._thread.join(PATIENCE_S)


@pytest.fixture
def running() -> Iterator[Running]:
    proxy = Running()
    yield proxy
    proxy.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def port(
    number: int, *endpoints: tuple[object, int], protocol: Protocol = Protocol.TCP, affinity_s: int | None = None
) -> RelayPort:
    return RelayPort("default/web", protocol, number, endpoints, affinity_s)  # type: ignore[arg-type]  # addresses


@contextmanager
def connected(number: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", number), PATIENCE_S) as sock:
        yield sock


def name_at(number: int) -> str:
    with connected(number) as sock:
        return sock.recv(100).decode()


def test_connections_reach_endpoints_in_turn(running: Running) -> None:
    servers, number = [Server(name) for name in "abc"], free_port()
    running.configure(port(number, *(server.tcp_at for server in servers)))
    assert "".join(name_at(number) for _ in range(7)) == "abcabca"


def test_bytes_pass_both_ways_and_one_direction_may_end_first(running: Running) -> None:
    number, sent = free_port(), bytes(range(256)) * 8192
    running.configure(port(number, Server("a").tcp_at))
    with connected(number) as sock:

        def speak() -> None:
            sock.sendall(sent)
            sock.shutdown(socket.SHUT_WR)

        threading.Thread(target=speak, daemon=True).start()
        received = bytearray()
        while data := sock.recv(65536):
            received += data
    assert bytes(received) == b"a" + sent + b"!"


def test_an_endpoint_that_refuses_is_passed_over(running: Running) -> None:
    number = free_port()
    running.configure(port(number, (HOME, free_port()), Server("b").tcp_at, (HOME, free_port())))
    assert [name_at(number) for _ in range(3)] == ["b", "b", "b"]


@pytest.mark.parametrize("endpoints", [0, 1, 5], ids=["none", "one that refuses", "five that refuse"])
def test_without_a_reachable_endpoint_the_connection_is_accepted_and_closed(running: Running, endpoints: int) -> None:
    number = free_port()
    running.configure(port(number, *((HOME, free_port()) for _ in range(endpoints))))
    with connected(number) as sock:
        assert sock.recv(100) == b""


def test_new_settings_leave_connections_alone(running: Running) -> None:
    old, new, number = Server("a"), Server("b"), free_port()
    running.configure(port(number, old.tcp_at))
    with connected(number) as sock:
        assert sock.recv(100) == b"a"
        running.configure(port(number, new.tcp_at))
        assert name_at(number) == "b"
        sock.sendall(b"still there")
        assert sock.recv(100) == b"still there"
        running.configure()
        sock.sendall(b"and now")
        assert sock.recv(100) == b"and now"
        with pytest.raises(ConnectionRefusedError):
            name_at(number)


def test_a_client_keeps_its_endpoint(running: Running) -> None:
    number = free_port()
    running.configure(port(number, Server("a").tcp_at, Server("b").tcp_at, affinity_s=60))
    assert [name_at(number) for _ in range(4)] == ["a", "a", "a", "a"]


def asked(sock: socket.socket, number: int) -> str:
    sock.sendto(b"who", ("127.0.0.1", number))
    data, peer = sock.recvfrom(100)
    assert peer == ("127.0.0.1", number)
    return data.decode()


def datagram_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE_S)
    return sock


def test_each_udp_client_has_its_endpoint_until_it_was_silent(running: Running) -> None:
    servers, number = [Server(name) for name in "ab"], free_port()
    running.configure(port(number, *(server.udp_at for server in servers), protocol=Protocol.UDP), udp_idle_s=60.0)
    with datagram_socket() as one, datagram_socket() as other:
        assert [asked(one, number), asked(other, number), asked(one, number), asked(other, number)] == ["a", "b", "a", "b"]
    running.configure(port(number, *(server.udp_at for server in servers), protocol=Protocol.UDP), udp_idle_s=0.0)
    with datagram_socket() as one:
        assert {asked(one, number) for _ in range(2)} <= {"a", "b"}


def test_a_udp_client_whose_endpoint_refuses_gets_the_next(running: Running) -> None:
    number = free_port()
    running.configure(port(number, (HOME, free_port()), Server("b").udp_at, protocol=Protocol.UDP), udp_idle_s=60.0)
    with datagram_socket() as sock:
        sock.sendto(b"lost", ("127.0.0.1", number))
        sock.settimeout(0.05)
        for _ in range(200):
            sock.sendto(b"who", ("127.0.0.1", number))
            with suppress(TimeoutError):
                assert sock.recv(100) == b"b"
                return
    pytest.fail("no answer")


def test_a_port_that_is_taken_is_told(running: Running) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken, pytest.raises(KernelError, match="cannot listen on"):
        running.configure(port(taken.getsockname()[1]))
