"""Decides how many pods a ReplicationController or ReplicaSet has, which ones are its own, and which go when there are too many.

It makes pods without a node and refuses to know where they will run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netlab.controllers import names
from netlab.controllers.lifecycle import end
from netlab.controllers.pods import PodIndex, index, is_active
from netlab.model import NOTHING, Cluster, Key, Labels, Meta, Pod, Workload

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
KINDS = ("ReplicationController", "ReplicaSet")


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every ReplicationController and ReplicaSet having its pods; the same object when nothing changed."""
    if not any(kind in KINDS for kind, _ in cluster.workloads):
        return cluster
    pods = dict(cluster.pods)
    serial = cluster.serial
    known = index(cluster.pods)
    changed = False
    for (kind, _), workload in cluster.workloads.items():
        if kind not in KINDS:
            continue
        ref = workload.ref
        released, adopted = claims(workload, known)
        adopted = [pod for pod in adopted if pods[pod.meta.key].meta.owner is None]  # not taken by an earlier one in this round
        for pod, owner in (*((pod, None) for pod in released), *((pod, ref) for pod in adopted)):
            pods[pod.meta.key] = replace(pod, meta=replace(pod.meta, owner=owner))
        mine = [pods[pod.meta.key] for pod in (*known.owned(ref), *adopted)]
        active = [pod for pod in mine if pod.meta.owner == ref and is_active(pod)]
        missing = workload.replicas - len(active)
        for _ in range(missing):
            pod, serial = made(workload, pods, serial, cluster.clock)
            pods[pod.meta.key] = pod
        for pod in superfluous(active, -missing):
            end(pods, pod, cluster)
        changed = changed or bool(missing or released or adopted)
    return cluster.with_(pods=pods, serial=serial) if changed else cluster


def claims(workload: Workload, known: PodIndex) -> tuple[list[Pod], list[Pod]]:
    """(released, adopted): own pods that the selector no longer matches, and active pods without an owner that it matches."""
    ref = workload.ref
    released = [pod for pod in known.owned(ref) if not workload.selector.matches(pod.meta.labels)]
    matching = known.selected(workload.meta.namespace, workload.selector)
    adopted = [pod for pod in matching if pod.meta.owner is None and is_active(pod)]
    return released, adopted


@dataclass(frozen=True, slots=True)
class Special:
    """What one pod has beside its template: a fixed name, labels and annotations, and fields of its spec (model's and
    manifest's).
    """

    name: str = ""
    labels: Labels = NOTHING
    annotations: Labels = NOTHING
    spec: Mapping[str, Any] = NOTHING
    manifest: Mapping[str, Any] = NOTHING


PLAIN = Special()


def made(
    workload: Workload, taken: "dict[Key, Pod]", serial: int, clock: float, node: str = "", special: Special = PLAIN
) -> tuple[Pod, int]:
    """A new pod of a workload, and the next serial number. `node` ties it to a node (DaemonSet)."""
    namespace = workload.meta.namespace
    template = workload.template
    name = special.name or names.generated(workload.meta.name, serial)
    while not special.name and Key(namespace, name) in taken:  # a dump's own name
        serial += 1
        name = names.generated(workload.meta.name, serial)
    labels, annotations = {**template.labels, **special.labels}, {**template.annotations, **special.annotations}
    meta = Meta(
        name=name,
        namespace=namespace,
        labels=labels,
        annotations=annotations,
        uid=names.uid("Pod", namespace, name, serial),
        owner=workload.ref,
        created=clock,
    )
    metadata: dict[str, object] = {"name": name, "namespace": namespace, "labels": labels}
    if annotations:
        metadata["annotations"] = annotations
    shown = {**template.manifest.get("spec", {}), **special.manifest}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": shown}
    changes = {**special.spec, **({"node_name": node} if node else {})}
    spec = replace(template.spec, **changes) if changes else template.spec
    return Pod(meta=meta, spec=spec, manifest=manifest), serial + 1


def superfluous(active: Sequence[Pod], count: int) -> list[Pod]:
    """The `count` pods that a scale-down removes: unplaced, not running, not ready, cheap, crowded, restarted, newest first.

    Source: Kubernetes pkg/controller/controller_utils.go ActivePodsWithRanks.
    """
    if count <= 0:
        return []
    crowd: dict[str, int] = {}
    for pod in active:
        crowd[pod.node] = crowd.get(pod.node, 0) + 1

    def rank(item: tuple[int, Pod]) -> tuple[object, ...]:
        position, pod = item
        cost = _integer(pod.meta.annotations.get(DELETION_COST, ""))
        running = pod.phase == "Running"
        return (pod.node != "", running, pod.ready, cost, -crowd[pod.node], -pod.restarts, -pod.meta.created, -position)

    return [pod for _, pod in sorted(enumerate(active), key=rank)[:count]]


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0
