"""Two of the three answers to every packet of the behaviour table: what Kubernetes says (expect), what our rules say (trace).

They share no code. Where they differ, a planner, the oracle or the tracer is wrong. Both modes, both fabrics.
"""

from dataclasses import replace
from functools import cache

import pytest

from netlab.expect import expect
from netlab.model import Cluster, Outcome, OutcomeKind
from netlab.plan import build
from netlab.trace import Trace, Tracer
from tests import spec

CASES = (*spec.load_cases(), *spec.load_verdicts(), *spec.load_combined())
FABRICS = ("bridge", "routed")
ASKED = [case for case in CASES if case.packets]
SINGLE = [case for case in (*spec.load_cases(), *spec.load_verdicts()) if case.single]


def cluster_of(case: spec.Case, mode: str, fabric: str) -> Cluster:
    cluster = spec.cluster_of(case, mode)
    topology = cluster.topology
    return cluster.with_(topology=replace(topology, cluster=replace(topology.cluster, fabric=fabric)))


@cache
def traces(case_id: str, mode: str, fabric: str) -> tuple[tuple[Trace, Outcome], ...]:
    """(traced, expected) of every packet of the case."""
    case = next(case for case in CASES if case.id == case_id)
    cluster = cluster_of(case, mode, fabric)
    tracer = Tracer(build(cluster))
    flows = [spec.flow_of(packet, case) for packet in case.packets]
    return tuple((tracer.trace(flow), expect(cluster, flow)) for flow in flows)


@pytest.mark.parametrize("fabric", FABRICS)
@pytest.mark.parametrize("mode", (*spec.MODES, spec.MAPS))
@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.id)
def test_trace_agrees_with_the_oracle(case: spec.Case, mode: str, fabric: str) -> None:
    for traced, expected in traces(case.id, mode, fabric):
        outcome = traced.outcome
        assert outcome.kind is expected.kind, (outcome.why, expected.why)
        if (case.id, mode, outcome.kind) == ("i-lb-node", "ipvs", OutcomeKind.DROPPED):
            continue  # what ipvs has rewritten already is dropped: the walk names the backend, the oracle none
        assert outcome.backends == expected.backends, (outcome.why, expected.why)
        assert [b.fate for b in outcome.backends] == [b.fate for b in expected.backends], (outcome.why, expected.why)
        assert outcome.affinity == expected.affinity
        assert traced.even


@pytest.mark.parametrize("mode", (*spec.MODES, spec.MAPS))
@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.id)
def test_trace_sends_packets_where_the_table_says(case: spec.Case, mode: str) -> None:
    said = spec.expected_of(case.steps[0], mode)
    ((traced, _),) = traces(case.id, mode, "bridge")
    match said.kind:
        case OutcomeKind.DELIVERED:
            assert frozenset(traced.outcome.backends) == said.backends, traced.outcome.why
        case OutcomeKind.NOT_HANDLED:
            # The node that is asked leaves it alone; further on it meets ordinary routing (or another node's own rules).
            for path in traced.paths:
                assert all(
                    hop.entered.destination == hop.left.destination for hop in path.hops if hop.netns == f"node/{spec.NODE}"
                )
        case refused:
            assert traced.outcome.kind is refused, traced.outcome.why
            assert not traced.outcome.backends


def test_every_case_with_a_packet_is_asked() -> None:
    assert len(ASKED) >= 170
