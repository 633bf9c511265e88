"""taint and drain: what is typed, which pods go, what is printed, and what follows in the cluster."""

from dataclasses import replace
from typing import Any

import pytest

from netlab import controllers
from netlab.cli import draining
from netlab.errors import ApiError, InputError
from netlab.manifest import Source, default_topology, object_from_json, read_topology, to_json
from netlab.model import Cluster, Node, Taint
from tests.test_cli import FakeLab, lab, run
from tests.test_controllers import WEB, objects

__all__ = ["lab"]


def pod(name: str, owner: str = "ReplicaSet", phase: str = "Running", node: str = "node-171", **spec: Any) -> dict[str, Any]:
    owners = [{"kind": owner, "name": "o", "controller": True}] if owner else []
    meta = {"name": name, "namespace": "default", "ownerReferences": owners}
    return {"kind": "Pod", "metadata": meta, "spec": {"nodeName": node, **spec}, "status": {"phase": phase}}


PODS = [pod("web"), pod("agent", "DaemonSet"), pod("alone", ""), pod("cache", volumes=[{"name": "d", "emptyDir": {}}])]
ALONE = "cannot delete Pods that declare no controller (use --force to override): default/alone"
DATA = "cannot delete Pods with local storage (use --delete-emptydir-data to override): default/cache"
DAEMON = "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): default/agent"


def test_what_a_drain_stumbles_over() -> None:
    assert draining.sorting(PODS, False, False, False).refused == (ALONE, DATA, DAEMON)
    assert draining.sorting(PODS, True, False, True).refused == (DATA,)
    done = draining.sorting(PODS, True, True, True)
    assert done.refused == () and [one["metadata"]["name"] for one in done.evicted] == ["web", "alone", "cache"]
    assert done.warnings == (
        "deleting Pods that declare no controller: default/alone",
        "ignoring DaemonSet-managed Pods: default/agent",
    )
    over = [pod("done", "", "Succeeded", volumes=[{"emptyDir": {}}])]
    assert draining.sorting(over, False, False, False).refused == (), "who has finished loses nothing"


def test_drain_cordons_and_evicts(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answers = {"cordon": True, "get": [*PODS[:2], pod("elsewhere", node="node-170")], "delete": PODS[0]}
    code, out, err = run("drain", "node-171", "--ignore-daemonsets", capsys=capsys)
    assert code == 0, err
    assert out == "node/node-171 cordoned\nevicting pod default/web\npod/web evicted\nnode/node-171 drained\n"
    assert "warning: ignoring DaemonSet-managed Pods: default/agent" in err
    assert [asked[1][:3] for asked in lab.asked if asked[0] == "delete"] == [("pods", "web", "default")]
    code, out, err = run("drain", "node/node-171", capsys=capsys)
    assert (code, out) == (2, "node/node-171 cordoned\n")
    assert 'unable to drain node "node-171": it stays cordoned' in err and DAEMON in err


def test_drain_cordons_all_nodes_before_it_evicts_from_one(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answers = {"cordon": True, "get": [pod("a", node="node-170"), pod("b")], "delete": PODS[0]}
    code, out, err = run("drain", "node-170", "node/node-171", "node-170", capsys=capsys)
    assert (code, [asked[0] for asked in lab.asked if asked[0] in ("cordon", "delete")]) == (0, ["cordon"] * 2 + ["delete"] * 2)
    assert out.startswith("node/node-170 cordoned\nnode/node-171 cordoned\nevicting pod default/a\n"), err
    lab.answers["get"] = [pod("a", "", node="node-170"), pod("b")]
    code, out, err = run("drain", "node-170", "node-171", capsys=capsys)
    assert code == 2 and 'unable to drain node "node-170": it stays cordoned' in err
    assert out.endswith("evicting pod default/b\npod/web evicted\nnode/node-171 drained\n"), "the others are drained"


@pytest.mark.parametrize(
    ("words", "add", "remove", "said"),
    [
        ("node a k=v:NoSchedule", [{"key": "k", "value": "v", "effect": "NoSchedule"}], [], "node/a tainted\n"),
        (
            "nodes/a node/b k:NoExecute",
            [{"key": "k", "value": "", "effect": "NoExecute"}],
            [],
            "node/a tainted\nnode/b tainted\n",
        ),
        ("no a k-", [], [{"key": "k", "effect": ""}], "node/a untainted\n"),
        ("a x.io/k:NoSchedule-", [], [{"key": "x.io/k", "effect": "NoSchedule"}], "node/a untainted\n"),
    ],
)
def test_taint(words: str, add: Any, remove: Any, said: str, lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run("taint", *words.split(), capsys=capsys)
    assert (code, out) == (0, said), err
    assert lab.asked[0][1][1:] == (add, remove, False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("node a k=v:NoScedule", "NoScedule: invalid taint effect, it is one of NoSchedule, PreferNoSchedule, NoExecute"),
        ("node a k=v", "k=v: a taint is KEY=VALUE:EFFECT"),
        ("node a", "at least one taint is wanted"),
        ("node k:NoSchedule", "no node is named"),
    ],
)
def test_taints_that_are_none(words: str, says: str, lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("taint", *words.split(), capsys=capsys)
    assert (code, says in err) == (2, True), err


# ---------------------------------------------------------------- the cluster

TWO = """
nodes:
  a: {addresses: 192.168.0.10, taints: [{key: dedicated, value: db, effect: NoSchedule}]}
  b: {addresses: 192.168.0.11}
"""


def where(cluster: Any) -> set[str]:
    return {pod.node for pod in cluster.pods.values() if pod.meta.namespace == "default"}


def test_taints_of_the_topology_and_of_the_verb() -> None:
    cluster = controllers.initial(read_topology(Source("t.yaml", TWO.encode())), objects(WEB))
    assert where(cluster) == {"b"}
    evicted = controllers.taint(cluster, "b", [Taint("gone", "NoExecute")], [])
    assert where(evicted) == {""}, "nobody may run anywhere"
    back = controllers.taint(evicted, "a", [], [("dedicated", "")])
    assert where(back) == {"a"}
    again = controllers.apply(back, objects("{apiVersion: v1, kind: Node, metadata: {name: b, labels: {x: z}}}"))
    assert [str(one) for one in again.nodes["b"].taints] == ["gone:NoExecute"], "labels leave taints alone"
    twice = [Taint("gone", "NoExecute", "other")]
    with pytest.raises(ApiError, match=r"node b already has gone taint\(s\) with same effect\(s\) and --overwrite is false"):
        controllers.taint(back, "b", twice, [])
    assert [str(one) for one in controllers.taint(back, "b", twice, [], True).nodes["b"].taints] == ["gone=other:NoExecute"]
    with pytest.raises(ApiError, match='taint "gone:NoSchedule" not found'):
        controllers.taint(back, "b", [], [("gone", "NoSchedule")])


def test_a_control_plane_takes_pods_without_its_taint() -> None:
    cluster = controllers.initial(read_topology(Source("t.yaml", b"{}")), objects(WEB))
    assert "node-169" not in where(cluster)
    freed = controllers.taint(cluster, "node-169", [], [("node-role.kubernetes.io/control-plane", "")])
    more = controllers.scale(freed, "Deployment", next(key for _, key in freed.workloads if key.name == "web"), 6)
    assert "node-169" in where(more)


def test_a_taint_of_a_topology_is_checked() -> None:
    with pytest.raises(InputError, match=r"t.yaml:3:.*did you mean NoSchedule"):
        read_topology(Source("t.yaml", TWO.replace("NoSchedule", "NoSchedul").encode()))


DEDICATED, BROKEN = Taint("dedicated", "NoSchedule", "db"), Taint("broken", "NoExecute")


def node_applied(cluster: Cluster, body: str) -> Node:
    return controllers.apply(cluster, objects(f"apiVersion: v1\nkind: Node\nmetadata: {{name: node-171}}\n{body}")).nodes[
        "node-171"
    ]


def test_applying_a_node_leaves_alone_what_it_does_not_name() -> None:
    cluster = controllers.taint(controllers.initial(default_topology(), ()), "node-171", [DEDICATED], [], False)
    nodes = {**cluster.nodes, "node-171": replace(cluster.nodes["node-171"], unschedulable=True)}
    cluster = controllers.settle(cluster.with_(nodes=nodes))
    for body, kept in (
        ("", (True, (DEDICATED,))),
        ("spec: {providerID: x}", (True, (DEDICATED,))),
        ("spec: {unschedulable: false}", (False, (DEDICATED,))),
        ("spec: {taints: []}", (True, ())),
        ("spec: {taints: [{key: broken, effect: NoExecute}]}", (True, (BROKEN,))),
    ):
        node = node_applied(cluster, body)
        assert (node.unschedulable, node.taints) == kept, body
    control_plane = next(name for name, node in cluster.nodes.items() if node.control_plane)
    labelled = objects(f"apiVersion: v1\nkind: Node\nmetadata: {{name: {control_plane}}}\nspec: {{providerID: x}}")
    assert controllers.apply(cluster, labelled).nodes[control_plane].control_plane


def test_what_a_node_named_before_and_names_no_more_goes() -> None:
    told = (
        "metadata: {name: node-171, annotations: {a: b}}\nspec: {unschedulable: true, taints: [{key: broken, effect: NoExecute}]}"
    )
    first = controllers.apply(controllers.initial(default_topology(), ()), objects(f"apiVersion: v1\nkind: Node\n{told}"))
    assert (first.nodes["node-171"].unschedulable, first.nodes["node-171"].taints) == (True, (BROKEN,))
    again = node_applied(first, "")
    assert (again.unschedulable, again.taints, again.meta.annotations) == (False, (), {})


def test_the_api_servers_own_node_is_whole() -> None:
    """A PATCH that takes a field away comes as the whole object without it."""
    cluster = controllers.taint(controllers.initial(default_topology(), ()), "node-171", [DEDICATED], [], False)
    shown = to_json(cluster.nodes["node-171"], cluster)
    del shown["spec"]["taints"]
    del shown["metadata"]["labels"]["kubernetes.io/os"]
    (whole,) = object_from_json(shown).objects
    after = controllers.apply(cluster, (whole,)).nodes["node-171"]
    assert after.taints == () and "kubernetes.io/os" not in after.meta.labels
