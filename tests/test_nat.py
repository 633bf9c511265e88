"""A translating router before a network, offline: oracle and tracer agree on who gets in, and from which source."""

from ipaddress import ip_address
from typing import Any

import pytest

from netlab import controllers, manifest
from netlab.errors import InputError
from netlab.expect import expect
from netlab.manifest.source import Source
from netlab.manifest.topology import read_topology
from netlab.model import Cluster, Flow, OutcomeKind, Protocol, Ref
from netlab.ops import Ruleset
from netlab.plan import build, plan_of
from netlab.trace import trace

TOPOLOGY = """
networks:
  lan: {{cidr: 192.168.0.0/24, router: 192.168.0.1, nat: {nat}}}
  outside: {{cidr: 198.51.100.0/24, router: 198.51.100.1}}
nodes: {{node-a: {{addresses: 192.168.0.10}}, node-b: {{addresses: 192.168.0.11}}}}
hosts: {{near: {{addresses: 192.168.0.100}}, far: {{addresses: 198.51.100.100}}}}
"""
FORWARDS = 'forwards: {8080: "192.168.0.10:30001", 8081/tcp: "192.168.0.10:30002", 8082/udp: 192.168.0.11, 8083: 192.168.0.11}'
PLAIN, ROUTED = f"{{{FORWARDS}}}", f"{{{FORWARDS}, routed: true}}"
HIDDEN = f"{{{FORWARDS}, routed: true, hideClients: true}}"


def objects() -> list[dict[str, Any]]:
    container = {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"web-{node[-1]}", "labels": {"app": "web"}},
         "spec": {"nodeName": node, "containers": [container]}}
        for node in ("node-a", "node-b")
    ]  # fmt: skip
    services = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": policy.lower()},
         "spec": {"type": "NodePort", "externalTrafficPolicy": policy, "selector": {"app": "web"},
                  "ports": [{"port": 80, "nodePort": number}]}}
        for policy, number in (("Cluster", 30001), ("Local", 30002))
    ]  # fmt: skip
    return [*pods, *services]


def cluster(nat: str, mode: str = "iptables") -> Cluster:
    text = f"cluster: {{dns: false, proxy: {{mode: {mode}}}}}\n" + TOPOLOGY.format(nat=nat)
    items = manifest.object_from_json({"apiVersion": "v1", "kind": "List", "items": objects()}).objects
    return controllers.initial(read_topology(Source("t.yaml", text.encode())), items)


def flow(sender: str, to: str, port: int, protocol: Protocol = Protocol.TCP) -> Flow:
    source = {"near": "192.168.0.100", "far": "198.51.100.100", "node-a": "192.168.0.10"}[sender]
    kind = "node" if sender.startswith("node") else "host"
    return Flow(Ref(kind, "", sender), ip_address(source), ip_address(to), port, protocol)


ICMP = Protocol.ICMP
ROWS = [
    ("a forwarded port", PLAIN, flow("far", "198.51.100.1", 8080), "delivered", "192.168.0.10 10.244.0.1"),
    ("a forwarded port, policy Local: the client's own address", PLAIN, flow("far", "198.51.100.1", 8081), "delivered",
     "198.51.100.100"),
    ("a forwarded port, clients hidden", HIDDEN, flow("far", "198.51.100.1", 8081), "delivered", "192.168.0.1"),
    ("a forwarded port where nobody listens", PLAIN, flow("far", "198.51.100.1", 8083), "rejected", "198.51.100.100"),
    ("a port that is forwarded for another protocol", PLAIN, flow("far", "198.51.100.1", 8082), "rejected", "198.51.100.100"),
    ("a node itself", PLAIN, flow("far", "192.168.0.10", 30001), "dropped", ""),
    ("a node itself, routed", ROUTED, flow("far", "192.168.0.10", 30002), "delivered", "198.51.100.100"),
    ("a node itself, routed and clients hidden", HIDDEN, flow("far", "192.168.0.10", 30002), "delivered", "192.168.0.1"),
    ("from inside, a node", PLAIN, flow("near", "192.168.0.10", 30002), "delivered", "192.168.0.100"),
    ("from inside, a forwarded port", PLAIN, flow("near", "198.51.100.1", 8080), "rejected", "192.168.0.100"),
    ("out of the network", PLAIN, flow("node-a", "198.51.100.100", 0, ICMP), "delivered", "198.51.100.1"),
    ("out of the network, nobody listens", PLAIN, flow("near", "198.51.100.100", 80), "rejected", "198.51.100.1"),
    ("to nowhere", PLAIN, flow("near", "203.0.113.9", 80), "dropped", ""),
]  # fmt: skip


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize(("name", "nat", "one", "fate", "sources"), ROWS, ids=[row[0] for row in ROWS])
def test_oracle_and_tracer_agree(name: str, nat: str, one: Flow, fate: str, sources: str, mode: str) -> None:
    made = cluster(nat, mode)
    expected, traced = expect(made, one), trace(build(made), one).outcome
    assert (expected.kind, expected.backends) == (traced.kind, traced.backends), (expected.why, traced.why)
    assert expected.kind == fate, expected.why
    seen = {str(source) for backend in expected.backends for source in backend.sources}
    assert seen == {str(source) for backend in traced.backends for source in backend.sources} == set(sources.split())


def test_the_routers_rules_matter() -> None:
    made = build(cluster(PLAIN))
    bare = plan_of(op for op in made.ops.values() if not (isinstance(op, Ruleset) and op.netns == "router/router"))
    assert trace(bare, flow("far", "198.51.100.1", 8080)).outcome.kind is OutcomeKind.REJECTED
    assert trace(bare, flow("far", "192.168.0.10", 30001)).outcome.kind is OutcomeKind.DELIVERED


def test_without_nat_the_router_has_no_rules() -> None:
    made = cluster("null")
    assert not [op for op in build(made).ops.values() if isinstance(op, Ruleset) and op.netns == "router/router"]


MISTAKES = [
    ('{forwards: {80: "192.168.9.9:80"}}', "192.168.9.9 does not lie in lan"),
    ("{forwards: {http: 192.168.0.10}}", "http is no port: 8080, 8080/tcp or 53/udp is wanted"),
    ("{forwards: {99999: 192.168.0.10}}", "99999 is no port"),
    ("{forwards: {80: node-a}}", "an address is wanted, or ADDRESS:PORT"),
    ("{masquerade: true}", "masquerade: unknown field"),
]


@pytest.mark.parametrize(("nat", "words"), MISTAKES)
def test_mistakes_are_named(nat: str, words: str) -> None:
    with pytest.raises(InputError) as caught:
        read_topology(Source("t.yaml", TOPOLOGY.format(nat=nat).encode()))
    assert words in str(caught.value) and "t.yaml:3:" in str(caught.value)
