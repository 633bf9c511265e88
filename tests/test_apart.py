"""Two machines that a fault has parted: the plan, the oracle, the walk of the rules, and how the pair is named."""

from ipaddress import ip_address
from typing import Any

import pytest

from netlab import plan
from netlab.errors import InputError
from netlab.expect import expect
from netlab.judge import disagreement
from netlab.lab import link_faults
from netlab.lab.changes import changes
from netlab.model import Cluster, Flow, Key, OutcomeKind, Protocol, Ref
from netlab.ops import Neighbour
from netlab.trace import trace
from tests.test_controllers import KUBIA, SERVICE, started
from tests.test_load_balancer import cluster as balanced
from tests.test_load_balancer import pod, service

PAIR = ("node/node-170", "node/node-171")
A, B, OTHER = ip_address("192.168.0.170"), ip_address("192.168.0.171"), ip_address("192.168.0.169")


def parted(cluster: Cluster, kind: str = "partition", target: str = "node-170/node-171") -> Cluster:
    found = link_faults.part(cluster, plan.build_nothing(), {"kind": kind, "target": target})
    assert found is not None
    return found[1]


def flow(sender: str, source: Any, destination: Any) -> Flow:
    return Flow(Ref("node", "", sender), source, destination, 0, Protocol.ICMP)


def test_only_these_two_do_not_reach_each_other() -> None:
    whole = started()
    cluster = parted(whole)
    assert cluster.apart == {PAIR}
    rows = [("node-170", A, B), ("node-171", B, A), ("node-169", OTHER, B), ("node-169", OTHER, A), ("node-170", A, OTHER)]
    for state, dropped in ((whole, set()), (cluster, {0, 1}), (parted(cluster, "heal", "node-171/node-170"), set())):
        made = plan.build(state)
        for number, row in enumerate(rows):
            wanted = OutcomeKind.DROPPED if number in dropped else OutcomeKind.DELIVERED
            assert expect(state, flow(*row)).kind is wanted, row
            assert trace(made, flow(*row)).outcome.kind is wanted, row


def test_the_change_is_four_neighbours_at_most() -> None:
    whole = started()
    difference = plan.diff(plan.build(whole), plan.build(parted(whole)))
    assert difference.removed == ()
    assert {type(op) for op in difference.added} == {Neighbour}
    assert {(op.netns, str(op.address)) for op in difference.added if isinstance(op, Neighbour)} == {
        ("node/node-170", str(B)), ("node/node-171", str(A)),
    }  # fmt: skip


def test_it_is_an_event() -> None:
    whole = started()
    (one,) = changes(whole, parted(whole))
    assert (one["type"], one["action"], one["text"]) == (
        "fault", "partition", "node/node-170 and node/node-171 do not reach each other",
    )  # fmt: skip
    (back,) = changes(parted(whole), whole)
    assert back["action"] == "heal"


@pytest.mark.parametrize(
    ("kind", "target", "says"),
    [
        ("partition", "node-170/node-17", "there is no node or host node-17; did you mean node-17"),
        ("partition", "node-170/node-170", "two machines are wanted"),
        ("heal", "node-170/node-171", "node/node-170 and node/node-171 reach each other"),
    ],
)
def test_pairs_that_are_none(kind: str, target: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        parted(started(), kind, target)


def test_what_names_one_node_is_no_pair() -> None:
    for text in ("node-170", "node/node-170", ""):
        assert link_faults.part(started(), plan.build_nothing(), {"kind": "partition", "target": text}) is None
    assert link_faults.pair_of(started(), "client/node-170") == ("host/client", "node/node-170")


BALANCED = """
cluster: {loadBalancer: {pool: [192.168.0.240/31, 'fd00:192:168::f0/127']}, podCIDR: '10.244.0.0/16,fd00:10:244::/56',
  serviceCIDR: '10.96.0.0/16,fd00:10:96::/112'}
networks: {lan: {cidr: [192.168.0.0/24, 'fd00:192:168::/64']}}
nodes: {node-a: {addresses: [192.168.0.10, 'fd00:192:168::10']}, node-b: {addresses: [192.168.0.11, 'fd00:192:168::11']}}
hosts: {near: {addresses: [192.168.0.100, 'fd00:192:168::100']}, far: {addresses: [192.168.0.101, 'fd00:192:168::101']}}
"""


def test_nor_do_they_by_way_of_a_load_balancers_address() -> None:
    families: dict[str, Any] = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}
    whole = balanced(BALANCED, service("web", **families), pod("web-a", "node-a"), pod("web-b", "node-b"))
    (announcer,) = whole.services[Key("default", "web")].announced_by
    (other,) = {"node-a", "node-b"} - {announcer}
    by_announcer, by_other = parted(whole, target=f"near/{announcer}"), parted(whole, target=f"near/{other}")
    for state, host, wanted in (
        (whole, "near", OutcomeKind.DELIVERED),
        (by_announcer, "near", OutcomeKind.DROPPED),
        (by_announcer, "far", OutcomeKind.DELIVERED),
        (parted(by_announcer, "heal", f"near/{announcer}"), "near", OutcomeKind.DELIVERED),
    ):
        made = plan.build(state)
        for address in (one.ip for one in whole.services[Key("default", "web")].load_balancer):
            assert address is not None
            source = ip_address(f"{'192.168.0.' if address.version == 4 else 'fd00:192:168::'}{100 + (host == 'far')}")
            asked = Flow(Ref("host", "", host), source, address, 80, Protocol.TCP)
            assert expect(state, asked).kind is wanted, (host, address)
            walked = trace(made, asked).outcome
            assert walked.kind is wanted, (host, address)
            assert bool(walked.backends) is (wanted is OutcomeKind.DELIVERED), "what is dropped on the LAN never meets a rule"
    asked_for = {str(op.address) for op in plan.build(by_other).ops.values() if isinstance(op, Neighbour)}
    assert not asked_for & {"192.168.0.240", "fd00:192:168::f0"}, "the address is not the other node's"


USERSPACE = """
cluster: {proxy: {mode: userspace}}
networks: {lan: {cidr: 192.168.0.0/24}}
nodes: {node-170: {addresses: 192.168.0.170}, node-171: {addresses: 192.168.0.171}}
"""


def answering(cluster: Cluster, patience_s: float) -> tuple[set[str], tuple[OutcomeKind, ...], OutcomeKind]:
    """The nodes whose pods answer node-170 in mode userspace, what else may become of its flow, and the best."""
    where = {pod.addresses[0]: pod.node for pod in cluster.pods.values()}
    service = next(one for one in cluster.services.values() if one.meta.name == "kubia")
    asked = Flow(Ref("node", "", "node-170"), A, service.cluster_ips[0], 80, Protocol.TCP)
    said = expect(cluster, asked, patience_s)
    difference = disagreement(said, trace(plan.build(cluster), asked, patience_s).outcome)
    assert difference == "", difference
    return {where[one.address] for one in said.backends}, said.also, said.kind


def test_a_proxy_process_may_give_up_on_those_that_are_parted() -> None:
    """Three dead endpoints in turn take longer than a client waits, and each is tried for at most 3.75 s in all."""
    whole = started(KUBIA.replace("replicas: 3", "replicas: 6") + "---" + SERVICE, USERSPACE)
    nodes = {pod.node for pod in whole.pods.values()}
    assert {"node-170", "node-171"} == nodes
    assert answering(whole, 1.0) == (nodes, (), OutcomeKind.DELIVERED)
    cluster = parted(whole)
    assert answering(cluster, 1.0) == ({"node-170"}, (OutcomeKind.DROPPED,), OutcomeKind.DELIVERED)
    assert answering(cluster, 5.0) == ({"node-170"}, (OutcomeKind.REJECTED,), OutcomeKind.DELIVERED)
    elsewhere = KUBIA.replace("{containers", "{nodeName: node-171, containers")
    dead = parted(started(elsewhere + "---" + SERVICE, USERSPACE))
    assert answering(dead, 1.0) == (set(), (), OutcomeKind.DROPPED)
    assert answering(dead, 5.0) == (set(), (), OutcomeKind.REJECTED)
