"""The judge against observations that are right, wrong, and missing. What is wrong must FAIL; what is missing must never PASS."""

import math
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from netlab.judge import ALPHA, chi_square_p, disagreement, judge, upper_gamma
from netlab.model import Backend, Judgement, Observation, Outcome, OutcomeKind, Verdict

DELIVERED, REJECTED, DROPPED, NOT_HANDLED = OutcomeKind
PASS, FAIL, INCONCLUSIVE = Judgement

CLIENT = ip_address("10.244.1.9")
GATEWAY = ip_address("10.244.1.1")
A, B, C, STRANGER = (ip_address(f"10.244.1.{number}") for number in (5, 6, 7, 66))
NAMES = {(A, 8080): "pod/default/a", (B, 8080): "pod/default/b", (C, 8080): "pod/default/c", (STRANGER, 8080): "pod/default/x"}

KEPT = Outcome(DELIVERED, tuple(Backend(address, 8080) for address in (A, B, C)))
MASKED = Outcome(DELIVERED, tuple(Backend(address, 8080, True) for address in (A, B, C)))
STICKY = replace(KEPT, affinity=True)
ONE = Outcome(DELIVERED, (Backend(A, 8080),))
HAIRPIN = Outcome(DELIVERED, (Backend(A, 8080, True), Backend(B, 8080)))
EXACT = Outcome(DELIVERED, (Backend(A, 8080, True, sources=(GATEWAY,)),))
REFUSE = Outcome(REJECTED, why="svc/default/web:http has no endpoints")
LOSE = Outcome(DROPPED, why="no rule handles it; dropped at the router")
DEAF = Outcome(DELIVERED, (Backend(A, 8080), Backend(B, 8080, fate=REJECTED)))
NOWHERE = Outcome(DELIVERED, (Backend(A, 8080), Backend(B, 8080, fate=DROPPED)))
CLOSED = Outcome(REJECTED, (Backend(A, 8080, fate=REJECTED),))
UNSURE = Outcome(DELIVERED, (Backend(A, 8080, fate=None),))


def observed(arrivals: dict[Any, int], source: Any = CLIENT, **changes: Any) -> Observation:
    """What a good probe sees: each arrival answered. Keys are addresses, or (address, source seen)."""
    table: dict[Any, int] = {}
    for key, count in arrivals.items():
        address, seen = key if isinstance(key, tuple) else (key, source)
        table[address, 8080, seen] = table.get((address, 8080, seen), 0) + count
    total = sum(table.values())
    backends: dict[str, int] = {}
    sources: dict[str, int] = {}
    for (address, port, seen), count in table.items():
        name = NAMES[address, port]
        backends[name] = backends.get(name, 0) + count
        sources[str(seen)] = sources.get(str(seen), 0) + count
    given = {"sent": total, "delivered": total, "backends": backends, "sources": sources, "arrivals": table}
    return Observation(**{**given, **changes})


def lost(kind: str, sent: int = 10, **changes: Any) -> Observation:
    given = {"sent": sent, kind: sent, "control": True}
    return Observation(**{**given, **changes})


def verdict_on(expected: Outcome, seen: Observation, traced: Outcome | None = None) -> Verdict:
    return judge(expected, traced, seen, source=CLIENT, names=NAMES)


EVEN = observed({A: 100, B: 104, C: 96})

RIGHT = {
    "an even spread over all backends": (KEPT, EVEN),
    "one flow reaches one of three": (KEPT, observed({B: 1})),
    "too few flows to judge the spread": (KEPT, observed({A: 14})),
    "masqueraded, as expected": (MASKED, observed({A: 100, B: 100, C: 100}, GATEWAY)),
    "masqueraded as the very address expected": (EXACT, observed({A: 10}, GATEWAY)),
    "affinity keeps one backend": (STICKY, observed({C: 300})),
    "hairpin: masqueraded to itself, kept to the other": (HAIRPIN, observed({(A, GATEWAY): 50, B: 50})),
    "refused, with a positive control": (REFUSE, lost("rejected")),
    "lost, with a positive control": (LOSE, lost("dropped")),
    "not handled is lost": (Outcome(NOT_HANDLED), lost("dropped")),
    "one backend refuses, as expected": (DEAF, observed({A: 50, B: 50}, delivered=50, rejected=50)),
    "one backend does not exist, as expected": (NOWHERE, observed({A: 52}, sent=100, delivered=52, dropped=48)),
    "a closed port is reached and refuses": (CLOSED, observed({A: 10}, delivered=0, rejected=10, control=True)),
    "a program that may listen does": (UNSURE, observed({A: 10})),
    "a program that may listen does not": (UNSURE, observed({A: 10}, delivered=0, rejected=10)),
    "arrivals without a breakdown": (ONE, Observation(5, 5, backends={"pod/default/a": 5}, sources={str(CLIENT): 5})),
}

WRONG = {
    "refused instead of delivered": (KEPT, lost("rejected"), "rejected, expected: delivered"),
    "lost instead of delivered": (KEPT, lost("dropped"), "dropped, expected: delivered"),
    "one of 300 refused": (KEPT, observed({A: 100, B: 100, C: 99}, sent=300, rejected=1), "1 of 300 flows was rejected"),
    "one of 300 lost": (KEPT, observed({A: 100, B: 100, C: 99}, sent=300, dropped=1), "1 of 300 flows was dropped"),
    "delivered instead of refused": (REFUSE, observed({A: 10}, control=True), "10 flows reached pod/default/a"),
    "delivered instead of lost": (LOSE, observed({A: 10}, control=True), "delivered, expected: dropped"),
    "refused instead of lost": (LOSE, lost("rejected"), "rejected, expected: dropped"),
    "lost instead of refused": (REFUSE, lost("dropped"), "dropped, expected: rejected"),
    "arrived although the client saw silence": (LOSE, observed({A: 1}, sent=1, delivered=0, dropped=1, control=True), "reached"),
    "a stranger got one": (KEPT, observed({A: 100, B: 100, C: 99, STRANGER: 1}), "1 flow reached pod/default/x"),
    "a stranger, only in the list of names": (
        ONE, Observation(5, 5, backends={"pod/default/x": 5}, sources={str(CLIENT): 5}), "5 flows reached pod/default/x",
    ),
    "the right pod at the wrong port": (
        ONE, Observation(1, 1, arrivals={(A, 9090, CLIENT): 1}), "1 flow reached 10.244.1.5:9090",
    ),
    "masquerade dropped": (MASKED, observed({A: 100, B: 100, C: 100}), "client's own address 10.244.1.9, expected: masqueraded"),
    "masqueraded for nothing": (KEPT, observed({A: 100, B: 100, C: 100}, GATEWAY), "masqueraded as 10.244.1.1, expected: the so"),
    "one flow of 300 masqueraded": (KEPT, observed({A: 100, B: 100, C: 99, (C, GATEWAY): 1}), "1 flow reached pod/default/c"),
    "masqueraded as the wrong address": (EXACT, observed({A: 10}, STRANGER), "expected: masqueraded as 10.244.1.1"),
    "hairpin omitted": (HAIRPIN, observed({A: 50, B: 50}), "50 flows reached pod/default/a"),
    "hairpin masquerades everybody": (HAIRPIN, observed({A: 50, B: 50}, GATEWAY), "50 flows reached pod/default/b"),
    "masquerade dropped, no breakdown": (
        MASKED, Observation(5, 5, backends={"pod/default/a": 5}, sources={str(CLIENT): 5}), "5 flows arrived with the",
    ),
    "a backend is never used": (KEPT, observed({A: 150, B: 150}), "the spread is not even"),
    "a backend gets twice its share": (KEPT, observed({A: 200, B: 50, C: 50}), "the spread is not even"),
    "affinity forgotten": (STICKY, observed({A: 299, B: 1}), "session affinity: one client reached more than one"),
    "both backends answer, one should refuse": (DEAF, observed({A: 50, B: 50}), "by which they are rejected"),
    "no backend answers, one should": (DEAF, observed({A: 50, B: 50}, delivered=0, rejected=100), "by which they are"),
    "flows lost where some are refused": (DEAF, observed({A: 50, B: 49}, sent=100, delivered=50, rejected=49, dropped=1), "1 of"),
    "the backend that does not exist takes all": (NOWHERE, lost("dropped", 100), "the spread is not even"),
    "a closed port answers": (CLOSED, observed({A: 10}, control=True), "delivered, expected: rejected"),
    "a program that may listen, but nothing comes back": (UNSURE, lost("dropped"), "dropped, expected: delivered or rejected"),
    "wrong, though the sniffer was blind": (KEPT, lost("rejected", blind=("no capture",)), "rejected, expected: delivered"),
    "wrong, though there was no control": (LOSE, lost("rejected", control=None), "rejected, expected: dropped"),
}  # fmt: skip

MISSING = {
    "nothing was sent": (KEPT, Observation(0), "nothing was sent"),
    "nothing was sent, and nothing expected": (LOSE, Observation(0, control=True), "nothing was sent"),
    "a sniffer was blind": (KEPT, replace(EVEN, blind=("capture on pod/default/a failed",)), "capture on pod/default/a failed"),
    "blind, and as lost as expected": (LOSE, lost("dropped", blind=("capture failed",)), "capture failed"),
    "refused without a control": (REFUSE, lost("rejected", control=None), "no positive control was run"),
    "lost without a control": (LOSE, lost("dropped", control=None), "no positive control was run"),
    "the control was lost too": (LOSE, lost("dropped", control=False), "the positive control did not arrive either"),
    "the control of a refusal was lost": (REFUSE, lost("rejected", control=False), "the positive control did not arrive either"),
    "answers that nobody gave": (ONE, Observation(10, 10), "10 answers, but only 0 arrivals were seen"),
    "one answer that nobody gave": (ONE, observed({A: 9}, sent=10, delivered=10), "10 answers, but only 9 arrivals were seen"),
    "flows unaccounted for": (ONE, observed({A: 9}, sent=10), "10 flows were sent, but 9 are accounted for"),
    "more answers than flows": (ONE, observed({A: 10}, sent=9), "9 flows were sent, but 10 are accounted for"),
    "more arrivals than flows": (ONE, observed({A: 11}, sent=10, delivered=10), "11 arrivals were counted"),
    "observers contradict each other": (ONE, observed({A: 10}, backends={"pod/default/a": 8}), "contradict each other"),
    "a negative count": (ONE, observed({A: 10}, delivered=11, dropped=-1), "a count is negative"),
    "no receiver's view of the source": (ONE, Observation(5, 5, backends={"pod/default/a": 5}), "view of the source"),
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_passes(name: str) -> None:
    verdict = verdict_on(*RIGHT[name])
    assert (verdict.judgement, verdict.why) == (PASS, ())


@pytest.mark.parametrize("name", WRONG)
def test_wrong_fails(name: str) -> None:
    expected, seen, words = WRONG[name]
    verdict = verdict_on(expected, seen)
    assert verdict.judgement is FAIL
    assert words in "\n".join(verdict.why)


@pytest.mark.parametrize("name", MISSING)
def test_missing_evidence_is_inconclusive(name: str) -> None:
    expected, seen, words = MISSING[name]
    verdict = verdict_on(expected, seen)
    assert verdict.judgement is INCONCLUSIVE
    assert words in "\n".join(verdict.why)


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_right_passes_with_a_blind_observer(name: str) -> None:
    expected, seen = RIGHT[name]
    assert verdict_on(expected, replace(seen, blind=("no capture",))).judgement is INCONCLUSIVE


@pytest.mark.parametrize("name", RIGHT)
def test_nothing_right_passes_when_the_rules_say_otherwise(name: str) -> None:
    expected, seen = RIGHT[name]
    other = Outcome(DELIVERED, (Backend(STRANGER, 8080),))
    verdict = verdict_on(expected, seen, other)
    assert verdict.judgement is FAIL
    assert verdict.why[0].startswith("planner bug: ")
    assert verdict_on(expected, seen, expected).judgement is PASS


def test_evidence_is_shown_when_flows_were_to_be_lost_and_when_not_all_is_well() -> None:
    evidence = ("10 flows last seen at the router, un-rewritten",)
    assert verdict_on(LOSE, lost("dropped", evidence=evidence)).why == evidence
    assert verdict_on(KEPT, lost("dropped", evidence=evidence)).why[-1:] == evidence
    assert verdict_on(KEPT, replace(EVEN, evidence=evidence)).why == ()


def test_the_spread_is_judged_from_five_flows_a_backend_on() -> None:
    assert verdict_on(KEPT, observed({A: 5, B: 5, C: 4})).p is None
    assert verdict_on(KEPT, observed({A: 5, B: 5, C: 5})).p == 1.0
    assert verdict_on(STICKY, observed({A: 300})).p is None
    assert verdict_on(ONE, observed({A: 300})).p is None
    assert verdict_on(KEPT, replace(EVEN, blind=("x",))).p is None
    assert verdict_on(KEPT, EVEN).alpha == ALPHA


DISAGREEMENTS = {
    "kind": (REFUSE, LOSE, "Kubernetes says rejected, the rules say dropped"),
    "delivered against refused": (KEPT, REFUSE, "Kubernetes says delivered, the rules say rejected"),
    "refused against delivered": (REFUSE, KEPT, "Kubernetes says rejected, the rules say delivered"),
    "a backend is missing": (KEPT, replace(KEPT, backends=KEPT.backends[:2]), "the rules say pod/default/a (source kept), pod"),
    "a backend too many": (ONE, KEPT, "the rules say"),
    "masquerade": (KEPT, MASKED, "the rules say pod/default/a (masqueraded)"),
    "affinity": (KEPT, STICKY, "session affinity: Kubernetes says False, the rules say True"),
    "all there, yet lost": (ONE, replace(ONE, kind=DROPPED), "Kubernetes says delivered, the rules say dropped"),
}

AGREEMENTS = {
    "equal": (KEPT, KEPT),
    "why does not count": (REFUSE, replace(REFUSE, why="other words")),
    "not handled is lost": (LOSE, Outcome(NOT_HANDLED)),
    "a tracer that does not know who listens": (DEAF, replace(DEAF, backends=(Backend(A, 8080), Backend(B, 8080)))),
    "a tracer that follows to the closed port": (CLOSED, Outcome(REJECTED)),
    "a tracer that does not: the port is open to it": (CLOSED, ONE),
}


@pytest.mark.parametrize("name", DISAGREEMENTS)
def test_disagreement(name: str) -> None:
    expected, traced, words = DISAGREEMENTS[name]
    assert words in disagreement(expected, traced, NAMES)


@pytest.mark.parametrize("name", AGREEMENTS)
def test_agreement(name: str) -> None:
    expected, traced = AGREEMENTS[name]
    assert disagreement(expected, traced, NAMES) == ""


@pytest.mark.parametrize(
    ("a", "x", "value"),
    [
        (0.5, 0.5, 0.31731050786291410),  # one degree of freedom, chi-square 1: 31.7 % (one sigma)
        (0.5, 2.0, 0.04550026389635842),  # two sigmas
        (0.5, 4.5, 0.002699796063260189),  # three
        (0.5, 12.5, 5.733031437583892e-07),  # five
        (1.0, 3.0, math.exp(-3)),  # two degrees of freedom: exp(-x)
        (2.0, 3.0, 4 * math.exp(-3)),  # Q(n, x) is a Poisson sum
        (5.0, 5.0, math.exp(-5) * (1 + 5 + 12.5 + 125 / 6 + 625 / 24)),
        (10.0, 0.0, 1.0),
    ],
)
def test_upper_gamma(a: float, x: float, value: float) -> None:
    assert upper_gamma(a, x) == pytest.approx(value, rel=1e-12)


def test_upper_gamma_is_a_poisson_sum_everywhere() -> None:
    for n in (1, 2, 3, 7, 20, 60):
        for x in (0.01, 0.5, 1.0, n - 0.5, n + 0.5, n + 1.5, 3.0 * n, 90.0):
            poisson = math.fsum(math.exp(k * math.log(x) - x - math.lgamma(k + 1)) for k in range(n))
            assert upper_gamma(n, x) == pytest.approx(poisson, rel=1e-9, abs=1e-300)


def test_chi_square_critical_values() -> None:
    # Tables of the chi-square distribution: upper 5 % at 2 and 5 degrees of freedom.
    assert upper_gamma(1.0, 5.991464547107979 / 2) == pytest.approx(0.05, rel=1e-9)
    assert upper_gamma(2.5, 11.070497693516351 / 2) == pytest.approx(0.05, rel=1e-9)
    assert chi_square_p((10, 10, 10)) == 1.0
    assert chi_square_p((10,)) == 1.0
    assert chi_square_p((60, 40)) == pytest.approx(0.04550026389635842, rel=1e-9)
    assert chi_square_p((75, 25), (3.0, 1.0)) == 1.0
    assert chi_square_p((100, 0)) < ALPHA
