"""Workloads and nodes in running labs: what the commands say, what DNS and packets do, and that a storm leaves nothing wrong."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import ApiError, InputError
from tests import storm
from tests.test_storm import run
from tests.waiting import until, until_equal

ROLLING = "manifests/rolling.yaml"
STORM = 60


def command(lab: Lab, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "netlab", *words, "--lab", lab.name], capture_output=True, text=True, timeout=120
    )


def until_there_are(count: int, lab: Lab) -> None:
    until_equal(lambda: len(lab.endpoints("svc/web")), count)


def test_rollout_verbs_say_what_kubectl_says() -> None:
    with netlab.up(manifests=[ROLLING]) as lab:
        assert command(lab, "rollout", "restart", "deploy/web").stdout == "deployment.apps/web restarted\n"
        done = command(lab, "rollout", "status", "deploy/web", "--timeout", "50s")
        lines = done.stdout.splitlines()
        assert (done.returncode, lines[-1]) == (0, 'deployment "web" successfully rolled out')
        assert all(line.startswith('Waiting for deployment "web" rollout to finish: ') for line in lines[:-1])
        assert command(lab, "rollout", "history", "deploy/web").stdout.splitlines()[:2] == [
            "deployment.apps/web ", "REVISION   CHANGE-CAUSE",
        ]  # fmt: skip
        assert "with revision #1" in command(lab, "rollout", "history", "deploy", "web", "--revision", "1").stdout
        bad = [{**one, "spec": {**one["spec"]}} for one in lab.get("deployments", "web")]
        container = bad[0]["spec"]["template"]["spec"]["containers"][0]
        container["readinessProbe"] = {"exec": {"command": ["false"]}, "periodSeconds": 1}
        lab.request("PUT", "/apis/apps/v1/namespaces/default/deployments/web", bad[0])
        waiting = command(lab, "rollout", "status", "deploy/web", "--timeout", "1s")
        assert (waiting.returncode, waiting.stderr) == (1, "error: timed out waiting for the condition\n")
        assert "1 out of 4 new replicas have been updated" in waiting.stdout
        assert command(lab, "rollout", "undo", "deploy/web").stdout == "deployment.apps/web rolled back\n"
        assert lab.rollout.status("deploy/web", 60.0).endswith("successfully rolled out")
        with pytest.raises(ApiError, match="unable to find the specified revision 99"):
            lab.rollout.undo("deploy/web", 99)
        assert command(lab, "rollout", "status", "rc/none").returncode == 2


def test_stateful_pods_have_names_in_dns_and_keep_them() -> None:
    with netlab.up(manifests=["manifests/stateful.yaml"]) as lab:
        for number in range(3):
            found = lab.exec("pod/web-0", ["getent", "hosts", f"web-{number}.web"], check=True).stdout.split()
            assert found[0] == lab.get("pods", f"web-{number}")[0]["status"]["podIP"]
        before = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in lab.get("pods")}
        lab.rollout.restart("sts/web")
        assert "complete 3 pods at revision" in lab.rollout.status("sts/web", 20.0)
        again = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in lab.get("pods")}
        assert again.keys() == before.keys() and not set(again.values()) & set(before.values())
        assert lab.verify().drift == []
        assert lab.probe("host/client", "pod/web-1").verdict == "pass"


def test_a_jobs_pods_end_and_say_what_they_did() -> None:
    job = {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "count"},
        "spec": {"completions": 2, "completionMode": "Indexed", "template": {"spec": {"restartPolicy": "Never", "containers": [
            {"name": "c", "image": "busybox", "command": ["sh", "-c", "echo number $JOB_COMPLETION_INDEX"]},
        ]}}},
    }  # fmt: skip
    with netlab.up() as lab:
        lab.apply([job])
        until_equal(lambda: lab.get("jobs", "count")[0]["status"].get("succeeded"), 2)
        assert "number" in lab.logs("job/count")
        assert "Complete   2/2" in command(lab, "get", "jobs").stdout


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_dead_node_is_missed_and_its_pods_are_replaced(mode: str, tmp_path: Path) -> None:
    grace_s = 8  # long enough for the first probe to be over before the node is missed, on a busy machine, too
    topology = tmp_path / "patient.yaml"
    topology.write_text(Path("topologies/default.yaml").read_text() + f"cluster: {{nodeMonitorGracePeriod: {grace_s}s}}\n")
    with netlab.up(topology, manifests=[ROLLING], proxy=mode) as lab:
        assert len(lab.endpoints("svc/web")) == 4
        begun = time.monotonic()
        lab.fault("kill-node", "node-171")
        during = lab.probe("host/client", "svc/web", count=40, timeout_s=0.5)
        assert during.verdict == "pass" and 0 < during.outcomes["dropped"] < 40, during
        until_there_are(2, lab)
        assert time.monotonic() - begun >= grace_s
        (ready,) = [one["status"] for one in lab.get("nodes", "node-171")[0]["status"]["conditions"] if one["type"] == "Ready"]
        assert ready == "Unknown"
        until_there_are(4, lab)
        assert lab.probe("host/client", "svc/web", count=40).outcomes == {"delivered": 40, "rejected": 0, "dropped": 0}
        for refused in (lambda: lab.probe("node/node-171", "svc/web"), lambda: lab.exec("node/node-171", ["true"])):
            with pytest.raises(InputError, match="is dead"):
                refused()
        assert lab.verify().drift == []
        lab.fault("heal")
        assert {result.verdict for result in lab.matrix()} == {"pass"}
        assert lab.verify().drift == []


def test_a_node_that_is_cut_off_goes_on_with_what_it_knew() -> None:
    with netlab.up(manifests=[ROLLING], proxy="nftables") as lab:
        local = {f"pod/default/{pod['metadata']['name']}" for pod in lab.get("pods") if pod["spec"]["nodeName"] == "node-171"}
        lab.fault("partition", "node-171")
        until_there_are(2, lab)
        until_there_are(4, lab)
        lab.delete("services", "web")
        address = "10.96.1.1"
        inside = lab.probe("node/node-171", f"{address}:80", count=40)
        assert inside.verdict == "pass" and set(inside.backends) == local, inside
        assert lab.probe("host/client", f"{address}:80", count=5).outcomes["delivered"] == 0
        lab.fault("heal", "node-171")
        assert lab.probe("node/node-171", f"{address}:80", count=5).outcomes["delivered"] == 0
        assert lab.verify().drift == []


@pytest.mark.parametrize("seed", [int(time.time()) // 86400, 7])
def test_a_storm_ends_as_the_controllers_say_and_leaves_nothing_wrong(seed: int, tmp_path: Path) -> None:
    mode = random.Random(seed).choice(["iptables", "nftables"])
    events, expected = run(seed, STORM, flips=False, mode=mode)
    topology = tmp_path / "storm.yaml"
    topology.write_text(storm.topology_of(mode))
    manifest = tmp_path / "objects.json"
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(storm.documents().values())}))
    with netlab.up(topology, manifests=[manifest]) as lab:
        for _, kind, name, replicas in storm.WORKLOADS:
            if kind in storm.SCALED:
                lab.scale(kind, name, replicas)
        for event in events:
            happen(lab, event)
        assert storm.timeless(lab.cluster()) == storm.timeless(expected), seed
        assert lab.verify().drift == []
        assert {result.verdict for result in lab.matrix(["host/client", "node/node-170"])} == {"pass"}
        namespaces = lab.request("POST", "/netlab/v1/namespaces", {})
        pods = {str(pod.ref) for pod in expected.pods.values()}
        assert {name for name in namespaces if name.startswith("pod/")} == pods


def happen(lab: Lab, event: storm.Event) -> None:
    """One event of the storm, by the verbs that a user has; returns when what soon follows has happened."""
    path = "/api/v1/namespaces/default/pods/"
    match event:
        case "scale", kind, name, replicas:
            lab.scale(kind, name, int(replicas))
        case "delete", pod:
            lab.delete("pods", pod, wait=False)  # one on a node that is out of reach stays until the node is back
        case "label", pod, app:
            lab.request(
                "PATCH", path + pod, {"metadata": {"labels": {"app": app}}}, {"Content-Type": "application/merge-patch+json"}
            )
        case "roll", name, version:
            lab.apply([storm.documents(int(version))[name]])
        case "cordon", node, wanted:
            lab.cordon(node, wanted == "True")
        case "kill" | "partition" | "heal" as kind, node:
            lab.fault("kill-node" if kind == "kill" else kind, node)
            if kind != "heal":
                until(lambda: storm.rested(cluster := lab.cluster()) == cluster, f"rest after {event}")
