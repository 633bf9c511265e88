"""A node out of reach: when it is noticed, what becomes of its pods, and what its packets do, in oracle, plan and trace alike."""

from ipaddress import ip_address

import pytest

from netlab import controllers, plan
from netlab.expect import expect
from netlab.model import Cluster, Flow, OutcomeKind, Ref
from netlab.ops import Listener, Process, Ruleset
from netlab.trace import trace
from tests.test_controllers import KUBIA, SERVICE, endpoints, key, refusal, started
from tests.test_workloads import AGENT, DB, all_ready

DEAD = "node-171"
CLIENT = Ref("host", "", "client")


def lab(mode: str = "iptables", more: str = "") -> Cluster:
    return all_ready(started(KUBIA + "---" + SERVICE + more, f"cluster: {{proxy: {{mode: {mode}}}}}\n"))


def on(cluster: Cluster, node: str) -> set[str]:
    return {pod.meta.name for pod in cluster.pods.values() if pod.node == node}


def test_the_times_are_those_of_the_topology() -> None:
    cluster = controllers.tick(lab(), 100)
    cut = controllers.cut(cluster, DEAD, killed=True)
    assert cut.nodes[DEAD].ready and cut.slices == cluster.slices and controllers.next_due(cut) == 102.0
    lost = controllers.tick(cut, 2.0)
    assert not lost.nodes[DEAD].ready and set(lost.pods) == set(cluster.pods) and controllers.next_due(lost) == 105.0
    assert set(endpoints(lost, "kubia")) == on(lost, "node-170")
    evicted = controllers.tick(lost, 3.0)
    assert {pod.terminating for pod in evicted.pods.values() if pod.node == DEAD} == {True}
    assert len(endpoints(evicted, "kubia")) == 3 and controllers.next_due(evicted) is None


def test_one_long_tick_ends_as_many_short_ones() -> None:
    cut = controllers.cut(lab(more="---" + AGENT), DEAD, killed=True)
    step = cut
    for _ in range(100):
        step = controllers.tick(step, 0.125)
    once = controllers.tick(cut, 12.5)
    assert {name: (pod.node, pod.ready, pod.terminating) for name, pod in step.pods.items()} == {
        name: (pod.node, pod.ready, pod.terminating) for name, pod in once.pods.items()
    }
    assert step.nodes == once.nodes


def test_other_times() -> None:
    text = "cluster: {nodeMonitorGracePeriod: 50s, unreachableToleration: 5m}\n"
    cut = controllers.cut(started(KUBIA, text), DEAD, killed=False)
    assert controllers.next_due(cut) == 50.0
    assert controllers.next_due(controllers.tick(cut, 50)) == 350.0


def test_a_pods_own_toleration_is_kept_and_the_api_servers_default_is_not_one() -> None:
    own = (
        "tolerations: [{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: SECONDS}], "
    )
    for seconds, due in (("60", 62.0), ("300", 5.0)):
        text = KUBIA.replace("spec: {containers", f"spec: {{{own.replace('SECONDS', seconds)}containers")
        lost = controllers.tick(controllers.cut(started(text), DEAD, killed=True), 2.0)
        assert controllers.next_due(lost) == due


def test_a_daemon_stays_and_a_stateful_pod_is_never_there_twice() -> None:
    cluster = lab(more="---" + AGENT + "---" + DB)
    cut = controllers.tick(controllers.cut(cluster, DEAD, killed=True), 60.0)
    daemon = next(pod for pod in cut.pods.values() if pod.meta.name.startswith("agent") and pod.node == DEAD)
    assert not daemon.terminating and not daemon.ready
    lost = [pod for pod in cut.pods.values() if pod.meta.name.startswith("db") and pod.node == DEAD]
    assert lost and all(pod.terminating for pod in lost) and len([p for p in cut.pods if p.name.startswith("db")]) == 3
    healed = all_ready(controllers.heal(cut, DEAD))
    assert not any(pod.terminating for pod in healed.pods.values()) and not healed.outages and not healed.links_down
    assert healed.pods[lost[0].meta.key].meta.uid != lost[0].meta.uid


def test_healed_before_the_toleration_ends_the_pods_are_the_same() -> None:
    cluster = lab()
    for killed in (True, False):
        lost = controllers.tick(controllers.cut(cluster, DEAD, killed), 3.0)
        healed = controllers.heal(lost, DEAD)
        assert set(healed.pods) == set(cluster.pods) and all(pod.ready for pod in healed.pods.values())
        assert {pod.restarts for pod in healed.pods.values() if pod.node == DEAD} == {int(killed)}
        assert endpoints(healed, "kubia") == endpoints(cluster, "kubia")


def test_nobody_hears_what_its_kubelet_says() -> None:
    lost = controllers.tick(controllers.cut(lab(), DEAD, killed=False), 2.0)
    pod = next(name for name, one in lost.pods.items() if one.node == DEAD)
    assert controllers.pod_status(lost, pod, ready=True) is lost


def test_what_cannot_be_cut() -> None:
    cut = controllers.cut(lab(), DEAD, killed=True)
    assert "is dead already" in refusal(lambda: controllers.cut(cut, DEAD, killed=False))
    assert controllers.heal(lab(), DEAD).outages == {}


# ---------------------------------------------------------------- packets


def both(cluster: Cluster, flow: Flow) -> tuple[OutcomeKind, frozenset[str]]:
    """What oracle and tracer say, which must be the same."""
    expected, traced = expect(cluster, flow), trace(plan.build(cluster), flow).outcome
    assert (expected.kind, set(expected.backends)) == (traced.kind, set(traced.backends)), (expected, traced)
    return expected.kind, frozenset(
        str(backend.address) for backend in expected.backends if backend.fate is OutcomeKind.DELIVERED
    )


def flow_to(cluster: Cluster, sender: Ref, name: str) -> Flow:
    service = cluster.services[key(name)]
    source = ip_address("192.168.0.100") if sender.kind == "host" else cluster.nodes[sender.name].addresses[0]
    return Flow(sender, source, service.cluster_ips[0], service.ports[0].port)


def addresses(cluster: Cluster, node: str) -> frozenset[str]:
    return frozenset(str(pod.addresses[0]) for pod in cluster.pods.values() if pod.node == node and pod.ready)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize("killed", [True, False])
def test_packets_to_the_lost_node_vanish_until_its_endpoints_are_gone(mode: str, killed: bool) -> None:
    cluster = lab(mode)
    assert both(cluster, flow_to(cluster, CLIENT, "kubia"))[1] == addresses(cluster, DEAD) | addresses(cluster, "node-170")
    cut = controllers.cut(cluster, DEAD, killed)
    assert both(cut, flow_to(cut, CLIENT, "kubia")) == (OutcomeKind.DELIVERED, addresses(cluster, "node-170"))
    lost = controllers.tick(cut, 2.0)
    names = {str(backend.address) for backend in expect(lost, flow_to(lost, CLIENT, "kubia")).backends}
    assert names == addresses(cluster, "node-170")
    later = controllers.tick(lost, 3.0)
    assert len(both(later, flow_to(later, CLIENT, "kubia"))[1]) == 3


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_node_that_is_cut_off_goes_on_with_what_it_knew(mode: str) -> None:
    cluster = lab(mode)
    own = addresses(cluster, DEAD)
    later = controllers.tick(controllers.cut(cluster, DEAD, killed=False), 30.0)
    later = controllers.delete(later, "Service", key("kubia"))
    cluster_ip = flow_to(cluster, Ref("node", "", DEAD), "kubia")
    assert both(later, cluster_ip) == (OutcomeKind.DELIVERED, own)  # its own pods; what lies elsewhere is out of reach
    assert both(later, flow_to(cluster, CLIENT, "kubia"))[0] in (OutcomeKind.NOT_HANDLED, OutcomeKind.DROPPED)


def test_nothing_runs_on_a_killed_node_and_its_rules_stay_as_they_were() -> None:
    cluster = lab()
    before = plan.build(cluster)
    cut = controllers.tick(controllers.cut(cluster, DEAD, killed=True), 30.0)
    after = plan.build(cut)
    dead = {f"node/{DEAD}", *(str(pod.ref) for pod in cut.pods.values() if pod.node == DEAD)}
    assert not [op for op in after.ops.values() if isinstance(op, Listener | Process) and op.netns in dead]
    assert [op for op in before.ops.values() if isinstance(op, Listener) and op.netns in dead]
    changed = {op.netns for _, op in plan.diff(before, after).changed if isinstance(op, Ruleset)}
    assert changed == {"node/node-169", "node/node-170"}
    assert plan.diff(before, plan.build(controllers.cut(cluster, DEAD, killed=False))).removed == ()
