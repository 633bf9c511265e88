"""Probe packets: patched templates against scapy's own, and how packets are known again after NAT and inside ICMP errors."""

import struct
from ipaddress import IPv4Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP

from netlab.model import Protocol
from netlab.probes import packets, plain
from netlab.probes.packets import Kind

SOURCE, DESTINATION = IPv4Address("10.244.1.3"), IPv4Address("10.96.0.80")
RUN = 0xBEEF


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize(("index", "source_port"), [(0, 1), (1, 10_000), (0xFFEF, 65535), (0x1234, 40000), (255, 256)])
def test_a_filled_template_is_what_scapy_builds(protocol: Protocol, index: int, source_port: int) -> None:
    filled = bytearray(packets.template(RUN, protocol, SOURCE, DESTINATION, 80).fill(index, source_port))
    wanted = bytearray(bytes(packets.scapy_packet(RUN, protocol, SOURCE, DESTINATION, 80, index, source_port)))
    filled[10:12] = wanted[10:12] = b"\0\0"  # the kernel fills in the IP header's checksum
    assert filled == wanted


@pytest.mark.parametrize("protocol", list(Protocol))
def test_checksums_are_right_for_every_index(protocol: Protocol) -> None:
    filled = packets.template(RUN, protocol, SOURCE, DESTINATION, 80).fill
    for index in range(0, packets.MAX_INDEX, 4093):
        packet = IP(filled(index, 1024 + index % 60000))
        again = packet.copy()
        again[1].chksum = None
        assert bytes(again)[20:] == bytes(packet)[20:]


@pytest.mark.parametrize("protocol", list(Protocol))
def test_requests_are_known_again_after_nat(protocol: Protocol) -> None:
    packet = IP(packets.template(RUN, protocol, SOURCE, DESTINATION, 80).fill(77, 4000))
    packet.src, packet.dst = "192.168.0.1", "10.244.2.9"
    if protocol is not Protocol.ICMP:
        packet[1].sport, packet[1].dport = 33333, 8080
    seen = packets.seen(bytes(packet), RUN)
    assert seen is not None
    assert (seen.kind, seen.number) == (Kind.REQUEST, 77)
    assert (IPv4Address(seen.source), IPv4Address(seen.destination)) == (IPv4Address("192.168.0.1"), IPv4Address("10.244.2.9"))
    assert packets.seen(bytes(packet), RUN ^ 1) is None


@pytest.mark.parametrize(("flags", "kind"), [("SA", Kind.REPLY), ("RA", Kind.REFUSAL), ("A", None), ("R", None)])
def test_tcp_answers(flags: str, kind: Kind | None) -> None:
    answer = IP(src="10.96.0.80", dst="10.244.1.3") / TCP(sport=80, dport=4000, flags=flags, ack=(RUN << 16 | 77) + 1)
    seen = packets.seen(bytes(answer), RUN)
    assert (seen and (seen.kind, seen.number)) == (kind and (kind, 77))


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize("quoted_bytes", [28, 40, 200])
def test_icmp_errors_quote_the_flow(protocol: Protocol, quoted_bytes: int) -> None:
    quoted = packets.template(RUN, protocol, SOURCE, DESTINATION, 80).fill(5, 4000)[:quoted_bytes]
    error = IP(src="10.244.1.1", dst=str(SOURCE)) / ICMP(type=3, code=3) / quoted
    seen = packets.seen(bytes(error), RUN)
    if quoted_bytes == 28 and protocol is not Protocol.TCP:  # eight bytes hold only TCP's token; Linux quotes up to 548
        assert seen is None
        return
    assert seen is not None and seen.error is not None
    assert (seen.kind, seen.number, seen.error[:2]) == (Kind.ICMP_ERROR, 5, (3, 3))
    assert seen.error[2:4] == (SOURCE.packed, DESTINATION.packed)


def test_strangers_and_fragments_of_packets_are_no_ones() -> None:
    own = packets.template(RUN, Protocol.TCP, SOURCE, DESTINATION, 80).fill(5, 4000)
    assert packets.seen(bytes(IP() / UDP() / b"netlzzzz0001"), RUN) is None
    assert packets.seen(bytes(IP() / UDP() / (plain.payload(RUN, 0)[:-4] + b"zzzz")), RUN) is None
    for length in range(len(own)):
        packets.seen(own[:length], RUN)  # must not raise


def test_the_reset_ends_what_the_syn_began() -> None:
    data = plain.reset(RUN, SOURCE, DESTINATION, 80, 5, 4000)
    assert struct.unpack_from("!I", data, 24) == ((RUN << 16 | 5) + 1,)
    assert IP(data)[TCP].flags == "R"


@pytest.mark.parametrize("protocol", list(Protocol))
def test_own_tests_have_right_checksums(protocol: Protocol) -> None:
    for text in ("127.0.0.1", "10.244.1.3", "255.254.0.1"):
        packet = IP(packets.own_test(RUN, protocol)(IPv4Address(text)))
        assert (packet.src, packet.dst) == (text, text)
        again = packet.copy()
        again[1].chksum = None
        assert bytes(again)[20:] == bytes(packet)[20:]
