"""How long a real server that leaves a Service may stay: to the end of its last connection, or to the deadline. Needs ip_vs."""

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address

import pytest

from netlab.kernel import ipvs, namespaces
from netlab.kernel.rules import opened
from netlab.kernel.virtual_servers import DEADLINE_S, VirtualServers
from netlab.model import Protocol
from netlab.ops import RealServer, VirtualServer
from tests.live import kernel_sandbox

pytestmark = [
    pytest.mark.needs_ip_vs,
    pytest.mark.skipif(os.geteuid() != 0, reason="a namespace of its own without a user namespace needs root"),
]
HERE = "/proc/self/ns/net"
HOME = ip_address("10.0.0.1")
WEB = VirtualServer("node/a", HOME, Protocol.TCP, 80, "rr", (RealServer(HOME, 8080),))
NOBODY = replace(WEB, real_servers=())


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def there() -> dict[ipvs.Target, ipvs.Real]:
    with opened(HERE) as fd, ipvs.Table(fd) as table:
        return table.real_servers(ipvs.service_of(WEB))


def one_connection(listener: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.create_connection((str(HOME), 80), timeout=60)
    server, _ = listener.accept()
    client.sendall(b"x")
    assert server.recv(1) == b"x"
    return client, server


@contextmanager
def a_server() -> Iterator[tuple[Clock, VirtualServers, socket.socket]]:
    """A namespace of this process' own in which somebody listens at HOME."""
    namespaces.unshare(namespaces.CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", f"{HOME}/32", "dev", "lo"], check=True)
    clock = Clock()
    with socket.create_server((str(HOME), 8080)) as listener:
        listener.settimeout(60)
        yield clock, VirtualServers(clock), listener


def _leaving() -> None:
    with a_server() as (clock, servers, listener):
        assert servers.load([(HERE, [WEB], [])]) == 0
        client, server = one_connection(listener)
        with client, server:
            assert servers.load([(HERE, [NOBODY], [])]) == 1
            assert [real.weight for real in there().values()] == [0]
            clock.now += DEADLINE_S - 1
            assert servers.sweep() == 1, "its connection lives, and the deadline has not come"
            client.sendall(b"y")
            assert server.recv(1) == b"y"
            clock.now += 2
            assert servers.sweep() == 0 and there() == {}
            assert servers.sweep() == 0


def _wanted_again() -> None:
    with a_server() as (clock, servers, listener):
        servers.load([(HERE, [WEB], [])])
        client, server = one_connection(listener)
        with client, server:
            assert servers.load([(HERE, [NOBODY], [])]) == 1
            assert servers.load([(HERE, [WEB], [])]) == 0, "it came back: no longer leaving"
            clock.now += 2 * DEADLINE_S
            assert servers.sweep() == 0
            assert [real.weight for real in there().values()] == [1]


@pytest.mark.parametrize("body", [_leaving, _wanted_again], ids=["deadline", "wanted again"])
def test_a_real_server_with_connections(body: object) -> None:
    kernel_sandbox.run("root", body)  # type: ignore[arg-type]  # a function without arguments
