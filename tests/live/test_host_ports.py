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
