"""Kubernetes Events: what a lab's own controllers, kubelets and scheduler did to an object, in the words of the real ones.

`happened` is pure: it reads Events from what differs between two Clusters, so that there is none without its change. What leaves
no trace in the Cluster (a probe that fails again) is recorded where it happens. Reasons that stand for what a lab does not do
(Pulling, Created) are never recorded. The same Event of the same object counts up, as in Kubernetes (events/v1 aggregation).
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from netlab.manifest import kinds
from netlab.manifest.shown_time import timestamp, uid
from netlab.memory import replaced
from netlab.model import Cluster, Key, Node, Pod, Workload

REMEMBERED = 2000
_FROM = {
    "ReplicationController": "replication-controller", "ReplicaSet": "replicaset-controller", "DaemonSet": "daemonset-controller",
    "StatefulSet": "statefulset-controller", "Job": "job-controller",
}  # fmt: skip


class Subject(NamedTuple):
    """The object that an Event is about."""

    kind: str
    namespace: str
    name: str
    uid: str


class Happening(NamedTuple):
    """One Event, without its times. `component`: who says so; `host`: on which node, '' for none."""

    about: Subject
    type: Literal["Normal", "Warning"]
    reason: str
    component: str
    message: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class _Count:
    number: int
    first: float
    last: float
    times: int = 1
    version: int = 0


class Recorder:
    """The Events of one lab, the oldest forgotten."""

    def __init__(self) -> None:
        self._found: dict[Happening, _Count] = {}
        self._numbered = 0
        self._version = 0

    def changed(self, before: Cluster, after: Cluster, now: float) -> None:
        for one in happened(before, after):
            self.record(one, now)

    def record(self, one: Happening, now: float) -> None:
        known = self._found.pop(one, None)  # what happens again moves to the end: what is forgotten is what is longest over
        if known is None:
            self._numbered += 1
            known = _Count(self._numbered, now, now, 0)
        self._version += 1
        self._found[one] = replace(known, last=now, times=known.times + 1, version=self._version)
        if len(self._found) > REMEMBERED:
            del self._found[next(iter(self._found))]

    def items(self, namespace: str | None = None) -> list[dict[str, Any]]:
        """As Kubernetes JSON, in the order in which they happened last; `namespace` None: all. Those of nodes are in default."""
        where = ((one, count) for one, count in self._found.items() if namespace in (None, one.about.namespace or "default"))
        return [_json(one, count) for one, count in where]


def _json(one: Happening, count: _Count) -> dict[str, Any]:
    namespace = one.about.namespace or "default"
    about = {
        "kind": one.about.kind,
        "apiVersion": kinds.find(one.about.kind).api_version,
        "name": one.about.name,
        "uid": one.about.uid,
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{one.about.name}.{count.number:016x}",
            "namespace": namespace,
            "uid": uid("Event", namespace, f"{one.about.name}.{count.number:016x}"),
            "resourceVersion": str(count.version),
            "creationTimestamp": timestamp(count.first),
        },
        "involvedObject": {**about, **({"namespace": one.about.namespace} if one.about.namespace else {})},
        "type": one.type,
        "reason": one.reason,
        "message": one.message,
        "source": {"component": one.component, **({"host": one.host} if one.host else {})},
        "reportingComponent": one.component,
        "count": count.times,
        "firstTimestamp": timestamp(count.first),
        "lastTimestamp": timestamp(count.last),
    }


def about(kind: str, obj: Pod | Workload | Node) -> Subject:
    return Subject(kind, obj.meta.namespace, obj.meta.name, obj.meta.uid)


# ---------------------------------------------------------------- what happened


def happened(before: Cluster, after: Cluster) -> Iterator[Happening]:
    """The Events of a change, in the order in which a cluster would have them."""
    yield from _nodes(before, after)
    scaled = replaced(before.workloads, after.workloads)
    for slot in [slot for slot in dict.fromkeys((*after.workloads, *before.workloads)) if slot in scaled]:
        yield from _workload(before, after, slot)
    names = replaced(before.pods, after.pods)
    for key in [key for key in before.pods if key in names]:
        new = after.pods.get(key)
        if new is None or new.meta.uid != before.pods[key].meta.uid:
            yield from _gone(before, after, before.pods[key])
    for key in [key for key in after.pods if key in names]:
        old = before.pods.get(key)
        yield from _pod(after, old if old is not None and old.meta.uid == after.pods[key].meta.uid else None, key)


def _nodes(before: Cluster, after: Cluster) -> Iterator[Happening]:
    for name in replaced(before.nodes, after.nodes):
        old, new = before.nodes.get(name), after.nodes.get(name)
        if old is None or new is None:
            continue
        subject = about("Node", new)
        if old.ready != new.ready:
            state = "NodeReady" if new.ready else "NodeNotReady"
            said = "kubelet" if new.ready else "node-controller"
            yield Happening(subject, "Normal", state, said, f"Node {name} status is now: {state}", name)
            if not new.ready:
                for pod in (one for one in after.pods.values() if one.node == name):
                    yield Happening(about("Pod", pod), "Warning", "NodeNotReady", "node-controller", "Node is not ready")
        if old.unschedulable != new.unschedulable:
            state = "NodeNotSchedulable" if new.unschedulable else "NodeSchedulable"
            yield Happening(subject, "Normal", state, "kubelet", f"Node {name} status is now: {state}", name)


def _workload(before: Cluster, after: Cluster, slot: tuple[str, Key]) -> Iterator[Happening]:
    old, new = before.workloads.get(slot), after.workloads.get(slot)
    one = new or old
    assert one is not None
    owner = one.meta.owner
    if slot[0] == "ReplicaSet" and owner is not None and owner.kind == "deployment" and new is not None:
        deployment = after.workloads.get(("Deployment", Key(owner.namespace, owner.name)))
        was = old.replicas if old is not None else 0
        if deployment is not None and was != new.replicas:
            way = "up" if new.replicas > was else "down"
            words = f"Scaled {way} replica set {new.meta.name} from {was} to {new.replicas}"
            yield Happening(about("Deployment", deployment), "Normal", "ScalingReplicaSet", "deployment-controller", words)
    if new is not None and new.batch is not None and new.batch.over is not None and (old is None or old.batch != new.batch):
        verdict = new.batch.verdict
        if old is None or old.batch is None or old.batch.over is None:
            good = verdict == "Complete"
            words = "Job completed" if good else f"Job has failed: {verdict}"
            subject = about("Job", new)
            yield Happening(subject, "Normal" if good else "Warning", "Completed" if good else verdict, "job-controller", words)


def _owner(cluster: Cluster, pod: Pod) -> Workload | None:
    owner = pod.meta.owner
    if owner is None:
        return None
    key = Key(owner.namespace, owner.name)
    return next(
        (cluster.workloads[kind, key] for kind in _FROM if kind.lower() == owner.kind and (kind, key) in cluster.workloads), None
    )


def _gone(before: Cluster, after: Cluster, pod: Pod) -> Iterator[Happening]:
    """A pod that is not there any more. Who was told to stop before has its Event already."""
    if not pod.terminating and pod.node not in after.outages:
        yield from _killing(pod)
    old, new = _owner(before, pod), _owner(after, pod)
    if old is not None and new is not None and new.replicas < old.replicas:
        yield _of_owner(new, "SuccessfulDelete", f"Deleted pod: {pod.meta.name}", f"delete Pod {pod.meta.name} in StatefulSet")


def _of_owner(owner: Workload, reason: str, words: str, ordered: str) -> Happening:
    said = f"{ordered} {owner.meta.name} successful" if owner.kind == "StatefulSet" else words
    return Happening(about(owner.kind, owner), "Normal", reason, _FROM[owner.kind], said)


def _killing(pod: Pod) -> Iterator[Happening]:
    for container, status in pod.running() if pod.statuses else ():
        if status.stopping is None:
            yield _kubelet(pod, "Killing", f"Stopping container {container.name}")


def _kubelet(pod: Pod, reason: str, message: str, type_: Literal["Normal", "Warning"] = "Normal") -> Happening:
    return Happening(about("Pod", pod), type_, reason, "kubelet", message, pod.node)


def _pod(after: Cluster, old: Pod | None, key: Key) -> Iterator[Happening]:
    pod = after.pods[key]
    owner = _owner(after, pod) if old is None else None
    if owner is not None:
        yield _of_owner(owner, "SuccessfulCreate", f"Created pod: {pod.meta.name}", f"create Pod {pod.meta.name} in StatefulSet")
    if pod.node and (old is None or not old.node) and pod.statuses and not pod.spec.node_name:
        words = f"Successfully assigned {pod.meta.namespace}/{pod.meta.name} to {pod.node}"
        yield Happening(about("Pod", pod), "Normal", "Scheduled", "default-scheduler", words)
    if not pod.node and pod.message and (old is None or old.message != pod.message):
        yield Happening(about("Pod", pod), "Warning", "FailedScheduling", "default-scheduler", pod.message)
    was = {one.name: one for one in (old.statuses if old is not None else ())}
    for status in pod.statuses if pod.node not in after.outages else ():
        last = was.get(status.name)
        if status.state == "running" and (last is None or last.state != "running" or last.restarts != status.restarts):
            yield _kubelet(pod, "Started", f"Started container {status.name}")
        if status.reason == "CrashLoopBackOff" and (last is None or last.reason != status.reason):
            label = f"{pod.meta.name}_{pod.meta.namespace}({pod.meta.uid})"
            yield _kubelet(pod, "BackOff", f"Back-off restarting failed container {status.name} in pod {label}", "Warning")
        if status.reason == "CreateContainerConfigError" and (last is None or last.message != status.message):
            yield _kubelet(pod, "Failed", f"Error: {status.message}", "Warning")
    if old is not None and pod.terminating and not old.terminating and pod.node not in after.outages:
        yield from _killing(old)


def failed_probe(pod: Pod, words: str) -> Happening:
    """A readiness, liveness or startup probe that has failed."""
    return _kubelet(pod, "Unhealthy", words, "Warning")


def killed_by_probe(pod: Pod, container: str, kind: str) -> Happening:
    """The kubelet stops a container whose liveness or startup probe failed too often."""
    return _kubelet(pod, "Killing", f"Container {container} failed {kind} probe, will be restarted")
