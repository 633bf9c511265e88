"""Objects as `get -o json` shows them: what was given comes back, what was decided is laid over it, and it can be read again."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from netlab.manifest import (
    Source,
    adapt_topology,
    default_topology,
    object_from_json,
    read_objects,
    read_paths,
    to_json,
)
from netlab.model import (
    Cluster,
    EndpointSlice,
    Key,
    KubernetesObject,
    Meta,
    Node,
    Pod,
    Ref,
    Service,
    Workload,
)

ROOT = Path(__file__).parent.parent
DUMPS = sorted((ROOT / "tests" / "dumps").glob("*.yaml"))
EMPTY = Cluster(default_topology())


def read(text: str) -> Any:
    (found,) = read_objects([Source("f.yaml", text.encode())]).objects
    return found


def _all() -> list[tuple[str, KubernetesObject]]:
    paths = [str(path) for path in (*DUMPS, ROOT / "manifests")]
    return [
        (f"{Path(path).stem} {type(entry).__name__} {entry.meta.name}", entry)
        for path in paths
        for entry in read_objects(read_paths([path], lambda: b"")).objects
    ]


def test_what_is_shown_can_be_read_again_and_means_the_same() -> None:
    for name, entry in _all():
        (again,) = object_from_json(to_json(entry, EMPTY)).objects
        shown = replace(again, meta=replace(again.meta, owner=None, uid=""), manifest={})
        given = replace(entry, meta=replace(entry.meta, owner=None, uid=""), manifest={})
        if isinstance(shown, Workload) and isinstance(given, Workload):
            shown = replace(shown, template=replace(shown.template, manifest={}))
            given = replace(given, template=replace(given.template, manifest={}))
        if isinstance(shown, EndpointSlice) and isinstance(given, EndpointSlice):
            shown, given = replace(shown, managed=False), replace(given, managed=False)
        if isinstance(shown, Pod) and isinstance(given, Pod):
            shown, given = (
                replace(shown, spec=replace(shown.spec, node_name="")),
                replace(given, spec=replace(given.spec, node_name="")),
            )
        if isinstance(shown, Node) and isinstance(given, Node):
            assert (shown.addresses, shown.pod_cidrs, shown.ready) == (given.addresses, given.pod_cidrs, given.ready), name
            continue
        assert shown == given, name


def test_a_service_shows_what_was_decided() -> None:
    text = "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a: b}}\nspec: {type: NodePort, ports: [{port: 80}]}\n"
    service = read(text)
    assert isinstance(service, Service)
    placed = replace(service, cluster_ips=(ip_address("10.96.0.9"),), ports=(replace(service.ports[0], node_port=30123),))
    shown = to_json(placed, EMPTY)
    assert shown["spec"] == {
        "type": "NodePort",
        "sessionAffinity": "None",
        "clusterIP": "10.96.0.9",
        "clusterIPs": ["10.96.0.9"],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
        "externalTrafficPolicy": "Cluster",
        "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80, "nodePort": 30123}],
    }
    assert shown["status"] == {"loadBalancer": {}}
    assert shown["metadata"]["labels"] == {"a": "b"}


def test_affinity_and_headless() -> None:
    spec = "{clusterIP: None, sessionAffinity: ClientIP, ports: [{port: 80}]}"
    shown = to_json(read(f"apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {spec}\n"), EMPTY)["spec"]
    assert (shown["clusterIP"], shown["clusterIPs"]) == ("None", ["None"])
    assert shown["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}


POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: a, image: b, ports: [{containerPort: 80}]}]}\n"


def test_a_running_pod() -> None:
    node = Node(Meta("n"), (ip_address("192.168.0.170"),), (ip_network("10.244.1.0/24"),))
    cluster = EMPTY.with_(nodes={"n": node})
    pod: Pod = read(POD)
    placed = replace(pod, node="n", addresses=(ip_address("10.244.1.2"),), phase="Running", ready=True, restarts=2)
    shown = to_json(placed, cluster, started=86400.0)
    status = shown["status"]
    assert (status["phase"], status["podIP"], status["podIPs"]) == ("Running", "10.244.1.2", [{"ip": "10.244.1.2"}])
    assert (status["hostIP"], shown["spec"]["nodeName"]) == ("192.168.0.170", "n")
    assert {entry["type"]: entry["status"] for entry in status["conditions"]}["Ready"] == "True"
    (container,) = status["containerStatuses"]
    assert (container["ready"], container["restartCount"], list(container["state"])) == (True, 2, ["running"])
    assert shown["metadata"]["creationTimestamp"] == "1970-01-02T00:00:00Z"
    assert shown["spec"]["containers"][0]["ports"] == [{"protocol": "TCP", "containerPort": 80}]


@pytest.mark.parametrize(
    ("phase", "state", "ready"),
    [
        ("Pending", "waiting", False),
        ("Running", "running", False),
        ("Succeeded", "terminated", False),
        ("Failed", "terminated", True),
    ],
)
def test_a_pod_that_is_not_ready(phase: Any, state: str, ready: bool) -> None:
    shown = to_json(replace(read(POD), node="n", phase=phase, ready=ready), EMPTY)["status"]
    assert {entry["type"]: entry["status"] for entry in shown["conditions"]}["Ready"] == "False"
    assert list(shown["containerStatuses"][0]["state"]) == [state]


DEPLOYMENT = """apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: a, image: b}]}}
"""


def test_a_deployment_counts_the_pods_of_its_replica_sets() -> None:
    deployment: Workload = read(DEPLOYMENT)
    replica_set = replace(
        deployment, kind="ReplicaSet", meta=Meta("web-1", "default", owner=Ref("deployment", "default", "web")), manifest={}
    )
    pods = {}
    for number, ready in enumerate((True, True, False)):
        meta = Meta(f"web-1-{number}", "default", deployment.template.labels, owner=Ref("replicaset", "default", "web-1"))
        pods[meta.key] = Pod(meta, deployment.template.spec, phase="Running", ready=ready)
    stranger = Meta("web-x", "default", deployment.template.labels)
    pods[stranger.key] = Pod(stranger, deployment.template.spec, phase="Running", ready=True)
    workloads = {("Deployment", deployment.meta.key): deployment, ("ReplicaSet", replica_set.meta.key): replica_set}
    cluster = EMPTY.with_(pods=pods, workloads=workloads)
    status = to_json(deployment, cluster)["status"]
    assert (status["replicas"], status["readyReplicas"], status["availableReplicas"], status["updatedReplicas"]) == (3, 2, 2, 3)
    assert status["unavailableReplicas"] == 1
    owner = to_json(pods[Key("default", "web-1-0")], cluster)["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["apiVersion"]) == ("ReplicaSet", "web-1", "apps/v1")
    assert owner["uid"] == to_json(replica_set, cluster)["metadata"]["uid"]


def test_a_node_of_a_topology() -> None:
    spec = adapt_topology(None, ()).nodes[0]
    node = Node(Meta(spec.name, labels=spec.labels), spec.addresses, spec.pod_cidrs, control_plane=True)
    shown = to_json(node, EMPTY)
    assert shown["spec"]["podCIDR"] == "10.244.0.0/24"
    assert shown["spec"]["taints"][0]["effect"] == "NoSchedule"
    assert shown["status"]["addresses"][0] == {"type": "InternalIP", "address": "192.168.0.169"}
    assert {entry["type"]: entry["status"] for entry in shown["status"]["conditions"]}["Ready"] == "True"
