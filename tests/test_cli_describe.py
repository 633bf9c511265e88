"""`describe` prints what kubectl prints. The expected texts were taken from kubectl 1.32 given the same JSON."""

from datetime import UTC, datetime
from typing import Any

import pytest

from netlab.cli.describe import Related, columns, text

STAMP = "2026-01-01T00:00:00Z"
NOW = datetime(2026, 1, 1, 0, 0, 45, tzinfo=UTC)


def made(kind: str, name: str, **rest: Any) -> dict[str, Any]:
    labels = rest.pop("labels", {})
    return {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": STAMP, "labels": labels},
        **rest,
    }


SERVICE = made(
    "Service",
    "kubia",
    labels={"app": "kubia", "b": "c"},
    spec={
        "type": "NodePort",
        "clusterIP": "10.96.0.80",
        "clusterIPs": ["10.96.0.80"],
        "selector": {"app": "kubia", "tier": "x"},
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "sessionAffinity": "ClientIP",
        "externalTrafficPolicy": "Local",
        "internalTrafficPolicy": "Cluster",
        "ports": [
            {"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": 30080},
            {"name": "https", "port": 443, "targetPort": "tls", "protocol": "TCP", "nodePort": 30443},
        ],
    },
)
SLICE = made(
    "EndpointSlice",
    "kubia-x",
    addressType="IPv4",
    ports=[{"name": "http", "port": 8080}, {"name": "https", "port": 8443}],
    endpoints=[{"addresses": [f"10.244.1.{number}"], "conditions": {"ready": number != 3}} for number in range(2, 8)],
)
SERVICE_TEXT = """\
Name:                     kubia
Namespace:                default
Labels:                   app=kubia
                          b=c
Annotations:              <none>
Selector:                 app=kubia,tier=x
Type:                     NodePort
IP Family Policy:         SingleStack
IP Families:              IPv4
IP:                       10.96.0.80
IPs:                      10.96.0.80
Port:                     http  80/TCP
TargetPort:               8080/TCP
NodePort:                 http  30080/TCP
Endpoints:                10.244.1.2:8080,10.244.1.4:8080,10.244.1.5:8080 + 2 more...
Port:                     https  443/TCP
TargetPort:               tls/TCP
NodePort:                 https  30443/TCP
Endpoints:                10.244.1.2:8443,10.244.1.4:8443,10.244.1.5:8443 + 2 more...
Session Affinity:         ClientIP
External Traffic Policy:  Local
Internal Traffic Policy:  Cluster
Events:                   <none>
"""
POD = made(
    "Pod",
    "kubia-1",
    labels={"app": "kubia"},
    spec={
        "nodeName": "node-170",
        "containers": [
            {"name": "kubia", "image": "luksa/kubia", "ports": [{"containerPort": 8080}], "env": [{"name": "A", "value": "b"}]},
            {
                "name": "side",
                "image": "busybox",
                "command": ["sleep", "1"],
                "args": ["x"],
                "readinessProbe": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}},
            },
        ],
    },
    status={
        "phase": "Running",
        "podIP": "10.244.1.2",
        "podIPs": [{"ip": "10.244.1.2"}],
        "hostIP": "192.168.0.170",
        "startTime": STAMP,
        "conditions": [{"type": "Ready", "status": "True"}, {"type": "ContainersReady", "status": "True"}],
        "containerStatuses": [
            {
                "name": "kubia",
                "ready": True,
                "restartCount": 2,
                "state": {"running": {"startedAt": STAMP}},
                "lastState": {"terminated": {"exitCode": 137, "reason": "Error", "startedAt": STAMP, "finishedAt": STAMP}},
            },
            {"name": "side", "ready": False, "restartCount": 0, "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
        ],
    },
)
POD["metadata"]["ownerReferences"] = [{"kind": "ReplicationController", "name": "kubia", "controller": True}]
POD_TEXT = """\
Name:         kubia-1
Namespace:    default
Node:         node-170/192.168.0.170
Start Time:   Thu, 01 Jan 2026 00:00:00 +0000
Labels:       app=kubia
Annotations:  <none>
Status:       Running
IP:           10.244.1.2
IPs:
  IP:           10.244.1.2
Controlled By:  ReplicationController/kubia
Containers:
  kubia:
    Container ID:
    Image:          luksa/kubia
    Image ID:
    Port:           8080/TCP
    Host Port:      0/TCP
    State:          Running
      Started:      Thu, 01 Jan 2026 00:00:00 +0000
    Last State:     Terminated
      Reason:       Error
      Exit Code:    137
      Started:      Thu, 01 Jan 2026 00:00:00 +0000
      Finished:     Thu, 01 Jan 2026 00:00:00 +0000
    Ready:          True
    Restart Count:  2
    Environment:
      A:     b
    Mounts:  <none>
  side:
    Container ID:
    Image:         busybox
    Image ID:
    Port:          <none>
    Host Port:     <none>
    Command:
      sleep
      1
    Args:
      x
    State:          Waiting
      Reason:       CrashLoopBackOff
    Ready:          False
    Restart Count:  0
    Readiness:      http-get http://:8080/ delay=0s timeout=1s period=10s #success=1 #failure=3
    Environment:    <none>
    Mounts:         <none>
Conditions:
  Type              Status
  Ready             True
  ContainersReady   True
Volumes:            <none>
QoS Class:          BestEffort
Node-Selectors:     <none>
Tolerations:        <none>
Events:             <none>
"""


def without_trailing_blanks(shown: str) -> str:
    """kubectl leaves some, an editor of this file may not."""
    return "".join(line.rstrip() + "\n" for line in shown.splitlines())


def test_service() -> None:
    assert text(SERVICE, Related(NOW, slices=[SLICE])) == SERVICE_TEXT


def test_service_without_endpoints() -> None:
    assert "Endpoints:                <none>\n" in text(SERVICE, Related(NOW))


def test_pod() -> None:
    assert without_trailing_blanks(text(POD, Related(NOW))) == POD_TEXT


def test_node_shows_its_pods() -> None:
    node = made(
        "Node",
        "node-170",
        spec={"podCIDR": "10.244.1.0/24"},
        status={"addresses": [{"type": "InternalIP", "address": "192.168.0.170"}]},
    )
    shown = text(node, Related(NOW, pods=[POD]))
    assert "  InternalIP:  192.168.0.170\n" in shown
    assert "PodCIDR:                      10.244.1.0/24\n" in shown
    assert "Non-terminated Pods:          (1 in total)\n" in shown
    assert "  default                     kubia-1    0 (0%)        0 (0%)      0 (0%)           0 (0%)         45s\n" in shown


@pytest.mark.parametrize(
    "kind",
    ["ReplicationController", "ReplicaSet", "Deployment", "DaemonSet", "Endpoints", "EndpointSlice", "Namespace", "ConfigMap"],
)
def test_a_bare_object_of_every_kind_can_be_described(kind: str) -> None:
    assert text(made(kind, "bare", spec={}, status={}), Related(NOW)).startswith("Name:")


def test_columns_share_a_width_only_with_their_neighbours() -> None:
    assert columns(["a:\tx", "long:\ty", "no tab", "b:\tz"]) == "a:     x\nlong:  y\nno tab\nb:  z\n"


SECRET = made("Secret", "login", type="Opaque", data={"password": "aHVudGVyMg=="}, stringData={"user": "admin"})


def test_a_secret_is_described_by_its_sizes() -> None:
    shown = text(SECRET, Related(NOW))
    assert "aHVudGVyMg" not in shown and "hunter2" not in shown and "admin" not in shown
    assert (
        shown
        == """\
Name:         login
Namespace:    default
Labels:       <none>
Annotations:  <none>

Type:  Opaque

Data
====
password:  7 bytes
user:      5 bytes
"""
    )


def test_a_configmap_is_described_with_its_data() -> None:
    one = made("ConfigMap", "settings", data={"a.conf": "x = 1\ny = 2"}, binaryData={"logo": "AAEC"})
    assert (
        text(one, Related(NOW)).partition("<none>\n\n")[2]
        == """\
Data
====
a.conf:
----
x = 1
y = 2


BinaryData
====
logo: 3 bytes

Events:  <none>
"""
    )


def test_an_ingressclass_is_described_by_its_controller() -> None:
    one = made("IngressClass", "nginx", spec={"controller": "k8s.io/ingress-nginx"})
    assert (
        text(one, Related(NOW))
        == """\
Name:         nginx
Labels:       <none>
Annotations:  <none>
Controller:   k8s.io/ingress-nginx
Events:       <none>
"""
    )
