"""The spread of connections over endpoints, with packets: uniform for 2, 3, 7 and 50 endpoints, from a pod and from outside.

3,000 connections: with 50 endpoints each is expected 60 times, and an endpoint that gets half of its share is found with
near certainty. The chi-square test's false-alarm rate is 1e-6 a run.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.client import Lab
from netlab.judge import ALPHA, chi_square_p
from netlab.manifest import default_topology
from netlab.model import Topology

SIZES = (2, 3, 7, 50)
CONNECTIONS = 3000
WAYS = ("iptables", "nftables", "nftables, layout maps")


def objects() -> list[dict[str, Any]]:
    """50 pods, the first two of them behind `two`, the first three behind `three`, and so on; a Service a size."""
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"web-{at:02}", "labels": {f"of-{size}": "yes" for size in SIZES if at < size}},
            "spec": {"containers": [{"name": "web", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}]},
        }
        for at in range(max(SIZES))
    ]
    found.append(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "client"},
            "spec": {"containers": [{"name": "c", "image": "client"}]},
        }
    )
    for size in SIZES:
        spec = {
            "type": "NodePort",
            "selector": {f"of-{size}": "yes"},
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30000 + size}],
        }
        found.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"of-{size}"}, "spec": spec})
    return found


def topology(way: str) -> Topology:
    mode, _, layout = way.partition(", layout ")
    default = default_topology()
    proxy = replace(default.cluster.proxy, mode=mode, layout=layout or "chains")  # type: ignore[arg-type]  # one of the two
    return replace(default, cluster=replace(default.cluster, proxy=proxy))


@pytest.fixture(scope="module", params=WAYS)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    manifest: Path = tmp_path_factory.mktemp("distribution") / "objects.json"
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects()}))
    with netlab.up(topology(request.param), [manifest]) as running:
        yield running


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sender, way", [("pod/client", "cluster"), ("host/client", "node port")])
def test_uniform(lab: Lab, size: int, sender: str, way: str) -> None:
    to = f"svc/of-{size}" if way == "cluster" else f"192.168.0.170:{30000 + size}"
    seen = lab.probe(sender, to, count=CONNECTIONS, timeout_s=5.0)
    assert seen.verdict == "pass", seen.why
    assert seen.outcomes["delivered"] == CONNECTIONS
    assert set(seen.backends) == {f"pod/default/web-{at:02}" for at in range(size)}
    assert chi_square_p(tuple(seen.backends.values())) >= ALPHA
    assert seen.distribution is not None and seen.distribution["p"] >= ALPHA
