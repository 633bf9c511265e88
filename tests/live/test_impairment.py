"""Impaired links with packets: each impairment is measured, and beside it what a link does without.

A rate works on any kernel; what takes netem is marked, and runs in the test VM where this kernel has none. Statistics: a fixed
number of datagrams, and a band that a right link leaves once in a million runs (binomial, both sides together).
"""

import json
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import netlab
from netlab.client import Lab, View
from netlab.errors import MachineError
from tests.vm.plugin import present

UDP = "manifests/udp.yaml"
ONCE_IN_A_MILLION = 1e-6
ECHO = r"""
import json, select, socket, sys, time
address, number, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
sock.connect((address, 5353))
sent, seen = {}, []
def read(wait):
    while select.select([sock], [], [], wait)[0]:
        text = sock.recv(2048).decode(errors="replace")
        mark = text.rpartition("n=")[2].split()[0] if "n=" in text else "?"
        seen.append((int(mark) if mark.isdigit() else -1, time.monotonic()))
for one in range(number):
    sent[one] = time.monotonic()
    sock.send(b"n=%d " % one + b"x" * 600)
    read(pause)
read(2.0)
print(json.dumps({"order": [one for one, _ in seen], "rtts": [at - sent[one] for one, at in seen if one in sent]}))
"""

SINK = r"""
import json, socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind(("0.0.0.0", 7777))
sock.listen(1)
print("listening", flush=True)
peer, _ = sock.accept()
number, first = 0, None
while data := peer.recv(1 << 16):
    first = first or time.monotonic()
    number += len(data)
print(json.dumps({"bytes": number, "seconds": time.monotonic() - first}), flush=True)
"""

SOURCE = r"""
import socket, sys, time
sock = socket.create_connection((sys.argv[1], 7777))
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    sock.sendall(b"x" * 16384)
"""


def band(number: int, share: float) -> range:
    """How many of `number` may be hit: outside lies at most a millionth, half of it on either side."""
    weights = [
        math.exp(math.lgamma(number + 1) - math.lgamma(hit + 1) - math.lgamma(number - hit + 1)
                 + hit * math.log(share) + (number - hit) * math.log1p(-share))
        for hit in range(number + 1)
    ]  # fmt: skip
    low, below = 0, weights[0]
    while below < ONCE_IN_A_MILLION / 2:
        low += 1
        below += weights[low]
    high, above = number, weights[number]
    while above < ONCE_IN_A_MILLION / 2:
        high -= 1
        above += weights[high]
    return range(low, high + 1)


def test_the_band_holds_what_it_says() -> None:
    assert band(1000, 0.5) == range(423, 578)
    assert band(100, 0.001).start == 0


class Echo:
    """What came back of `number` datagrams."""

    def __init__(self, number: int, order: list[int], rtts: list[float]) -> None:
        self.order = order
        self.rtts = sorted(rtts)
        self.answered = len(set(order))
        self.lost = number - self.answered
        self.twice = len(order) - self.answered
        self.overtaken = sum(later < earlier for earlier, later in pairwise(order))


def echo(lab: Lab, sender: str = "host/client", number: int = 1000, pause: float = 0.0) -> Echo:
    """Datagrams from the sender to an echoing pod, and what came back."""
    pod = lab.get("pods", None, selector="app=udp-echo")[0]["status"]["podIP"]
    done = lab.exec(sender, [sys.executable, "-c", ECHO, pod, str(number), str(pause)], check=True, timeout_s=120)
    return Echo(number, **json.loads(done.stdout))


def throughput(lab: Lab, sender: str, receiver: str, address: str, seconds: float = 1.0) -> float:
    """Bits a second of a TCP connection, payload only, as the receiver sees them."""
    command = [sys.executable, "-m", "netlab", "exec", receiver, "--lab", lab.name, "--", sys.executable, "-c", SINK]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sink:
        assert sink.stdout is not None
        assert sink.stdout.readline() == "listening\n"
        lab.exec(sender, [sys.executable, "-c", SOURCE, address, str(seconds)], check=True, timeout_s=60)
        told = json.loads(sink.stdout.readline())
    return float(told["bytes"] * 8 / told["seconds"])


# ---------------------------------------------------------------- rate: any kernel


def test_a_rate_is_kept_each_way_and_only_there(tmp_path: Path) -> None:
    """At most the rate (a bucket cannot give more; 1.25 leaves room for a late clock), and at least half of it.

    The control is the other way, and the same way once the fault is over: four times the rate, which a veth passes a hundredfold.
    """
    rate = 20_000_000
    topology = tmp_path / "slow.yaml"
    topology.write_text("links: {client/lan: {out: {rate: 20mbit}}}\n")
    with netlab.up(topology) as lab:
        assert lab.verify().drift == []
        assert 0.5 * rate < throughput(lab, "host/client", "node/node-170", "192.168.0.170") < 1.25 * rate
        assert throughput(lab, "node/node-170", "host/client", "192.168.0.100") > 4 * rate
        undo = lab.fault("rate", "client/lan", value="20mbit", direction="in")["undo"]
        assert lab.verify().drift == []
        assert 0.5 * rate < throughput(lab, "node/node-170", "host/client", "192.168.0.100") < 1.25 * rate
        lab.fault("restore", undo=undo)
        assert throughput(lab, "node/node-170", "host/client", "192.168.0.100") > 4 * rate


def test_a_pods_link_is_limited_and_free_again_when_the_pod_is_another() -> None:
    with netlab.up(manifests=["manifests/kubia.yaml"]) as lab:
        lab.fault("rate", "rc/kubia", value="1mbit")
        impaired = [name for name in (f"pod/{row['metadata']['name']}" for row in lab.get("pods")) if rates(lab, name)]
        assert len(impaired) == 1
        assert rates(lab, impaired[0]) == {"out": {"rate_bps": 1_000_000}, "in": {"rate_bps": 1_000_000}}
        lab.fault("kill-pod", impaired[0])
        assert lab.verify().drift == []
        assert [rates(lab, f"pod/{row['metadata']['name']}") for row in lab.get("pods")] == [{}] * 4


def rates(lab: Lab, target: str) -> dict[str, object]:
    links = View(lab, target).links()
    return dict(next(row for row in links if row["ifname"] == "eth0").get("impairment", {}))


def test_verify_names_and_repairs_what_someone_did_to_a_link(tmp_path: Path) -> None:
    topology = tmp_path / "slow.yaml"
    topology.write_text("links: {client/lan: {rate: 20mbit}}\n")
    with netlab.up(topology) as lab:
        lab.exec("host/client", ["tc", "qdisc", "del", "dev", "eth0", "root"], check=True)
        lab.exec("node/node-170", ["tc", "qdisc", "add", "dev", "eth0", "root", "pfifo", "limit", "3"], check=True)
        assert sorted(lab.verify(repair=True).drift) == [
            "host/client: what eth0 sends has no impairment, not rate 20mbit",
            "node/node-170: what eth0 sends has a qdisc pfifo, which is not planned",
        ]
        assert lab.verify().drift == []
        assert rates(lab, "host/client") == {"out": {"rate_bps": 20_000_000}, "in": {"rate_bps": 20_000_000}}
        assert rates(lab, "node/node-170") == {}


# ---------------------------------------------------------------- without netem


@pytest.mark.skipif("qdisc netem" in present(), reason="this kernel has netem")
def test_without_netem_nothing_is_built_and_a_running_lab_stays_as_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "netlab", "up", "topologies/wan.yaml", "--name", f"no-netem-{os.getpid()}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert "this kernel has no netem, which delay, " in done.stderr
    assert "modprobe sch_netem" in done.stderr
    with netlab.up(manifests=["manifests/kubia.yaml"]) as lab:
        with pytest.raises(MachineError, match="has no netem"):
            lab.fault("delay", "client/lan", value="10ms")
        assert lab.verify().drift == []
        lab.fault("rate", "client/lan", value="10mbit")
        assert lab.probe("host/client", "svc/kubia").verdict == "pass"


# ---------------------------------------------------------------- with netem


@pytest.mark.needs_netem
def test_a_delay_is_waited_each_way() -> None:
    """A round trip takes at least both delays; without them, or in one direction only, it need not."""
    with netlab.up(manifests=[UDP]) as lab:
        before = echo(lab, number=20, pause=0.05)
        lab.fault("delay", "client/lan", value="100ms")
        both = echo(lab, number=20, pause=0.05)
        assert both.answered == 20
        assert both.rtts[0] >= 0.2
        assert before.rtts[10] < 0.2
        lab.fault("delay", "client/lan", value="0", direction="in")
        out = echo(lab, number=20, pause=0.05)
        assert out.rtts[0] >= 0.1
        assert out.rtts[10] < both.rtts[10] - 0.05
        assert lab.verify().drift == []


@pytest.mark.needs_netem
def test_loss_duplicates_and_corruption_are_as_often_as_said() -> None:
    """1,000 datagrams: enough that a third more or less of 20 % lies outside the band. One way only, so each counts once."""
    number = 1000
    with netlab.up(manifests=[UDP]) as lab:
        perfect = echo(lab, number=number, pause=0.002)
        assert (perfect.lost, perfect.twice) == (0, 0)
        lab.fault("loss", "client/lan", value="20%", direction="out")
        lossy = echo(lab, number=number, pause=0.002)
        assert lossy.lost in band(number, 0.2)
        assert lossy.twice == 0
        lab.fault("clear", "client/lan")
        lab.fault("duplicate", "client/lan", value="20%", direction="in")
        twice = echo(lab, number=number, pause=0.002)
        assert twice.lost == 0
        assert twice.twice in band(number, 0.2)
        lab.fault("clear")
        lab.fault("corrupt", "client/lan", value="50%", direction="out")
        # A flipped bit in one of the source's MAC address' 48 (of some 5,200) hurts nobody.
        assert echo(lab, number=number, pause=0.002).lost in range(band(number, 0.48).start, band(number, 0.5).stop)


@pytest.mark.needs_netem
def test_reordered_packets_overtake() -> None:
    with netlab.up(manifests=[UDP]) as lab:
        lab.fault("delay", "client/lan", value="50ms", direction="out")
        assert echo(lab, number=200, pause=0.001).overtaken <= 4  # two processors hand one over late now and then
        lab.fault("reorder", "client/lan", value="30%", direction="out")
        seen = echo(lab, number=200, pause=0.001)
        assert seen.answered == 200
        assert seen.overtaken > 12  # some 60 of 200 are sent ahead; 12 is seven standard deviations below


@pytest.mark.needs_netem
def test_a_whole_topology_and_faults_on_top_of_it() -> None:
    """Delay, loss and rate in one link; a change of numbers, of kinds, and back: the kernel holds what is planned each time."""
    with netlab.up("topologies/wan.yaml", manifests=[UDP]) as lab:
        assert lab.verify().drift == []
        assert rates(lab, "host/client") == {
            "out": {"rate_bps": 10_000_000, "delay_s": 0.02, "jitter_s": 0.002, "loss": 0.001},
            "in": {"delay_s": 0.02, "jitter_s": 0.002, "loss": 0.001},
        }
        assert throughput(lab, "host/client", "node/node-170", "192.168.0.170", 2.0) < 1.25 * 10_000_000
        for kind, value in (("delay", "1ms"), ("rate", "1mbit"), ("loss", "0%"), ("corrupt", "1%")):
            lab.fault(kind, "client/lan", value=value)
            assert lab.verify().drift == [], kind
        lab.fault("link-down", "client/lan")
        lab.fault("link-up", "client/lan")
        assert lab.verify().drift == []
        lab.fault("clear")
        assert lab.verify().drift == []
        assert lab.probe("host/client", "svc/udp-echo:dns", timeout_s=10).verdict == "pass"
