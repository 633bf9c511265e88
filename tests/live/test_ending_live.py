"""A pod's end, live: what was asked before is answered, a killed pod answers nothing, and nothing of either is left.

While it ends it is one more machine that refuses: oracle, trace and packets agree about it.
"""

import subprocess
import sys
from collections.abc import Iterator

import pytest

import netlab
from netlab.client import Lab
from tests.waiting import until

SLOW = """
import socket, sys
sock = socket.create_connection((sys.argv[1], 8080), timeout=30)
sock.sendall(b"GET /hostname HTTP/1.1\\r\\n")
print("half", flush=True)
sys.stdin.readline()
try:
    sock.settimeout(10)
    sock.sendall(b"Host: x\\r\\n\\r\\n")
    print(sock.recv(4096).decode().rpartition("\\r\\n")[2].strip() or "closed", flush=True)
except OSError as error:
    print(type(error).__name__, flush=True)
"""


SILENCE = ("closed", "ConnectionResetError", "BrokenPipeError", "TimeoutError", "OSError")
"""What the client says where no answer came: it was cut off, or what it sent next met nobody (or no route any more)."""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with netlab.up(proxy="nftables") as running:
        running.apply([pod("client", [])])
        yield running


def pod(name: str, ports: list[int], **spec: object) -> dict[str, object]:
    given = {"name": "c", "image": "agnhost", "ports": [{"containerPort": port} for port in ports]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [given], **spec}}


def by_hand(name: str, address: str) -> list[dict[str, object]]:
    """A Service whose EndpointSlice is made by hand: no controller takes the address out when its pod goes."""
    port = {"name": "http", "port": 8080, "protocol": "TCP"}
    meta = {"name": name, "labels": {"kubernetes.io/service-name": name}}
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"name": "http", "port": 8080}]}},
        {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4",
            "ports": [port], "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        },
    ]  # fmt: skip


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
    until(lambda: netns not in lab.verb("namespaces"), "its namespace stays")


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


def test_while_it_ends_everybody_agrees_on_what_it_does(lab: Lab) -> None:
    lab.apply([pod("refusing", [8080])])
    address = lab.get("pods", "refusing")[0]["status"]["podIP"]
    lab.apply(by_hand("byhand", address))
    assert lab.probe("pod/client", f"{address}:8080").outcomes["delivered"] == 1, "the positive of the same way"
    client = half_asked(lab, "refusing")
    lab.delete("pods", "refusing")
    assert "pod/default/refusing" in lab.verb("namespaces"), "its connection is open"
    for to, protocol, outcome in (
        (f"{address}:8080", "tcp", "rejected"),
        (f"{address}:8080", "udp", "rejected"),
        (address, "icmp", "delivered"),
        ("svc/byhand", "tcp", "rejected"),
    ):
        seen = lab.probe("pod/client", to, protocol=protocol)
        assert (seen.verdict, seen.outcomes[outcome]) == ("pass", 1), (to, protocol, seen)
        assert [*seen.backends] == ["pod/default/refusing"], (to, protocol, seen)
    told = lab.explain("pod/client", f"{address}:8080")
    assert (told["verdict"], told["outcome"], told["disagreements"]) == ("pass", "rejected", []), told
    assert told["arrived_at"] == "pod/default/refusing"
    assert lab.verify().drift == []
    assert goes_on(client) == "refusing"
    until_gone(lab, "pod/default/refusing")
    gone = lab.probe("pod/client", f"{address}:8080")
    assert (gone.verdict, gone.outcomes["dropped"]) == ("pass", 1), gone


def test_a_killed_pod_answers_nothing(lab: Lab) -> None:
    """The control is the first test: the same client, the same request, and a pod that is deleted instead answers it."""
    lab.apply([pod("killed", [8080])])
    client = half_asked(lab, "killed")
    lab.fault("kill-pod", "pod/killed")
    assert "pod/default/killed" not in lab.verb("namespaces")
    assert goes_on(client) in SILENCE


def test_the_grace_period_ends_it(lab: Lab) -> None:
    lab.apply([pod("short", [8080], terminationGracePeriodSeconds=1)])
    client = half_asked(lab, "short")
    lab.delete("pods", "short")
    until_gone(lab, "pod/default/short")
    assert goes_on(client) in SILENCE


def test_the_grace_period_of_who_deletes_ends_it_sooner(lab: Lab) -> None:
    lab.apply([pod("sooner", [8080], terminationGracePeriodSeconds=3600)])
    client = half_asked(lab, "sooner")
    lab.delete("pods", "sooner", grace_s=1)
    until_gone(lab, "pod/default/sooner")
    assert goes_on(client) in SILENCE


def test_another_of_the_same_name_does_not_wait(lab: Lab) -> None:
    lab.apply([pod("again", [8080])])
    client = half_asked(lab, "again")
    lab.delete("pods", "again")
    lab.apply([pod("again", [8080])])
    assert lab.probe("pod/client", "pod/again").verdict == "pass"
    assert goes_on(client) in SILENCE
    assert lab.verify().drift == []
    lab.delete("pods", "again")
