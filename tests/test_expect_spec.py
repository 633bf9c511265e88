"""The oracle against every case of the behaviour table, in both modes, as one node sees them. Needs no machine and no root."""

from dataclasses import replace

import pytest

from netlab.expect import expect_at
from netlab.model import Backend, Outcome, OutcomeKind
from tests import spec

CASES = spec.load_cases()
SINGLE = [case for case in CASES if case.single]
STEPPED = [case for case in CASES if not case.single]

# Steps that ask for something else than what becomes of a new connection: an established one, or kube-proxy's health server.
NOT_ASKED = {"udp-03": "same_as", "tcp-01": "use_connection", "hc-01": "http_get", "hc-03": "http_get"}


def ask(case: spec.Case, packet: spec.Raw, mode: str) -> Outcome:
    return expect_at(spec.cluster_of(case, mode), spec.NODE, spec.flow_of(packet, case), spec.origin_of(packet))


def assert_says(outcome: Outcome, expected: spec.Expected) -> None:
    assert outcome.kind is expected.kind, outcome
    assert frozenset(outcome.backends) == expected.backends
    assert list(outcome.backends) == sorted(outcome.backends)


def test_every_case_and_verdict_is_there() -> None:
    assert len(CASES) == 70
    assert len({case.id for case in CASES}) == 70
    assert len(SINGLE) == 61
    assert len(spec.load_verdicts()) == 108


@pytest.mark.parametrize("mode", spec.MODES)
@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.id)
def test_case(case: spec.Case, mode: str) -> None:
    assert_says(ask(case, case.packets[0], mode), spec.expected_of(case.steps[0], mode))


@pytest.mark.parametrize("mode", spec.CHAINS)
@pytest.mark.parametrize("case", spec.load_combined(), ids=lambda case: case.id)
def test_combined(case: spec.Case, mode: str) -> None:
    for step in case.steps:
        assert_says(ask(case, step["packet"], mode), spec.expected_of(step, mode))


@pytest.mark.parametrize("mode", spec.CHAINS)
@pytest.mark.parametrize("case", spec.load_combined(), ids=lambda case: case.id)
def test_combined_in_ipv6(case: spec.Case, mode: str) -> None:
    """But for localhost, where IPv6 has no NodePorts, and for ranges of the other family."""
    for step in spec.in_ipv6(case).steps if case.id != "c-rng-v6only" else ():
        if step["packet"]["to"] != "::1":
            assert_says(ask(spec.in_ipv6(case), step["packet"], mode), spec.expected_of(step, mode))


@pytest.mark.parametrize("mode", spec.MODES)
@pytest.mark.parametrize("case", spec.load_verdicts(), ids=lambda case: case.id)
def test_verdict(case: spec.Case, mode: str) -> None:
    assert_says(ask(case, case.packets[0], mode), spec.expected_of(case.steps[0], mode))


@pytest.mark.parametrize("mode", spec.MODES)
@pytest.mark.parametrize("case", STEPPED, ids=lambda case: case.id)
def test_case_in_steps(case: spec.Case, mode: str) -> None:
    """Every choice of the remembered endpoint X is followed to the end."""
    first = case.packets[0] if case.packets else None
    chosen = ask(case, first, mode).backends if first is not None else ()
    not_asked = [replay(case, mode, backend) for backend in chosen] or [replay(case, mode, None)]
    assert all(steps == not_asked[0] for steps in not_asked)
    assert not_asked[0] == ([NOT_ASKED[case.id]] if case.id in NOT_ASKED else [])


def replay(case: spec.Case, mode: str, remembered: Backend | None) -> list[str]:
    """Ask for each step's packet; returns which steps the oracle cannot be asked."""
    not_asked = []
    for step in case.steps:
        said = step.get("expect", {})
        if "remove_endpoint" in step:
            named = step["remove_endpoint"]
            case = case.without(str(remembered.address) if named == "X" and remembered else named)
        elif "set_endpoint" in step:
            assert remembered is not None
            case = case.with_conditions(str(remembered.address), {k: step[k] for k in ("ready", "serving", "terminating")})
        elif "http_get" in step or "use_connection" in step or "same_as" in said:
            not_asked.append(next(key for key in ("http_get", "use_connection", "same_as") if key in step or key in said))
        else:
            assert_step(ask(case, step.get("packet") or step["open_connection"], mode), step, remembered, mode)
    return not_asked


def assert_step(outcome: Outcome, step: spec.Raw, remembered: Backend | None, mode: str) -> None:
    said = step.get("expect", {})
    if "endpoints" in said or said.get("result") in ("reject", "drop"):
        assert_says(outcome, spec.expected_of(step, mode))
    else:
        assert outcome.kind is OutcomeKind.DELIVERED
    if "distinct" in said:
        assert outcome.affinity
        # The client's own endpoint: one of those that may be chosen, one at a time.
        assert len(outcome.backends) >= said["distinct"]
    if said.get("not") == "X" and remembered is not None:
        assert remembered not in outcome.backends
        assert outcome.backends


@pytest.mark.parametrize("mode", spec.MODES)
def test_the_cases_can_fail(mode: str) -> None:
    """Expectations that are wrong on purpose do not hold."""
    case = next(case for case in CASES if case.id == "np-01")
    outcome = ask(case, case.packets[0], mode)
    right = spec.expected_of(case.steps[0], mode)
    unmasked = frozenset(replace(backend, masqueraded=False) for backend in right.backends)
    for wrong in (
        replace(right, kind=OutcomeKind.DROPPED),
        replace(right, backends=unmasked),
        replace(right, backends=frozenset(list(right.backends)[:1])),
    ):
        with pytest.raises(AssertionError):
            assert_says(outcome, wrong)
