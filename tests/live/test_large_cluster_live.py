"""A lab with a thousand endpoints, and one more: rules without comments are loaded, checked, and known for whose they are."""

from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import MachineError
from netlab.proxy.iptables import LARGE_CLUSTER_ENDPOINTS
from netlab.proxy.port_blocks import every_port

NODE = "node/node-170"
FIRST = ip_address("198.18.0.1")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    topology = tmp_path_factory.mktemp("large") / "topology.yaml"
    text = Path("topologies/two-node.yaml").read_text()
    topology.write_text(f"{text}cluster: {{proxy: {{mode: iptables, backend: nft}}}}\n")
    try:
        with netlab.up(topology, ["manifests/kubia.yaml"]) as running:
            yield running
    except MachineError as error:
        pytest.skip(f"this machine cannot run a lab: {error}")


def fill(lab: Lab, count: int) -> None:
    """As many endpoints outside the cluster, behind a Service of their own, as make it `count` in all."""
    known = every_port(lab.cluster())["ip"]
    others = sum(len(port.endpoints) for port in known if port.front.service.name != "far")
    meta = {"name": "far", "labels": {"kubernetes.io/service-name": "far"}}
    endpoints = [{"addresses": [str(FIRST + number)]} for number in range(count - others)]
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "far"}, "spec": {"ports": [{"port": 80}]}}
    slices = {"addressType": "IPv4", "ports": [{"port": 80}], "endpoints": endpoints}
    lab.apply([service, {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, **slices}])
    assert sum(len(port.endpoints) for port in every_port(lab.cluster())["ip"]) == count


def of_endpoints(lab: Lab) -> list[str]:
    saved = lab.exec(NODE, ["iptables-nft-save", "-t", "nat"], check=True).stdout
    return [line for line in saved.splitlines() if line.startswith("-A ") and "KUBE-SEP-" in line]


def endpoint_rules(found: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in found["hops"] if (one["chain"] or "").startswith("KUBE-SEP-")]


def test_across_the_threshold_and_back(lab: Lab) -> None:
    fill(lab, LARGE_CLUSTER_ENDPOINTS)
    assert all("--comment" in line for line in of_endpoints(lab))
    fill(lab, LARGE_CLUSTER_ENDPOINTS + 1)
    lines = of_endpoints(lab)
    assert len(lines) > 3 * LARGE_CLUSTER_ENDPOINTS
    assert not any("--comment" in line for line in lines)
    assert lab.verify().drift == []
    fill(lab, LARGE_CLUSTER_ENDPOINTS)
    assert all("--comment" in line for line in of_endpoints(lab))
    assert lab.verify().drift == []


def test_a_rule_without_a_comment_is_known_for_whose_it_is(lab: Lab) -> None:
    fill(lab, LARGE_CLUSTER_ENDPOINTS + 1)
    found = lab.explain("pod/client", "svc/kubia")
    assert (found["verdict"], found["outcome"], found["trace_agrees"]) == ("pass", "delivered", True), found["disagreements"]
    (rewritten,) = [one for one in endpoint_rules(found) if one["decisive"]]
    assert "--comment" not in rewritten["rule"]
    assert rewritten["owner"] == "svc/default/kubia"
    chosen = {f"{one['status']['podIP']}:8080" for one in lab.get("pods") if one["metadata"]["name"].startswith("kubia-")}
    assert rewritten["did"].removeprefix("destination becomes ") in chosen
    probed = lab.probe("pod/client", "svc/kubia")
    assert probed.verdict == "pass"


def test_a_rule_that_went_missing_is_missed(lab: Lab) -> None:
    """The other side of it: without comments a difference is still found, and named by its chain."""
    fill(lab, LARGE_CLUSTER_ENDPOINTS + 1)
    gone = next(line for line in of_endpoints(lab) if line.startswith("-A KUBE-SEP-") and "DNAT" in line)
    lab.exec(NODE, ["iptables-nft", "-t", "nat", "-D", *gone.split()[1:]], check=True)
    assert any(gone in sentence for sentence in lab.verify(repair=True).drift)
    assert lab.verify().drift == []
