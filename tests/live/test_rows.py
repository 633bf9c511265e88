"""Rows of the behaviour table that the spec's cases leave out: detectors, ExternalName, headless, externalIPs, SCTP.

Each row says in its own words what must be seen; the verdict (oracle, rules and packets agree) is asked besides.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.cli.probing import probe_text
from netlab.client import Lab
from netlab.errors import InputError
from netlab.kernel.features import has_sctp

MODES = ("iptables", "nftables")
EXTERNAL_IP = "203.0.113.200"


def pod(name: str, node: str, *ports: dict[str, Any], labels: dict[str, str] | None = None) -> dict[str, Any]:
    container = {"name": "c", "image": "luksa/kubia", "ports": list(ports)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels or {}},
        "spec": {"nodeName": node, "containers": [container]},
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    given = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": given}


WEB = ({"containerPort": 8080}, {"containerPort": 9000, "protocol": "SCTP"})
OBJECTS = (
    pod("client", "node-170"),
    pod("web-1", "node-170", *WEB, labels={"app": "web"}),
    pod("web-2", "node-171", *WEB, labels={"app": "web"}),
    service("web", type="NodePort", externalIPs=[EXTERNAL_IP]),
    service("local", type="NodePort", externalIPs=["203.0.113.201"], externalTrafficPolicy="Local"),
    service("bare", clusterIP="None"),
    service("away", type="ExternalName", externalName="web.example.org"),
    service("alias", type="ExternalName", externalName="web.default.svc.cluster.local"),
    service("sctp", ports=[{"port": 9000, "protocol": "SCTP"}]),
)
BOTH = {"pod/default/web-1", "pod/default/web-2"}


@contextmanager
def lab_of(tmp_path: Path, mode: str, fabric: str = "bridge", **proxy: Any) -> Iterator[Lab]:
    topology, manifest = tmp_path / "topology.json", tmp_path / "manifest.json"
    cluster = {"fabric": fabric, "proxy": {"mode": mode, **proxy}}
    routes = {"10.96.0.0/12": "192.168.0.170", "10.244.0.0/16": "192.168.0.170", "203.0.113.200/31": "192.168.0.170"}
    nodes = {f"node-{at}": {"addresses": [f"192.168.0.{at}"]} for at in (170, 171)}
    hosts = {"client": {"addresses": ["192.168.0.100"], "routes": routes}}
    networks = {"lan": {"cidr": "192.168.0.0/24", "router": "192.168.0.1"}}
    document = {"apiVersion": "netlab/v1", "kind": "Topology", "name": "rows", "cluster": cluster}
    topology.write_text(json.dumps({**document, "networks": networks, "nodes": nodes, "hosts": hosts}))
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(OBJECTS)}))
    with netlab.up(topology, manifests=[manifest]) as lab:
        yield lab


def keeps_source(lab: Lab, sender: str, to: str) -> bool:
    """Whether the backends see the sender's own address. All flows must arrive, at both backends."""
    seen = lab.probe(sender, to, count=40)
    assert seen.verdict == "pass", seen
    assert seen.outcomes["delivered"] == 40 and set(seen.backends) == BOTH, seen
    own = lab.get("pods", sender.removeprefix("pod/"))[0]["status"]["podIP"] if sender.startswith("pod/") else "192.168.0.100"
    assert own not in seen.sources or set(seen.sources) == {own}, seen
    return own in seen.sources


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("settings", "fabric", "pod_is_local", "host_is_local"),
    [
        ({"detectLocal": "ClusterCIDR"}, "bridge", True, False),
        ({"detectLocal": "NodeCIDR"}, "bridge", True, False),
        ({"detectLocal": "NodeCIDR"}, "routed", True, False),
        ({"detectLocal": "BridgeInterface", "bridgeInterface": "cni0"}, "bridge", True, False),
        ({"detectLocal": "BridgeInterface", "bridgeInterface": "eth0"}, "bridge", False, True),
        ({"detectLocal": "InterfaceNamePrefix", "interfaceNamePrefix": "veth"}, "routed", True, False),
        ({"detectLocal": "InterfaceNamePrefix", "interfaceNamePrefix": "veth"}, "bridge", False, False),
        ({"detectLocal": "InterfaceNamePrefix", "interfaceNamePrefix": "cni"}, "bridge", True, False),
        ({"detectLocal": "none"}, "bridge", True, True),
        ({"detectLocal": "NodeCIDR", "masqueradeAll": True}, "bridge", False, False),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_detector(
    settings: dict[str, Any], fabric: str, pod_is_local: bool, host_is_local: bool, mode: str, tmp_path: Path
) -> None:
    """Rows 35 and 36: the clusterIP is masqueraded exactly for what the detector does not take for a pod's traffic."""
    with lab_of(tmp_path, mode, fabric, **settings) as lab:
        assert keeps_source(lab, "pod/client", "svc/web") is pod_is_local
        if not host_is_local:  # where it is, answers from the other node's pod take their own way and say nothing
            assert not keeps_source(lab, "host/client", "svc/web")


@pytest.fixture(scope="module", params=MODES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_of(tmp_path_factory.mktemp("rows"), request.param) as running:
        yield running


@pytest.mark.parametrize("sender", ["pod/client", "host/client", "node/node-170"])
def test_external_ip(lab: Lab, sender: str) -> None:
    """Row 16: captured though no node has it; policy Cluster masquerades, also what comes from pods."""
    seen = lab.probe(sender, f"{EXTERNAL_IP}:80", count=40)
    assert seen.verdict == "pass" and set(seen.backends) == BOTH, seen
    own = {"pod/client": lab.get("pods", "client")[0]["status"]["podIP"], "host/client": "192.168.0.100"}.get(sender)
    assert own not in seen.sources


def test_external_ip_with_local_policy(lab: Lab) -> None:
    """Rows 24 and 25: from outside only this node's endpoint, the source kept; from a pod all of them."""
    seen = lab.probe("host/client", "203.0.113.201:80", count=20)
    assert seen.verdict == "pass" and dict(seen.backends) == {"pod/default/web-1": 20}, seen
    assert set(seen.sources) == {"192.168.0.100"}
    seen = lab.probe("pod/client", "203.0.113.201:80", count=40)
    assert seen.verdict == "pass" and set(seen.backends) == BOTH, seen


def test_headless(lab: Lab) -> None:
    """Row 2: no rule knows it; its name stands for its pods."""
    for node in ("node-170", "node-171"):
        rules = lab.node(node).rules()
        assert "default/bare" not in rules and "default/web" in rules
    seen = lab.probe("pod/client", "bare:8080")
    assert seen.verdict == "pass" and set(seen.backends) <= BOTH and seen.outcomes["delivered"] == 1


def test_external_name(lab: Lab) -> None:
    """Row 4: no rule knows it, no address is given to it; as an alias of another Service it leads there."""
    assert "clusterIP" not in lab.get("services", "away")[0]["spec"]
    for name in ("away", "alias"):
        assert all(f"default/{name}" not in lab.node(node).rules() for node in ("node-170", "node-171"))
    with pytest.raises(InputError, match=r"stands for web\.example\.org"):
        lab.probe("pod/client", "away:80")
    seen = lab.probe("pod/client", "alias:80", count=40)
    assert seen.verdict == "pass" and set(seen.backends) == BOTH


def test_sctp(lab: Lab) -> None:
    """Row 12: a key of its own. INIT chunks pass the rules of any kernel; sockets that answer need one with SCTP."""
    seen = lab.probe("pod/client", "svc/sctp", count=40)
    assert seen.to.endswith("/sctp")
    assert seen.verdict == "pass" and seen.outcomes["delivered"] == 40 and set(seen.backends) == BOTH, seen
    silent = not has_sctp()
    assert [line.startswith("this kernel has no SCTP") for line in seen.json().get("notes", [])] == [True] * silent
    assert ("note: this kernel has no SCTP" in probe_text(seen.json(), colour=False)) is silent
    told = lab.explain("pod/client", "svc/sctp")
    assert told["verdict"] == "pass" and told["outcome"] == "delivered" and told["trace_agrees"], told
    assert any("nobody listened" in line for line in told["notes"]) is silent
    # Nobody listens on this port of the pod: a kernel with SCTP refuses, and without it nobody can tell.
    nobody = lab.probe("pod/client", "pod/web-1:9009", protocol="sctp", timeout_s=0.3)
    assert nobody.verdict == ("inconclusive" if silent else "pass") and nobody.json()["expected"]["outcome"] == "rejected", nobody
    address = seen.to.partition(":")[0]
    for protocol in ("tcp", "udp"):
        other = lab.probe("pod/client", f"{address}:9000", protocol=protocol, timeout_s=0.3)
        assert other.verdict == "pass" and other.outcomes["delivered"] == 0, other
    assert lab.probe("pod/client", "svc/web:80", protocol="sctp", timeout_s=0.3).outcomes["delivered"] == 0
