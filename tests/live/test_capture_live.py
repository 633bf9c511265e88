"""Captures of several namespaces at once, read back by tcpdump and scapy."""

import io
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from scapy.utils import RawPcapNgReader

from netlab.errors import KernelError
from netlab.observe import capture, tcpdump
from netlab.observe.capture import Captured, Place, Wanted
from tests.live.probe_sandbox import Net, sandboxed

HAVE_TCPDUMP = shutil.which("tcpdump", path="/usr/sbin:/usr/bin:/sbin") is not None
pytestmark = pytest.mark.skipif(not HAVE_TCPDUMP, reason="tcpdump is not installed")
PLACES = (Place("pod/default/a", "a"), Place("node/r", "r"), Place("pod/default/b", "b"))


def network() -> Net:
    net = Net()
    net.make("a", "r", "b")
    net.wire("a", "r", "eth0", "veth0", "10.0.0.2/24", "10.0.0.1/24")
    net.wire("b", "r", "eth0", "veth1", "10.0.1.2/24", "10.0.1.1/24")
    net.run("a", "ip", "route", "add", "default", "via", "10.0.0.1")
    net.run("b", "ip", "route", "add", "default", "via", "10.0.1.1")
    net.sysctl("r", "net/ipv4/ip_forward", "1")
    return net


def reading(*arguments: str) -> list[str]:
    """tcpdump that only reads, as a user other than root: root of a namespace with one uid may not even read with it."""
    return ["unshare", "-U", "--map-user=1000", "--map-group=1000", tcpdump.program(), "-r", "-", *arguments]


def datagrams(net: Net, count: int, to: str = "10.0.1.2") -> None:
    script = f"import socket; s = socket.socket(type=socket.SOCK_DGRAM); [s.sendto(b'x', ('{to}', 7)) for _ in range({count})]"
    net.run("a", "python3", "-c", script)


def captured(net: Net, wanted: Wanted, stop_after: float = 0.1) -> tuple[bytes, Captured]:
    """What a capture recorded while 3 datagrams went from a to b."""
    path = Path("/tmp") / f"capture-{os.getpid()}"
    with path.open("wb") as out:
        path.unlink()
        stop_read, stop_write = os.pipe()

        def run() -> None:
            datagrams(net, 3)
            time.sleep(stop_after)
            os.write(stop_write, b"x")

        sender = threading.Thread(target=run)
        result = capture.capture(PLACES, net.open, out.fileno(), wanted, sender.start, stop_read)
        sender.join()
        return Path(f"/proc/self/fd/{out.fileno()}").read_bytes(), result


@sandboxed
def test_every_hop_is_recorded_in_order_and_by_name() -> None:
    net = network()
    datagrams(net, 1)  # neighbours are learned
    data, result = captured(net, Wanted(tcpdump.compile_filter("udp port 7 and src host 10.0.0.2")))
    packets = list(RawPcapNgReader(io.BytesIO(data)))
    names = [meta.ifname.decode() for _, meta in packets]
    hops = ["pod/default/a:eth0", "node/r:veth0", "node/r:veth1", "pod/default/b:eth0"]
    assert (result.packets, result.dropped, sorted(result.interfaces)) == (12, 0, sorted(hops))
    assert names == hops * 3
    times = [(meta.tshigh << 32) + meta.tslow for _, meta in packets]
    assert times == sorted(times)
    listing = subprocess.run(reading("-n"), input=data, capture_output=True, check=True).stdout.decode()
    assert listing.count("10.0.0.2.") == 12


@sandboxed
def test_ends_and_choices() -> None:
    net = network()
    datagrams(net, 1)
    udp = tcpdump.compile_filter("udp port 7")
    assert captured(net, Wanted(udp, count=2))[1].packets == 2
    assert captured(net, Wanted(udp, seconds=0.05))[1].packets <= 12
    outgoing = captured(net, Wanted(udp, direction="out", device="eth0"))[1]
    assert (outgoing.packets, outgoing.interfaces) == (3, ("pod/default/a:eth0",))
    with pytest.raises(KernelError, match="cannot enter the namespace of node/x"):
        capture.capture((Place("node/x", "x"),), lambda name: os.open(f"/nothing/{name}", 0), 1, Wanted())


@sandboxed
def test_tcpdump_reads_the_capture_from_a_pipe_while_it_runs() -> None:
    net = network()
    datagrams(net, 1)
    for style, needle in (("sll2", "Out IP 10.0.0.2."), ("pcap", "IP 10.0.0.2.")):
        command = reading("-n", "-c", "2")
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reader:
            assert reader.stdin is not None and reader.stdout is not None
            wanted = Wanted(tcpdump.compile_filter("udp port 7"), format=style, seconds=60.0)  # type: ignore[arg-type]  # a table row

            def ready() -> None:
                threading.Thread(target=datagrams, args=(net, 3)).start()

            started = time.monotonic()
            out = os.dup(reader.stdin.fileno())
            reader.stdin.close()
            capture.capture(PLACES[:1], net.open, out, wanted, ready)
            os.close(out)
            assert time.monotonic() - started < 50  # the reader had its two packets and left
            assert reader.stdout.read().decode().count(needle) == 2


@sandboxed
def test_a_full_disk_is_an_error() -> None:
    net = network()
    with Path("/dev/full").open("wb") as full, pytest.raises(OSError, match="No space left"):
        capture.capture(PLACES, net.open, full.fileno(), Wanted(seconds=0.1))
