"""The numbers of a rolling update, against Kubernetes' own rules: rounding, steps, and scaling in the middle."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netlab.controllers.rolling import Size, fenceposts, resolved, scaled, step
from netlab.model import IntOrPercent, Rollout

FENCEPOSTS: list[tuple[IntOrPercent, IntOrPercent, int, tuple[int, int]]] = [
    # maxSurge, maxUnavailable, replicas -> pods (kubernetes pkg/controller/deployment/util TestResolveFenceposts and the docs)
    ("25%", "25%", 4, (1, 1)),
    ("25%", "25%", 3, (1, 0)),
    ("25%", "25%", 1, (1, 0)),
    ("25%", "25%", 10, (3, 2)),
    (0, 0, 10, (0, 1)),
    (1, 0, 10, (1, 0)),
    ("1%", "1%", 10, (1, 0)),
    ("100%", "0%", 5, (5, 0)),
    ("0%", "10%", 5, (0, 1)),
    (2, 20, 5, (2, 5)),
]


@pytest.mark.parametrize(("surge", "unavailable", "replicas", "wanted"), FENCEPOSTS)
def test_percentages_are_rounded_as_kubernetes_does(
    surge: IntOrPercent, unavailable: IntOrPercent, replicas: int, wanted: tuple[int, int]
) -> None:
    assert fenceposts(Rollout(max_surge=surge, max_unavailable=unavailable), replicas) == wanted


def test_up_and_down_differ() -> None:
    assert (resolved("33%", 10, True), resolved("33%", 10, False), resolved(7, 10, True)) == (4, 3, 7)


STEPS = [
    # name, maxSurge, maxUnavailable, replicas, new, old -> sizes after one step
    ("the new set grows first", 1, 1, 4, Size(0, 0), (Size(4, 4),), (1, (4,))),
    ("then the old one shrinks by what may be missing", 1, 1, 4, Size(1, 0), (Size(4, 4),), (1, (3,))),
    ("nothing more until one is available", 1, 1, 4, Size(2, 0), (Size(3, 3),), (2, (3,))),
    ("an available one frees an old one", 1, 1, 4, Size(2, 1), (Size(3, 3),), (2, (2,))),
    ("no surge: one goes first", 0, 1, 3, Size(0, 0), (Size(3, 3),), (0, (2,))),
    ("old pods that are not available go first", 0, 1, 3, Size(0, 0), (Size(2, 2), Size(1, 0)), (0, (2, 0))),
    ("too many new ones", 1, 0, 2, Size(5, 5), (), (2, ())),
    ("all done", 1, 0, 2, Size(2, 2), (Size(0, 0),), (2, (0,))),
]


@pytest.mark.parametrize(
    ("surge", "unavailable", "replicas", "new", "old", "wanted"), [s[1:] for s in STEPS], ids=[s[0] for s in STEPS]
)
def test_one_step(
    surge: int, unavailable: int, replicas: int, new: Size, old: tuple[Size, ...], wanted: tuple[int, tuple[int, ...]]
) -> None:
    assert step(Rollout(max_surge=surge, max_unavailable=unavailable), replicas, new, old) == wanted


SCALED = [
    # the example of the Deployment documentation: 10 replicas, maxSurge 3, a stuck rollout of 5 new and 8 old, scaled to 15
    ("the documentation's example", 3, 15, Size(5, 0, 13), (Size(8, 8, 13),), (7, (11,))),
    ("the only set takes all", 1, 7, Size(3, 3), (), (7, ())),
    ("down to nothing", 1, 0, Size(2, 0, 5), (Size(3, 3, 5),), (0, (0,))),
]


@pytest.mark.parametrize(("surge", "replicas", "new", "old", "wanted"), [s[1:] for s in SCALED], ids=[s[0] for s in SCALED])
def test_scaling_in_the_middle_is_shared_by_size(
    surge: int, replicas: int, new: Size, old: tuple[Size, ...], wanted: tuple[int, tuple[int, ...]]
) -> None:
    assert scaled(Rollout(max_surge=surge, max_unavailable=2), replicas, new, old) == wanted


@given(st.integers(1, 20), st.integers(0, 5), st.integers(0, 5), st.integers(1, 4))
def test_a_rollout_ends_within_its_limits(replicas: int, surge: int, unavailable: int, patience: int) -> None:
    """A pod becomes available every `patience` steps: never more pods than allowed, never fewer available ones, and an end."""
    rollout = Rollout(max_surge=surge, max_unavailable=unavailable)
    most, missing = fenceposts(rollout, replicas)
    new, old = Size(0, 0), Size(replicas, replicas)
    for number in range(400):
        grown, (left,) = step(rollout, replicas, new, (old,))
        old = Size(left, min(old.available, left))
        new = Size(grown, min(new.available, grown))
        assert new.replicas + old.replicas <= replicas + most
        assert new.available + old.available >= replicas - missing
        if (new.replicas, old.replicas) == (replicas, 0):
            return
        if number % patience == 0:
            new = Size(new.replicas, min(new.available + 1, new.replicas))
    raise AssertionError(f"it does not end: {new} {old}")
