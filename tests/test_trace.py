"""The tracer on plans made by hand, one behaviour a row; then on real plans that are broken on purpose: it must notice."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netlab import targets
from netlab.errors import InputError
from netlab.model import (
    Cluster,
    Endpoint,
    EndpointSlice,
    Flow,
    Key,
    Meta,
    OutcomeKind,
    Protocol,
    Ref,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
)
from netlab.ops import DeviceAddress, Listener, Neighbour, Netns, Op, Process, Route, Ruleset, Sysctl, Veth
from netlab.plan import Plan, build, plan_of
from netlab.ruleset import (
    Accept,
    Base,
    Chain,
    CtDnat,
    Destination,
    DestinationLocal,
    DestinationPort,
    Dnat,
    DnatRandom,
    Drop,
    Field,
    Goto,
    GotoRandom,
    Hook,
    InInterface,
    InSet,
    Jump,
    L4Proto,
    Lookup,
    MapDef,
    MarkSet,
    Masquerade,
    OrMark,
    Probability,
    RecentlySeen,
    Reject,
    RememberSource,
    Return,
    Rule,
    SetDef,
    Source,
    SourceLocal,
    Table,
    UpdateSet,
    XorMark,
)
from netlab.ruleset import Ruleset as RulesetValue
from netlab.trace import Trace, Tracer, trace
from netlab.trace.alike import Classes
from netlab.trace.chains import Chains
from tests import clusters

DELIVERED, REJECTED, DROPPED, _ = OutcomeKind

# ---------------------------------------------------------------- a hand-made line: host/a - node/m - host/b, .1 .2 | .1 .2 .3


def line(*rules: Table, more: Iterable[Op] = (), forwards: str = "1", listen: bool = True) -> Plan:
    """host/a 10.0.1.1 -- eth0 10.0.1.2 node/m 10.0.2.2 eth1 -- host/b 10.0.2.1, .3; both hosts send everything through m."""
    ops: list[Op] = [Netns(name) for name in ("host/a", "node/m", "host/b")]
    ops.append(Sysctl("node/m", "net/ipv4/ip_forward", forwards))
    ops.append(Veth("host/a", "eth0", "02:a", "node/m", "eth0", "02:ma"))
    ops.append(Veth("host/b", "eth0", "02:b", "node/m", "eth1", "02:mb"))
    for netns, device, address in (
        ("host/a", "eth0", "10.0.1.1"),
        ("node/m", "eth0", "10.0.1.2"),
        ("node/m", "eth1", "10.0.2.2"),
        ("host/b", "eth0", "10.0.2.1"),
        ("host/b", "eth0", "10.0.2.3"),
    ):
        ops.append(DeviceAddress(netns, device, ip_address(address), 24))
    ops.append(Route("host/a", ip_network("0.0.0.0/0"), ip_address("10.0.1.2"), "eth0"))
    ops.append(Route("host/b", ip_network("0.0.0.0/0"), ip_address("10.0.2.2"), "eth0"))
    if rules:
        ops.append(Ruleset("node/m", RulesetValue("nftables", rules)))
    if listen:
        ops += [Listener("host/b", "b", Protocol.TCP, 80, "x"), Listener("host/b", "b", Protocol.TCP, 8080, "x")]
    return plan_of([*ops, *more])


def table(*chains: Chain, sets: tuple[SetDef, ...] = (), maps: tuple[MapDef, ...] = ()) -> Table:
    return Table("ip", "t", chains, sets, maps)


def prerouting(*rules: Rule) -> Chain:
    return Chain("pre", rules, Base(Hook.PREROUTING, "nat", -100))


def forward(*rules: Rule, policy: Any = "accept", priority: int = 0) -> Chain:
    return Chain(f"fwd{priority}", rules, Base(Hook.FORWARD, "filter", priority, policy))


def postrouting(*rules: Rule) -> Chain:
    return Chain("post", rules, Base(Hook.POSTROUTING, "nat", 100))


def does(*statements: Any, when: tuple[Any, ...] = ()) -> Rule:
    return Rule(when, statements)


def sent(plan: Plan, to: str = "10.0.2.1", port: int = 80, sender: str = "host/a", source: str = "10.0.1.1") -> Trace:
    kind, _, name = sender.partition("/")
    protocol = Protocol.TCP if port else Protocol.ICMP
    return trace(plan, Flow(Ref(kind, "", name), ip_address(source), ip_address(to), port, protocol))


def backends(traced: Trace) -> list[str]:
    return [f"{b.address}:{b.port}{' m' if b.masqueraded else ''}" for b in traced.outcome.backends]


TO_B = Dnat(ip_address("10.0.2.1"), 8080)
SERVICE = "10.9.9.9"


def test_without_rules_the_packet_is_routed() -> None:
    traced = sent(line())
    assert (traced.outcome.kind, backends(traced)) == (DELIVERED, ["10.0.2.1:80"])
    (path,) = traced.paths
    assert [hop.netns for hop in path.hops] == ["host/a", "node/m", "host/b"]
    assert [(hop.in_device, hop.out_device) for hop in path.hops] == [("", "eth0"), ("eth0", "eth1"), ("eth0", "")]
    assert path.back == ("host/b", "node/m", "host/a")


@pytest.mark.parametrize(
    ("name", "plan", "to", "port", "kind", "says"),
    [
        ("nobody listens", line(), "10.0.2.1", 81, REJECTED, "nobody listens"),
        ("echo is answered", line(), "10.0.2.1", 0, DELIVERED, ""),
        ("no neighbour", line(), "10.0.2.9", 80, DROPPED, "answers for 10.0.2.9"),
        ("no forwarding", line(forwards="0"), "10.0.2.1", 80, DROPPED, "does not forward"),
        ("no route at the node", line(), "10.7.0.1", 80, REJECTED, "no route"),
        (
            "a blackhole",
            line(more=[Route("node/m", ip_network("10.7.0.0/16"), type="blackhole")]),
            "10.7.0.1",
            80,
            DROPPED,
            "node/m: blackhole",
        ),
        ("a drop", line(table(forward(does(Drop())))), "10.0.2.1", 80, DROPPED, "dropped by t fwd0"),
        ("a reject", line(table(forward(does(Reject())))), "10.0.2.1", 80, REJECTED, "rejected by t fwd0"),
        ("a policy", line(table(forward(policy="drop"))), "10.0.2.1", 80, DROPPED, "policy"),
        ("accept ends the chain", line(table(forward(does(Accept()), does(Drop())))), "10.0.2.1", 80, DELIVERED, ""),
        (
            "but not the next chain",
            line(table(forward(does(Accept())), forward(does(Drop()), priority=1))),
            "10.0.2.1",
            80,
            DROPPED,
            "fwd1",
        ),
        (
            "a wrong permanent neighbour",
            line(more=[Neighbour("node/m", "eth1", ip_address("10.0.2.1"), "02:bad")]),
            "10.0.2.1",
            80,
            DROPPED,
            "MAC",
        ),
        (
            "a program may listen",
            line(more=[Process("host/b", Ref("pod", "d", "p"), "c", ("x",))]),
            "10.0.2.1",
            81,
            DELIVERED,
            "any port",
        ),
        ("the node's own address", line(), "10.0.1.2", 80, REJECTED, "node/m: nobody listens"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_fates(name: str, plan: Plan, to: str, port: int, kind: OutcomeKind, says: str) -> None:
    traced = sent(plan, to, port)
    assert traced.outcome.kind is kind, (name, traced.outcome.why)
    assert says in traced.outcome.why


S, D = Source((ip_network("10.0.1.0/24"),)), Destination((ip_network("10.9.0.0/16"),))
KEYED = (Field.DADDR, Field.L4PROTO, Field.DPORT)
ELEMENT = (ip_address(SERVICE), Protocol.TCP, 80)
LIST = SetDef("s", KEYED, (ELEMENT,))
RANGES = SetDef("s", (Field.DADDR,), ((ip_network("10.9.0.0/16"),),))
CLIENTS = SetDef("s", (Field.SADDR,), (), timeout_s=30)


@pytest.mark.parametrize(
    ("name", "match", "holds"),
    [
        ("protocol", L4Proto(Protocol.TCP), True),
        ("other protocol", L4Proto(Protocol.UDP), False),
        ("port", DestinationPort(80), True),
        ("other port", DestinationPort(81), False),
        ("source", S, True),
        ("source negated", replace(S, negate=True), False),
        ("destination", D, True),
        ("destination negated", replace(D, negate=True), False),
        ("source local", SourceLocal(), False),
        ("destination local", DestinationLocal(), False),
        ("interface", InInterface("eth0"), True),
        ("interface prefix", InInterface("et", prefix=True), True),
        ("interface negated", InInterface("eth0", negate=True), False),
        ("other interface", InInterface("eth1"), False),
        ("connection rewritten", CtDnat(), False),
        ("connection not rewritten", CtDnat(negate=True), True),
        ("mark", MarkSet(0x4000), False),
        ("no mark", MarkSet(0x4000, negate=True), True),
        ("recently seen", RecentlySeen("l", 10), False),
        ("in set", InSet("s", KEYED), True),
        ("not in set", InSet("s", KEYED, negate=True), False),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_matches(name: str, match: Any, holds: bool) -> None:
    traced = sent(line(table(prerouting(does(TO_B, when=(match,))), sets=(LIST,))), SERVICE)
    assert backends(traced) == (["10.0.2.1:8080"] if holds else []), name


def test_sets_hold_networks_and_clients() -> None:
    in_range = table(prerouting(does(TO_B, when=(InSet("s", (Field.DADDR,)),))), sets=(RANGES,))
    assert backends(sent(line(in_range), SERVICE)) == ["10.0.2.1:8080"]
    known = table(prerouting(does(Drop(), when=(InSet("s", (Field.SADDR,)),)), does(UpdateSet("s"), TO_B)), sets=(CLIENTS,))
    traced = sent(line(known), SERVICE)
    assert (backends(traced), traced.outcome.affinity) == (["10.0.2.1:8080"], True)


def test_a_list_of_clients_makes_affinity() -> None:
    rules = prerouting(does(Drop(), when=(RecentlySeen("l", 10),)), does(RememberSource("l"), TO_B))
    assert sent(line(table(rules)), SERVICE).outcome.affinity


def test_jump_return_and_goto() -> None:
    """a jumps to b, b goes to c: when c ends, the rule after the jump in a is next, and never the rest of b."""
    chains = (
        prerouting(does(Jump("a"))),
        Chain("a", (does(Jump("b")), does(TO_B))),
        Chain("b", (does(Goto("c")), does(Drop()))),
        Chain("c", (does(Return()), does(Drop()))),
    )
    assert backends(sent(line(table(*chains)), SERVICE)) == ["10.0.2.1:8080"]


def test_a_map_runs_its_verdict_or_the_rule_ends() -> None:
    vmap = MapDef("m", KEYED, ((ELEMENT, Goto("svc")),))
    rules = (prerouting(does(Lookup("m", KEYED))), Chain("svc", (does(TO_B),)))
    plan = line(table(*rules, maps=(vmap,)))
    assert backends(sent(plan, SERVICE)) == ["10.0.2.1:8080"]
    assert sent(plan, SERVICE, 81).outcome.kind is REJECTED


def ports(*numbers: int) -> list[Rule]:
    return [does(Dnat(ip_address("10.0.2.1"), number)) for number in numbers]


THIRD = Probability(0.3333333333)
SPREADS = {
    "iptables": prerouting(
        Rule((THIRD,), ports(1)[0].statements),
        Rule((Probability(0.5),), ports(2)[0].statements),
        Rule((), ports(3)[0].statements),
    ),
    "nftables": prerouting(does(DnatRandom(tuple((ip_address("10.0.2.1"), n) for n in (1, 2, 3))))),
    "nftables with affinity": prerouting(does(GotoRandom(("e1", "e2", "e3")))),
}


@pytest.mark.parametrize("name", SPREADS)
def test_random_choices_are_exact(name: str) -> None:
    ends = tuple(Chain(f"e{n}", tuple(ports(n))) for n in (1, 2, 3))
    traced = sent(line(table(SPREADS[name], *ends)), SERVICE)
    assert list(traced.weights.values()) == [Fraction(1, 3)] * 3
    assert traced.even
    assert sum(path.probability for path in traced.paths) == 1


def test_an_uneven_spread_is_seen() -> None:
    rules = prerouting(Rule((Probability(0.25),), ports(80)[0].statements), *ports(81))
    traced = sent(line(table(rules)), SERVICE)
    assert traced.outcome.kind is DELIVERED
    assert dict(traced.shares) == {DELIVERED: Fraction(1, 4), REJECTED: Fraction(3, 4)}
    assert not traced.even


def test_masquerade_takes_the_outgoing_devices_address_in_the_hops_network() -> None:
    marked = (
        prerouting(does(OrMark(0x4000)), does(TO_B)),
        postrouting(does(Return(), when=(MarkSet(0x4000, negate=True),)), does(XorMark(0x4000)), does(Masquerade())),
    )
    traced = sent(line(table(*marked)), SERVICE)
    assert backends(traced) == ["10.0.2.1:8080 m"]
    assert [str(a) for a in traced.outcome.backends[0].sources] == ["10.0.2.2"]
    more = [DeviceAddress("node/m", "eth1", ip_address("10.8.0.1"), 24)]
    assert [str(a) for a in sent(line(table(*marked), more=more), SERVICE).outcome.backends[0].sources] == ["10.0.2.2"]


def test_filter_sees_the_rewritten_packet_and_input_meets_local_addresses() -> None:
    to_self = Dnat(ip_address("10.0.1.2"), 22)
    refuse = Chain("in", (does(Reject(), when=(DestinationPort(22), CtDnat())),), Base(Hook.INPUT, "filter", 0))
    traced = sent(line(table(prerouting(does(to_self)), refuse)), SERVICE)
    assert "rejected by t in" in traced.outcome.why


def test_local_packets_are_routed_again_after_output() -> None:
    output = Chain("out", (does(TO_B, when=(D,)),), Base(Hook.OUTPUT, "nat", -100))
    traced = sent(line(table(output)), "10.9.9.9", sender="node/m", source="10.0.1.2")
    assert traced.outcome.kind is REJECTED, "routing comes first, and the node has no route to a service address"
    default = Route("node/m", ip_network("0.0.0.0/0"), ip_address("10.0.1.1"), "eth0")
    traced = sent(line(table(output), more=[default]), "10.9.9.9", sender="node/m", source="10.0.1.2")
    assert backends(traced) == ["10.0.2.1:8080"]
    assert [hop.netns for hop in traced.paths[0].hops] == ["node/m", "host/b"]


def test_what_loops_through_lo_meets_nat_only_once() -> None:
    chains = (
        Chain("out", (does(Return()),), Base(Hook.OUTPUT, "nat", -100)),
        prerouting(does(TO_B)),
        Chain("filter", (does(Drop(), when=(DestinationPort(7),)),), Base(Hook.PREROUTING, "filter", -110)),
    )
    listener = Listener("node/m", "m", Protocol.TCP, 80, "x")
    plan = line(table(*chains), more=[listener])
    assert backends(sent(plan, "10.0.1.2", sender="node/m", source="10.0.1.2")) == ["10.0.1.2:80"]
    assert sent(plan, "10.0.1.2", 7, sender="node/m", source="10.0.1.2").outcome.kind is DROPPED


@pytest.mark.parametrize(("allowed", "kind"), [("0", DROPPED), ("1", DELIVERED)])
def test_localhost_leaves_only_with_route_localnet(allowed: str, kind: OutcomeKind) -> None:
    chains = (Chain("out", (does(TO_B),), Base(Hook.OUTPUT, "nat", -100)), postrouting(does(Masquerade())))
    plan = line(table(*chains), more=[Sysctl("node/m", "net/ipv4/conf/all/route_localnet", allowed)])
    assert sent(plan, "127.0.0.1", sender="node/m", source="127.0.0.1").outcome.kind is kind


def test_a_packet_back_to_its_sender_needs_masquerade() -> None:
    hairpin = Dnat(ip_address("10.0.1.1"), 80)
    listener = Listener("host/a", "a", Protocol.TCP, 80, "x")
    plain = sent(line(table(prerouting(does(hairpin))), more=[listener]), SERVICE)
    assert plain.outcome.kind is DROPPED
    assert "own address" in plain.outcome.why
    masqueraded = sent(line(table(prerouting(does(hairpin)), postrouting(does(Masquerade()))), more=[listener]), SERVICE)
    assert backends(masqueraded) == ["10.0.1.1:80 m"]
    assert masqueraded.outcome.kind is DELIVERED


def test_a_loop_ends() -> None:
    more: list[Op] = [
        Sysctl("host/b", "net/ipv4/ip_forward", "1"),
        Route("node/m", ip_network("10.7.0.0/16"), ip_address("10.0.2.1"), "eth1"),
    ]
    assert "round in circles" in sent(line(more=more), "10.7.0.1").outcome.why


def test_an_answer_that_takes_another_way_is_not_recognised() -> None:
    """b answers a over a link of their own, past the node that rewrote the packet."""
    more: list[Op] = [
        Veth("host/a", "eth9", "02:a9", "host/b", "eth9", "02:b9"),
        DeviceAddress("host/a", "eth9", ip_address("10.0.9.1"), 24),
        DeviceAddress("host/b", "eth9", ip_address("10.0.9.2"), 24),
        Route("host/b", ip_network("10.0.1.0/24"), ip_address("10.0.9.1"), "eth9"),
    ]
    traced = sent(line(table(prerouting(does(TO_B))), more=more), SERVICE)
    assert traced.outcome.kind is DROPPED
    assert backends(traced) == ["10.0.2.1:8080"]
    assert "does not pass node/m" in traced.outcome.why
    assert sent(line(more=more)).outcome.kind is DELIVERED, "without a rewriting any way back will do"


def test_strict_conntrack_drops_what_it_saw_only_half_of() -> None:
    from netlab.ruleset import CtState

    more: list[Op] = [
        Veth("host/a", "eth9", "02:a9", "host/b", "eth9", "02:b9"),
        DeviceAddress("host/a", "eth9", ip_address("10.0.9.1"), 24),
        DeviceAddress("host/b", "eth9", ip_address("10.0.9.2"), 24),
        Route("host/b", ip_network("10.0.1.0/24"), ip_address("10.0.9.1"), "eth9"),
    ]
    strict = table(forward(does(Drop(), when=(CtState(("invalid",)),))))
    assert "one direction only" in sent(line(strict, more=more)).outcome.why
    assert sent(line(strict)).outcome.kind is DELIVERED


# ---------------------------------------------------------------- real plans, whole and broken


def lab(fabric: str = "bridge", mode: str = "iptables") -> Cluster:
    cluster = clusters.default(fabric=fabric, mode=mode)
    names = {"10.244.1.3": "node-170", "10.244.2.2": "node-171", "10.244.2.3": "node-171"}
    made = tuple(Endpoint((ip_address(a),), True, True, False, node) for a, node in names.items())
    one = EndpointSlice(Meta("kubia-1", "default"), Key("default", "kubia"), endpoints=made, ports=(SlicePort("", 8080),))
    old: Service = cluster.services[Key("default", "kubia")]
    port = ServicePort(80, target_port=8080, node_port=30080)
    services = {**cluster.services, old.meta.key: replace(old, type=ServiceType.NODE_PORT, ports=(port,))}
    return cluster.with_(slices={one.meta.key: one}, services=services)


def flow(cluster: Cluster, sender: str, to: str) -> Flow:
    ref = targets.resolve_sender(cluster, sender)
    destination = targets.resolve_destination(cluster, to, sender=ref)
    source = targets.source_address(cluster, ref, destination.address)
    return Flow(ref, source, destination.address, destination.port, destination.protocol)


SENDERS = ("pod/client", "pod/kubia-a", "node/node-169", "node/node-170", "host/client")
PLACES = [(fabric, mode) for fabric in ("bridge", "routed") for mode in ("iptables", "nftables")]


@pytest.mark.parametrize("sender", SENDERS)
@pytest.mark.parametrize(("fabric", "mode"), PLACES)
def test_every_sender_reaches_every_pod_of_the_service(fabric: str, mode: str, sender: str) -> None:
    cluster = lab(fabric, mode)
    plan = build(cluster)
    for to in ("svc/kubia", "192.168.0.171:30080"):
        traced = trace(plan, flow(cluster, sender, to))
        assert dict(traced.shares) == {DELIVERED: 1}, traced.outcome.why
        assert len(traced.outcome.backends) == 3
        assert traced.even


def broken(plan: Plan, change: Callable[[Op], Op | None]) -> Plan:
    return plan_of(new for op in plan.ops.values() if (new := change(op)) is not None)


def without(*identities: tuple[str, ...]) -> Callable[[Op], Op | None]:
    return lambda op: None if op.identity in identities else op


def statements(change: Callable[[Any], Any]) -> Callable[[Op], Op | None]:
    def of_rule(rule: Rule) -> Rule:
        return replace(rule, statements=tuple(change(s) for s in rule.statements))

    def of_op(op: Op) -> Op:
        if not isinstance(op, Ruleset):
            return op
        tables = tuple(
            replace(t, chains=tuple(replace(c, rules=tuple(map(of_rule, c.rules))) for c in t.chains)) for t in op.value.tables
        )
        return replace(op, value=replace(op.value, tables=tables))

    return of_op


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_missing_masquerade_is_noticed(mode: str) -> None:
    cluster = lab(mode=mode)
    plan = broken(build(cluster), statements(lambda s: Return() if isinstance(s, Masquerade) else s))
    hairpin = trace(plan, flow(cluster, "pod/kubia-a", "svc/kubia"))
    assert hairpin.shares[DROPPED] == Fraction(1, 3)
    outside = trace(plan, flow(cluster, "host/client", "192.168.0.170:30080"))
    assert outside.shares.get(DROPPED, 0) >= Fraction(1, 3)
    assert not any(backend.masqueraded for backend in outside.outcome.backends)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_swapped_endpoint_is_noticed(mode: str) -> None:
    cluster = lab(mode=mode)
    wrong, right = ip_address("10.244.2.9"), ip_address("10.244.2.3")

    def swap(s: Any) -> Any:
        if isinstance(s, Dnat) and s.address == right:
            return replace(s, address=wrong)
        if isinstance(s, DnatRandom):
            return DnatRandom(tuple((wrong if a == right else a, port) for a, port in s.targets))
        return s

    traced = trace(broken(build(cluster), statements(swap)), flow(cluster, "pod/client", "svc/kubia"))
    assert backends(traced) == ["10.244.1.3:8080", "10.244.2.2:8080", "10.244.2.9:8080"]
    assert traced.shares[DROPPED] == Fraction(1, 3)


@pytest.mark.parametrize("fabric", ["bridge", "routed"])
def test_a_missing_route_listener_or_neighbour_is_noticed(fabric: str) -> None:
    cluster = lab(fabric)
    plan, question = build(cluster), flow(cluster, "pod/client", "svc/kubia")
    no_route = trace(broken(plan, without(("route", "node/node-170", "10.244.2.0/24"))), question)
    assert no_route.shares[DROPPED] == Fraction(2, 3)
    assert "router/router: blackhole" in no_route.outcome.why
    listener = next(op.identity for op in plan.ops.values() if isinstance(op, Listener) and op.netns.endswith("kubia-b"))
    assert trace(broken(plan, without(listener)), question).shares[REJECTED] == Fraction(1, 3)


@pytest.mark.parametrize("sender", ["pod/client", "host/client", "node/node-169"])
@pytest.mark.parametrize("fabric", ["bridge", "routed"])
def test_a_link_that_is_down_drops_what_would_pass_it(fabric: str, sender: str) -> None:
    """Either end of the backends' node's cable: two of three backends are gone, in silence."""
    cluster = lab(fabric)
    for end in (("node/node-171", "eth0"), ("lan/lan", "n-node-171")):
        down = cluster.with_(links_down=frozenset({end}))
        traced = trace(build(down), flow(down, sender, "svc/kubia"))
        assert traced.shares == {DELIVERED: Fraction(1, 3), DROPPED: Fraction(2, 3)}, traced.outcome.why
        assert trace(build(down), flow(down, sender, "10.244.2.2:8080")).outcome.kind is DROPPED


def test_a_sender_whose_own_end_is_down_has_no_route() -> None:
    cluster = lab().with_(links_down=frozenset({("pod/default/client", "eth0")}))
    traced = trace(build(cluster), flow(cluster, "pod/client", "svc/kubia"))
    assert traced.outcome.kind is REJECTED
    assert "no route" in traced.outcome.why


def test_pods_of_the_host_network_send_from_their_node() -> None:
    hosted = clusters.pod("hosted", "node-170", "192.168.0.170", host_network=True)
    cluster = lab()
    cluster = cluster.with_(pods={**cluster.pods, hosted.meta.key: hosted})
    traced = trace(build(cluster), flow(cluster, "pod/hosted", "svc/kubia"))
    assert traced.paths[0].hops[0].netns == "node/node-170"
    assert traced.outcome.kind is DELIVERED
    inside = Flow(hosted.ref, ip_address("127.0.0.1"), ip_address("127.0.0.1"), 81, Protocol.TCP)
    home = targets.shared_netns(cluster, hosted.ref)
    assert home == targets.netns_of(cluster, hosted.ref)
    assert trace(build(cluster), inside, sender_netns=home).outcome.kind is REJECTED
    assert targets.shared_netns(cluster, Ref("pod", "default", "client")) == ""


@pytest.mark.parametrize(("fabric", "mode"), PLACES)
def test_the_source_that_targets_foresees_is_the_one_that_the_routes_imply(fabric: str, mode: str) -> None:
    from netlab.trace.world import Way, World

    cluster = lab(fabric, mode)
    world = World(build(cluster))
    for sender in SENDERS:
        ref = targets.resolve_sender(cluster, sender)
        place = world.places[targets.netns_of(cluster, ref)]
        for to in ("10.96.0.80", "10.244.1.3", "10.244.2.2", "192.168.0.100", "192.168.0.171", "192.168.0.1", "8.8.8.8"):
            address = ip_address(to)
            way = place.way(address)
            if not place.is_local(address) and isinstance(way, Way):
                assert targets.source_address(cluster, ref, address) == way.source, (sender, to)


def test_what_no_rule_handles_is_last_seen_at_the_router() -> None:
    cluster = lab()
    traced = trace(build(cluster), flow(cluster, "pod/client", "10.96.0.80:81"))
    assert (traced.outcome.kind, traced.outcome.backends) == (DROPPED, ())
    last = traced.paths[0].hops[-1]
    assert (last.netns, str(last.left.destination)) == ("router/router", "10.96.0.80")
    assert [end for hop in traced.paths[0].hops for end in hop.through][-2:] == [
        ("lan/lan", "r-router"),
        ("router/router", "eth0"),
    ]


DESTINATIONS = (
    *("pod/client", "pod/kubia-a", "svc/kubia", "svc/kubia:81", "node/node-170", "node/node-171", "host/client"),
    *("10.96.0.80:81", "10.96.77.7:80", "192.168.0.170:30080", "192.168.0.171:30081", "127.0.0.1:30080", "8.8.8.8:53"),
)


def flows(cluster: Cluster) -> list[Flow]:
    """Everybody to everything that the lab knows, as far as it can be sent."""
    found = []
    for sender in SENDERS:
        for to in DESTINATIONS:
            with suppress(InputError):
                found.append(flow(cluster, sender, to))
    return found


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs", "userspace"])
@pytest.mark.parametrize("fabric", ["bridge", "routed"])
def test_what_passes_untouched_is_what_rules_followed_one_by_one_let_pass(
    fabric: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = lab(fabric, mode)
    plan, asked = build(cluster), flows(cluster)
    quickly, each_alone = Tracer(plan), [Tracer(plan).trace(one) for one in asked]
    kept = [quickly.trace(one) for one in asked]
    monkeypatch.setattr(Chains, "quiet", lambda *_: "something")
    slowly = [Tracer(plan).trace(one) for one in asked]
    assert len(asked) > 40
    assert kept == slowly, "what was found for one packet was taken for another's"
    assert each_alone == slowly, "a rule that does something was passed over"


def test_only_addresses_that_rules_name_are_told_apart() -> None:
    cidr, one = ip_network("10.244.0.0/16"), ip_network("10.244.1.9/32")
    of = Classes([cidr, one, ip_address("10.244.1.8")], lambda address: address == ip_address("10.244.1.1")).of
    number = {
        text: of(ip_address(text)) for text in ("10.244.1.7", "10.244.2.7", "10.244.1.8", "10.244.1.9", "10.244.1.1", "1.2.3.4")
    }
    assert number["10.244.1.7"] == number["10.244.2.7"]
    assert len(set(number.values())) == 5
