"""A pod's end, live: what was asked before is answered, a killed pod answers nothing, and nothing of either is left."""

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

import netlab
from netlab.client import Lab

SLOW = """
import socket, sys
sock = socket.create_connection((sys.argv[1], 8080), timeout=30)
sock.sendall(b"GET /hostname HTTP/1.1\\r\\n")
print("half", flush=True)
sys.stdin.readline()
try:
    sock.sendall(b"Host: x\\r\\n\\r\\n")
    print(sock.recv(4096).decode().rpartition("\\r\\n")[2].strip() or "closed", flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with netlab.up(proxy="nftables") as running:
        running.apply([pod("client", [])])
        yield running


def pod(name: str, ports: list[int], **spec: object) -> dict[str, object]:
    given = {"name": "c", "image": "agnhost", "ports": [{"containerPort": port} for port in ports]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [given], **spec}}


def half_asked(lab: Lab, name: str) -> "subprocess.Popen[str]":
    """A client in a pod of its own that has sent half of its request; a line lets it go on."""
    address = lab.get("pods", name)[0]["status"]["podIP"]
    command = [sys.executable, "-m", "netlab", "exec", "--lab", lab.name, "pod/client", "--", sys.executable, "-c", SLOW, address]
    started = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "half\n"
    return started


def goes_on(client: "subprocess.Popen[str]") -> str:
    return client.communicate("\n", timeout=60)[0].strip()


def until_gone(lab: Lab, netns: str) -> None:
    deadline = time.monotonic() + 30
    while netns in lab.verb("namespaces"):
        assert time.monotonic() < deadline, "its namespace stays"
        time.sleep(0.02)


def test_what_was_asked_before_the_end_is_answered(lab: Lab) -> None:
    lab.apply([pod("polite", [8080])])
    client = half_asked(lab, "polite")
    lab.delete("pods", "polite")
    assert "pod/default/polite" in lab.verb("namespaces"), "its connection is open"
    assert "polite" not in [one["metadata"]["name"] for one in lab.get("pods")]
    assert lab.verify().drift == []
    assert goes_on(client) == "polite"
    until_gone(lab, "pod/default/polite")
    assert lab.verify().drift == []


def test_without_connections_it_is_gone_at_once(lab: Lab) -> None:
    lab.apply([pod("alone", [8080])])
    lab.delete("pods", "alone")
    assert "pod/default/alone" not in lab.verb("namespaces")


def test_a_killed_pod_answers_nothing(lab: Lab) -> None:
    lab.apply([pod("killed", [8080])])
    client = half_asked(lab, "killed")
    lab.fault("kill-pod", "pod/killed")
    assert "pod/default/killed" not in lab.verb("namespaces")
    client.kill()
    client.wait(30)


def test_the_grace_period_ends_it(lab: Lab) -> None:
    lab.apply([pod("short", [8080], terminationGracePeriodSeconds=1)])
    client = half_asked(lab, "short")
    lab.delete("pods", "short")
    until_gone(lab, "pod/default/short")
    assert goes_on(client) != "short"


def test_another_of_the_same_name_does_not_wait(lab: Lab) -> None:
    lab.apply([pod("again", [8080])])
    client = half_asked(lab, "again")
    lab.delete("pods", "again")
    lab.apply([pod("again", [8080])])
    assert lab.probe("pod/client", "pod/again").verdict == "pass"
    assert goes_on(client) != "again"
    assert lab.verify().drift == []
    lab.delete("pods", "again")
