"""The judge on endpoints that take turns: one flow too many on one of them is a failure, whatever chance would allow."""

from dataclasses import replace

import pytest

from netlab.model import Judgement, Outcome, OutcomeKind
from tests.test_judge import MASKED, A, B, C, observed, verdict_on

GATEWAY = "10.244.1.1"
TURNS = replace(MASKED, spread="turns")
ROWS = {
    "exact": (TURNS, {A: 20, B: 20, C: 20}, Judgement.PASS),
    "one over": (TURNS, {A: 21, B: 20, C: 20}, Judgement.PASS),
    "fewer flows than endpoints": (TURNS, {A: 1, B: 1}, Judgement.PASS),
    "two over": (TURNS, {A: 21, B: 20, C: 19}, Judgement.FAIL),
    "one left out": (TURNS, {A: 30, B: 30}, Judgement.FAIL),
    "as chance would have it": (replace(TURNS, spread="random"), {A: 21, B: 20, C: 19}, Judgement.PASS),
    "nothing is promised": (replace(TURNS, spread="any"), {A: 40, B: 1, C: 19}, Judgement.PASS),
    "affinity, one endpoint": (replace(TURNS, affinity=True), {A: 60}, Judgement.PASS),
    "affinity, two endpoints": (replace(TURNS, affinity=True), {A: 30, B: 30}, Judgement.FAIL),
}


@pytest.mark.parametrize("name", ROWS)
def test_turns(name: str) -> None:
    expected, arrivals, judgement = ROWS[name]
    assert expected.kind is OutcomeKind.DELIVERED
    assert verdict_on(expected, observed(arrivals, source=GATEWAY)).judgement is judgement


def test_flows_that_nobody_saw_arrive_are_no_proof_of_broken_turns() -> None:
    seen = observed({A: 5, B: 1}, source=GATEWAY, sent=12, delivered=12)
    assert verdict_on(TURNS, seen).judgement is Judgement.INCONCLUSIVE


GIVEN_UP = replace(TURNS, spread="any", also=(OutcomeKind.DROPPED,))


@pytest.mark.parametrize(
    ("expected", "fates", "judgement"),
    [
        (GIVEN_UP, {"delivered": 9, "dropped": 3}, Judgement.PASS),
        (GIVEN_UP, {"delivered": 9, "rejected": 3}, Judgement.FAIL),
        (GIVEN_UP, {"delivered": 0, "dropped": 12}, Judgement.FAIL),
        (replace(GIVEN_UP, also=()), {"delivered": 9, "dropped": 3}, Judgement.FAIL),
    ],
)
def test_flows_that_a_proxy_process_gave_up(expected: Outcome, fates: dict[str, int], judgement: Judgement) -> None:
    arrivals = {A: 3, B: 3, C: 3} if fates["delivered"] else {}
    assert verdict_on(expected, observed(arrivals, source=GATEWAY, sent=12, **fates)).judgement is judgement
