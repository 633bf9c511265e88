"""Pods that end after they are gone: what the oracle says of them, who has how much time, and who lets them go.

And agents that die of what they are told: the lab outlives them.
"""

import heapq
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise
from typing import Any

import pytest

from netlab import plan
from netlab.errors import KernelError, NetlabError
from netlab.expect import expect
from netlab.ipam import POD_DEVICE, free_pod_addresses
from netlab.kernel import agent
from netlab.lab import holder, ingresses
from netlab.lab.agents import TRIES, Agents
from netlab.lab.ending import Ending, leaving
from netlab.lab.letting_go import LettingGo
from netlab.lab.receiving import receivers
from netlab.lab.telling import MOST_DEATHS, GivingAgain
from netlab.model import Cluster, Endpoint, EndpointSlice, Flow, Meta, Outage, OutcomeKind, Protocol, Ref, SlicePort
from tests.clusters import cluster, default, key, pod, service

CLIENT = Ref("pod", "default", "client")
GONE = key("kubia-b")
ADDRESS = ip_address("10.244.2.2")


def without(before: Cluster, *names: str, clock: float = 0.0) -> Cluster:
    gone = {key(name) for name in names}
    return before.with_(pods={one: pod for one, pod in before.pods.items() if one not in gone}, clock=clock)


def ending_in(before: Cluster, after: Cluster, **given: Any) -> Ending:
    return Ending().joined_by(leaving(before, after, **given), plan.build(before), plan.build(after), 100.0, holder.is_link_level)


def left(before: Cluster, after: Cluster, **given: Any) -> dict[str, float]:
    return {one.name: left_s for one, (_, left_s) in leaving(before, after, **given).items()}


def sliced(of: Cluster) -> Cluster:
    """With a Service whose slice is made by hand, and names the pod whether it is there or not."""
    by_hand = service("byhand", "10.96.0.90", (80, 8080))
    ends = (Endpoint((ADDRESS,), node_name="node-171"),)
    one = EndpointSlice(Meta("byhand-1"), by_hand.meta.key, endpoints=ends, ports=(SlicePort("", 8080),))
    return of.with_(services={**of.services, by_hand.meta.key: by_hand}, slices={**of.slices, one.meta.key: one})


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
@pytest.mark.parametrize(
    ("to", "port", "protocol", "while_ending"),
    [
        ("10.244.2.2", 8080, Protocol.TCP, OutcomeKind.REJECTED),
        ("10.244.2.2", 8080, Protocol.UDP, OutcomeKind.REJECTED),
        ("10.244.2.2", 0, Protocol.ICMP, OutcomeKind.DELIVERED),
        ("10.96.0.90", 80, Protocol.TCP, OutcomeKind.REJECTED),
    ],
)
def test_an_ending_pod_is_a_machine_that_listens_on_nothing(
    mode: str, to: str, port: int, protocol: Protocol, while_ending: OutcomeKind
) -> None:
    before = sliced(default(mode=mode))
    gone = without(before, "kubia-b")
    flow = Flow(CLIENT, ip_address("10.244.1.2"), ip_address(to), port, protocol)
    assert expect(gone, flow).kind is OutcomeKind.DROPPED
    ending = gone.with_(ending=ending_in(before, gone).pods)
    assert expect(ending, flow).kind is while_ending
    if protocol is Protocol.TCP:
        assert expect(before, flow).kind is OutcomeKind.DELIVERED
    assert receivers(ending)[ADDRESS, 0] == "pod/default/kubia-b"
    assert (ADDRESS, 0) not in receivers(gone)


def test_the_smaller_grace_period_counts() -> None:
    before = default()
    after = without(before, "kubia-b")
    assert left(before, after) == {"kubia-b": 30.0}
    assert left(before, after, grace_s=2) == {"kubia-b": 2.0}
    assert left(before, after, grace_s=3600) == {"kubia-b": 30.0}
    assert left(before, after, grace_s=0) == {}


def test_what_a_hook_took_is_part_of_the_grace_period() -> None:
    there = default().pods[GONE]
    hooked = default().with_(pods={GONE: replace(there, meta=replace(there.meta, deleted=10.0), grace_s=8.0)})
    assert left(hooked, without(hooked, "kubia-b", clock=15.0)) == {"kubia-b": 3.0}
    assert left(hooked, without(hooked, "kubia-b", clock=20.0)) == {}


def test_only_the_pods_that_are_named_are_cut() -> None:
    before = default()
    after = without(before, "kubia-b", "kubia-c")
    assert left(before, after) == {"kubia-b": 30.0, "kubia-c": 30.0}
    assert left(before, after, abrupt={GONE}) == {"kubia-c": 30.0}


def test_who_cannot_be_reached_has_no_time() -> None:
    before = default().with_(links_down=frozenset({("pod/default/kubia-b", POD_DEVICE)}))
    assert left(before, without(before, "kubia-b", "kubia-c")) == {"kubia-c": 30.0}


def _renamed(after: Cluster) -> Cluster:
    return after.with_(pods={**after.pods, GONE: pod("kubia-b", "", "")})


def _address_taken(after: Cluster) -> Cluster:
    return after.with_(pods={**after.pods, key("other"): pod("other", "node-171", str(ADDRESS))})


def _node_lost(after: Cluster) -> Cluster:
    return after.with_(outages={"node-171": Outage(0.0, True, after)})


@pytest.mark.parametrize("then", [_renamed, _address_taken, _node_lost])
def test_another_of_its_name_or_address_sends_it_away(then: Callable[[Cluster], Cluster]) -> None:
    before = default()
    after = without(before, "kubia-b")
    ending = ending_in(before, after)
    assert ending.in_the_way(after) == []
    assert ending.in_the_way(then(after)) == ["pod/default/kubia-b"]


def test_its_address_is_the_last_that_is_given_out() -> None:
    small = cluster([pod("old", "node-169", "10.244.0.2", 8080)], nodes=1)
    node = replace(small.nodes["node-169"], pod_cidrs=(ip_network("10.244.0.0/29"),))
    gone = without(small.with_(nodes={"node-169": node}), "old")
    ending = gone.with_(ending=small.pods)
    assert [str(one) for one in free_pod_addresses(gone, node)] == [f"10.244.0.{n}" for n in range(2, 7)]
    assert [str(one) for one in free_pod_addresses(ending, node)] == [f"10.244.0.{n}" for n in (3, 4, 5, 6, 2)]


# ---------------------------------------------------------------- the holder's part


class Loop:
    """Timers by hand."""

    def __init__(self) -> None:
        self.time = 0.0
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.count = 0

    def now(self) -> float:
        return self.time

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        self.count += 1
        heapq.heappush(self.timers, (self.time + delay_s, self.count, call))

    def turn(self) -> bool:
        """The next timer's call; False where there is none."""
        if not self.timers:
            return False
        self.time, _, call = heapq.heappop(self.timers)
        call()
        return True

    def watch(self, file: Any, readable: Any) -> None:
        pass

    def forget(self, file: Any) -> None:
        pass


class Paper(holder.Lab):
    """A lab that holds nothing: what a change asks of the kernel is noted, and refused while `refusing` says why."""

    def __init__(self, before: Cluster) -> None:
        self.loop = Loop()  # type: ignore[assignment]  # turned by hand
        self.cluster = before
        self.plan = self.bare = plan.build(before)
        self.letting_go = LettingGo(self)
        self.names = self.agents = self.kernel = self  # type: ignore[assignment]  # what is asked of any is refused here
        self.lines: list[str] = []
        self.refusing = ""
        self.busy = ["pod/default/kubia-b"]

    def tell(self, cluster: Cluster, early: bool = False) -> None:
        pass

    def call(self, *asked: Any) -> Any:
        if self.refusing:
            raise KernelError(self.refusing)
        return self.busy

    def apply(self, *asked: Any) -> None:
        if self.refusing:
            raise KernelError(self.refusing)

    def log(self, line: str) -> None:
        self.lines.append(line)


def test_a_change_that_is_refused_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(added: Any) -> None:
        raise KernelError("no such program here")

    before = default()
    lab = Paper(before)
    monkeypatch.setattr(ingresses, "check", refused)
    with pytest.raises(NetlabError, match="no such program"):
        lab._install(without(before, "kubia-b"), None)
    assert not lab.letting_go.ending
    assert lab.cluster is before


def test_letting_go_is_tried_again_and_ends_no_lab() -> None:
    before = default()
    after = without(before, "kubia-b")
    lab = Paper(after)
    lab.letting_go.ending = ending = ending_in(before, after)
    lab.cluster = after.with_(ending=ending.pods)
    lab.plan = ending.keep(lab.bare)
    lab.letting_go._draining = lab.busy
    lab.letting_go.look()
    lab.refusing = "the kernel is not in the mood"
    for _ in range(3):
        assert lab.loop.turn()  # type: ignore[attr-defined]
    assert lab.letting_go.ending
    assert lab.cluster.ending
    assert len(lab.lines) == 3
    assert "not in the mood" in lab.lines[0]
    lab.refusing, lab.busy = "", []
    assert lab.loop.turn()  # type: ignore[attr-defined]
    assert not lab.letting_go.ending
    assert not lab.cluster.ending
    assert [*lab.plan.ops] == [*lab.bare.ops]
    assert not lab.loop.turn(), "nobody looks any more"  # type: ignore[attr-defined]


# ---------------------------------------------------------------- agents that die of what they are told


class Mortal(agent.Agent):
    """An agent that dies of every question, or of none."""

    started = 0
    poisoned = True

    def call(self, method: str, *arguments: Any, deadline_s: float | None = None) -> Any:
        if Mortal.poisoned:
            raise agent.AgentGone(f"{self.name} died of {method}")
        return []

    def wait_for_end(self) -> None:
        pass


@pytest.fixture
def spawned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the agents that were started: none is a process."""
    import socket

    names: list[str] = []

    def spawn(name: str, serve: Any) -> Mortal:
        names.append(name)
        ours, theirs = socket.socketpair()
        theirs.close()
        return Mortal(name, 0, ours)

    monkeypatch.setattr(agent, "spawn", spawn)
    monkeypatch.setattr(Mortal, "poisoned", True)
    return names


def test_an_agent_that_dies_of_what_it_must_know_is_left_alone_in_the_end(spawned: list[str]) -> None:
    """It was forked again without end, until Python's stack was full: that was the end of the lab."""
    loop, lines = Loop(), list[str]()
    giving = GivingAgain(loop, lambda name: agents.call("responder", "listen", []), lines.append)  # type: ignore[arg-type]
    agents = Agents(loop, giving.restarted)  # type: ignore[arg-type]
    with pytest.raises(agent.AgentGone):
        agents.call("responder", "listen", [])
    turns = 0
    while loop.turn():
        turns += 1
        assert turns < 100, "it never gives up"
    assert spawned.count("responder") <= 2 * (MOST_DEATHS + TRIES)
    assert sum("is not told again" in line for line in lines) == 1
    assert "verify --repair" in lines[-1]
    Mortal.poisoned = False
    assert agents.call("responder", "listen", []) == [], "the next change may be better"


def test_an_agent_that_dies_once_is_told_before_it_is_asked_again(spawned: list[str]) -> None:
    told: list[str] = []

    def tell(name: str) -> None:
        Mortal.poisoned = False
        told.append(name)

    loop, lines = Loop(), list[str]()
    agents = Agents(loop, GivingAgain(loop, tell, lines.append).restarted)  # type: ignore[arg-type]
    assert agents.call("responder", "listening") == []
    assert told == ["responder"]
    assert lines == ["the responder process died and was started again"]
    assert not loop.timers


def test_an_agent_that_is_killed_again_and_again_is_always_told_later_and_later() -> None:
    """It knows what it must when it dies: that is not what it died of."""
    loop, told, lines = Loop(), list[float](), list[str]()
    giving = GivingAgain(loop, lambda name: told.append(loop.time), lines.append)  # type: ignore[arg-type]
    for _ in range(2 * MOST_DEATHS):
        giving.restarted("dns")
        loop.turn()
    waits = [after - before for before, after in pairwise(told)]
    assert len(told) == 2 * MOST_DEATHS
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, *[5.0] * 5])
    assert {*lines} == {"the dns process died and was started again"}


def test_one_whom_nobody_needs_to_tell_is_only_noted() -> None:
    lines: list[str] = []
    GivingAgain(Loop(), lambda name: pytest.fail(name), lines.append).restarted("worker")  # type: ignore[arg-type]
    assert lines == ["the worker process died"]
