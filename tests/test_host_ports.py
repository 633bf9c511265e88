"""hostPort: what the oracle, the rules and the scheduler make of it. The live rows are in live/test_host_ports.py."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from netlab import controllers, expect, plan, trace
from netlab.errors import InputError
from netlab.manifest import Source, read_objects
from netlab.model import Cluster, Flow, OutcomeKind, Protocol, Ref
from netlab.ops import Ruleset
from netlab.proxy import modes
from tests import clusters

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeName: node-170
  containers:
  - name: c
    image: nginx
    ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 81, hostPort: 8081, hostIP: 192.168.0.170}]
---
apiVersion: v1
kind: Pod
metadata: {name: near}
spec: {nodeName: node-170, containers: [{name: c, image: curl}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far}
spec: {nodeName: node-171, containers: [{name: c, image: curl}]}
"""
FROM = {
    "client": (Ref("host", "", "client"), "192.168.0.100"),
    "near": (Ref("pod", "default", "near"), ""),
    "far": (Ref("pod", "default", "far"), ""),
    "itself": (Ref("pod", "default", "web"), ""),
    "its node": (Ref("node", "", "node-170"), "192.168.0.170"),
    "its node, from localhost": (Ref("node", "", "node-170"), "127.0.0.1"),
    "another node": (Ref("node", "", "node-171"), "192.168.0.171"),
}
ROWS = [
    ("client", "192.168.0.170", 8080, "delivered", False),
    ("client", "192.168.0.170", 8081, "delivered", False),
    ("client", "192.168.0.170", 8082, "rejected", None),
    ("client", "192.168.0.170", 80, "rejected", None),
    ("client", "192.168.0.171", 8080, "rejected", None),
    ("far", "192.168.0.170", 8080, "delivered", False),
    ("far", "10.244.1.1", 8080, "delivered", False),
    ("far", "10.244.1.1", 8081, "rejected", None),
    ("itself", "192.168.0.170", 8080, "delivered", True),
    ("its node", "192.168.0.170", 8080, "delivered", False),
    ("its node, from localhost", "127.0.0.1", 8080, "delivered", True),
    ("its node, from localhost", "127.0.0.1", 8081, "rejected", None),
    ("another node", "192.168.0.170", 8080, "delivered", False),
]


def lab(mode: str, more: str = "") -> Cluster:
    base = clusters.cluster(mode=mode)
    bare = Cluster(clusters.without_dns(base.topology), nodes=base.nodes)
    return controllers.apply(bare, read_objects([Source("p.yaml", (PODS + more).encode())]).objects)


@pytest.mark.parametrize("mode", modes())
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]} to {row[1]}:{row[2]}")
def test_oracle_and_rules_agree(mode: str, row: tuple[str, str, int, str, bool | None]) -> None:
    who, to, port, kind, masqueraded = row
    cluster = lab(mode)
    ref, source = FROM[who]
    own = source or str(next(pod for pod in cluster.pods.values() if pod.ref == ref).addresses[0])
    flow = Flow(ref, ip_address(own), ip_address(to), port)
    promised, ruled = expect.expect(cluster, flow), trace.trace(plan.build(cluster), flow).outcome
    assert promised.kind == ruled.kind == kind
    assert promised.backends == ruled.backends
    if masqueraded is not None:
        assert [(str(one.address), one.masqueraded) for one in promised.backends] == [
            (str(next(pod for pod in cluster.pods.values() if pod.meta.name == "web").addresses[0]), masqueraded)
        ]


@pytest.mark.parametrize(("mode", "masqueraded"), [("iptables", True), ("nftables", False)])
def test_neighbours_on_the_bridge(mode: str, masqueraded: bool) -> None:
    cluster = lab(mode)
    near = next(pod for pod in cluster.pods.values() if pod.meta.name == "near")
    flow = Flow(near.ref, near.addresses[0], ip_address("192.168.0.170"), 8080)
    for outcome in (expect.expect(cluster, flow), trace.trace(plan.build(cluster), flow).outcome):
        assert (outcome.kind, [one.masqueraded for one in outcome.backends]) == (OutcomeKind.DELIVERED, [masqueraded])


def test_without_the_pod_there_are_no_such_rules() -> None:
    cluster = lab("iptables")
    web = next(pod for pod in cluster.pods.values() if pod.meta.name == "web")

    def names(of: Cluster) -> set[str]:
        rules = [op.value for op in plan.build(of).ops.values() if isinstance(op, Ruleset) and op.netns == "node/node-170"]
        return {chain.name for value in rules for table in value.tables for chain in table.chains if "CNI" in chain.name}

    assert len(names(cluster)) == 4
    gone = controllers.delete(cluster, "Pod", web.meta.key)
    assert names(gone) == set()
    flow = Flow(FROM["client"][0], ip_address("192.168.0.100"), ip_address("192.168.0.170"), 8080)
    assert expect.expect(gone, flow).kind == "rejected"


def other(**ports: object) -> str:
    text = ", ".join(f"{key}: {value}" for key, value in {"containerPort": 9, **ports}.items())
    containers = f"[{{name: c, image: x, ports: [{{{text}}}]}}]"
    return f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: other}}\nspec: {{PLACE containers: {containers}}}\n"


@pytest.mark.parametrize(
    ("ports", "free"),
    [
        ({"hostPort": 8080}, False),
        ({"hostPort": 8080, "protocol": "UDP"}, True),
        ({"hostPort": 8080, "hostIP": "192.168.0.170"}, False),
        ({"hostPort": 8081}, False),
        ({"hostPort": 8081, "hostIP": "192.168.0.9"}, True),
        ({"hostPort": 8082}, True),
        ({}, True),
    ],
)
def test_the_scheduler_keeps_host_ports_apart(ports: dict[str, object], free: bool) -> None:
    select = "nodeSelector: {only: here},"
    cluster = lab("iptables")
    node = cluster.nodes["node-170"]
    chosen = replace(node, meta=replace(node.meta, labels={**node.meta.labels, "only": "here"}))
    cluster = cluster.with_(nodes={**cluster.nodes, "node-170": chosen})
    more = read_objects([Source("o.yaml", other(**ports).replace("PLACE", select).encode())]).objects
    pod = controllers.apply(cluster, more).pods[clusters.key("other")]
    assert bool(pod.node) is free
    assert free or "didn't have free ports" in pod.message


def test_on_the_nodes_own_network_the_numbers_must_agree() -> None:
    text = other(hostPort=8080).replace("PLACE", "hostNetwork: true,")
    with pytest.raises(InputError, match="must match containerPort when hostNetwork is true"):
        read_objects([Source("o.yaml", text.encode())])
    assert Protocol.TCP in (port.protocol for pod in lab("nftables").pods.values() for port in pod.spec.containers[0].ports)
