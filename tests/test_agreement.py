"""Two of the three answers to every packet of the behaviour table: what Kubernetes says (expect), what our rules say (trace).

They share no code. Where they differ, a planner, the oracle or the tracer is wrong. Both modes, both fabrics.
"""

from functools import cache

import pytest

from netlab.model import Outcome, OutcomeKind
from netlab.trace import Trace
from tests import spec
from tests.agreeing import answers, assert_agree, assert_lands

CASES = (*spec.load_cases(), *spec.load_verdicts(), *spec.load_combined())
FABRICS = ("bridge", "routed")
ASKED = [case for case in CASES if case.packets]
SINGLE = [case for case in (*spec.load_cases(), *spec.load_verdicts()) if case.single]


@cache
def traces(case_id: str, mode: str, fabric: str) -> tuple[tuple[Trace, Outcome], ...]:
    case = next(case for case in CASES if case.id == case_id)
    return answers(spec.cluster_of(case, mode, fabric), case)


@pytest.mark.parametrize("fabric", FABRICS)
@pytest.mark.parametrize("mode", (*spec.MODES, spec.MAPS))
@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.id)
def test_trace_agrees_with_the_oracle(case: spec.Case, mode: str, fabric: str) -> None:
    for traced, expected in traces(case.id, mode, fabric):
        if (case.id, mode, expected.kind) == ("i-lb-node", "ipvs", OutcomeKind.DROPPED):
            # What ipvs has rewritten already is dropped: the walk names the backend, the oracle none.
            assert traced.outcome.kind is expected.kind, (traced.outcome.why, expected.why)
            continue
        assert_agree(traced.outcome, expected)
        assert traced.even


@pytest.mark.parametrize("mode", (*spec.MODES, spec.MAPS))
@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.id)
def test_trace_sends_packets_where_the_table_says(case: spec.Case, mode: str) -> None:
    ((traced, _),) = traces(case.id, mode, "bridge")
    assert_lands(traced, spec.expected_of(case.steps[0], mode))


def test_every_case_with_a_packet_is_asked() -> None:
    assert len(ASKED) >= 170
