"""A whole matrix of one mode: every pod, node and the outside host to every pod and Service of a lab with all kinds of Services.

More than 500 flows; all must be judged, and all must pass. Where the plan is broken afterwards by hand, the same matrix fails.
How long it takes is a row of `netlab bench matrix`.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.client import Lab, ProbeResult

MODES = ("iptables", "nftables")
LEAST = 500
PODS = 18


def objects() -> list[dict[str, Any]]:
    """18 pods of three apps, in two nodes; for each app a Service of each kind; and a Service without endpoints."""
    found: list[dict[str, Any]] = []
    for number in range(PODS):
        app = "abc"[number % 3]
        container = {"name": "c", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}
        meta = {"name": f"{app}-{number:02}", "labels": {"app": app}}
        found.append({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"containers": [container]}})
    for app in "abc":
        for name, spec in KINDS.items():
            ports = [{"port": 80, "targetPort": 8080}]
            spec = {"selector": {"app": app}, "ports": ports, **spec}
            found.append({"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"{app}-{name}"}, "spec": spec})
    nobody = {"selector": {"app": "nobody"}, "ports": [{"port": 80}]}
    return [*found, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "nobody"}, "spec": nobody}]


KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "node-port": {"type": "NodePort"},
    "local": {"type": "NodePort", "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local"},
    "sticky": {"sessionAffinity": "ClientIP"},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_flow_of_a_whole_matrix_passes(mode: str, tmp_path: Path) -> None:
    manifest = tmp_path / "objects.json"
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects()}))
    with netlab.up(manifests=[manifest], proxy=mode) as lab:
        results = lab.matrix()
        assert len(results) >= LEAST
        assert [one for one in results if one.verdict != "pass"] == []
        kinds = Counter(one.expected["outcome"] for one in results)
        assert kinds["delivered"] > LEAST / 2 and kinds["rejected"] >= PODS, kinds
        assert broken(lab, mode)


def broken(lab: Lab, mode: str) -> list[ProbeResult]:
    """The flows that fail when a node has lost its rules."""
    flush = ["nft", "flush", "ruleset"] if mode == "nftables" else ["iptables", "-t", "nat", "-F"]
    lab.node("node-170").exec(*flush)
    sender = next(
        pod["metadata"]["name"] for pod in lab.get("pods", namespace="default") if pod["spec"]["nodeName"] == "node-170"
    )
    return [one for one in lab.matrix([f"pod/{sender}"], ["svc/a-plain", "svc/b-sticky"]) if one.verdict == "fail"]
