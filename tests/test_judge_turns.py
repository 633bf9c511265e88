"""The judge on endpoints that take turns: one flow too many on one of them is a failure, whatever chance would allow."""

from dataclasses import replace

import pytest

from netlab.model import Judgement, OutcomeKind
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
