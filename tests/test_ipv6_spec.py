"""The behaviour table and the verdict table again on IPv6 addresses, offline: the oracle, and our rules walked, both modes."""

from functools import cache
from ipaddress import ip_address

import pytest

from netlab.expect import expect_at
from netlab.model import Outcome, OutcomeKind
from netlab.trace import Trace
from tests import spec
from tests.agreeing import answers, assert_agree, assert_lands
from tests.test_expect_spec import assert_says

CASES = tuple(map(spec.in_ipv6, (*spec.load_cases(), *spec.load_verdicts())))
SINGLE = [case for case in CASES if case.single]
ASKED = [case for case in CASES if case.packets]
FABRICS = ("bridge", "routed")


@cache
def traces(case_id: str, mode: str, fabric: str) -> tuple[tuple[Trace, Outcome], ...]:
    case = next(case for case in CASES if case.id == case_id)
    return answers(spec.cluster_of(case, mode, fabric), case)


@pytest.mark.parametrize("mode", spec.MODES)
@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.id)
def test_the_oracle_says_what_the_table_says(case: spec.Case, mode: str) -> None:
    packet = case.packets[0]
    outcome = expect_at(spec.cluster_of(case, mode), spec.NODE, spec.flow_of(packet, case), spec.origin_of(packet))
    assert_says(outcome, spec.expected_of(case.steps[0], mode))


@pytest.mark.parametrize("fabric", FABRICS)
@pytest.mark.parametrize("mode", spec.MODES)
@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.id)
def test_trace_agrees_with_the_oracle(case: spec.Case, mode: str, fabric: str) -> None:
    for traced, expected in traces(case.id, mode, fabric):
        assert_agree(traced.outcome, expected)
        assert traced.even


@pytest.mark.parametrize("mode", spec.MODES)
@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.id)
def test_trace_sends_packets_where_the_table_says(case: spec.Case, mode: str) -> None:
    ((traced, _),) = traces(case.id, mode, "bridge")
    assert_lands(traced, spec.expected_of(case.steps[0], mode))


def test_every_address_is_mapped() -> None:
    assert len(SINGLE) == 61 + 108
    assert not [case.id for case in CASES if "192.168." in repr(case) or "10.244." in repr(case)]
    for case in ASKED:
        assert {ip_address(packet[key]).version for packet in case.packets for key in ("srcIP", "to")} == {6}


@pytest.mark.parametrize(
    ("given", "mapped"),
    [
        ("10.244.1.5", "fd00:10:244:1::5"),
        ("10.244.1.5:8080", "fd00:10:244:1::5:8080"),
        ("10.244.0.0/16", "fd00:10:244::/48"),
        ("10.244.1.0/24", "fd00:10:244:1::/64"),
        ("203.0.113.0/25", "fd00:203:0:113::/121"),
        ("203.0.113.200/30", "fd00:203:0:113::200/126"),
        ("0.0.0.0/0", "::/0"),
        ("127.0.0.1", "::1"),
        ("round 1.5 of 2.0.1", "round 1.5 of 2.0.1"),
    ],
)
def test_mapping(given: str, mapped: str) -> None:
    assert spec.v6(given) == mapped


def test_node_ports_are_never_on_the_loopback_address() -> None:
    """In IPv4 the same case reaches the endpoints, in iptables mode."""
    case = next(case for case in CASES if case.id == "np-07")
    for mode in spec.MODES:
        ((traced, _),) = traces(case.id, mode, "bridge")
        assert traced.outcome.kind is OutcomeKind.REJECTED
        assert [str(backend.address) for backend in traced.outcome.backends] == ["::1"]
