"""Impaired links without a kernel: what files say, which devices are shaped, what faults change, and netlink's bytes."""

import pytest

from netlab import controllers, plan
from netlab.errors import InputError
from netlab.fabric import impairments as fabric
from netlab.kernel import netlink as nl
from netlab.kernel import qdisc
from netlab.lab import link_faults
from netlab.manifest import Source, impairments, read_scenario, read_topology
from netlab.model import Cluster, Impairment
from netlab.ops import Qdisc
from netlab.plan import Plan
from tests import clusters

WAN = "links: {client/lan: {delay: 20ms, loss: 0.1%, out: {rate: 10mbit}, in: {loss: 2%}}}"
SENDS = Impairment(rate_bps=10_000_000, delay_s=0.02, loss=0.001)
GETS = Impairment(delay_s=0.02, loss=0.02)


def cluster_of(text: str) -> Cluster:
    return controllers.initial(read_topology(Source("t.yaml", text.encode())), ())


def qdiscs(made: Plan) -> dict[tuple[str, str], Impairment]:
    return {(op.netns, op.device): op.value for op in made.ops.values() if isinstance(op, Qdisc)}


def test_each_way_is_shaped_where_it_is_sent() -> None:
    assert qdiscs(plan.build(cluster_of(WAN))) == {("host/client", "eth0"): SENDS, ("lan/lan", "h-client"): GETS}


def test_links_that_say_nothing_are_not_shaped() -> None:
    assert qdiscs(plan.build(cluster_of("links: {client/lan: {}}"))) == {}
    assert qdiscs(plan.build(clusters.default())) == {}


def test_the_router_has_a_link_too() -> None:
    found = qdiscs(plan.build(cluster_of("links: {router/lan: {loss: 1%}}")))
    assert {netns for netns, _ in found} == {"router/router", "lan/lan"}


def test_a_plan_says_it_in_the_words_of_the_file() -> None:
    assert "  qdisc eth0 rate 10mbit delay 20ms loss 0.1%\n" in plan.text(plan.build(cluster_of(WAN)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (Impairment(), ""),
        (Impairment(rate_bps=1500), "rate 1.5kbit"),
        (Impairment(delay_s=0.0005, jitter_s=0.0001, loss=0.333), "delay 0.5ms jitter 0.1ms loss 33.3%"),
        (
            Impairment(delay_s=1, reorder=0.25, duplicate=0.5, corrupt=0.001),
            "delay 1000ms duplicate 50% reorder 25% corrupt 0.1%",
        ),
    ],
)
def test_words(value: Impairment, words: str) -> None:
    assert str(value) == words
    assert bool(value) == bool(words)


WRONG = [
    ("reorder without a delay", "{reorder: 25%}", "t.yaml:1:31: links[client/lan].reorder: reorder needs a delay"),
    ("jitter without a delay", "{in: {jitter: 1ms}}", "in.jitter: jitter needs a delay"),
    ("no rate at all", "{rate: 0mbit}", "rate: a rate of at least 1kbit is wanted"),
    ("a share above one", "{loss: 101%}", "must be a share like 1%"),
    ("a typo", "{dealy: 1ms}", "did you mean delay?"),
    ("a way that there is not", "{up: {delay: 1ms}}", "unknown field"),
]


@pytest.mark.parametrize(("link", "said"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_mistakes_in_a_topology_have_a_place(link: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        cluster_of(f"links: {{client/lan: {link}}}")
    assert said in str(caught.value)


# ---------------------------------------------------------------- faults


def fault(cluster: Cluster, kind: str, target: str | None, **more: object) -> Cluster:
    body = {"kind": kind, "target": target, **more}
    return (link_faults.clear if kind == "clear" else link_faults.impair)(cluster, plan.build(cluster), body)[1]


def restored(cluster: Cluster, undo: object) -> Cluster:
    return link_faults.restore(cluster, Plan(), {"undo": undo})[1]


def test_a_fault_changes_one_part_and_clear_leads_back_to_the_topology() -> None:
    cluster = cluster_of(WAN)
    slow = fault(cluster, "delay", "client/lan", value="50ms", direction="out")
    assert qdiscs(plan.build(slow)) == {
        ("host/client", "eth0"): SENDS.with_(delay_s=0.05),
        ("lan/lan", "h-client"): GETS,
    }
    assert qdiscs(plan.build(fault(slow, "clear", "host/client"))) == qdiscs(plan.build(cluster))
    assert qdiscs(plan.build(fault(slow, "clear", None))) == qdiscs(plan.build(cluster))
    assert qdiscs(plan.build(fault(slow, "clear", "node/node-170"))) == qdiscs(plan.build(slow))


def test_what_a_fault_undoes_is_what_was_before_it() -> None:
    first = fault(cluster_of(WAN), "loss", "client/lan", value="5%")
    second = fault(first, "delay", "client/lan", value="1ms")
    third = fault(second, "rate", "node/node-170", value="1mbit")
    back = restored(third, link_faults.undo_of(second, third))
    assert back.impaired == second.impaired
    assert restored(back, link_faults.undo_of(first, second)).impaired == first.impaired
    assert link_faults.undo_of(first, first) == []


def test_a_fault_of_nothing_takes_the_topologys_impairment_away() -> None:
    healed = cluster_of("links: {client/lan: {loss: 1%}}")
    assert qdiscs(plan.build(fault(healed, "loss", "client/lan", value="0%"))) == {}


def test_a_pods_link_is_shaped_at_the_pod_and_at_its_node() -> None:
    cluster = clusters.default()
    found = qdiscs(plan.build(fault(cluster, "delay", "pod/client", value="5ms", jitter="1ms")))
    assert {netns for netns, _ in found} == {"pod/default/client", "node/node-170"}
    assert set(found.values()) == {Impairment(delay_s=0.005, jitter_s=0.001)}


@pytest.mark.parametrize(
    ("kind", "more", "said"),
    [
        ("loss", {"value": "1"}, "loss takes a share like 1% or 0.5%, not '1'; did you mean 1%?"),
        ("rate", {"value": "fast"}, "rate takes a rate like 100mbit, not 'fast'"),
        ("delay", {"value": "1ms", "jitter": "much"}, "jitter takes a time like 2ms, not 'much'"),
        ("reorder", {"value": "10%"}, "reorder needs a delay"),
        ("delay", {"value": "1ms", "direction": "up"}, "direction 'up': out "),
    ],
)
def test_values_that_no_link_takes(kind: str, more: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", ".")):
        fault(clusters.default(), kind, "client/lan", **more)


def test_a_change_of_numbers_is_one_operation() -> None:
    cluster = cluster_of(WAN)
    difference = plan.diff(plan.build(cluster), plan.build(fault(cluster, "delay", "client/lan", value="9ms", direction="out")))
    assert [op.identity for op in difference.added] == [("qdisc", "host/client", "eth0")]
    assert difference.removed == ()


def test_a_link_that_is_made_anew_is_shaped_anew() -> None:
    cluster = fault(clusters.default(), "loss", "pod/client", value="1%")
    made = plan.build(cluster)
    veth = next(op for op in made.ops.values() if getattr(op, "netns", "") == "pod/default/client" and hasattr(op, "peer_mac"))
    other = plan.plan_of(op.__class__(**{**{f: getattr(op, f) for f in op.__slots__}, "mtu_bytes": 1400}) if op is veth else op
                         for op in made.ops.values())  # fmt: skip
    assert ("qdisc", "pod/default/client", "eth0") in {op.identity for op in plan.diff(made, other).added}


SCENARIO = "name: s\nsteps:\n- fault: %s\n"


def test_a_scenarios_fault_takes_a_value() -> None:
    (step,) = read_scenario(Source("s.yaml", (SCENARIO % "{delay: client/lan, value: 10ms, for: 1s}").encode())).steps
    assert step.arguments["value"] == "10ms"


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ("{delay: client/lan}", "delay needs a value"),
        (
            "{loss: client/lan, value: 3}",
            "s.yaml:3:36: steps[0].fault.value: loss takes a share like 1% or 0.5%, not 3; did you mean 3%?",
        ),
        ("{rate: 10mbit}", "rate needs a value"),
        ("{delay: client/lan, loss: client/lan, value: 1ms}", "one fault is wanted"),
    ],
)
def test_mistakes_in_a_scenarios_fault_have_a_place(step: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_scenario(Source("s.yaml", (SCENARIO % step).encode()))
    assert said in str(caught.value)


# ---------------------------------------------------------------- netlink


@pytest.mark.parametrize(
    "value",
    [
        Impairment(rate_bps=10_000_000),
        Impairment(rate_bps=100_000_000_000),
        Impairment(delay_s=0.01, jitter_s=0.0005),
        Impairment(loss=0.001, duplicate=1.0, corrupt=0.5, delay_s=3, reorder=0.25, rate_bps=64_000),
    ],
)
def test_what_the_kernel_is_told_is_read_back_the_same(value: Impairment) -> None:
    """The kernel lists the attributes in the layout in which it takes them (but for a burst, which comes back in ticks)."""
    found = qdisc.Shaped(Impairment())
    for message in qdisc.install(7, value):
        found = qdisc._with(found, nl.attributes(message.body, 20))
    assert found == qdisc.Shaped(value)
    assert qdisc.same(value, found.value)
    assert not qdisc.same(value.with_(loss=0.9), found.value)


def test_in_force_prefers_the_fault() -> None:
    cluster = cluster_of(WAN).with_(impaired={("host/client", "eth0"): GETS})
    assert fabric.in_force(cluster)["host/client", "eth0"] == GETS
    assert fabric.of_topology(cluster)["host/client", "eth0"] == SENDS
    assert fabric.told(cluster)[0] == "host/client eth0 sends with delay 20ms loss 2%"


def test_a_jitter_goes_with_the_delay_that_it_came_with() -> None:
    was = Impairment(delay_s=0.01, jitter_s=0.001)
    assert impairments.changed(was, "delay", "2ms") == Impairment(delay_s=0.002)
    assert impairments.changed(was, "delay", "2ms", "1ms") == Impairment(delay_s=0.002, jitter_s=0.001)
