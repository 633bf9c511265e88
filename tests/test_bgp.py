"""Routing `bgp` offline: oracle and tracer agree on what learned routes make of a flow; BIRD's configuration and its answers."""

from dataclasses import replace
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

import pytest

from netlab import plan
from netlab.errors import InputError, MachineError, MissingTool
from netlab.expect import expect
from netlab.kernel import listing, tools
from netlab.kernel.verify import learned_problem
from netlab.lab import daemons
from netlab.model import Cluster, Endpoint, EndpointSlice, Flow, HostSpec, Key, Lan, Meta, Outcome, OutcomeKind, Ref, SlicePort
from netlab.ops import Daemon, Learned, Op, Ruleset, Sysctl
from netlab.plan import build, plan_of
from netlab.rendering import bird
from netlab.trace import trace
from tests import clusters

OUTSIDE = Lan("outside", IPv4Network("198.51.100.0/24"), IPv4Address("198.51.100.1"))
FAR = Lan("far", IPv4Network("192.168.1.0/24"), IPv4Address("192.168.1.1"))
CLIENT = HostSpec("client", (ip_address("198.51.100.100"),))


def cluster(mode: str = "iptables", apart: bool = False, down: tuple[tuple[str, str], ...] = ()) -> Cluster:
    """Three nodes and a Service with three endpoints; the host is behind the router; `apart`: the last node is, too."""
    made = clusters.default(mode=mode)
    config = replace(made.topology.cluster, routing="bgp")
    topology = replace(made.topology, cluster=config, networks=(*made.topology.networks, FAR, OUTSIDE), hosts=(CLIENT,))
    nodes = dict(made.nodes)
    if apart:
        nodes["node-171"] = replace(nodes["node-171"], addresses=(ip_address("192.168.1.171"),))
    backends = [pod for pod in made.pods.values() if pod.meta.name.startswith("kubia")]
    endpoints = tuple(Endpoint(pod.addresses, ready=True, node_name=pod.node) for pod in backends)
    slices = EndpointSlice(Meta("kubia", "default"), Key("default", "kubia"), endpoints=endpoints, ports=(SlicePort("", 8080),))
    return made.with_(topology=topology, nodes=nodes, slices={slices.meta.key: slices}, links_down=frozenset(down))


def flow(sender: str, source: str, to: str, port: int) -> Flow:
    kind, *rest = sender.split("/")
    return Flow(Ref(kind, rest[0] if len(rest) == 2 else "", rest[-1]), ip_address(source), ip_address(to), port)


FLOWS = {
    "outside host to a pod": (flow("host/client", "198.51.100.100", "10.244.2.2", 8080), "delivered"),
    "outside host to a Service": (flow("host/client", "198.51.100.100", "10.96.0.80", 80), "delivered"),
    "outside host to no Service": (flow("host/client", "198.51.100.100", "10.96.200.200", 80), "dropped"),
    "outside host to no pod": (flow("host/client", "198.51.100.100", "10.244.2.99", 80), "dropped"),
    "pod to a pod of another node": (flow("pod/default/client", "10.244.1.2", "10.244.2.2", 8080), "delivered"),
    "pod to a Service": (flow("pod/default/client", "10.244.1.2", "10.96.0.80", 80), "delivered"),
    "pod to no Service": (flow("pod/default/client", "10.244.1.2", "10.96.200.200", 80), "dropped"),
    "node to no Service": (flow("node/node-169", "192.168.0.169", "10.96.200.200", 80), "dropped"),
    "node to a pod of another node": (flow("node/node-169", "192.168.0.169", "10.244.2.2", 8080), "delivered"),
}


def agreed(made: Cluster, one: Flow) -> Outcome:
    """The outcome on which both agree, sources of backends included."""
    expected, traced = expect(made, one), trace(build(made), one).outcome
    assert (expected.kind, expected.backends) == (traced.kind, traced.backends), (expected.why, traced.why)
    assert [set(b.sources) for b in expected.backends] == [set(b.sources) for b in traced.backends]
    return expected


@pytest.mark.parametrize("apart", [False, True], ids=["one LAN", "two LANs"])
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize("name", FLOWS)
def test_oracle_and_tracer_agree(name: str, mode: str, apart: bool) -> None:
    one, fate = FLOWS[name]
    assert agreed(cluster(mode, apart), one).kind == fate


def test_a_service_is_reached_by_every_node_with_equal_chance() -> None:
    one, _ = FLOWS["outside host to a Service"]
    traced = trace(build(cluster()), one)
    assert set(traced.weights.values()) == {Fraction(1, 3)}
    ways: dict[str, Fraction] = {}
    for path in traced.paths:
        ways[path.hops[2].netns] = ways.get(path.hops[2].netns, Fraction(0)) + path.probability
    assert ways == {f"node/node-{number}": Fraction(1, 3) for number in (169, 170, 171)}
    assert "10.96.0.0/12 via 192.168.0.170 dev eth0 (learned by bird, one of 3 ways)" in {
        path.hops[1].route for path in traced.paths
    }
    sources = {str(source) for backend in expect(cluster(), one).backends for source in backend.sources}
    assert sources >= {"192.168.0.169", "192.168.0.170", "192.168.0.171"}


def test_a_clients_affinity_does_not_outlive_the_choice_of_a_node() -> None:
    """Each node remembers clients for itself, and the hash of the next connection may choose another."""
    made = cluster()
    key = Key("default", "kubia")
    sticky = made.with_(services={**made.services, key: replace(made.services[key], session_affinity="ClientIP")})
    outside = expect(sticky, FLOWS["outside host to a Service"][0])
    assert (outside.affinity, outside.spread) == (False, "any")
    inside = expect(sticky, FLOWS["pod to a Service"][0])
    assert (inside.affinity, inside.spread) == (True, "random")


LINK = ("lan/lan", "n-node-171")


@pytest.mark.parametrize("end", [LINK, ("node/node-171", "eth0")], ids=["the cable", "its own end"])
def test_a_node_whose_session_is_down_is_the_way_to_nothing(end: tuple[str, str]) -> None:
    made = cluster(down=(end,))
    router = {str(op.destination): op.hops for op in build(made).ops.values() if isinstance(op, Learned) and "router" in op.netns}
    assert set(router) == {"10.244.0.0/24", "10.244.1.0/24", "10.96.0.0/12"} and len(router["10.96.0.0/12"]) == 2
    assert not any(isinstance(op, Learned) and op.netns == "node/node-171" for op in build(made).ops.values())
    assert agreed(made, FLOWS["outside host to a pod"][0]).kind is OutcomeKind.DROPPED
    assert agreed(made, FLOWS["pod to a pod of another node"][0]).kind is OutcomeKind.DROPPED
    assert agreed(made, flow("host/client", "198.51.100.100", "10.244.1.3", 8080)).kind is OutcomeKind.DELIVERED


def test_the_ways_that_the_plan_expects_matter_to_the_tracer() -> None:
    whole = build(cluster())
    lost = plan_of(op for op in whole.ops.values() if not isinstance(op, Learned))
    unguarded = plan_of(map(without_guard, whole.ops.values()))
    assert trace(lost, FLOWS["outside host to a pod"][0]).outcome.kind is OutcomeKind.DROPPED
    assert trace(lost, FLOWS["outside host to a Service"][0]).outcome.kind is OutcomeKind.DROPPED
    why = trace(whole, FLOWS["pod to no Service"][0]).outcome.why
    assert "netlab-routing forward (no Service took it: it would come back for ever)" in why
    assert any(isinstance(op, Ruleset) and not op.value.tables for op in unguarded.ops.values())


def without_guard(op: Op) -> Op:
    if not isinstance(op, Ruleset):
        return op
    return replace(op, value=replace(op.value, tables=tuple(one for one in op.value.tables if one.name != "netlab-routing")))


def test_the_plan() -> None:
    ops = build(cluster()).ops
    assert [op.netns for op in ops.values() if isinstance(op, Daemon)] == [
        "router/router",
        *map("node/node-{}".format, (169, 170, 171)),
    ]
    assert Sysctl("router/router", "net/ipv4/fib_multipath_hash_policy", "1") in ops.values()
    text = plan.text(build(cluster()))
    assert "daemon bird: bird -f -c bird.conf -s bird.ctl" in text
    ways = "nexthop via 192.168.0.169 dev eth0 nexthop via 192.168.0.170 dev eth0 nexthop via 192.168.0.171 dev eth0"
    assert f"route 10.96.0.0/12 {ways} proto bird  # learned" in text


def test_a_node_without_a_router_in_its_networks_is_named() -> None:
    made = cluster()
    networks = tuple(replace(lan, router=None) if lan.name == "lan" else lan for lan in made.topology.networks)
    with pytest.raises(InputError, match=r"node node-169 is in no network with a router"):
        build(made.with_(topology=replace(made.topology, networks=networks)))


# ---------------------------------------------------------------- BIRD


def test_the_configuration() -> None:
    session = bird.Session(
        "router_ipv4", ip_address("192.168.0.170"), 64514, ip_address("192.168.0.1"), 64512,
        (ip_network("10.244.0.0/24"),), (ip_network("10.244.1.0/24"), ip_network("10.96.0.0/12")),
    )  # fmt: skip
    text = bird.config(IPv4Address("192.168.0.170"), session.sends, [session])
    assert "error wait time 1, 2;" in text and "min rx interval 150 ms" in text and "passive" not in text
    assert "import where net ~ [ 10.244.0.0/24+ ];" in text and "export where net ~ [ 10.244.1.0/24+, 10.96.0.0/12+ ];" in text
    assert "route 10.96.0.0/12 unreachable;" in text and "merge paths yes" in text
    assert "import where false;" in bird.config(IPv4Address("1.1.1.1"), (), [replace(session, accepts=())])


ANSWER = """2002-Name       Proto      Table      State  Since         Info
1002-kernel4    Kernel     master4    up     12:00:00.000
 node1_ipv4 BGP        ---        up     12:00:01.000  Established
 node2_ipv4 BGP        ---        start  12:00:01.000  Active        Socket: Connection refused
 node3_ipv4 BGP        ---        down   12:00:01.000
0000
"""


def test_sessions_that_are_not_established_are_named_with_birds_words() -> None:
    assert bird.down(ANSWER) == [("node2_ipv4", "Active Socket: Connection refused"), ("node3_ipv4", "down")]
    assert bird.down(ANSWER.replace("node3", "Established_ipv4")) != []


def test_a_route_is_learned_only_with_all_its_ways_and_no_other() -> None:
    links = {2: listing.Link(2, "eth0", 1, "", 1500, 0, "veth", (), 0, None, 6)}
    one, two = ip_address("192.168.0.170"), ip_address("192.168.0.171")
    op = Learned("router/router", ip_network("10.96.0.0/12"), ((one, "eth0"), (two, "eth0")))

    def route(protocol: int, *gateways: IPv4Address) -> listing.Route:
        hops = tuple((gateway, 2, 0) for gateway in gateways)
        return listing.Route(op.destination, 1, 254, protocol, 0, 32, None, hops)

    assert learned_problem(op, [route(12, two, one)], links) == ""  # type: ignore[arg-type]
    assert learned_problem(op, [], links) == "route 10.96.0.0/12 has not been learned"
    assert learned_problem(op, [route(4, one, two)], links) == "route 10.96.0.0/12 has not been learned"  # type: ignore[arg-type]
    assert "not via 192.168.0.170 dev eth0, via" in learned_problem(op, [route(12, one)], links)  # type: ignore[arg-type]


def test_a_machine_without_bird_is_told_so_before_anything_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_SYSTEM", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingTool, match="bird is missing: apt install bird2"):
        daemons.check(Daemon("router/router", "bird", bird.COMMAND))
    assert MissingTool.exit_code == MachineError.exit_code == 3
