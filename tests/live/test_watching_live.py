"""`events` and `top` beside a lab that others change: what they say against what was done."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import MachineError
from tests.waiting import PATIENCE_S

TOPOLOGY, MANIFESTS = "topologies/two-node.yaml", ["manifests/kubia.yaml", "manifests/no-endpoints.yaml"]


@pytest.fixture(params=["iptables", "nftables"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    try:
        with netlab.up(TOPOLOGY, MANIFESTS, proxy=request.param) as running:
            yield running
    except MachineError as error:
        pytest.skip(f"this machine cannot run a lab: {error}")


class Watcher:
    """`netlab events --json`, listening; `until` reads on to an event that fits."""

    def __init__(self, lab: Lab, *options: str) -> None:
        command = [sys.executable, "-m", "netlab", "--lab", lab.name, "events", "--json", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.seen: list[dict[str, Any]] = []
        assert self.process.stderr is not None
        assert "Ctrl-C" in self.process.stderr.readline()

    def until(self, **wanted: Any) -> dict[str, Any]:
        """An event with these values, that has been seen or comes; the process' own end (--for) is the deadline."""
        assert self.process.stdout is not None
        for event in self.seen:
            if all(event.get(key) == value for key, value in wanted.items()):
                return event
        for line in self.process.stdout:
            self.seen.append(json.loads(line))
            if all(self.seen[-1].get(key) == value for key, value in wanted.items()):
                return self.seen[-1]
        raise AssertionError(f"no event {wanted} among {[one['text'] for one in self.seen]}")

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode


def test_what_others_do_is_told_while_they_do_it(lab: Lab) -> None:
    watcher = Watcher(lab, "--for", "25")
    lab.scale("ReplicationController", "kubia", 4)
    assert watcher.until(type="object", kind="ReplicationController")["name"] == "kubia"
    added = watcher.until(type="object", kind="Pod", action="added")
    assert watcher.until(type="endpoints", name="kubia")["ready"] == 4
    applied = watcher.until(type="rules", where="node/node-170")
    assert applied["rules"] >= applied["rules_before"] > 0
    watcher.until(type="link", action="added")
    lab.exec("pod/client", ["curl", "-s", "http://10.96.1.1"], check=True)
    kubia = watcher.until(type="conntrack", action="new", where="node/node-170")
    assert kubia["connection"]["names"]["dst"] == "svc/default/kubia:80"
    assert kubia["connection"]["names"]["reply_src"].startswith("pod/default/kubia-")
    lab.exec("node/node-171", ["ip", "route", "add", "198.51.100.0/24", "via", "192.168.0.1"], check=True)
    assert watcher.until(type="route", action="added")["route"]["dst"] == "198.51.100.0/24"
    lab.probe("pod/client", "svc/nobody")
    assert watcher.until(type="probe")["outcomes"]["rejected"] == 1
    lab.fault("link-down", "node/node-171")
    assert watcher.until(type="fault", action="link-down")["where"] == "lan/lan"
    watcher.until(type="link", action="changed", where="node/node-171")
    lab.exec(f"pod/{added['name']}", ["ip", "addr", "add", "192.0.2.9/32", "dev", "lo"], check=True)
    assert watcher.until(type="address", action="added")["where"] == f"pod/default/{added['name']}", "new namespaces, too"
    assert watcher.end() == 130
    stamps = [one["at"] for one in watcher.seen]
    assert max(stamps) - min(stamps) < 30


def test_only_some_types_for_some_time_and_what_was_before(lab: Lab) -> None:
    lab.scale("ReplicationController", "kubia", 2)
    command = [sys.executable, "-m", "netlab", "--lab", lab.name, "events", "--last", "50", "--only", "endpoints", "--for", "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0 and "svc/default/kubia has 2 ready endpoints" in done.stdout
    assert all(" endpoints " in line for line in done.stdout.splitlines())
    wrong = subprocess.run([*command[:6], "--only", "endpoint"], capture_output=True, text=True, timeout=30, check=False)
    assert wrong.returncode == 2 and "did you mean endpoints" in wrong.stderr


def test_a_watcher_ends_with_its_lab() -> None:
    with netlab.up(TOPOLOGY, [MANIFESTS[0]], proxy="nftables") as lab:
        watcher = Watcher(lab)
    _, error = watcher.process.communicate(timeout=PATIENCE_S)
    assert watcher.process.returncode == 2 and "is gone" in error


def test_top_counts_what_was_sent(lab: Lab) -> None:
    command = [sys.executable, "-m", "netlab", "--lab", lab.name, "top", "-o", "json", "--every", "6"]
    before = lab.node("node-170").exec("cat", "/proc/sys/net/netfilter/nf_conntrack_acct").stdout
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None and "counting" in process.stderr.readline()
    assert lab.node("node-170").exec("cat", "/proc/sys/net/netfilter/nf_conntrack_acct").stdout.strip() == "1"
    result = lab.probe("pod/client", "svc/kubia", count=120)
    lab.probe("pod/client", "svc/nobody", count=30)
    found = json.loads(process.communicate(timeout=60)[0])
    rows = {row["name"]: row for kind in ("nodes", "services", "pods") for row in found[kind]}
    kubia, nobody = rows["svc/default/kubia"], rows["svc/default/nobody"]
    assert kubia["new"] == 120 and kubia["connections"] == 120 and kubia["rx"] >= 240
    for pod, count in result.backends.items():
        assert rows[pod]["new"] == count
    assert nobody["new"] == 0 and nobody["dropped"] == (30 if lab.info()["proxy"] == "iptables" else None)
    assert rows["pod/default/client"]["tx"] > 120
    assert lab.node("node-170").exec("cat", "/proc/sys/net/netfilter/nf_conntrack_acct").stdout == before
