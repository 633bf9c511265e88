"""Datagrams of real programs: what opens a flow, and what belongs to it behind any translation. Packets are scapy's."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.packet import Raw

from netlab.model import Flow, Protocol, Ref
from netlab.probes import live
from netlab.probes.witnessed import Shown

A4, S4, B4, N4 = "10.244.0.2", "10.96.0.10", "10.244.1.5", "192.168.0.170"
A6, S6, B6 = "fd00::2", "fd00:96::10", "fd00::5"
QUESTION = b"\xbe\xef\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x05kubia"


def flow(protocol: Protocol, destination: str = S4, port: int = 53, source_port: int = 0) -> Flow:
    source = A4 if ":" not in destination else A6
    return Flow(Ref("pod", "default", "a"), ip_address(source), ip_address(destination), port, protocol, source_port)


def udp(src: str, dst: str, sport: int, dport: int, data: bytes = QUESTION) -> bytes:
    ip = IPv6(src=src, dst=dst) if ":" in src else IP(src=src, dst=dst)
    return bytes(ip / UDP(sport=sport, dport=dport) / Raw(data))


def opened(data: bytes, wanted: Flow, *sources: str) -> live.Opening | None:
    return live.opening(data, wanted, {ip_address(one).packed for one in sources or (A4, A6)})


@pytest.mark.parametrize(("src", "dst", "back"), [(A4, S4, B4), (A6, S6, B6)])
def test_a_datagram_is_known_behind_translation_and_its_answer_by_its_addresses(src: str, dst: str, back: str) -> None:
    found = opened(udp(src, dst, 4000, 53), flow(Protocol.UDP, dst))
    assert found is not None and found.mark is not None and found.flow.source_port == 4000
    requests = {Shown(src, dst, 4000, 53, "UDP")}
    translated = udp(src, back, 4000, 5353)
    assert live.part(translated, found.mark, requests) == ("request", Shown(src, back, 4000, 5353, "UDP"))
    requests.add(Shown(src, back, 4000, 5353, "UDP"))
    # An echo server sends the same data back: it is the answer all the same.
    for data in (b"another", QUESTION):
        told = live.part(udp(back, src, 5353, 4000, data), found.mark, requests)
        assert told is not None and told[0] == "reply"
    for stranger in (udp(src, dst, 4001, 53, b"\x12\x34" + QUESTION[2:]), udp(back, src, 5353, 4001, b"another")):
        assert live.part(stranger, found.mark, requests) is None
    # As much as the kernel's trace shows: twelve bytes behind the UDP header.
    header = 40 if ":" in src else 20
    assert live.part(translated[: header + 20], found.mark, requests) is not None


@pytest.mark.parametrize("changed", ["destination", "port", "source", "source port", "protocol", "cut off"])
def test_only_what_was_asked_for_opens_the_flow(changed: str) -> None:
    wanted, data, source = flow(Protocol.UDP, source_port=4000), udp(A4, S4, 4000, 53), A4
    assert opened(data, wanted) is not None
    match changed:
        case "destination":
            wanted = replace(wanted, destination=ip_address(B4))
        case "port":
            wanted = replace(wanted, port=54)
        case "source":
            source = B4
        case "source port":
            wanted = replace(wanted, source_port=4001)
        case "protocol":
            data = bytes(IP(src=A4, dst=S4) / TCP(sport=4000, dport=53, flags="S"))
        case _:
            data = data[:24]
    assert opened(data, wanted, source) is None


def echo(version: int, request: bool, **values: Any) -> bytes:
    data = Raw(b"0123456789abcdef")
    if version == 4:
        src, dst = (A4, B4) if request else (B4, A4)
        return bytes(IP(src=src, dst=dst) / ICMP(type=8 if request else 0, **values) / data)
    src, dst = (A6, B6) if request else (B6, A6)
    return bytes(IPv6(src=src, dst=dst) / (ICMPv6EchoRequest if request else ICMPv6EchoReply)(**values) / data)


@pytest.mark.parametrize("version", [4, 6])
def test_a_ping_is_known_by_its_number_and_data_whatever_becomes_of_its_id(version: int) -> None:
    wanted = flow(Protocol.ICMP, B4 if version == 4 else B6, 0)
    found = opened(echo(version, True, id=7, seq=3), wanted)
    assert found is not None and found.mark is not None
    assert opened(echo(version, False, id=7, seq=3), wanted, B4, B6) is None, "an answer opens nothing"
    parts = [
        told and told[0]
        for told in (
            live.part(echo(version, True, id=99, seq=3), found.mark, ()),
            live.part(echo(version, False, id=99, seq=3), found.mark, ()),
            live.part(echo(version, True, id=7, seq=4), found.mark, ()),
        )
    ]
    assert parts == ["request", "reply", None]


@pytest.mark.parametrize("version", [4, 6])
def test_an_error_is_ours_when_it_quotes_the_datagram(version: int) -> None:
    src, dst, back = (A4, S4, B4) if version == 4 else (A6, S6, B6)
    found = opened(udp(src, dst, 4000, 53), flow(Protocol.UDP, dst))
    assert found is not None and found.mark is not None
    ours, other = udp(src, back, 4000, 5353), udp(src, back, 4000, 5353, b"something else")
    for quoted, part in ((ours, "icmp-error"), (ours[: (20 if version == 4 else 40) + 8], "icmp-error"), (other, None)):
        if version == 4:
            data = bytes(IP(src=back, dst=src) / ICMP(type=3, code=3) / Raw(quoted))
        else:
            data = bytes(IPv6(src=back, dst=src) / ICMPv6DestUnreach(code=4) / Raw(quoted))
        told = live.part(data, found.mark, ())
        assert (told and told[0]) == part


def test_a_connection_is_known_by_its_number() -> None:
    syn = IP(src=A4, dst=S4) / TCP(sport=4000, dport=80, flags="S", seq=0x12345678)
    found = opened(bytes(syn), flow(Protocol.TCP, port=80))
    assert found is not None and (found.run, found.number, found.mark) == (0x1234, 0x5678, None)
    syn[TCP].flags = "SA"
    assert opened(bytes(syn), flow(Protocol.TCP, port=80)) is None
