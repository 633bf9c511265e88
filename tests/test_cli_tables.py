"""`get` prints what kubectl prints: hand-made Kubernetes JSON against kubectl's own columns."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from netlab.cli import tables

NOW = datetime(2026, 1, 2, 12, 0, 0, tzinfo=UTC)


def made(
    kind: str, name: str, age_s: int = 45, api: str = "v1", labels: dict[str, str] | None = None, **rest: Any
) -> dict[str, Any]:
    stamp = (NOW - timedelta(seconds=age_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    metadata = {"name": name, "namespace": "default", "creationTimestamp": stamp, "labels": labels or {}}
    return {"apiVersion": api, "kind": kind, "metadata": metadata, **rest}


def service(name: str, **spec: Any) -> dict[str, Any]:
    status = spec.pop("status", {})
    return made("Service", name, spec={"type": "ClusterIP", "clusterIPs": [spec.get("clusterIP")], **spec}, status=status)


def shown(*items: dict[str, Any], **options: Any) -> list[str]:
    return tables.text(items, NOW, **options).splitlines()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0s"), (119, "119s"), (120, "2m"), (192, "3m12s"), (600, "10m"), (10799, "179m"), (10800, "3h"), (11100, "3h5m"),
        (28800, "8h"), (172799, "47h"), (172800, "2d"), (180000, "2d2h"), (691200, "8d"), (63072000, "2y"), (63158400, "2y1d"),
        (-1, "0s"), (-5, "<invalid>"),
    ],
)  # fmt: skip
def test_ages_in_kubectls_words(seconds: int, words: str) -> None:
    assert tables.age(seconds) == words


def test_services() -> None:
    assert shown(
        service("kubernetes", clusterIP="10.96.0.1", ports=[{"name": "https", "port": 443, "protocol": "TCP"}]),
        service("kubia", type="NodePort", clusterIP="10.96.0.80", ports=[{"port": 80, "nodePort": 30123, "protocol": "TCP"}]),
        service("two", clusterIP="10.96.0.81", ports=[{"port": 80}, {"port": 53, "protocol": "UDP"}], externalIPs=["192.0.2.1"]),
        service("none", clusterIP="None"),
        service("balanced", type="LoadBalancer", clusterIP="10.96.0.82", ports=[{"port": 80, "nodePort": 31000}]),
        service("ext", type="ExternalName", externalName="example.test"),
    ) == [
        "NAME         TYPE           CLUSTER-IP   EXTERNAL-IP    PORT(S)         AGE",
        "kubernetes   ClusterIP      10.96.0.1    <none>         443/TCP         45s",
        "kubia        NodePort       10.96.0.80   <none>         80:30123/TCP    45s",
        "two          ClusterIP      10.96.0.81   192.0.2.1      80/TCP,53/UDP   45s",
        "none         ClusterIP      None         <none>         <none>          45s",
        "balanced     LoadBalancer   10.96.0.82   <pending>      80:31000/TCP    45s",
        "ext          ExternalName   <none>       example.test   <none>          45s",
    ]


def test_services_wide_with_namespaces() -> None:
    one = service("kubia", clusterIP="10.96.0.80", ports=[{"port": 80}], selector={"tier": "x", "app": "kubia"})
    assert shown(one, wide=True, namespaces=True) == [
        "NAMESPACE   NAME    TYPE        CLUSTER-IP   EXTERNAL-IP   PORT(S)   AGE   SELECTOR",
        "default     kubia   ClusterIP   10.96.0.80   <none>        80/TCP    45s   app=kubia,tier=x",
    ]


def container(ready: bool = True, restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"ready": ready, "restartCount": restarts, "state": state or {"running": {}}}


def ended(phase: str, **terminated: Any) -> dict[str, Any]:
    return {"phase": phase, "containerStatuses": [container(False, terminated=terminated)]}


RUNNING = {"phase": "Running", "containerStatuses": [container()]}
CRASHING = container(False, waiting={"reason": "CrashLoopBackOff"})


@pytest.mark.parametrize(
    ("name", "status", "deleted", "cells"),
    [
        ("running", RUNNING, False, "1/1     Running"),
        ("pending", {"phase": "Pending"}, False, "0/1     Pending"),
        ("crashing", {"phase": "Running", "containerStatuses": [CRASHING]}, False, "0/1     CrashLoopBackOff"),
        ("ended", ended("Succeeded", reason="Completed"), False, "0/1     Completed"),
        ("failed", ended("Failed", exitCode=3), False, "0/1     ExitCode:3"),
        ("terminating", RUNNING, True, "1/1     Terminating"),
    ],
)
def test_status_of_a_pod(name: str, status: dict[str, Any], deleted: bool, cells: str) -> None:
    pod = made("Pod", "p", spec={"containers": [{"name": "main"}]}, status=status)
    if deleted:
        pod["metadata"]["deletionTimestamp"] = "2026-01-02T12:00:10Z"
    assert cells in shown(pod)[1]


def test_pods_wide_and_restarts() -> None:
    ended = {"terminated": {"finishedAt": "2026-01-02T11:58:00Z"}}
    status = {"phase": "Running", "podIP": "10.244.1.2", "containerStatuses": [{**container(restarts=2), "lastState": ended}]}
    pod = made("Pod", "kubia-x", spec={"nodeName": "node-170", "containers": [{"name": "main"}]}, status=status)
    assert shown(pod, wide=True) == [
        "NAME      READY   STATUS    RESTARTS     AGE   IP           NODE       NOMINATED NODE   READINESS GATES",
        "kubia-x   1/1     Running   2 (2m ago)   45s   10.244.1.2   node-170   <none>           <none>",
    ]


def test_endpoints_show_three_and_count_the_rest() -> None:
    addresses = [{"ip": f"10.244.1.{number}"} for number in range(2, 7)]
    many = made("Endpoints", "kubia", subsets=[{"addresses": addresses, "ports": [{"port": 8080}]}])
    assert shown(many, made("Endpoints", "nothing")) == [
        "NAME      ENDPOINTS                                                     AGE",
        "kubia     10.244.1.2:8080,10.244.1.3:8080,10.244.1.4:8080 + 2 more...   45s",
        "nothing   <none>                                                        45s",
    ]


def test_endpointslices() -> None:
    one = made(
        "EndpointSlice",
        "kubia-x7k2p",
        api="discovery.k8s.io/v1",
        addressType="IPv4",
        ports=[{"port": 8080}],
        endpoints=[{"addresses": ["10.244.1.2"]}, {"addresses": ["10.244.2.2"]}],
    )
    empty = made("EndpointSlice", "empty", api="discovery.k8s.io/v1", addressType="IPv4", ports=None, endpoints=None)
    assert shown(one, empty) == [
        "NAME          ADDRESSTYPE   PORTS     ENDPOINTS               AGE",
        "kubia-x7k2p   IPv4          8080      10.244.1.2,10.244.2.2   45s",
        "empty         IPv4          <unset>   <unset>                 45s",
    ]


def test_nodes() -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.32.0"}}
    control = made("Node", "node-169", 3600 * 24 * 3, labels={"node-role.kubernetes.io/control-plane": ""}, spec={}, status=ready)
    worker = made("Node", "node-170", spec={"unschedulable": True}, status={**ready, "conditions": []})
    assert shown(control, worker) == [
        "NAME       STATUS                        ROLES           AGE   VERSION",
        "node-169   Ready                         control-plane   3d    v1.32.0",
        "node-170   NotReady,SchedulingDisabled   <none>          45s   v1.32.0",
    ]


TEMPLATE = {"spec": {"containers": [{"name": "main", "image": "luksa/kubia"}]}}


def workload(kind: str, name: str, api: str = "apps/v1", **rest: Any) -> dict[str, Any]:
    spec = {"template": TEMPLATE, "replicas": 3, **rest.pop("spec")}
    return made(kind, name, api=api, spec=spec, **rest)


def test_replication_controllers_wide() -> None:
    status = {"replicas": 3, "readyReplicas": 2}
    one = workload("ReplicationController", "kubia", "v1", spec={"selector": {"app": "kubia"}}, status=status)
    assert shown(one, wide=True) == [
        "NAME    DESIRED   CURRENT   READY   AGE   CONTAINERS   IMAGES        SELECTOR",
        "kubia   3         3         2       45s   main         luksa/kubia   app=kubia",
    ]


def test_deployments_wide() -> None:
    expression = {"key": "app", "operator": "In", "values": ["b", "a"]}
    status = {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}
    one = workload("Deployment", "web", spec={"selector": {"matchExpressions": [expression]}}, status=status)
    assert shown(one, wide=True) == [
        "NAME   READY   UP-TO-DATE   AVAILABLE   AGE   CONTAINERS   IMAGES        SELECTOR",
        "web    2/3     3            2           45s   main         luksa/kubia   app in (a,b)",
    ]


def test_daemonsets() -> None:
    status = {"desiredNumberScheduled": 2, "numberReady": 1}
    one = workload("DaemonSet", "dd", spec={"selector": {"matchLabels": {"a": "b"}}}, status=status)
    assert shown(one) == [
        "NAME   DESIRED   CURRENT   READY   UP-TO-DATE   AVAILABLE   NODE SELECTOR   AGE",
        "dd     2         0         1       0            0           <none>          45s",
    ]


def test_namespaces_and_kinds_without_columns_of_their_own() -> None:
    assert shown(made("Namespace", "default", status={"phase": "Active"}))[1] == "default   Active   45s"
    assert shown(made("ServiceAccount", "x")) == ["NAME   AGE", "x      45s"]


def test_labels_and_prefix() -> None:
    one = made("Deployment", "web", api="apps/v1", labels={"b": "2", "a": "1"}, spec={}, status={})
    assert shown(one, prefix=True, labels=True)[1].split() == ["deployment.apps/web", "0/0", "0", "0", "45s", "a=1,b=2"]
