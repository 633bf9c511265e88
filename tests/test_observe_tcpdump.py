"""tcpdump's command line taken apart, and capture files that the usual readers understand."""

import io
import shutil

import pytest
from scapy.utils import RawPcapNgReader, RawPcapReader

from netlab.errors import InputError
from netlab.observe import pcap, tcpdump
from netlab.observe.tcpdump import Split, split


@pytest.mark.parametrize(
    ("name", "line", "wanted"),
    [
        ("nothing", "", Split()),
        ("only an expression", "tcp port 80", Split(expression="tcp port 80")),
        ("only looks", "-n -e -v", Split(shown=("-n", "-e", "-v"))),
        ("a cluster", "-nnev", Split(shown=("-nnev",))),
        ("a cluster that ends in a value", "-ni any icmp", Split("any", "icmp", shown=("-n",))),
        ("a value without a space", "-ieth0", Split("eth0")),
        ("a long option with =", "--interface=eth0 -A", Split("eth0", shown=("-A",))),
        ("a long option with a space", "--interface eth0", Split("eth0")),
        ("a count ends the capture too", "-c 10 -X", Split(count=10, shown=("-c", "10", "-X"))),
        ("a count in a cluster", "-nc5 udp", Split(expression="udp", count=5, shown=("-c", "5", "-n"))),
        ("a snapshot length is ours", "-s 96", Split(snap_bytes=96)),
        ("-s 0 is the largest", "-s0", Split()),
        ("options after the expression", "tcp port 80 -n", Split(expression="tcp port 80", shown=("-n",))),
        ("-- ends the options", "-n -- -1", Split(expression="-1", shown=("-n",))),
        ("a direction", "-Q in", Split(direction="in")),
        ("what only capturing needs is dropped", "-p -I -B 4096 -j host -Z root --immediate-mode", Split()),
        ("writing is tcpdump's", "-w out.pcap -U", Split(shown=("-w", "out.pcap", "-U"))),
        ("stamps", "-tttt --time-stamp-precision=nano", Split(shown=("-tttt", "--time-stamp-precision=nano"))),
        ("a list of interfaces is no capture", "-D", Split(captures=False, shown=("-D",))),
        ("a file is no capture", "-r x.pcap -n", Split(captures=False, shown=("-r", "x.pcap", "-n"))),
        ("help is no capture", "--help", Split(captures=False, shown=("--help",))),
        ("a flag that we do not know", "--number -#", Split(shown=("--number", "-#"))),
    ],
)
def test_arguments(name: str, line: str, wanted: Split) -> None:
    assert split(line.split()) == wanted


def test_a_quoted_expression_stays_one() -> None:
    assert split(["-n", "tcp port 80 and host 10.0.0.1"]).expression == "tcp port 80 and host 10.0.0.1"


@pytest.mark.parametrize("line", ["-i", "-c ten", "-Q up", "--interface", "-s -5"])
def test_mistakes(line: str) -> None:
    with pytest.raises(InputError, match="tcpdump"):
        split(line.split())


@pytest.mark.skipif(shutil.which("tcpdump", path="/usr/sbin:/usr/bin:/sbin") is None, reason="tcpdump is not installed")
def test_filters() -> None:
    assert tcpdump.compile_filter("") == ((6, 0, 0, 0x40000),)
    assert len(tcpdump.compile_filter("tcp port 80")) > 5
    with pytest.raises(InputError, match="capture filter 'tcp prt 80': can't parse filter expression"):
        tcpdump.compile_filter("tcp prt 80")


def test_a_pcapng_file_is_read_back() -> None:
    data = pcap.section("netlab", "a comment") + pcap.interface("pod/default/a:eth0") + pcap.interface("node/n:cni0")
    data += pcap.packet(1, 1_700_000_000_123_456_789, b"x" * 61, 100, outgoing=True, comment="here")
    data += pcap.packet(0, 1_700_000_000_123_456_790, b"y" * 60, 60) + pcap.statistics(0, 5, 3)
    packets = list(RawPcapNgReader(io.BytesIO(data)))
    assert [bytes(packet) for packet, _ in packets] == [b"x" * 61, b"y" * 60]
    assert [meta.ifname for _, meta in packets] == [b"node/n:cni0", b"pod/default/a:eth0"]
    first = packets[0][1]
    assert (first.wirelen, first.tsresol, (first.tshigh << 32) + first.tslow) == (100, 10**9, 1_700_000_000_123_456_789)


def test_a_classic_file_is_read_back() -> None:
    data = pcap.pcap_header(pcap.ETHERNET, 1000) + pcap.pcap_record(1_700_000_000_000_000_007, b"abc", 9)
    ((packet, meta),) = RawPcapReader(io.BytesIO(data))
    assert (bytes(packet), meta.sec, meta.usec, meta.wirelen) == (b"abc", 1_700_000_000, 7, 9)
