"""What is kept from the last cluster never shows: a cluster of a random history has the plan that it has when nothing is kept.

Nothing is kept of a copy: it consists of other objects.
"""

import pickle
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlab import controllers, plan
from netlab.controllers import settling
from netlab.expect import claims
from netlab.manifest import default_topology
from netlab.memory import kept_for_each, last_kept, last_ones_kept, replaced
from netlab.model import Cluster, Key, KubernetesObject, Meta, Other
from tests.clusters import without_dns
from tests.test_controllers import WEB, started
from tests.test_controllers_random import after, events, service, workload

EVERY = [("iptables", "chains", "bridge", True), ("nftables", "maps", "routed", False), ("nftables", "chains", "bridge", True)]


def begin(mode: str, layout: str, fabric: str, dns: bool) -> Cluster:
    topology = default_topology() if dns else without_dns(default_topology())
    config = replace(topology.cluster, fabric=fabric)
    config = replace(config, proxy=replace(config.proxy, mode=mode, layout=layout))  # type: ignore[arg-type]  # the same
    made: list[KubernetesObject] = [workload("Deployment", "a", 3, 80, False), service("a", True), service("b", False)]
    return controllers.initial(replace(topology, cluster=config), made)


def copied(cluster: Cluster) -> Cluster:
    found: Cluster = pickle.loads(pickle.dumps(cluster))
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(events, min_size=1, max_size=12), st.sampled_from(EVERY))
def test_every_plan_of_a_history_is_the_one_made_from_nothing(
    history: list[tuple[str, object]], which: tuple[str, str, str, bool]
) -> None:
    clusters = [begin(*which)]
    plans = [plan.build(clusters[0])]
    for kind, value in history:
        clusters.append(after(clusters[-1], kind, value))
        plans.append(plan.build(clusters[-1]))
    for cluster, built in zip(clusters, plans, strict=True):
        anew = copied(cluster)
        assert controllers.settle(anew) is anew, "nobody has overlooked that there was something to do"
        again = plan.build(anew)
        assert list(again.ops.items()) == list(built.ops.items())
    for (before, now), (was, then) in zip(pairwise(plans), pairwise(clusters), strict=True):
        assert plan.diff(before, now) == plan.diff(plan.build(copied(was)), plan.build(copied(then)))


class Spy:
    """A cluster that says which of its parts were looked at."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.seen = cluster, set[str]()

    def __getattr__(self, name: str) -> Any:
        if name in {field.name for field in fields(Cluster)}:
            self.seen.add(name)
        return getattr(self.cluster, name)


@pytest.mark.parametrize("controller", settling.CONTROLLERS, ids=lambda one: f"{one.__module__}.{one.__name__}")
def test_a_controller_looks_at_nothing_but_what_it_says(controller: settling.Controller) -> None:
    """In a cluster where every controller has objects and nothing to do."""
    settled = begin("nftables", "chains", "bridge", True)
    made = (workload(kind, app, 2, 80, True) for kind in ("ReplicaSet", "DaemonSet", "Deployment") for app in ("a", "b"))
    settled = controllers.apply(settled, made)
    if controller in settling.READS:
        spy = Spy(copied(settled))
        controller(spy)  # type: ignore[arg-type]  # it is asked for what a Cluster has
        made_with = {"clock", "serial"}  # they are no reason to do something
        assert spy.seen <= {*settling.READS[controller], *made_with}


def test_the_last_answer_is_given_to_the_same_question_only() -> None:
    asked: list[object] = []

    @last_kept
    def answer(some: list[int], others: list[int]) -> int:
        asked.append((some, others))
        return len(some) + len(others)

    one, two = [1], [1]
    assert [answer(one, two), answer(one, two), answer(two, two), answer(two, two)] == [2, 2, 2, 2]
    assert len(asked) == 2, "equal is not enough: it may be changed"


def test_questions_that_are_asked_by_turns_are_answered_once() -> None:
    asked: list[object] = []

    @last_ones_kept(2)
    def answer(one: list[int]) -> int:
        asked.append(one)
        return len(one)

    a, b, c = [1], [2], [3]
    for one in (a, b, a, b, c, b, a):
        answer(one)
    assert [id(one) for one in asked] == [id(a), id(b), id(c), id(a)], "a was not asked for longest when c came"


def test_an_outage_does_not_make_the_oracle_work_everything_out_again() -> None:
    """A walk asks of the cluster that is and of the one that a node out of reach knows, by turns."""
    now = controllers.cut(started(WEB), "node-171", False)
    known, node = now.as_known_to("node-171"), now.nodes["node-170"]
    assert known is not now
    first, then = claims.own_addresses(now, now.nodes["node-171"]), claims.own_addresses(known, known.nodes["node-171"])
    assert claims.own_addresses(now, now.nodes["node-171"]) is first
    assert claims.own_addresses(known, known.nodes["node-171"]) is then
    assert claims.own_addresses(now, node) is claims.own_addresses(now, node)


def test_each_is_answered_for_once_as_long_as_it_comes_again() -> None:
    asked: list[str] = []

    @kept_for_each
    def answer(one: list[str], rest: int) -> str:
        asked.append(one[0])
        return one[0] * rest

    a, b, c = ["a"], ["b"], ["c"]
    assert answer([a, b], 2) == ["aa", "bb"]
    assert answer([c, a], 2) == ["cc", "aa"]
    assert answer([b, a, c], 2) == ["bb", "aa", "cc"], "b was away, and is asked again"
    assert answer([a], 3) == ["aaa"], "another rest is another question"
    assert asked == ["a", "b", "c", "b", "a"]


def others(*names: str) -> dict[Key, Other]:
    return {Key("", name): Other("Namespace", "v1", Meta(name), {}) for name in names}


def test_what_was_replaced_is_named() -> None:
    many = others(*(f"n{number}" for number in range(1000)))
    changed = {**many, Key("", "n700"): Other("Namespace", "v1", Meta("n700", uid="u"), {})}
    more = {**many, **others("new")}
    less = {key: one for key, one in many.items() if key.name != "n3"}
    turned = dict(reversed(many.items()))
    assert replaced(many, dict(many)) == set()
    assert replaced(many, changed) == {Key("", "n700")}
    assert replaced(many, more) == {Key("", "new")} == replaced(more, many)
    assert replaced(many, less) == {Key("", "n3")} == replaced(less, many)
    assert replaced(many, turned) == set()
