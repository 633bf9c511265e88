"""Every mutation of tests/mutations.py is caught; the sound plans are not; and the two nets that catch can tear."""

import pytest

from tests import flows, mutations, spec
from tests.mutations import MUTATIONS, Mutation, caught

ALL = [pytest.param(mutation, mode, id=f"{mutation.name}-{mode}") for mutation in MUTATIONS for mode in mutation.dresses]


@pytest.mark.parametrize("mutation, mode", ALL)
def test_caught(mutation: Mutation, mode: str) -> None:
    assert caught(mutation, mode), "no flow tells this broken plan from a sound one"


@pytest.mark.parametrize("mode", (*spec.MODES, spec.MAPS))
def test_sound_plans_are_not_caught(mode: str) -> None:
    for case in flows.CASES:
        _, sound, questions = mutations.asked(case.id, mode)
        assert mutations.told(sound, questions, case.id) is None


def test_there_are_enough_of_them_and_each_has_a_name() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 40


def test_one_that_changes_nothing_survives() -> None:
    assert caught(mutations.rules("nothing at all", lambda value: value), "iptables", flows.CASES[:3]) is None
