"""Events: what is recorded of a change, in whose words, and how it is shown. No lab."""

from datetime import UTC, datetime
from typing import Any

import pytest

from netlab import controllers
from netlab.cli import describe, tables
from netlab.lab.recording import REMEMBERED, Happening, Recorder, Subject, failed_probe, happened
from netlab.model import Cluster, Key
from tests.test_controllers import WEB, key, objects, started
from tests.test_workloads import DB, JOB


def told(before: Cluster, after: Cluster, *reasons: str) -> list[str]:
    """`reason object: message` of what happened; of these reasons only."""
    found = [one for one in happened(before, after) if not reasons or one.reason in reasons]
    return [f"{one.reason} {one.about.kind}/{one.about.name}: {one.message}" for one in found]


def empty(cluster: Cluster) -> Cluster:
    return Cluster(cluster.topology, cluster.nodes)


def test_a_deployment_is_made_scaled_and_deleted() -> None:
    cluster = started(WEB)
    (pods, (set_name,)) = sorted(k.name for k in cluster.pods), [k.name for kind, k in cluster.workloads if kind == "ReplicaSet"]
    first = told(empty(cluster), cluster)
    assert first[0] == f"ScalingReplicaSet Deployment/web: Scaled up replica set {set_name} from 0 to 3"
    assert f"SuccessfulCreate ReplicaSet/{set_name}: Created pod: {pods[0]}" in first
    node = cluster.pods[Key("default", pods[0])].node
    assert f"Scheduled Pod/{pods[0]}: Successfully assigned default/{pods[0]} to {node}" in first
    assert sum(one.startswith("Started Pod/web-") for one in first) == 3
    assert len(first) == 1 + 3 * 3, "and nothing else"
    fewer = controllers.scale(cluster, "Deployment", key("web"), 2)
    (gone,) = cluster.pods.keys() - fewer.pods.keys()
    assert told(cluster, fewer) == [
        f"ScalingReplicaSet Deployment/web: Scaled down replica set {set_name} from 3 to 2",
        f"Killing Pod/{gone.name}: Stopping container {cluster.pods[gone].spec.containers[0].name}",
        f"SuccessfulDelete ReplicaSet/{set_name}: Deleted pod: {gone.name}",
    ]
    assert told(cluster, cluster) == []
    assert told(cluster, cluster.with_(clock=9.0)) == []


def test_a_deleted_pod_was_not_deleted_by_its_owner() -> None:
    cluster = started(WEB)
    after = controllers.delete(cluster, "Pod", next(iter(cluster.pods)))
    assert [one.partition(" ")[0] for one in told(cluster, after)] == ["Killing", "SuccessfulCreate", "Scheduled", "Started"]


def test_a_pod_that_fits_nowhere() -> None:
    before = started()
    text = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeSelector: {a: b}, containers: [{name: c, image: i}]}}"
    after = controllers.apply(before, objects(text))
    (said,) = told(before, after)
    assert said.startswith("FailedScheduling Pod/p: 0/3 nodes are available: ")
    assert told(after, controllers.tick(after, 5.0)) == [], "said once"
    bound = text.replace("nodeSelector: {a: b}", "nodeName: node-170")
    assert told(before, controllers.apply(before, objects(bound))) == ["Started Pod/p: Started container c"], (
        "nobody scheduled it"
    )


def test_a_node_that_dies_says_nothing_its_controller_does() -> None:
    cluster = started(WEB)
    on = sorted(k.name for k, pod in cluster.pods.items() if pod.node == "node-171")
    cut = controllers.cut(cluster, "node-171", True)
    assert told(cluster, cut) == []
    missed = controllers.tick(cut, 2.5)
    assert told(cut, missed) == [
        "NodeNotReady Node/node-171: Node node-171 status is now: NodeNotReady",
        *(f"NodeNotReady Pod/{name}: Node is not ready" for name in on),
    ]
    evicted = controllers.tick(missed, 5.0)
    assert told(missed, evicted, "Killing") == [], "no kubelet is there to stop anything"
    assert len(told(missed, evicted, "SuccessfulCreate")) == len(on)
    back = told(evicted, controllers.heal(evicted, "node-171"), "NodeReady")
    assert back == ["NodeReady Node/node-171: Node node-171 status is now: NodeReady"]


def test_stateful_sets_and_jobs_in_their_own_words() -> None:
    cluster = started(DB)
    assert "SuccessfulCreate StatefulSet/db: create Pod db-0 in StatefulSet db successful" in told(empty(cluster), cluster)
    job = started(JOB)
    done = job
    for name in [k for k in job.pods if k.name.startswith("once")]:
        done = controllers.pod_status(done, name, phase="Succeeded")
    for name in [k for k in done.pods if k not in job.pods]:
        done = controllers.pod_status(done, name, phase="Succeeded")
    assert told(job, done, "Completed") == ["Completed Job/once: Job completed"]


ABOUT = Subject("Pod", "default", "p", "u")


def test_the_same_counts_up_and_the_oldest_is_forgotten() -> None:
    recorder = Recorder()
    for now in (100.0, 110.0, 120.0):
        recorder.record(Happening(ABOUT, "Warning", "Unhealthy", "kubelet", "no", "node-170"), now)
    (one,) = recorder.items()
    assert (one["count"], one["firstTimestamp"], one["lastTimestamp"]) == (3, "1970-01-01T00:01:40Z", "1970-01-01T00:02:00Z")
    assert (one["source"], one["involvedObject"]["name"]) == ({"component": "kubelet", "host": "node-170"}, "p")
    assert recorder.items("other") == []
    for number in range(REMEMBERED):
        recorder.record(Happening(ABOUT, "Normal", "Started", "kubelet", str(number)), 130.0)
    assert len(recorder.items()) == REMEMBERED
    assert not any(each["reason"] == "Unhealthy" for each in recorder.items())


NOW = datetime(2026, 1, 1, 0, 1, 0, tzinfo=UTC)


def event(**more: Any) -> dict[str, Any]:
    return {
        "kind": "Event", "metadata": {"name": "p.1", "namespace": "default"}, "type": "Warning", "reason": "Unhealthy",
        "involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "message": "no answer", "count": 3,
        "source": {"component": "kubelet", "host": "node-170"},
        "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:55Z", **more,
    }  # fmt: skip


def test_how_events_are_shown() -> None:
    assert tables.text([event()], NOW) == (
        "LAST SEEN   TYPE      REASON      OBJECT   MESSAGE\n"
        "5s          Warning   Unhealthy   pod/p    no answer\n"
    )  # fmt: skip
    assert tables.text([event()], NOW, wide=True).splitlines()[1].split()[5:] == ["node-170", "no", "answer", "60s", "3", "p.1"]
    pod = {"kind": "Pod", "metadata": {"name": "p"}, "spec": {}, "status": {}}
    shown = describe.text(pod, describe.Related(NOW, events=[event(), event(count=1)])).splitlines()[-5:]
    assert shown == [
        "Events:",
        "  Type     Reason     Age               From     Message",
        "  ----     ------     ----              ----     -------",
        "  Warning  Unhealthy  5s (x3 over 60s)  kubelet  no answer",
        "  Warning  Unhealthy  5s                kubelet  no answer",
    ]


@pytest.mark.parametrize("words", ["Readiness probe failed: command ended with exit code 1"])
def test_a_failed_probe_is_the_kubelets_word(words: str) -> None:
    pod = next(iter(started(WEB).pods.values()))
    one = failed_probe(pod, words)
    assert (one.reason, one.type, one.component, one.host, one.about.uid) == (
        "Unhealthy",
        "Warning",
        "kubelet",
        pod.node,
        pod.meta.uid,
    )


def test_an_event_has_a_uid_and_a_version_that_grows() -> None:
    recorder = Recorder()
    one = Happening(Subject("Pod", "default", "p", "1"), "Normal", "Started", "kubelet", "Started container c")
    other = Happening(Subject("Pod", "default", "p", "1"), "Normal", "Killing", "kubelet", "Stopping container c")
    recorder.record(one, 1.0)
    recorder.record(other, 2.0)
    first, second = (item["metadata"] for item in recorder.items())
    recorder.record(one, 3.0)
    _, again = (item["metadata"] for item in recorder.items())
    assert first["uid"] == again["uid"] != second["uid"]
    versions = [int(meta["resourceVersion"]) for meta in (first, second, again)]
    assert versions == sorted(set(versions))
