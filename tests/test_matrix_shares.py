"""How a matrix is shared out: nobody takes another's flows for its own, and no namespace's flows are sent by two processes."""

import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from netlab.errors import NetlabError
from netlab.kernel import agent
from netlab.lab import agents, matrix, probing
from netlab.lab.ranges import UPPER_BYTES, Ranges, SourcePorts
from netlab.model import Cluster, Flow, Ref
from netlab.probes.prober import TRACED, Prober
from netlab.probes.values import FIRST_PORT, PORTS, ProbeRequest
from tests.clusters import cluster, pod


def standing() -> Cluster:
    """Two nodes; a pod of its own on each, and one in the first node's namespace."""
    pods = [pod("a", "node-169", "10.244.0.2", 80), pod("b", "node-170", "10.244.1.2", 80)]
    return cluster([*pods, pod("host", "node-169", "192.168.0.169", 80, host_network=True)], nodes=2)


def test_no_two_have_a_range_and_what_was_given_back_comes_last() -> None:
    ranges = Ranges(range(1, 6))
    first, second = ranges.take(2), ranges.take(2)
    assert (first, second) == ((1, 2), (3, 4))
    ranges.give_back(first)
    assert ranges.take(9, leave=1) == (5, 1)
    assert ranges.take(1, leave=1) == () and ranges.take(1) == (2,)


@pytest.mark.parametrize(
    ("pairs", "processors", "shares"), [(1, 64, 1), (127, 64, 1), (128, 64, 2), (50_000, 64, 8), (50_000, 2, 2), (0, 1, 1)]
)
def test_few_pairs_or_processors_are_few_shares(pairs: int, processors: int, shares: int) -> None:
    assert matrix.shares_for(pairs, processors) == shares


@pytest.mark.parametrize("number", [1, 2, 3, 8, 100])
def test_all_of_a_namespace_are_in_one_share(number: int) -> None:
    """More shares than senders, and a sender that comes again later."""
    homes = ["a"] * 3 + ["b"] * 3 + ["a"] * 2 + ["c"]
    shares = matrix._shares(homes, number)
    assert sorted(at for share in shares for at in share) == [*range(9)]
    assert len(shares) == min(number, 3) and all(shares)
    for home in "abc":
        assert sum(any(homes[at] == home for at in share) for share in shares) == 1


def test_no_pairs_are_one_empty_share() -> None:
    assert matrix._shares([], 4) == [[]]


def shared(monkeypatch: pytest.MonkeyPatch, pairs: Sequence[matrix.Pair], own: Sequence[int]) -> tuple[Any, dict[int, set[str]]]:
    """The answer of a matrix whose shares send nothing, and for each upper byte who sent under it."""
    sent: dict[int, set[str]] = {}

    def share(lab: Any, pairs: Sequence[matrix.Pair], namespace: str, timeout_s: float, own: int) -> list[bytes]:
        assert own not in sent, "two have the same tokens"
        sent[own] = {sender for sender, _ in pairs}
        return [json.dumps(pair).encode() for pair in pairs]

    def begun(name: str, do: Callable[[], Any]) -> Callable[[], Any]:
        return do

    monkeypatch.setattr(matrix, "_share", share)
    monkeypatch.setattr(matrix, "_begun", begun)
    lab: Any = SimpleNamespace(cluster=standing())
    return json.loads(matrix._matrix(lab, pairs, "default", 1.0, own).body), sent


def test_two_names_of_a_namespace_are_one_sender_and_the_order_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    senders = ("node/node-169", "pod/a", "pod/host", "pod/default/b", "pod/a", "pod/b")
    pairs = [(sender, to) for sender in senders for to in ("pod/a", "pod/b", "svc/x")]
    answer, sent = shared(monkeypatch, pairs, (7, 8, 9, 10))
    assert [tuple(one) for one in answer] == pairs
    assert sorted(map(sorted, sent.values())) == [["node/node-169", "pod/host"], ["pod/a"], ["pod/b", "pod/default/b"]]
    assert sent.keys() <= {7, 8, 9, 10}


class Still:
    """A loop in which nothing happens."""

    def watch(self, *_: Any) -> None:
        pass

    forget = after = watch


class Silent:
    """An agent that never answers by itself."""

    def __init__(self, pid: int) -> None:
        self.pid, self.sock, self.busy, self.replies = pid, SimpleNamespace(close=lambda: None), False, list[Any]()

    def request(self, reply: Any, *_: Any) -> None:
        self.busy = True
        self.replies.append(reply)


def test_who_probes_at_the_same_time_has_a_range_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices take what the workers leave; the next is refused, and goes when one has ended."""
    started: list[Silent] = []
    given: list[int] = []

    def spawn(name: str, serve: Callable[[Any], None], *_: int) -> Silent:
        started.append(Silent(len(started)))
        serve(None)
        return started[-1]

    def serve_forever(sock: Any, methods: Any) -> None:
        methods["do"]()

    for name in ("serve_loader", "serve_responder"):
        monkeypatch.setattr(agents, name, lambda sock: None)
    for name in ("serve_worker", "serve_keeper"):
        monkeypatch.setattr(agents, name, lambda sock, own: given.append(own))
    monkeypatch.setattr(agent, "spawn", spawn)
    monkeypatch.setattr(agent, "serve_forever", serve_forever)
    still: Any = Still()
    all_of_them = agents.Agents(still, lambda name: None)
    wanted = len(UPPER_BYTES) - agents.RESERVED
    for _ in range(wanted // matrix.MOST_SHARES + 1):
        all_of_them.errand(lambda ok, answer: None, "matrix", given.extend, matrix.MOST_SHARES)
    with pytest.raises(NetlabError, match="too much is probed at the same time for another matrix"):
        all_of_them.errand(lambda ok, answer: None, "matrix", given.extend, 1)
    for _ in range(agents.MAXIMUM_WORKERS + 5):
        all_of_them.work(lambda ok, answer: None, "probe")
    all_of_them.keep(lambda ok, answer: None, "open")
    assert sorted(given) == [*UPPER_BYTES]
    started[2].replies[0](True, b"")
    all_of_them.errand(lambda ok, answer: None, "matrix", given.extend, 3)
    assert given[-3:] == given[:3], "what the first one gave back"


@pytest.mark.parametrize("known", [True, False])
def test_what_is_asked_at_the_same_time_is_sent_from_different_ports(known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one namespace: the matrix' fork hands out what the holder, which goes on, counts as taken."""
    monkeypatch.setattr(matrix, "_matrix", lambda *arguments: None)
    forked: list[Any] = []
    errand = lambda later, name, do, probers: forked.append((deepcopy(lab.ports), do))  # noqa: E731
    lab: Any = SimpleNamespace(
        cluster=standing(),
        plan=SimpleNamespace(ops={}),
        ports=SourcePorts(),
        netns_path=str,
        agents=SimpleNamespace(errand=errand),
    )
    pairs = {"from": ["pod/b"], "to": ["pod/a", "node/node-169", "nobody"]}

    def asked(count: int) -> range:
        sent = probing.request(lab, probing.resolved(lab, {"from": "pod/b", "to": "pod/a", "count": count}), {}, ())
        return range(sent.first_port, sent.first_port + count)

    first = asked(60) if known else range(0)
    matrix.matrix(lab, {**pairs, "from": ["pod/b", "pod/nobody"]}, lambda ok, answer: None)
    here, (lab.ports, begin) = asked(60), forked[0]
    begin((1,))
    there = asked(3 + TRACED)
    wrapped = [(port - FIRST_PORT) % PORTS for ports in (first, here, there) for port in ports]
    assert len(set(wrapped)) == len(wrapped)
    assert probing.request(lab, probing.resolved(lab, {"from": "pod/b", "to": "pod/a", "source_port": 7}), {}, ()).first_port == 0


def test_a_prober_begins_where_it_is_told() -> None:
    prober = Prober(lambda netns: 0, own=1)
    flow = Flow(Ref("pod", "default", "a"), ip_address("10.0.0.1"), ip_address("10.0.0.2"), 80)
    one, other = ProbeRequest("a", flow, first_port=FIRST_PORT + PORTS - 1), ProbeRequest("b", flow)
    prober.begin([one, replace(one, first_port=12_345), other])
    assert prober.ports("a", 2) == [FIRST_PORT + PORTS - 1, FIRST_PORT]
    prober.begin([other])
    assert prober.ports("a", 1) == [FIRST_PORT + 1], "whoever is told nothing goes on"
