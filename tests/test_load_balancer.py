"""Load balancers offline: who gets which address, who announces it, what flows make of that, and the speaker's frames."""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Any

import pytest

from netlab import controllers, manifest
from netlab.agents import speaker
from netlab.errors import InputError
from netlab.expect import expect
from netlab.manifest.source import Source
from netlab.manifest.topology import read_topology
from netlab.model import Cluster, Flow, Key, OutcomeKind, Ref, Service
from netlab.ops import Announcement, Learned, Op, Route
from netlab.plan import build, plan_of
from netlab.trace import trace

L2 = """
cluster: {loadBalancer: {pool: [192.168.0.240-192.168.0.242]}}
networks: {lan: {cidr: 192.168.0.0/24, router: 192.168.0.1}, outside: {cidr: 198.51.100.0/24, router: 198.51.100.1}}
nodes: {node-a: {addresses: 192.168.0.10}, node-b: {addresses: 192.168.0.11}, node-c: {addresses: 192.168.0.12}}
hosts: {near: {addresses: 192.168.0.100}, far: {addresses: 198.51.100.100}}
"""
OFF_LAN = L2.replace("192.168.0.240-192.168.0.242", "203.0.113.0/30")
BGP = OFF_LAN.replace("cluster: {", "cluster: {routing: bgp, ")
BOTH = (
    L2.replace("192.168.0.240-192.168.0.242", "192.168.0.240/31, 'fd00:192:168::f0-fd00:192:168::f1'")
    .replace("cluster: {", "cluster: {podCIDR: '10.244.0.0/16,fd00:10:244::/56', serviceCIDR: '10.96.0.0/16,fd00:10:96::/112', ")
    .replace("{cidr: 192.168.0.0/24, router: 192.168.0.1}", "{cidr: [192.168.0.0/24, 'fd00:192:168::/64']}")
)


def service(name: str, status: Mapping[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    base = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80}]}
    made = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {**base, **spec}}
    return {**made, "status": status} if status else made


def pod(name: str, node: str, app: str = "web") -> dict[str, Any]:
    container = {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}
    meta = {"name": name, "labels": {"app": app}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": node, "containers": [container]}}


PODS = (pod("web-a", "node-a"), pod("web-b", "node-b"), pod("web-b2", "node-b"))


def loaded(*objects: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(manifest.object_from_json({"apiVersion": "v1", "kind": "List", "items": list(objects)}).objects)


def cluster(topology: str, *objects: dict[str, Any]) -> Cluster:
    return controllers.initial(read_topology(Source("t.yaml", topology.encode())), loaded(*objects))


def of(made: Cluster, name: str) -> Service:
    return made.services[Key("default", name)]


def addresses(made: Cluster, name: str) -> list[str]:
    return [str(one.ip) for one in of(made, name).load_balancer]


# ---------------------------------------------------------------- addresses


def test_addresses_come_in_order_and_stay() -> None:
    made = cluster(L2, service("one"), service("two"), *PODS)
    assert (addresses(made, "one"), addresses(made, "two")) == (["192.168.0.240"], ["192.168.0.241"])
    without_one = controllers.delete(made, "Service", Key("default", "one"))
    assert addresses(without_one, "two") == ["192.168.0.241"]
    again = controllers.apply(without_one, loaded(service("two", externalTrafficPolicy="Local"), service("three")))
    assert (addresses(again, "two"), addresses(again, "three")) == (["192.168.0.241"], ["192.168.0.240"])


def test_without_a_pool_nobody_gets_anything() -> None:
    made = cluster(L2.replace("cluster: {loadBalancer: {pool: [192.168.0.240-192.168.0.242]}}", ""), service("one"), *PODS)
    assert (addresses(made, "one"), of(made, "one").announced_by, of(made, "one").pending) == ([], (), "")


def test_what_is_left_over_is_pending_and_says_why_until_there_is_room() -> None:
    made = cluster(L2, *(service(name) for name in ("a", "b", "c", "d")), *PODS)
    assert addresses(made, "d") == [] and of(made, "d").pending == "no available IPs: the pool has no free address of IPv4"
    shown = manifest.to_json(of(made, "d"), made, 0.0)["status"]
    assert shown["loadBalancer"] == {} and shown["conditions"][0]["message"].startswith("no available IPs")
    freed = controllers.delete(made, "Service", Key("default", "b"))
    assert (addresses(freed, "d"), of(freed, "d").pending) == (["192.168.0.241"], "")


WISHES = {
    "a free one": ("192.168.0.242", ["192.168.0.242"], ""),
    "one that is taken": ("192.168.0.240", [], "loadBalancerIP 192.168.0.240 is taken by another Service"),
    "one of elsewhere": ("203.0.113.9", [], "loadBalancerIP 203.0.113.9 is not in the pool"),
}


@pytest.mark.parametrize("name", WISHES)
def test_a_wished_address(name: str) -> None:
    wish, found, why = WISHES[name]
    made = cluster(L2, service("one"), service("two", loadBalancerIP=wish), *PODS)
    assert (addresses(made, "two"), of(made, "two").pending) == (found, why)


def test_an_address_changes_with_the_wish_and_goes_with_the_type() -> None:
    made = cluster(L2, service("one"), *PODS)
    wished = controllers.apply(made, loaded(service("one", loadBalancerIP="192.168.0.242")))
    assert addresses(wished, "one") == ["192.168.0.242"]
    plain = controllers.apply(wished, loaded(service("one", type="ClusterIP", loadBalancerIP=None)))
    assert (addresses(plain, "one"), of(plain, "one").announced_by) == ([], ())


def test_other_peoples_load_balancers_are_left_alone() -> None:
    dumped = {"loadBalancer": {"ingress": [{"ip": "203.0.113.77"}]}}
    made = cluster(L2, service("cloud", status=dumped), service("classy", loadBalancerClass="example.com/lb"), *PODS)
    assert (addresses(made, "cloud"), of(made, "cloud").announced_by) == (["203.0.113.77"], ())
    assert (addresses(made, "classy"), of(made, "classy").pending) == ([], "")
    assert addresses(cluster(L2, service("own", loadBalancerClass="netlab"), *PODS), "own") == ["192.168.0.240"]


def test_both_families() -> None:
    dual: dict[str, Any] = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"]}
    made = cluster(BOTH, service("two", **dual), service("six", ipFamilies=["IPv6"]), *PODS)
    assert addresses(made, "two") == ["fd00:192:168::f0", "192.168.0.240"] and addresses(made, "six") == ["fd00:192:168::f1"]


# ---------------------------------------------------------------- who announces


def test_one_node_answers_and_with_policy_local_one_that_has_endpoints() -> None:
    made = cluster(L2, service("any"), service("local", externalTrafficPolicy="Local"), *PODS)
    assert len(of(made, "any").announced_by) == 1 and of(made, "local").announced_by[0] in ("node-a", "node-b")
    assert of(cluster(L2, service("any")), "any").announced_by == (), "nobody answers for what has no endpoints"


def test_another_node_takes_over_when_it_is_cut_off_not_ready_or_told_so() -> None:
    made = cluster(L2, service("local", externalTrafficPolicy="Local"), *PODS)
    (first,) = of(made, "local").announced_by
    other = {"node-a": "node-b", "node-b": "node-a"}[first]
    cut = controllers.settle(made.with_(links_down=frozenset({("lan/lan", f"n-{first}")})))
    unready = controllers.settle(made.with_(nodes={**made.nodes, first: replace(made.nodes[first], ready=False)}))
    meta = replace(made.nodes[first].meta, labels={"node.kubernetes.io/exclude-from-external-load-balancers": ""})
    excluded = controllers.settle(made.with_(nodes={**made.nodes, first: replace(made.nodes[first], meta=meta)}))
    assert [of(one, "local").announced_by for one in (cut, unready, excluded)] == [(other,)] * 3
    assert of(controllers.settle(cut.with_(links_down=frozenset())), "local").announced_by == (first,)


def test_by_bgp_all_nodes_announce_or_those_with_endpoints() -> None:
    made = cluster(BGP, service("any"), service("local", externalTrafficPolicy="Local"), *PODS)
    assert of(made, "any").announced_by == ("node-a", "node-b", "node-c") and of(made, "local").announced_by == (
        "node-a",
        "node-b",
    )
    learned = {str(op.destination): len(op.hops) for op in build(made).ops.values() if isinstance(op, Learned)}
    assert (learned["203.0.113.0/32"], learned["203.0.113.1/32"]) == (3, 2)


# ---------------------------------------------------------------- flows


def flow(host: str, to: str, port: int = 80) -> Flow:
    source = {"near": "192.168.0.100", "far": "198.51.100.100"}[host]
    return Flow(Ref("host", "", host), ip_address(source), ip_address(to), port)


FLOWS = [
    ("on the LAN, from the LAN", L2, flow("near", "192.168.0.240"), "delivered", 3),
    ("on the LAN, from behind the router", L2, flow("far", "192.168.0.240"), "delivered", 3),
    ("on the LAN, another port", L2, flow("near", "192.168.0.240", 81), "dropped", 0),
    ("on the LAN, nobody's", L2, flow("near", "192.168.0.242"), "dropped", 0),
    ("in no network, from the LAN", OFF_LAN, flow("near", "203.0.113.0"), "delivered", 3),
    ("in no network, from behind the router", OFF_LAN, flow("far", "203.0.113.0"), "delivered", 3),
    ("in no network, another port", OFF_LAN, flow("far", "203.0.113.0", 81), "dropped", 0),
    ("in no network, nobody's", OFF_LAN, flow("far", "203.0.113.3"), "dropped", 0),
    ("by BGP", BGP, flow("far", "203.0.113.0"), "delivered", 3),
    ("by BGP, policy Local", BGP, flow("far", "203.0.113.1"), "delivered", 3),
    ("by BGP, another port", BGP, flow("far", "203.0.113.0", 81), "dropped", 0),
    ("by BGP, nobody's", BGP, flow("far", "203.0.113.3"), "dropped", 0),
]


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs, strictARP: true"])
@pytest.mark.parametrize(("name", "topology", "one", "fate", "count"), FLOWS, ids=[row[0] for row in FLOWS])
def test_oracle_and_tracer_agree(name: str, topology: str, one: Flow, fate: str, count: int, mode: str) -> None:
    text = topology.replace("cluster: {", f"cluster: {{proxy: {{mode: {mode}}}, ")
    made = cluster(text, service("any"), service("local", externalTrafficPolicy="Local"), *PODS)
    expected, traced = expect(made, one), trace(build(made), one).outcome
    assert (expected.kind, expected.backends) == (traced.kind, traced.backends), (expected.why, traced.why)
    if mode.startswith("ipvs") and "another port" in name:
        fate = "rejected"  # the node has the address itself
    assert (expected.kind, len(expected.backends)) == (fate, count), expected.why


def test_with_policy_local_by_bgp_backends_are_not_equally_likely() -> None:
    """node-a has one of the three and gets half of the flows: chance is not judged as if it were even."""
    made = cluster(BGP, service("any"), service("local", externalTrafficPolicy="Local"), *PODS)
    assert (
        expect(made, flow("far", "203.0.113.1")).spread == "any" and expect(made, flow("far", "203.0.113.0")).spread == "random"
    )
    assert sorted(trace(build(made), flow("far", "203.0.113.1")).weights.values())[-1] * 2 == 1


def test_without_the_announcement_or_the_routers_route_nothing_arrives() -> None:
    made = build(cluster(OFF_LAN, service("any"), *PODS))
    one = flow("far", "203.0.113.0")

    def kept(op: Op, broken: type) -> bool:
        return not isinstance(op, broken) or (isinstance(op, Route) and op.destination != IPv4Network("203.0.113.0/30"))

    for broken in (Announcement, Route):
        assert trace(plan_of(op for op in made.ops.values() if kept(op, broken)), one).outcome.kind is OutcomeKind.DROPPED
    assert trace(made, one).outcome.kind is OutcomeKind.DELIVERED


MISTAKES = [
    ("{pool: 10.244.3.0/24}", "t.yaml:1:32: cluster.loadBalancer.pool: 10.244.3.0-10.244.3.255 overlaps podCIDR"),
    ("{pool: 192.168.0.9-192.168.0.11}", "192.168.0.10 is also the address of node-a"),
    ("{pool: 192.168.0.20-192.168.0.3}", "is no range: its first address must not be above its last"),
    ("{pool: 203.0.113.1}", "must be a CIDR or a range"),
    ("{pool: 203.0.113.0/28, announce: bgp}", "bgp needs `routing: bgp`"),
    ("{pool: 203.0.113.0/28, announce: arp}", "announce"),
    ("{}", "pool: required"),
    ("{pool: 203.0.113.0/28}, proxy: {mode: ipvs}", "all would answer ARP for them: strictARP: true"),
]


@pytest.mark.parametrize(("text", "words"), MISTAKES)
def test_mistakes_are_named(text: str, words: str) -> None:
    topology = f"cluster: {{loadBalancer: {text}}}\n" + L2.partition("\n")[2].partition("\n")[2]
    with pytest.raises(InputError) as caught:
        read_topology(Source("t.yaml", topology.encode()))
    assert words in str(caught.value)


# ---------------------------------------------------------------- the speaker

MAC = "02:00:00:00:00:01"
ASKER = bytes.fromhex("020000000099")
FOUR = Announcement("node/a", "eth0", IPv4Address("192.168.0.240"), MAC, IPv4Address("192.168.0.10"))
SIX = Announcement("node/a", "eth0", IPv6Address("fd00::f0"), MAC, IPv6Address("fd00::10"))


def arp(operation: int, sender: str, target: str) -> bytes:
    ends = ASKER + IPv4Address(sender).packed + b"\0" * 6 + IPv4Address(target).packed
    return b"\xff" * 6 + ASKER + bytes.fromhex("0806000108000604") + operation.to_bytes(2, "big") + ends


def test_an_arp_request_is_answered_with_the_nodes_mac() -> None:
    found = speaker.answer(arp(1, "192.168.0.100", "192.168.0.240"), {FOUR.address: FOUR})
    assert found[:14] == ASKER + bytes.fromhex("020000000001") + b"\x08\x06" and found[20:22] == b"\0\2"
    assert found[22:32] == bytes.fromhex("020000000001") + FOUR.address.packed
    assert found[32:42] == ASKER + IPv4Address("192.168.0.100").packed


OTHERS = {
    "another address": arp(1, "192.168.0.100", "192.168.0.241"),
    "an answer": arp(2, "192.168.0.100", "192.168.0.240"),
    "someone else's claim": arp(1, "192.168.0.240", "192.168.0.240"),
    "something else": b"\0" * 60,
}


@pytest.mark.parametrize("name", OTHERS)
def test_anything_else_is_not_answered(name: str) -> None:
    assert speaker.answer(OTHERS[name], {FOUR.address: FOUR}) == b""


def solicitation(source: str, target: str) -> bytes:
    body = bytes((135, 0, 0, 0, 0, 0, 0, 0)) + IPv6Address(target).packed + b"\1\1" + ASKER
    header = bytes.fromhex("60000000") + len(body).to_bytes(2, "big") + bytes((58, 255))
    ends = IPv6Address(source).packed + IPv6Address("ff02::1:ff00:f0").packed
    return bytes.fromhex("3333ff0000f0") + ASKER + b"\x86\xdd" + header + ends + body


def test_a_neighbour_solicitation_is_answered_with_an_advertisement_that_checks() -> None:
    found = speaker.answer(solicitation("fd00::99", "fd00::f0"), {SIX.address: SIX})
    assert found[:6] == ASKER and found[54] == 136 and found[58] == 0x60, "solicited and override"
    assert found[62:78] == SIX.address.packed and found[78:] == b"\2\1" + bytes.fromhex("020000000001")
    pseudo = found[22:54] + (len(found) - 54).to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert sum_of(pseudo + found[54:]) == 0xFFFF
    assert speaker.answer(solicitation("::", "fd00::f0"), {SIX.address: SIX}) == b"", "duplicate address detection"
    assert speaker.answer(solicitation("fd00::99", "fd00::f1"), {SIX.address: SIX}) == b""


def sum_of(data: bytes) -> int:
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def test_a_takeover_is_said_to_everyone() -> None:
    request, reply = speaker.unasked(FOUR)
    assert request[:6] == reply[:6] == b"\xff" * 6 and (request[20:22], reply[20:22]) == (b"\0\1", b"\0\2")
    assert request[28:32] == request[38:42] == FOUR.address.packed
    (advertised,) = speaker.unasked(SIX)
    assert advertised[:6] == bytes.fromhex("333300000001") and advertised[58] == 0x20
