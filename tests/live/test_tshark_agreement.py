"""Explanations against an independent witness: tshark's dumpcap on every interface of every namespace, at the same time.

Random flows of the behaviour table (what Services promise inside, outside, at node ports, with policies, without endpoints, to
ports that nobody has), hop for hop: the same packets with the same addresses on the same interfaces in the same order, the way
there and back, of what was delivered, refused and lost. 40 flows by default, NETLAB_TSHARK_FLOWS sets another number.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import MachineError
from tests import spec
from tests.waiting import PATIENCE_S

FLOWS = int(os.environ.get("NETLAB_TSHARK_FLOWS", "40"))
SEED = int(os.environ.get("NETLAB_TSHARK_SEED", "1"))
MODES = ("iptables", "nftables")
RETIRE_S = 0.6
"""dumpcap hands the kernel's buffer on every quarter of a second: so long after the last packet all are in its file."""
FIELDS = (
    "frame.time_epoch", "sll.ifindex", "sll.pkttype", "ip.src", "ip.dst", "ip.proto", "tcp.srcport", "tcp.dstport", "tcp.flags",
    "udp.srcport", "udp.dstport", "icmp.type", "icmp.code",
)  # fmt: skip
PROTOCOLS = {"6": "TCP", "17": "UDP", "1": "ICMP"}
OUTGOING = "4"

TOOLS = all(map(shutil.which, ("tshark", "dumpcap")))
pytestmark = pytest.mark.skipif(not TOOLS, reason="tshark is not installed")


class Seen(NamedTuple):
    """A packet at an interface."""

    netns: str
    device: str
    leaving: bool
    src: str
    dst: str
    sport: int
    dport: int
    proto: str


Frame = tuple[float, Seen]


# ---------------------------------------------------------------- the world


def service(name: str, number: int, **more: Any) -> dict[str, Any]:
    spec_ = {"type": "LoadBalancer", "clusterIP": f"10.96.0.{number}", "selector": {"app": "web"},
             "ports": [{"name": "http", "port": 80, "targetPort": 8080, "nodePort": 30000 + number}], **more}  # fmt: skip
    ingress = {"loadBalancer": {"ingress": [{"ip": f"203.0.113.{200 + number % 4}"}]}} if number < 14 else {}
    kind = {} if number < 14 else {"type": "NodePort"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {**spec_, **kind}, "status": ingress}


def pod(name: str, node: str, address: str, app: str, *ports: tuple[int, str]) -> dict[str, Any]:
    container = {
        "name": "c",
        "image": "luksa/kubia",
        "ports": [{"containerPort": port, "protocol": what} for port, what in ports],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
            "spec": {"nodeName": node, "containers": [container]}, "status": {"podIP": address}}  # fmt: skip


WEB = ((8080, "TCP"), (5353, "UDP"))
OBJECTS = [
    pod("client-a", "node-a", "10.244.1.9", "client"),
    pod("client-b", "node-b", "10.244.2.9", "client"),
    pod("web-a", "node-a", "10.244.1.5", "web", *WEB),
    pod("web-b", "node-b", "10.244.2.5", "web", *WEB),
    pod("only-b", "node-b", "10.244.2.6", "only-b", *WEB),
    service("plain", 10),
    service("local", 11, externalTrafficPolicy="Local", selector={"app": "only-b"}),
    service("inner", 12, internalTrafficPolicy="Local", selector={"app": "only-b"}),
    service("ranged", 13, loadBalancerSourceRanges=["203.0.113.50/32"]),
    service("sticky", 14, sessionAffinity="ClientIP"),
    service("nobody", 15, selector={"app": "nobody"}),
    service("dns", 16, ports=[{"name": "d", "port": 53, "targetPort": 5353, "protocol": "UDP", "nodePort": 30016}]),
    service("deaf", 17, ports=[{"name": "x", "port": 80, "targetPort": 9999, "nodePort": 30017}]),
]
SENDERS = ("pod/client-a", "pod/client-b", "pod/web-a", "pod/web-b", "node/node-a", "node/node-b", "host/client")
NUMBERS = range(10, 18)


def destinations(number: int) -> list[tuple[str, str]]:
    """(to, protocol): every way in to a Service, and a port of it that nobody declared."""
    port, protocol = (53, "udp") if number == 16 else (80, "tcp")
    found = [(f"10.96.0.{number}:{port}", protocol), (f"10.96.0.{number}:81", "tcp")]
    found += [(f"{node}:{30000 + number}", protocol) for node in ("192.168.50.10", "192.168.50.11")]
    return found + ([(f"203.0.113.{200 + number % 4}:80", protocol)] if number < 14 else [])


PLAIN = [
    ("10.244.1.5:8080", "tcp"),
    ("10.244.2.5:8080", "tcp"),
    ("10.244.2.6:5353", "udp"),
    ("10.244.1.5:9", "tcp"),
    ("10.244.2.5:9", "udp"),
    ("10.244.1.9", "icmp"),
    ("10.244.2.9", "icmp"),
    ("192.168.50.11", "icmp"),
    ("192.168.50.11:22", "tcp"),
]
DEADLY = [
    ("pod/client-a", "10.96.0.15:80", "tcp"),  # no endpoints
    ("host/client", "10.96.0.15:80", "tcp"),
    ("host/client", "192.168.50.10:30011", "tcp"),  # Local, and none here
    ("pod/client-a", "10.96.0.12:80", "tcp"),
    ("host/client", "203.0.113.201:80", "tcp"),  # not from this source
    ("pod/client-b", "10.96.0.17:80", "tcp"),  # nobody listens
    ("pod/client-b", "10.96.7.7:80", "tcp"),  # no such Service
    ("node/node-b", "10.244.2.77:80", "tcp"),  # no such pod
    ("host/client", "192.168.50.10:30999", "tcp"),
    ("pod/client-a", "192.168.50.11:30015", "tcp"),
]


def flows(count: int, seed: int) -> list[dict[str, Any]]:
    """Random flows; each has a source port of its own."""
    dice = random.Random(seed)
    ways = [way for number in NUMBERS for way in destinations(number)]
    found = []
    for at in range(count):
        kind = dice.random()
        if kind < 0.25:
            sender, to, protocol = dice.choice(DEADLY)
        else:
            sender, (to, protocol) = dice.choice(SENDERS), dice.choice(PLAIN if kind < 0.4 else ways)
        one: dict[str, Any] = {"sender": sender, "to": to, "protocol": protocol}
        if protocol != "icmp":
            one["source_port"] = 40_000 + at
        if sender == "host/client" and dice.random() < 0.5:
            one["source"] = dice.choice(spec.HOST_ADDRESSES)
        found.append(one)
    return found


@pytest.fixture(scope="module", params=MODES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    place = tmp_path_factory.mktemp("agreement")
    case = next(case for case in spec.load_verdicts())
    (place / "topology.json").write_text(json.dumps(spec.topology_of(case, request.param)))
    (place / "objects.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": OBJECTS}))
    try:
        with netlab.up(place / "topology.json", [place / "objects.json"]) as running:
            running.matrix()  # the bridges have learned where everybody is: nothing is flooded any more
            yield running
    except MachineError as error:
        pytest.skip(f"this machine cannot run a lab: {error}")


# ---------------------------------------------------------------- the other witness


class Dumpcaps:
    """A dumpcap in each of a lab's namespaces, and what they saw."""

    def __init__(self, lab: Lab, place: Path) -> None:
        self.files: dict[str, Path] = {}
        self.devices: dict[str, Mapping[str, str]] = {}
        self._running: list[subprocess.Popen[str]] = []
        for name, number in lab.verb("namespaces").items():
            path = place / f"{name.replace('/', '-')}.pcapng"
            inside = [sys.executable, "-m", "tests.live.inside", str(lab.pid), str(number), "--"]
            listed = subprocess.run([*inside, "ip", "-j", "link"], capture_output=True, text=True, check=True)
            self.devices[name] = {str(one["ifindex"]): one["ifname"] for one in json.loads(listed.stdout)}
            command = [*inside, "dumpcap", "-q", "-i", "any", "-y", "LINUX_SLL2", "-f", "ip", "-w", str(path)]
            self._running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
            self.files[name] = path
        for one in self._running:
            assert one.stderr is not None
            while "File:" not in (line := one.stderr.readline()):  # said when the socket is open and the file begun
                assert line, f"dumpcap ended with {one.wait()}"

    def stop(self) -> list[Frame]:
        """End them; every packet in order of time, with nothing lost."""
        time.sleep(RETIRE_S)
        for one in self._running:
            one.send_signal(signal.SIGINT)
        for one in self._running:
            _, said = one.communicate(timeout=PATIENCE_S)
            assert one.returncode == 0, said
        frames = [frame for name in self.files for frame in self._read(name)]
        return sorted(frames, key=lambda frame: frame[0])

    def _read(self, name: str) -> Iterator[Frame]:
        fields = [word for field in FIELDS for word in ("-e", field)]
        command = [
            "tshark",
            "-n",
            "-r",
            str(self.files[name]),
            "-T",
            "fields",
            "-E",
            "occurrence=f",
            "-E",
            "separator=,",
            *fields,
        ]
        for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
            at, index, kind, src, dst, number, tcp_from, tcp_to, flags, udp_from, udp_to, kind_of, code = line.split(",")
            proto = PROTOCOLS.get(number, number)
            device = self.devices[name][index]
            if device == "lo" and src == "127.0.0.1":
                continue  # netlab's proof that packets are stamped
            if proto == "TCP" and int(flags, 16) & 0x14 == 0x04:
                continue  # the sender's kernel, which knows of no connection, takes leave of the one that it was offered
            if proto == "ICMP" and (kind_of, code) == ("3", "1"):
                continue  # told three seconds later of an address that nobody has: another flow's turn by then
            ends = {"TCP": (tcp_from, tcp_to), "UDP": (udp_from, udp_to)}.get(proto, ("0", "0"))
            yield float(at), Seen(name, device, kind == OUTGOING, src, dst, int(ends[0]), int(ends[1]), proto)


def told(document: Mapping[str, Any]) -> list[Frame]:
    """The sightings of an explanation, copies that switches flooded among them. libpcap leaves out what leaves through lo."""
    way = [one for one in (*document["hops"], *document["reply"]) if one["event"] in ("sent", "received")]
    events = [one for one in (*way, *document["flooded"]) if (one["device"], one["direction"]) != ("lo", "out")]
    found = []
    for one in events:
        packet = one["packet"]
        ends = (packet["sport"], packet["dport"]) if packet["proto"] != "ICMP" else (0, 0)
        seen = Seen(
            one["netns"],
            one["device"],
            one["direction"] == "out",
            packet["src"],
            packet["dst"],
            ends[0],
            ends[1],
            packet["proto"],
        )
        found.append((one["at"] / 1e9, seen))
    return found


def differences(mine: Sequence[Frame], theirs: Sequence[Frame]) -> list[str]:
    """Where two accounts of one flow differ: packets that only one has, or another order within a namespace."""
    found = []
    for name in dict.fromkeys(seen.netns for _, seen in (*mine, *theirs)):
        here = [seen for _, seen in mine if seen.netns == name]
        there = [seen for _, seen in theirs if seen.netns == name]
        if sorted(here) != sorted(there):
            found += [f"only explain: {one}" for one in here if one not in there]
            found += [f"only tshark: {one}" for one in there if one not in here]
            if len(here) != len(there) and not found:
                found.append(f"{name}: {len(here)} times and {len(there)} times")
    stamps = {seen: at for at, seen in theirs}
    way = [stamps[seen] for _, seen in sorted(mine, key=lambda frame: frame[0]) if seen in stamps]
    if not found and way != sorted(way):
        found.append("tshark saw them in another order")
    return found


# ---------------------------------------------------------------- the test


def test_explanations_agree_with_tshark_hop_for_hop(lab: Lab, tmp_path: Path) -> None:
    asked = flows(max(1, FLOWS // len(MODES)), SEED)
    witnesses = Dumpcaps(lab, tmp_path)
    begun: list[float] = []
    documents = []
    for one in asked:
        begun.append(time.time())
        documents.append(lab.explain(**one))
    begun.append(time.time() + RETIRE_S)
    frames = witnesses.stop()
    wrong, hops = [], 0
    for number, (one, document) in enumerate(zip(asked, documents, strict=True)):
        theirs = [frame for frame in frames if begun[number] <= frame[0] < begun[number + 1]]
        mine = told(document)
        hops += len(mine)
        wrong += [f"{number} {one}: {line}" for line in differences(mine, theirs)]
        if document["verdict"] != "pass" or not document["trace_agrees"]:
            wrong.append(f"{number} {one}: {document['verdict']} {document['why']} {document['disagreements']}")
    outcomes = {word: sum(one["outcome"] == word for one in documents) for word in ("delivered", "rejected", "dropped")}
    print(f"{len(asked)} flows, {hops} hops, {outcomes}, {lab.info()['proxy']}, seed {SEED}")
    assert not wrong, "\n".join(wrong[:40]) + f"\n{len(wrong)} differences in {len(asked)} flows"
    assert hops > 3 * len(asked) and min(outcomes.values()) >= 1


def test_a_difference_is_found() -> None:
    one = Seen("node/a", "eth0", False, "10.0.0.1", "10.0.0.2", 1, 2, "TCP")
    other = one._replace(netns="node/b")
    assert differences([(1.0, one), (2.0, other)], [(1.1, one), (2.1, other)]) == []
    assert differences([(1.0, one), (2.0, other)], [(2.1, one), (1.1, other)]) == ["tshark saw them in another order"]
    assert len(differences([(1.0, one)], [(1.0, one._replace(dst="10.0.0.3"))])) == 2
    assert differences([(1.0, one)], [(1.0, one), (1.0, one)]) == ["node/a: 1 times and 2 times"]
