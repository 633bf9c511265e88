"""500 events, and what must hold after each, at the end, and whichever way they are applied."""

import random

import pytest

from netlab import plan
from netlab.controllers import settling
from netlab.model import Cluster
from tests import storm
from tests.test_controllers import KUBIA, started

EVENTS = 500


def run(seed: int, count: int, flips: bool = True, mode: str = "iptables") -> tuple[list[storm.Event], Cluster]:
    """The events of a storm and the cluster at its end, everything checked on the way."""
    rng = random.Random(seed)
    cluster, events = storm.begun(mode), []
    for _ in range(count):
        events.append(storm.drawn(cluster, rng, flips))
        cluster = storm.after(cluster, events[-1])
        storm.check(cluster)
    for event in storm.calmed(cluster):
        events.append(event)
        cluster = storm.after(cluster, event)
    return events, cluster


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_storm_ends_in_the_state_that_was_asked_for(seed: int) -> None:
    events, cluster = run(seed, EVENTS)
    storm.check_calm(storm.all_ready(cluster))
    happened = {event[0] for event in events}
    assert happened >= {"scale", "delete", "label", "roll", "cordon", "kill", "partition", "heal", "ready"}


def test_the_same_events_make_the_same_value_with_nothing_remembered() -> None:
    """Controllers may keep what they last saw (settling); here each event meets controllers that have seen something else."""
    events, cluster = run(4, EVENTS // 2)
    again = storm.begun()
    for event in events:
        settling._resting().clear()
        started(KUBIA)
        again = storm.after(again, event)
    assert again == cluster


def test_the_differences_add_up_to_the_plan() -> None:
    """Each change installs a difference only: what was installed so far is always the plan of the moment."""
    events, _ = run(5, 120)
    cluster = storm.begun()
    installed = plan.build(cluster)
    held = dict(installed.ops)
    for event in events:
        cluster = storm.after(cluster, event)
        new = plan.build(cluster)
        difference = plan.diff(plan.Plan(held), new)
        for op in difference.removed:
            held.pop(op.identity, None)
        held.update({op.identity: op for op in difference.added})
        assert {identity: op for identity, op in new.ops.items() if held.get(identity) != op} == {}
