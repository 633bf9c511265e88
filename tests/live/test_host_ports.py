"""hostPort with real packets, in both fabrics and every mode that this kernel has: from outside, from neighbours, from itself."""

from pathlib import Path

import pytest

import netlab
from tests.test_host_ports import PODS

SENDERS = ("host/client", "pod/near", "pod/far", "pod/web", "node/node-170", "node/node-171")
TARGETS = ("192.168.0.170:8080", "192.168.0.170:8081", "192.168.0.171:8080", "127.0.0.1:8080")


@pytest.mark.parametrize("fabric", ["bridge", "routed"])
@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_host_port_from_everywhere(tmp_path: Path, mode: str, fabric: str) -> None:
    manifest = tmp_path / "pods.yaml"
    manifest.write_text(PODS)
    with netlab.up(manifests=[manifest], proxy=mode, fabric=fabric) as lab:
        results = lab.matrix(SENDERS, TARGETS, timeout_s=3.0)
        assert {f"{one.sender} to {one.to}": one.why for one in results if one.verdict != "pass"} == {}
        reached = [one for one in results if one.outcomes["delivered"]]
        assert len(reached) >= 12
        assert lab.verify().drift == []
        done = lab.exec("host/client", ["curl", "-s", "-m", "5", "http://192.168.0.170:8080/"])
        assert "Welcome" in done.stdout
        lab.delete("pod", "web")
        assert lab.probe("host/client", TARGETS[0]).outcomes["rejected"] == 1
        assert lab.verify().drift == []


HOSTED = """
apiVersion: v1
kind: Pod
metadata: {name: hosted, labels: {app: hosted}}
spec: {hostNetwork: true, nodeName: node-170, containers: [{name: c, image: luksa/kubia, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: hosted}
spec: {type: NodePort, selector: {app: hosted}, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
"""


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_pod_of_the_host_network_asks_its_node(tmp_path: Path, mode: str) -> None:
    manifest = tmp_path / "pods.yaml"
    manifest.write_text(HOSTED)
    with netlab.up(manifests=[manifest], proxy=mode) as lab:
        asked = ("svc/hosted", "192.168.0.170:30080", "127.0.0.1:8080", "127.0.0.1:30080")
        results = [lab.probe("pod/hosted", to, timeout_s=5.0) for to in asked]
        assert [(one.to, one.why) for one in results if one.verdict != "pass"] == []
        assert [one.outcomes["delivered"] for one in results] == [1, 1, 1, int(mode == "iptables")]
        assert lab.explain("pod/hosted", "127.0.0.1:8080")["verdict"] == "pass"
