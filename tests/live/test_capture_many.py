"""Captures of many interfaces at once: the order of hops, a high rate, comments, rows of files; read back by scapy and tshark."""

import io
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

import netlab
from netlab.kernel import namespaces, packet_ring
from netlab.observe import capture, tcpdump
from netlab.observe.annotating import Annotator, key_of
from netlab.observe.capture import Captured, Place, Wanted
from netlab.observe.capture_files import Rotation
from tests.live.probe_sandbox import Net, sandboxed
from tests.waiting import until

LEAVES = 100
UDP_7 = "udp port 7"
needs_tcpdump = pytest.mark.skipif(
    not shutil.which("tcpdump", path="/usr/sbin:/usr/bin:/sbin"), reason="tcpdump is not installed"
)
needs_tshark = pytest.mark.skipif(not shutil.which("tshark"), reason="tshark is not installed")
pytestmark = needs_tcpdump


def star(leaves: int) -> Net:
    """A router with so many leaves: two interfaces each. Leaf i is 10.0.i.2."""
    net = Net()
    net.make("r", *(f"leaf{number}" for number in range(leaves)))
    net.sysctl("r", "net/ipv4/ip_forward", "1")
    for number in range(leaves):
        leaf = f"leaf{number}"
        net.wire(leaf, "r", "eth0", f"v{number}", f"10.0.{number}.2/24", f"10.0.{number}.1/24")
        net.run(leaf, "ip", "route", "add", "default", "via", f"10.0.{number}.1")
    return net


def places(leaves: int) -> tuple[Place, ...]:
    return (Place("node/r", "r"), *(Place(f"pod/leaf{number}", f"leaf{number}") for number in range(leaves)))


def send(net: Net, sender: int, receiver: int, first: int, count: int, port: int = 7) -> None:
    """UDP datagrams with a number each."""
    with namespaces.entered(net.fds[f"leaf{sender}"]), socket.socket(type=socket.SOCK_DGRAM) as sock:
        for number in range(first, first + count):
            sock.sendto(number.to_bytes(4, "big") + bytes(16), (f"10.0.{receiver}.2", port))


def recorded(
    net: Net, watched: tuple[Place, ...], wanted: Wanted, work: list[tuple[int, int, int, int]]
) -> tuple[bytes, Captured]:
    """What is captured while the work is done: (sender, receiver, first number, how many)."""
    path = Path("/tmp") / f"capture-many-{os.getpid()}"
    with path.open("wb") as out:
        path.unlink()
        stop_read, stop_write = os.pipe()

        def run() -> None:
            for sender, receiver, first, count in work:
                send(net, sender, receiver, first, count)
            os.write(stop_write, b"x")

        thread = threading.Thread(target=run)
        result = capture.capture(watched, net.open, out.fileno(), wanted, thread.start, stop_read)
        thread.join()
        return Path(f"/proc/self/fd/{out.fileno()}").read_bytes(), result


@sandboxed
def test_hops_of_a_thousand_packets_over_200_interfaces_are_in_order() -> None:
    net = star(LEAVES)
    for number in range(LEAVES):
        send(net, number, (number + 1) % LEAVES, 0, 1, port=9)  # neighbours are learned
    wanted = Wanted(tcpdump.compile_filter(UDP_7))
    work = [(number, (number + 1) % LEAVES, 1 + number * 10, 10) for number in range(LEAVES)]
    data, result = recorded(net, places(LEAVES), wanted, work)
    hops: dict[int, list[str]] = defaultdict(list)
    times: list[int] = []
    for frame, meta in RawPcapNgReader(io.BytesIO(data)):
        hops[int.from_bytes(frame[42:46], "big")].append(meta.ifname.decode())
        times.append((meta.tshigh << 32) + meta.tslow)
    assert result.dropped == 0
    assert len(hops) == 1000
    assert len(result.interfaces) == 200
    assert times == sorted(times)
    for number, seen in hops.items():
        sender = (number - 1) // 10
        receiver = (sender + 1) % LEAVES
        assert seen == [f"pod/leaf{sender}:eth0", f"node/r:v{sender}", f"node/r:v{receiver}", f"pod/leaf{receiver}:eth0"], number


@sandboxed
def test_at_a_high_rate_every_packet_is_recorded_or_counted_as_lost() -> None:
    """As fast as one sender can: some 100,000 records a second where nothing else runs (netlab bench capture measures)."""
    net = star(25)
    for number in range(25):
        send(net, number, (number + 1) % 25, 0, 1, port=9)
    work = [(number, (number + 1) % 25, 0, 1000) for number in range(25)]
    data, result = recorded(net, places(25), Wanted(tcpdump.compile_filter(f"{UDP_7} and greater 40")), work)
    found = sum(1 for _ in RawPcapNgReader(io.BytesIO(data)))
    assert found == result.packets
    assert found + result.dropped == 25 * 1000 * 4
    assert found > 0


@sandboxed
def test_what_is_lost_is_counted() -> None:
    """A ring that nobody reads: the smallest one, so that it overflows."""
    net = star(2)
    with namespaces.entered(net.fds["r"]):
        ring = packet_ring.ring(tcpdump.compile_filter(UDP_7), 0, 262_144)
    send(net, 0, 1, 0, 5000)
    kept = 0
    for _ in range(3):
        kept += sum(1 for _ in ring.new())
    drops = ring.drops()
    ring.close()
    assert drops > 1000
    assert kept + drops <= 10_000
    assert kept + drops > 9_000  # one block may not be handed over yet


class Everybody:
    def destination(self, address: object, port: int, protocol: str) -> str:
        return f"who-{address}"

    def owner(self, address: object) -> str:
        return ""


@sandboxed
@needs_tshark
def test_tshark_reads_names_and_comments_without_a_warning() -> None:
    net = star(2)
    wanted = Wanted(
        tcpdump.compile_filter(UDP_7), names={ip_address("10.0.1.2"): "leaf1.default.pod"}, annotator=Annotator(Everybody())
    )
    described = tuple(Place(one.name, one.netns, f"this is {one.name}") for one in places(2))
    data, _ = recorded(net, described, wanted, [(0, 1, 0, 3)])
    fields = [
        word
        for name in ("frame.interface_name", "frame.interface_description", "frame.comment", "ip.dst_host")
        for word in ("-e", name)
    ]
    done = subprocess.run(
        ["tshark", "-N", "n", "-T", "fields", *fields, "-r", "-"],
        input=data,
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},  # root of a user namespace may not read root's settings
    )
    said = [line for line in done.stderr.decode().splitlines() if not line.startswith("Running as user")]
    assert said == []
    rows = [line.split("\t") for line in done.stdout.decode().splitlines()]
    ours = [row for row in rows if row[0] == "pod/leaf0:eth0"]
    assert ours
    assert ours[0] == ["pod/leaf0:eth0", "this is pod/leaf0", "who-10.0.0.2 > who-10.0.1.2", "leaf1.default.pod"]


@sandboxed
def test_files_in_a_row_are_whole_and_the_oldest_go() -> None:
    net = star(2)
    directory = Path("/tmp") / f"capture-files-{os.getpid()}"
    directory.mkdir()
    try:
        rotation = Rotation(directory / "lab.pcapng", bytes_=20_000, files=3)
        wanted = Wanted(tcpdump.compile_filter(UDP_7), rotation=rotation)
        work = [(0, 1, 0, 500) for _ in range(8)]
        _, result = recorded(net, places(2), wanted, work)
        found = sorted(directory.iterdir())
        assert len(found) == 3
        assert found[-1].name > "lab_00004.pcapng"
        kept = 0
        for path in found:
            with path.open("rb") as file:
                kept += sum(1 for _ in RawPcapNgReader(file))
        assert 0 < kept < result.packets
    finally:
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


@pytest.fixture(scope="module")
def lab() -> Iterator[netlab.Lab]:
    with netlab.up(manifests=["manifests/kubia.yaml"]) as made:
        yield made


def test_comments_tell_names_and_nat_of_a_lab(lab: netlab.Lab, tmp_path: Path) -> None:
    file = tmp_path / "lab.pcapng"
    command = [sys.executable, "-m", "netlab", "capture", "--lab", lab.name, "-w", str(file)]
    command += ["-f", "tcp port 80 or tcp port 8080", "--for", "20", "-c", "20"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as running:
        until(lambda: file.exists() and file.stat().st_size > 0, "nothing is recorded")
        seen = lab.probe("pod/client", "svc/kubia", count=4)
        assert running.wait(25) == 0
    assert seen.verdict == "pass"
    said: Counter[str] = Counter()
    with file.open("rb") as data:
        for frame, meta in RawPcapNgReader(data):
            assert key_of(frame)
            said.update([(meta.comments or [b""])[0].decode()])
    to_service = [text for text in said if text.startswith("pod/default/client > svc/default/kubia:80")]
    assert to_service, said
    assert all("DNAT 10.96." in text and any(f"({name})" in text for name in seen.backends) for text in to_service), said
