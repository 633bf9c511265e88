"""The plan as a whole: the same every time, in an order that works, with differences that are no larger than the change."""

import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from netlab import plan
from netlab.model import Cluster, Endpoint, EndpointSlice, Key, Meta, Ref, ServicePort, ServiceType, SlicePort
from netlab.ops import (
    ORDER,
    DeviceAddress,
    File,
    Listener,
    Neighbour,
    Netns,
    Op,
    Process,
    Route,
    Ruleset,
    Sysctl,
    Veth,
)  # fmt: skip
from netlab.plan import Plan, build, diff, plan_of
from netlab.ruleset import Ruleset as RulesetValue
from tests import clusters
from tests.clusters import pod

GOLDEN = Path(__file__).parent / "golden" / "plan"
FABRICS = ("bridge", "routed")


@pytest.mark.parametrize("fabric", FABRICS)
def test_golden(fabric: str) -> None:
    """What `netlab plan` prints. The rules have golden files of their own. NETLAB_UPDATE_GOLDEN=1 writes the file anew."""
    built = build(clusters.default(fabric=fabric))
    text = plan.text(plan_of(op for op in built.ops.values() if not isinstance(op, Ruleset)))
    path = GOLDEN / f"default-{fabric}.txt"
    if os.environ.get("NETLAB_UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_text_holds_the_rules_as_their_tool_reads_them(mode: str) -> None:
    text = plan.text(build(clusters.default(mode=mode)))
    assert "    *nat\n" in text if mode == "iptables" else "    table ip kube-proxy {\n" in text


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_the_same_cluster_gives_the_same_plan(mode: str) -> None:
    one, two = build(clusters.default(mode=mode)), build(clusters.default(mode=mode))
    assert one.ops == two.ops
    assert plan.text(one) == plan.text(two)
    assert not diff(one, two)


def test_ops_are_in_execution_order() -> None:
    kinds = [ORDER.index(type(op)) for op in build(clusters.default()).ops.values()]
    assert kinds == sorted(kinds)


def test_every_gateway_is_reachable_when_its_route_is_made() -> None:
    for fabric in FABRICS:
        known: dict[str, list[Any]] = {}
        gateways = 0
        for op in build(clusters.default(fabric=fabric)).ops.values():
            if isinstance(op, DeviceAddress) and op.prefix_route:
                known.setdefault(op.netns, []).append(ip_network(f"{op.address}/{op.prefixlen}", strict=False))
            if isinstance(op, Route):
                assert op.gateway is None or any(op.gateway in network for network in known[op.netns]), op
                known.setdefault(op.netns, []).append(op.destination)
                gateways += op.gateway is not None
        assert gateways


def test_two_claims_to_one_identity_are_a_bug() -> None:
    with pytest.raises(AssertionError, match="ip_forward"):
        plan_of([Sysctl("node/a", "net/ipv4/ip_forward", "1"), Sysctl("node/a", "net/ipv4/ip_forward", "0")])


# ---------------------------------------------------------------- differences


def with_pods(cluster: Cluster, *names: str, change: Callable[[Any], Any] = lambda pod: pod) -> Cluster:
    return cluster.with_(pods={key: change(pod) for key, pod in cluster.pods.items() if key.name in names})


ALL = ("client", "kubia-a", "kubia-b", "kubia-c")


def described(ops: tuple[Op, ...]) -> set[tuple[str, str]]:
    return {(type(op).__name__, plan.place(op)) for op in ops}


@pytest.mark.parametrize("fabric", FABRICS)
def test_a_pod_that_goes_takes_everything_in_its_namespace_with_it(fabric: str) -> None:
    cluster = clusters.default(fabric=fabric)
    found = diff(build(cluster), build(with_pods(cluster, "client", "kubia-a", "kubia-b")))
    assert not found.added
    own = {("Netns", "pod/default/kubia-c"), ("Listener", "pod/default/kubia-c"), ("File", "files of pod/default/kubia-c")}
    on_node = {("Neighbour", "node/node-171")} | ({("Route", "node/node-171")} if fabric == "routed" else set())
    assert described(found.removed) == own | on_node
    kinds = [ORDER.index(type(op)) for op in found.removed]
    assert kinds == sorted(kinds, reverse=True)


@pytest.mark.parametrize("fabric", FABRICS)
def test_a_pod_that_comes_is_all_that_is_added(fabric: str) -> None:
    cluster = clusters.default(fabric=fabric)
    found = diff(build(with_pods(cluster, "client", "kubia-a", "kubia-b")), build(cluster))
    assert not found.removed
    assert not found.changed
    assert {place for _, place in described(found.added)} == {
        "pod/default/kubia-c",
        "files of pod/default/kubia-c",
        "node/node-171",
    }
    assert ("Veth", "pod/default/kubia-c") in described(found.added)


def with_endpoints(cluster: Cluster, *endpoints: str) -> Cluster:
    made = tuple(Endpoint((ip_address(text),), True, node_name="node-171") for text in endpoints)
    one = EndpointSlice(Meta("kubia-1", "default"), Key("default", "kubia"), endpoints=made, ports=(SlicePort("", 8080),))
    return cluster.with_(slices={one.meta.key: one})


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_an_endpoint_that_comes_changes_the_rules_of_every_node_and_nothing_else(mode: str) -> None:
    cluster = clusters.default(mode=mode)
    before = build(with_endpoints(cluster, "10.244.2.2"))
    found = diff(before, build(with_endpoints(cluster, "10.244.2.2", "10.244.2.3")))
    assert described(found.added) == {("Ruleset", f"node/node-{n}") for n in (169, 170, 171)}
    assert [new for _, new in found.changed] == list(found.added)
    assert all(old is before.ops[old.identity] for old, _ in found.changed)
    assert not found.removed
    text = plan.text_diff(found)
    assert "10.244.2.3" in text
    assert "192.168.0.1" not in text


def test_a_veth_set_down_is_changed_in_place_and_what_it_forgot_is_made_again() -> None:
    cluster = clusters.default()
    down = cluster.with_(links_down=frozenset({("node/node-170", "eth0")}))
    fault = diff(build(cluster), build(down))
    assert described(fault.added) == {("Veth", "node/node-170")}
    assert described(fault.removed) == {("Route", "node/node-170"), ("Neighbour", "node/node-170")}
    assert all(op.device == "eth0" for op in fault.removed if isinstance(op, Route | Neighbour))
    assert "DOWN" in plan.text_diff(fault)
    mended = diff(build(down), build(cluster))
    assert described(mended.added) == {("Veth", "node/node-170"), ("Route", "node/node-170"), ("Neighbour", "node/node-170")}
    assert all(op.device == "eth0" for op in mended.added if isinstance(op, Route | Neighbour))


def test_a_pod_that_moves_is_wired_anew() -> None:
    cluster = clusters.default()
    moved = {**cluster.pods, clusters.key("client"): pod("client", "node-171", "10.244.2.9", image="curl")}
    found = diff(build(cluster), build(cluster.with_(pods=moved)))
    assert ("Netns", "pod/default/client") not in described(found.added) | described(found.removed)
    assert [(old.identity, new.identity) for old, new in found.changed if isinstance(old, Veth)] == [
        (("link", "pod/default/client", "eth0"), ("link", "pod/default/client", "eth0"))
    ]
    made = [op for op in found.added if isinstance(op, DeviceAddress | Route | Neighbour) and op.netns == "pod/default/client"]
    assert {type(op) for op in made} == {DeviceAddress, Route, Neighbour}
    gone = {(type(op), op.netns) for op in found.removed if isinstance(op, DeviceAddress | Route | Neighbour)}
    assert (DeviceAddress, "pod/default/client") in gone
    assert (Neighbour, "node/node-170") in gone


def test_a_process_is_not_restarted_because_a_service_is_new() -> None:
    loop = pod("loop", "node-170", "10.244.1.9", command=("sleep", "9"))
    before = clusters.cluster([loop])
    after = before.with_(services={Key("default", "x"): clusters.service("x", "10.96.0.9", (80, 80))})
    assert not [op for op in diff(build(before), build(after)).added if isinstance(op, Process)]
    other = clusters.cluster([pod("loop", "node-170", "10.244.1.9", command=("sleep", "10"))])
    assert [op.command for op in diff(build(before), build(other)).added if isinstance(op, Process)] == [("sleep", "10")]


def test_from_nothing_and_back_to_nothing() -> None:
    built = build(clusters.default())
    assert diff(Plan(), built).added == tuple(built.ops.values())
    gone = diff(built, plan.build_nothing())
    assert {type(op) for op in gone.removed} == {Netns, Listener, File}
    assert not gone.added


def test_rules_that_go_are_removed_from_a_namespace_that_stays() -> None:
    rules = Ruleset("node/a", RulesetValue("iptables", ()))
    old, new = plan_of([Netns("node/a"), rules]), plan_of([Netns("node/a")])
    assert diff(old, new).removed == (rules,)


def test_nothing_changed_prints_nothing() -> None:
    assert plan.text_diff(diff(Plan(), Plan())) == ""


@pytest.mark.parametrize("fabric", FABRICS)
def test_applying_a_difference_leads_to_the_new_plan(fabric: str) -> None:
    """A model kernel that knows what vanishes with what: after every change it holds exactly the new plan."""
    cluster = clusters.default(fabric=fabric)
    steps = [
        cluster,
        with_pods(cluster, "client", "kubia-b"),
        with_endpoints(with_pods(cluster, *ALL), "10.244.2.2"),
        cluster.with_(pods={**cluster.pods, clusters.key("client"): pod("client", "node-171", "10.244.2.9")}),
        cluster.with_(links_down=frozenset({("node/node-170", "eth0")})),
        clusters.cluster(fabric=fabric, nodes=2),
        cluster,
    ]
    kernel: dict[Any, Op] = {}
    before = Plan()
    for step in steps:
        after = build(step)
        apply(kernel, diff(before, after))
        assert kernel == dict(after.ops)
        before = after


def apply(kernel: dict[Any, Op], found: plan.Diff) -> None:
    for op in found.added:
        old = kernel.get(op.identity)
        if isinstance(op, Veth) and isinstance(old, Veth):
            only_state = replace(old, up=op.up, peer_up=op.peer_up) == op
            ends = {(op.netns, op.device), (old.peer_netns, old.peer_device), (op.peer_netns, op.peer_device)}
            emptied = {(op.netns, op.device)} if only_state and old.up and not op.up else set() if only_state else ends
            for identity, other in list(kernel.items()):
                kinds = Route | Neighbour if only_state else Route | Neighbour | DeviceAddress
                if isinstance(other, kinds) and (other.netns, other.device) in emptied:
                    del kernel[identity]
        kernel[op.identity] = op
    for op in found.removed:
        kernel.pop(op.identity, None)
        if isinstance(op, Netns):
            for identity, other in list(kernel.items()):
                inside = {getattr(other, "netns", ""), getattr(other, "peer_netns", "")}
                if not isinstance(other, File | Listener | Process) and op.name in inside:
                    del kernel[identity]


def test_a_node_port_is_in_the_rules() -> None:
    base = clusters.default()
    key = Key("default", "kubia")
    port = ServicePort(80, target_port=8080, node_port=30080)
    changed = replace(base.services[key], type=ServiceType.NODE_PORT, ports=(port,))
    cluster = with_endpoints(base.with_(services={**base.services, key: changed}), "10.244.2.2")
    assert "30080" in plan.text(build(cluster))
    assert Ref("svc", "default", "kubia") == changed.ref
