"""How long a repair is waited for: until nothing differs, nothing changes, or what programs do in their own time is late."""

from collections.abc import Callable, Sequence
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any

import pytest

from netlab.errors import KernelError
from netlab.lab import verifying
from netlab.lab.verifying import PAUSE_S, QUIET_S, SETTLING_S, Drift, Repairing
from netlab.ops import Daemon, Identity, Learned, Op

BIRD = Daemon("node/a", "bird", ("bird",))
ROUTE = Learned("node/a", ip_network("10.0.0.0/8"), ())
TABLE: Drift = [("a: table inet theirs is not planned", ("table", "a"))]
LEGACY: Drift = [("a: table filter (iptables-legacy) is not planned", None)]


class Loop:
    """A clock that goes only while somebody waits."""

    def __init__(self) -> None:
        self.time, self.calls = 100.0, list[Callable[[], None]]()

    def now(self) -> float:
        return self.time

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self.time += delay_s
        self.calls.append(call)


def repaired(
    monkeypatch: pytest.MonkeyPatch,
    first: Drift,
    readings: Callable[[float], Drift],
    ops: Sequence[Op] = (),
    refused: bool = False,
) -> tuple[dict[str, Any], float, list[list[Identity]]]:
    """The answer, after how many seconds it came, and what was made again. `readings`: what differs after so many seconds."""
    loop, answers, made = Loop(), list[dict[str, Any]](), list[list[Identity]]()

    def read(lab: Any, found: Callable[[Drift], None], later: Any) -> None:
        found(readings(loop.now() - 100.0))

    def repair(lab: Any, identities: Sequence[Identity]) -> None:
        made.append(list(identities))
        if refused:
            raise KernelError("Operation not permitted")

    monkeypatch.setattr(verifying, "_read", read)
    monkeypatch.setattr(verifying, "repair", repair)
    lab: Any = SimpleNamespace(loop=loop, plan=SimpleNamespace(ops={op.identity: op for op in ops}))
    repairing = Repairing(lab, first, lambda ok, answer: answers.append(answer))
    repairing.mend(first)
    repairing.read()
    while loop.calls:
        loop.calls.pop()()
    (answer,) = answers
    return answer, loop.now() - 100.0, made


def test_what_is_refused_does_not_cost_the_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, seconds, made = repaired(monkeypatch, TABLE, lambda _: TABLE, refused=True)
    assert answer["left"] == [TABLE[0][0], "cannot be mended: Operation not permitted"]
    assert QUIET_S <= seconds <= QUIET_S + PAUSE_S and made == [[("table", "a")]] * 2, "together, then by itself, and never again"


def test_what_nobody_can_mend_does_not_either(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, seconds, _ = repaired(monkeypatch, LEGACY, lambda _: LEGACY)
    assert answer["left"] == [LEGACY[0][0]] and seconds <= QUIET_S + PAUSE_S


def test_what_comes_to_light_late_is_tried_and_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    late: Drift = [("a: route r is missing", ("route", "a"))]
    answer, seconds, made = repaired(monkeypatch, TABLE, lambda s: TABLE if s < 1 else late if s < 2 else [])
    assert (answer["left"], answer["repaired"]) == ([], 1) and made == [[("table", "a")], [("route", "a")]]
    assert 2 <= seconds <= 2 + PAUSE_S


def test_what_stays_after_it_was_tried_late_is_waited_for_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    late: Drift = [("a: route r is missing", ("route", "a"))]
    answer, seconds, _ = repaired(monkeypatch, TABLE, lambda s: TABLE if s < 1 else late)
    assert answer["left"] == [late[0][0]] and 1 + QUIET_S <= seconds <= 1 + QUIET_S + 2 * PAUSE_S


@pytest.mark.parametrize(
    ("drift", "ops"),
    [([("a: bird does not run", BIRD.identity)], (BIRD,)), ([("a: route 10.0.0.0/8 has not been learned", None)], (BIRD, ROUTE))],
    ids=["daemon", "learned"],
)
def test_what_programs_do_gets_its_time(monkeypatch: pytest.MonkeyPatch, drift: Drift, ops: tuple[Op, ...]) -> None:
    answer, seconds, _ = repaired(monkeypatch, drift, lambda s: drift if s < 5 else [], ops)
    assert (answer["left"], answer["repaired"]) == ([], 1) and 5 <= seconds <= 5 + PAUSE_S
    answer, seconds, _ = repaired(monkeypatch, drift, lambda s: drift, ops)
    assert answer["left"] == [drift[0][0]] and SETTLING_S <= seconds <= SETTLING_S + PAUSE_S
