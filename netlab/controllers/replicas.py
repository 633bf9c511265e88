"""Decides how many pods a ReplicationController or ReplicaSet has, which ones are its own, and which go when there are too many.

It makes pods without a node and refuses to know where they will run.
"""

from collections.abc import Sequence
from dataclasses import replace

from netlab.controllers import lifecycle, names
from netlab.controllers.pods import PodIndex, index, is_active
from netlab.model import Cluster, Key, Meta, Pod, Workload

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
            lifecycle.without(pods, pod.meta.key, cluster.clock)
        changed = changed or bool(missing or released or adopted)
    return cluster.with_(pods=pods, serial=serial) if changed else cluster


def claims(workload: Workload, known: PodIndex) -> tuple[list[Pod], list[Pod]]:
    """(released, adopted): own pods that the selector no longer matches, and active pods without an owner that it matches."""
    ref = workload.ref
    released = [pod for pod in known.owned(ref) if not workload.selector.matches(pod.meta.labels)]
    matching = known.selected(workload.meta.namespace, workload.selector)
    adopted = [pod for pod in matching if pod.meta.owner is None and is_active(pod)]
    return released, adopted


def made(workload: Workload, taken: "dict[Key, Pod]", serial: int, clock: float, node: str = "") -> tuple[Pod, int]:
    """A new pod of a workload, and the next serial number. `node` ties it to a node (DaemonSet)."""
    namespace = workload.meta.namespace
    template = workload.template
    name = names.generated(workload.meta.name, serial)
    while Key(namespace, name) in taken:  # a dump's own name
        serial += 1
        name = names.generated(workload.meta.name, serial)
    meta = Meta(
        name=name,
        namespace=namespace,
        labels=template.labels,
        annotations=template.annotations,
        uid=names.uid("Pod", namespace, name, serial),
        owner=workload.ref,
        created=clock,
    )
    metadata: dict[str, object] = {"name": name, "namespace": namespace, "labels": dict(template.labels)}
    if template.annotations:
        metadata["annotations"] = dict(template.annotations)
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template.manifest.get("spec", {})}
    spec = replace(template.spec, node_name=node) if node else template.spec
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
