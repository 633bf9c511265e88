"""The built-in responder over real sockets, in namespaces of its own."""

import json
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from netlab.agents.responder import PodFacts, Responder
from netlab.errors import KernelError, MachineError
from netlab.kernel import namespaces
from netlab.model import Protocol
from netlab.ops import Listener
from tests.live.probe_sandbox import Net, sandboxed

POD = "10.0.0.2"


@contextmanager
def pods(*listeners: Listener, max_clients: int = 0, silence_s: float = 0.2) -> Iterator[tuple[Net, Responder]]:
    """A client namespace wired to a pod namespace whose listeners are served by a thread of their own process-wide loop."""
    net = Net()
    net.make("client", "pod")
    net.wire("client", "pod", "eth0", "eth0", "10.0.0.1/24", f"{POD}/24")
    net.run("pod", "ip", "address", "add", "10.0.0.3/24", "dev", "eth0")
    responder = Responder(max_clients=max_clients, silence_s=silence_s)
    for op in listeners:
        responder.listen(net.fds[op.netns], op, PodFacts(op.pod))
    stop = threading.Event()

    def loop() -> None:
        while not stop.is_set():
            responder.poll(0.02)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield net, responder
    finally:
        stop.set()
        thread.join()
        responder.close_all()


def tcp(persona: str = "agnhost", port: int = 8080, netns: str = "pod", pod: str = "web-1") -> Listener:
    return Listener(netns, pod, Protocol.TCP, port, persona)


def client(net: Net, kind: int = socket.SOCK_STREAM) -> socket.socket:
    with namespaces.entered(net.fds["client"]):
        sock = socket.socket(socket.AF_INET, kind)
    sock.settimeout(30.0)
    return sock


def connected(net: Net, port: int = 8080) -> socket.socket:
    sock = client(net)
    sock.connect((POD, port))
    return sock


def all_of(sock: socket.socket) -> bytes:
    parts = bytearray()
    while part := sock.recv(65536):
        parts += part
    return bytes(parts)


def body(data: bytes) -> str:
    return data.partition(b"\r\n\r\n")[2].decode()


def get(net: Net, target: str, port: int = 8080) -> str:
    sock = connected(net, port)
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return body(all_of(sock))


@sandboxed
def test_http_by_persona_and_curl() -> None:
    with pods(tcp("kubia"), tcp("nginx", 80)) as (net, _):
        assert get(net, "/") == "You've hit web-1\n"
        assert "Welcome to nginx!" in net.run("client", "curl", "-s", "-m", "3", f"http://{POD}/")
        assert net.run("client", "curl", "-s", "-m", "3", "-d", "x" * 5000, f"http://{POD}:8080/") == "You've hit web-1\n"
        assert "X-Pod: web-1" in net.run("client", "curl", "-sI", "-m", "3", f"http://{POD}/")


@sandboxed
def test_one_connection_carries_many_requests_also_in_one_segment() -> None:
    with pods(tcp()) as (net, _):
        sock = connected(net)
        for _ in range(3):
            sock.sendall(b"GET /hostname HTTP/1.1\r\nHost: x\r\n\r\n")
            assert sock.recv(4096).endswith(b"web-1")
        sock.sendall(b"GET /hostname HTTP/1.1\r\nHost: x\r\n\r\n" * 2000 + b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert all_of(sock).count(b"HTTP/1.1 200 OK") == 2001


@sandboxed
def test_a_client_that_does_not_read_holds_up_nobody() -> None:
    with pods(tcp()) as (net, _):
        greedy = connected(net)
        greedy.setblocking(False)
        request = b"GET /echo?msg=" + b"m" * 4000 + b" HTTP/1.1\r\n\r\n"
        sent, rest = 0, b""
        with pytest.raises(BlockingIOError):
            while True:
                rest = rest or request * 20
                taken = greedy.send(rest)
                sent, rest = sent + taken, rest[taken:]
                time.sleep(0.001)
        assert sent < 64 << 20
        assert get(net, "/hostname") == "web-1"


@sandboxed
def test_the_silent_get_the_name() -> None:
    with pods(tcp()) as (net, _):
        started = time.monotonic()
        assert all_of(connected(net)) == b"web-1\n"
        assert time.monotonic() - started > 0.15
        half = connected(net)
        half.shutdown(socket.SHUT_WR)
        assert all_of(half) == b"web-1\n"


@sandboxed
def test_a_slow_http_client_never_sees_the_greeting() -> None:
    with pods(tcp(), silence_s=0.05) as (net, _):
        sock = connected(net)
        for byte in b"GET /hostname HTTP/1.1\r\nConnection: close\r\n\r\n":
            sock.sendall(bytes([byte]))
            time.sleep(0.003)
        assert body(all_of(sock)) == "web-1"


@sandboxed
def test_garbage_is_answered_and_ended() -> None:
    with pods(tcp()) as (net, _):
        sock = connected(net)
        sock.sendall(os.urandom(3000).replace(b"\n", b"x") + b"\n" + b"\n" * 100)
        assert all_of(sock).startswith(b"HTTP/1.1 4")


@sandboxed
def test_redis() -> None:
    with pods(tcp("redis", 6379)) as (net, _):
        sock = connected(net, 6379)
        time.sleep(0.4)  # a redis client may stay silent after it connected
        sock.sendall(b"*1\r\n$4\r\nPING\r\nSET a 1\r\n")
        wanted = b"+PONG\r\n+OK\r\n"
        assert sock.makefile("rb").read(len(wanted)) == wanted
        other = connected(net, 6379)
        other.sendall(b"GET a\r\nQUIT\r\n")
        assert all_of(other) == b"$1\r\n1\r\n+OK\r\n"


@sandboxed
def test_udp_is_answered_from_the_address_that_was_asked() -> None:
    with pods(Listener("pod", "dns-1", Protocol.UDP, 53, "coredns")) as (net, _):
        sock = client(net, socket.SOCK_DGRAM)
        for address in (POD, "10.0.0.3"):
            sock.sendto(b"hostname", (address, 53))
            assert sock.recvfrom(100) == (b"dns-1", (address, 53))
        sock.sendto(b"clientip", (POD, 53))
        assert sock.recv(100).decode() == f"10.0.0.1:{sock.getsockname()[1]}"


@sandboxed
def test_dial_runs_inside_the_pod_and_does_not_block_the_loop() -> None:
    target = Listener("pod", "dns-1", Protocol.UDP, 53, "coredns")
    with pods(tcp(), tcp(port=9090), target) as (net, _):
        assert json.loads(get(net, f"/dial?host={POD}&port=9090&request=hostname&tries=3")) == {"responses": ["web-1"] * 3}
        assert json.loads(get(net, "/dial?host=10.0.0.3&port=53&request=hostname&protocol=udp")) == {"responses": ["dns-1"]}
        refused = json.loads(get(net, f"/dial?host={POD}&port=1&request=hostname"))
        assert "refused" in refused["errors"][0]
        waiting = connected(net)
        waiting.sendall(b"GET /dial?host=10.0.0.77&port=1&request=x HTTP/1.1\r\nConnection: close\r\n\r\n")
        assert get(net, "/hostname") == "web-1"
        waiting.setblocking(False)
        with pytest.raises(BlockingIOError):  # it still dials
            waiting.recv(1)


def one_pod(op: Listener) -> tuple[Net, Responder]:
    """A client wired to a pod of one listener, which is served when the test says so."""
    net = Net()
    net.make("client", "pod")
    net.wire("client", "pod", "eth0", "eth0", "10.0.0.1/24", f"{POD}/24")
    responder = Responder()
    responder.listen(net.fds["pod"], op, PodFacts("web-1"))
    return net, responder


@sandboxed
def test_closing_ends_listener_and_connections() -> None:
    op = tcp()
    net, responder = one_pod(op)
    sock = connected(net)
    responder.poll(1.0)
    before = len(tuple(Path("/proc/self/fd").iterdir()))
    assert responder.listeners() == (op.identity,)
    assert responder.close(op.identity)
    assert not responder.close(op.identity)
    assert sock.recv(10) == b""
    with pytest.raises(ConnectionRefusedError):
        connected(net)
    assert len(tuple(Path("/proc/self/fd").iterdir())) <= before - 2


@sandboxed
def test_closing_gently_answers_what_was_asked_and_no_more() -> None:
    op = tcp()
    net, responder = one_pod(op)
    idle, half, waiting, cut = (connected(net) for _ in range(4))
    for sock in (idle, half, cut):
        sock.sendall(b"GET /hostname HTTP/1.1\r\n")
    idle.sendall(b"Host: x\r\n\r\n")
    while not responder.draining() and not _has(idle):
        responder.poll(0.1)
    assert body(idle.recv(4096)) == "web-1"
    arrived = connected(net)  # the kernel has greeted it; nobody has accepted it
    arrived.sendall(b"GET /hostname HTTP/1.1\r\nHost: x\r\n\r\n")
    assert responder.close(op.identity, gently=True)
    assert responder.listeners() == ()
    assert idle.recv(10) == b"", "who has asked nothing more is told that this is the end"
    answer = arrived.recv(4096)
    assert body(answer) == "web-1" and b"connection: close" in answer.lower()
    half.sendall(b"Host: x\r\n\r\n")
    while not _has(half):
        responder.poll(0.1)
    assert body(half.recv(4096)) == "web-1"
    with pytest.raises(ConnectionRefusedError):
        connected(net)
    assert responder.draining() == ["pod"]
    responder.cut("pod")
    assert responder.draining() == []
    assert cut.recv(10) == b"" and waiting.recv(10) == b""


def _has(sock: socket.socket) -> bool:
    return bool(select.select([sock], [], [], 0)[0])


@sandboxed
def test_a_taken_port_and_a_missing_protocol_are_said() -> None:
    with pods(tcp()) as (net, responder):
        with pytest.raises(KernelError, match=r"web-2 cannot listen on 0\.0\.0\.0:8080/tcp: Address already in use"):
            responder.listen(net.fds["pod"], tcp(pod="web-2"), PodFacts("web-2"))
        with pytest.raises(KernelError, match="Cannot assign requested address"):
            elsewhere = Listener("pod", "web-3", Protocol.TCP, 81, "x", (IPv4Address("10.9.9.9"),))
            responder.listen(net.fds["pod"], elsewhere, PodFacts("web-3"))
        try:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
        except OSError:
            with pytest.raises(MachineError, match="no SCTP"):
                responder.listen(net.fds["pod"], Listener("pod", "s", Protocol.SCTP, 1, "x"), PodFacts("s"))


@sandboxed
def test_a_flood_leaves_it_answering() -> None:
    with pods(tcp(), max_clients=100) as (net, _):
        flood = []
        for _ in range(400):
            sock = client(net)
            sock.setblocking(False)
            sock.connect_ex((POD, 8080))
            flood.append(sock)
        assert get(net, "/hostname") == "web-1"


@sandboxed
def test_it_survives_running_out_of_descriptors() -> None:
    import resource

    with pods(tcp(), max_clients=10_000) as (net, _):
        socks = [client(net) for _ in range(60)]
        own = len(tuple(Path("/proc/self/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (own + 20, own + 20))
        for sock in socks:
            sock.connect((POD, 8080))
        time.sleep(0.1)
        for sock in socks:
            sock.close()
        assert get(net, "/hostname") == "web-1"
