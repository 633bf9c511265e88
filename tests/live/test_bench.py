"""The benchmark's peers do what they are compared for: all of a lab's wires, none refused."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network

import pytest

from netlab import plan
from netlab.cli.bench import peers
from netlab.cli.bench.peers import Measured
from netlab.ops import Route
from netlab.plan import Plan
from tests import clusters

PEERS = (peers.floor, peers.wiring, peers.ip_batch, peers.ip_commands, peers.pyroute2)


@pytest.mark.parametrize("fabric", ["bridge", "routed"])
@pytest.mark.parametrize("peer", PEERS, ids=lambda one: one.__name__)
def test_a_peer_makes_the_lab(peer: Callable[[Plan, int], Measured], fabric: str) -> None:
    measured = peer(plan.build(clusters.default(fabric=fabric)), 1)
    if "not installed" in measured.note or "no C compiler" in measured.note:
        pytest.skip(measured.note)
    assert not measured.note and len(measured.seconds) == len(measured.cpu) == 1


def test_what_the_kernel_refuses_the_floor_says() -> None:
    built = plan.build(clusters.default())
    stray = Route("node/node-170", IPv4Network("198.51.100.0/24"), IPv4Address("203.0.113.1"), "eth0")
    measured = peers.floor(Plan({**built.ops, stray.identity: stray}), 1)
    if "no C compiler" in measured.note:
        pytest.skip(measured.note)
    assert not measured.seconds and "refused: Network is unreachable" in measured.note
