"""Health checks of the Service proxy (rows 40 and 41): where they are open, what they count and answer."""

import json
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netlab.agents import answers, health
from netlab.agents.answers import Answer, Request
from netlab.expect import expect
from netlab.model import Cluster, Flow, OutcomeKind, Protocol, Ref
from netlab.ops import Health, Listener
from netlab.plan import build
from netlab.trace import trace
from tests import spec

CASE = next(case for case in spec.load_cases() if case.id == "hc-01")
CLIENT = Ref("host", "", "client")
NOW = 1_800_000_000.25


def cluster_of(mode: str = "iptables", **proxy: Any) -> Cluster:
    cluster = spec.cluster_of(CASE, mode)
    config = cluster.topology.cluster
    return cluster.with_(topology=replace(cluster.topology, cluster=replace(config, proxy=replace(config.proxy, **proxy))))


def check_at(cluster: Cluster, netns: str, port: int = 31000) -> Listener | None:
    ops = build(cluster).ops.values()
    return next((op for op in ops if isinstance(op, Listener) and (op.netns, op.port) == (netns, port)), None)


def fate(cluster: Cluster, address: str, port: int) -> OutcomeKind:
    flow = Flow(CLIENT, ip_address("192.168.50.100"), ip_address(address), port, Protocol.TCP)
    expected, traced = expect(cluster, flow), trace(build(cluster), flow).outcome
    assert (expected.kind, expected.backends) == (traced.kind, traced.backends)
    return expected.kind


@pytest.mark.parametrize("mode", spec.MODES)
@pytest.mark.parametrize("name, count", [("node-a", 1), ("node-b", 1)])
def test_each_node_counts_its_own(mode: str, name: str, count: int) -> None:
    op = check_at(cluster_of(mode), f"node/{name}")
    assert op is not None
    assert op.health == Health(("default", "web"), count)


def test_the_userspace_proxier_answers_none_but_its_own() -> None:
    cluster = cluster_of("userspace")
    assert check_at(cluster, "node/node-a") is None and check_at(cluster, "node/node-a", 10256) is not None
    assert fate(cluster, "192.168.50.10", 31000) is OutcomeKind.REJECTED
    assert fate(cluster, "192.168.50.10", 10256) is OutcomeKind.DELIVERED


def test_without_endpoints_here_it_is_open_and_counts_none() -> None:
    cluster = cluster_of()
    there = {
        key: replace(one, endpoints=tuple(e for e in one.endpoints if e.node_name != "node-a"))
        for key, one in cluster.slices.items()
    }
    op = check_at(cluster.with_(slices=there), "node/node-a")
    assert op is not None and op.health == Health(("default", "web"), 0)


@pytest.mark.parametrize("change", [{"external_traffic_policy": "Cluster"}, {"headless": True, "cluster_ips": ()}])
def test_only_local_load_balancers_have_one(change: dict[str, Any]) -> None:
    cluster = cluster_of()
    services = {key: replace(service, **change) for key, service in cluster.services.items()}
    cluster = cluster.with_(services=services)
    assert check_at(cluster, "node/node-a") is None
    assert fate(cluster, "192.168.50.10", 31000) is OutcomeKind.REJECTED


@pytest.mark.parametrize(
    "mode, addresses, open_at",
    [
        ("iptables", None, {"192.168.50.10", "192.168.51.10"}),
        ("nftables", None, {"192.168.50.10"}),
        ("nftables", (ip_network("192.168.51.0/24"),), {"192.168.51.10"}),
        ("iptables", (ip_network("192.168.51.0/24"),), {"192.168.51.10"}),
        ("nftables", (ip_network("0.0.0.0/0"),), {"192.168.50.10", "192.168.51.10"}),
    ],
)
def test_it_is_open_where_node_ports_are(mode: str, addresses: Any, open_at: set[str]) -> None:
    cluster = cluster_of(mode, node_port_addresses=addresses)
    found = {a for a in ("192.168.50.10", "192.168.51.10") if fate(cluster, a, 31000) is OutcomeKind.DELIVERED}
    assert found == open_at


def test_the_proxys_own_is_open_on_every_node_and_address() -> None:
    for address in ("192.168.50.10", "192.168.51.10", "192.168.50.11"):
        assert fate(cluster_of("nftables"), address, 10256) is OutcomeKind.DELIVERED
        assert fate(cluster_of("nftables"), address, 10257) is OutcomeKind.REJECTED


def ask(said: Health, path: str = "/") -> Answer:
    return health.http_answer(Request("GET", path, {}, {}, False), said, NOW, NOW - 90)


def test_answers() -> None:
    some, none = ask(Health(("shop", "web"), 3)), ask(Health(("shop", "web"), 0))
    assert some.status == 200 and (health.WEIGHT, "3") in some.headers
    service = '{\n\t\t"namespace": "shop",\n\t\t"name": "web"\n\t}'
    assert some.text == f'{{\n\t"service": {service},\n\t"localEndpoints": 3,\n\t"serviceProxyHealthy": true\n}}'
    assert none.status == 503 and (health.WEIGHT, "0") in none.headers


def test_a_node_that_goes_is_not_well_but_alive() -> None:
    cluster = cluster_of()
    taint = {"spec": {"taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]}}
    cluster = cluster.with_(nodes={**cluster.nodes, "node-a": replace(cluster.nodes["node-a"], manifest=taint)})
    going, staying = check_at(cluster, "node/node-a", 10256), check_at(cluster, "node/node-b", 10256)
    assert going is not None and going.health is not None and staying is not None and staying.health is not None
    assert [ask(going.health, path).status for path in ("/healthz", "/livez", "/metrics")] == [503, 200, 404]
    assert [ask(staying.health, path).status for path in ("/healthz", "/livez")] == [200, 200]
    well, since = "2027-01-15T08:00:00.250000Z", "2027-01-15T07:58:30.250000Z"
    assert ask(staying.health, "/healthz").text == (
        f'{{"lastUpdated":"{well}","currentTime":"{well}","nodeEligible":true,"healthy":true}}'
    )
    assert json.loads(ask(going.health, "/healthz").text) == {
        "lastUpdated": since, "currentTime": well, "nodeEligible": False, "healthy": True,
    }  # fmt: skip
    assert json.loads(ask(going.health, "/livez").text) == {"lastUpdated": well, "currentTime": well, "healthy": True}


def test_no_pod_is_named_where_none_answers() -> None:
    answer = ask(Health(("shop", "web"), 3))
    assert b"X-Netlab-Pod" not in answers.http_bytes(answer, None)
    assert b"X-Netlab-Pod: a\r\n" in answers.http_bytes(answer, answers.PodFacts("a"))
