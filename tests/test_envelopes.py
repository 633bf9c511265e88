"""Packets inside others: what a VXLAN datagram carries, and what is none."""

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from netlab.model import Protocol
from netlab.probes import envelopes

INNER = {4: IP(src="10.244.0.2", dst="10.244.2.2") / TCP(sport=4000, dport=80, flags="S"),
         6: IPv6(src="fd00::2", dst="fd00::5") / TCP(sport=4000, dport=80, flags="S")}  # fmt: skip
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
OUTER = {4: IP(src="192.168.0.10", dst="192.168.0.11"), 6: IPv6(src="fd00:1::10", dst="fd00:1::11")}


@pytest.mark.parametrize("outer", [4, 6])
@pytest.mark.parametrize("inner", [4, 6])
def test_what_is_carried_begins_behind_the_ethernet_header(outer: int, inner: int) -> None:
    data = bytes(OUTER[outer] / UDP(sport=50000, dport=8472) / VXLAN(vni=1) / ETHER / INNER[inner])
    assert envelopes.carried(data, 8472) == bytes(INNER[inner])
    assert envelopes.carried(data, 4789) is None
    assert envelopes.carried(data[:60], 8472) is None
    assert envelopes.carried(bytes(INNER[inner]), 8472) is None
    assert envelopes.carried(bytes(OUTER[outer] / UDP(sport=50000, dport=8472) / Raw(bytes(60))), 8472) is None


def test_the_kernel_is_asked_for_the_token_behind_all_headers() -> None:
    # 8 + 8 + 14 + 20 bytes, then the sequence number's upper half, or the acknowledgement's
    assert envelopes.matches(Protocol.TCP, 7, 8472, 4) == ["udp dport 8472 @th,432,16 7", "udp dport 8472 @th,464,16 7"]
    assert envelopes.matches(Protocol.TCP, 7, 8472, 6)[0] == "udp dport 8472 @th,592,16 7"
    assert envelopes.matches(Protocol.ICMP, 7, 8472, 4) == []


def test_no_packet_is_made_with_the_machines_own_links() -> None:
    """What scapy is not told it finds out: it sent ARP requests to the machine's network, its interface in promiscuous mode."""
    with pytest.raises(pytest.fail.Exception, match="machine's own network namespace"):
        bytes(Ether(src="02:00:00:00:00:01") / IP(src="192.0.2.1", dst="192.0.2.2"))
