"""Decides which ReplicaSets a Deployment has and how many replicas each of them keeps.

A new template makes a new ReplicaSet; the old ones give up pods only as fast as the new ones become ready, so a rollout
whose pods never get ready leaves the old ones in service. It never touches pods.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from netlab.controllers import names
from netlab.controllers.pods import PodIndex, index, is_active
from netlab.model import Cluster, Key, Meta, Pod, PodTemplate, Ref, Selector, Workload

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
Sets = dict[tuple[str, Key], Workload]


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every Deployment's ReplicaSets as they must be now; the same object when nothing changed."""
    deployments = [workload for (kind, _), workload in cluster.workloads.items() if kind == "Deployment"]
    if not deployments:
        return cluster
    known = index(cluster.pods)
    workloads = dict(cluster.workloads)
    serial = cluster.serial
    sets: dict[Ref | str, list[Workload]] = {}  # by owner; those without one by namespace
    for (kind, key), workload in cluster.workloads.items():
        if kind == "ReplicaSet":
            sets.setdefault(workload.meta.owner or key.namespace, []).append(workload)
    changed = False
    for deployment in deployments:
        owned = _owned(deployment, sets.get(deployment.ref, []), sets.get(deployment.meta.namespace, []))
        current = next((one for one in owned if same_template(one.template, deployment.template)), None)
        others = [one for one in owned if one is not current]
        if current is None:
            current = _replica_set(deployment, known, workloads, serial, cluster.clock, _revision(others) + 1)
            serial += 1
        elif others and _revision([current]) <= _revision(others):
            current = _with_revision(current, _revision(others) + 1)
        for wanted in _sized(deployment, current, others, known):
            slot = ("ReplicaSet", wanted.meta.key)
            if workloads.get(slot) is not wanted:
                workloads[slot] = wanted
                changed = True
    return cluster.with_(workloads=workloads, serial=serial) if changed else cluster


def _owned(deployment: Workload, owned: list[Workload], orphans: list[Workload]) -> list[Workload]:
    """Its ReplicaSets; those without an owner that its selector matches are adopted."""
    adopted = (one for one in orphans if deployment.selector.matches(one.template.labels))
    return [*owned, *(replace(one, meta=replace(one.meta, owner=deployment.ref)) for one in adopted)]


def _sized(deployment: Workload, current: Workload, others: list[Workload], known: PodIndex) -> list[Workload]:
    ready = sum(1 for pod in known.owned(current.ref) if pod.ready and is_active(pod))
    allowed = max(0, deployment.replicas - min(ready, deployment.replicas))
    sized = [_resized(current, deployment.replicas)]
    for old in reversed(others):  # the newest of the old ones keeps its pods longest
        keep = min(old.replicas, allowed)
        allowed -= keep
        sized.append(_resized(old, keep))
    return sized


def _resized(workload: Workload, replicas: int) -> Workload:
    if workload.replicas == replicas:
        return workload
    return replace(workload, replicas=replicas, meta=replace(workload.meta, generation=workload.meta.generation + 1))


def _revision(sets: list[Workload]) -> int:
    given = [one.meta.annotations.get(REVISION, "0") for one in sets]
    return max((int(text) for text in given if text.isdigit()), default=0)


def _with_revision(workload: Workload, revision: int) -> Workload:
    annotations = {**workload.meta.annotations, REVISION: str(revision)}
    return replace(workload, meta=replace(workload.meta, annotations=annotations))


def same_template(one: PodTemplate, other: PodTemplate) -> bool:
    """Whether two templates make the same pods; the hash label does not count."""
    return _without_hash(one) == _without_hash(other) and one.spec == other.spec


def _without_hash(template: PodTemplate) -> tuple[dict[str, str], dict[str, str], Any]:
    labels = {key: value for key, value in template.labels.items() if key != HASH}
    return labels, dict(template.annotations), template.manifest.get("spec", {})


def _replica_set(
    deployment: Workload, known: PodIndex, taken: Mapping[tuple[str, Key], Workload], serial: int, clock: float, revision: int
) -> Workload:
    namespace = deployment.meta.namespace
    hash_ = _hash_of_dump(deployment, known, taken) or names.template_hash(_without_hash(deployment.template))
    while ("ReplicaSet", Key(namespace, f"{deployment.meta.name}-{hash_}")) in taken:
        hash_ = names.template_hash(hash_)  # the name is another's (Kubernetes counts collisions in the same way)
    name = f"{deployment.meta.name}-{hash_}"
    template = deployment.template
    labels = {**template.labels, HASH: hash_}
    given = template.manifest
    metadata = {**given.get("metadata", {}), "labels": labels}
    return Workload(
        kind="ReplicaSet",
        meta=Meta(
            name=name,
            namespace=namespace,
            labels=labels,
            annotations={REVISION: str(revision)},
            uid=names.uid("ReplicaSet", namespace, name, serial),
            owner=deployment.ref,
            created=clock,
        ),
        replicas=deployment.replicas,
        selector=Selector({**deployment.selector.labels, HASH: hash_}, deployment.selector.expressions),
        template=replace(template, labels=labels, manifest={**given, "metadata": metadata}),
        manifest=_manifest(deployment, name, labels, {**given, "metadata": metadata}, hash_),
    )


def _manifest(deployment: Workload, name: str, labels: dict[str, str], template: dict[str, Any], hash_: str) -> dict[str, Any]:
    selector = deployment.manifest.get("spec", {}).get("selector") or {"matchLabels": dict(deployment.selector.labels)}
    selector = {**selector, "matchLabels": {**selector.get("matchLabels", {}), HASH: hash_}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": deployment.meta.namespace, "labels": labels},
        "spec": {"replicas": deployment.replicas, "selector": selector, "template": template},
    }


def _hash_of_dump(deployment: Workload, known: PodIndex, taken: Mapping[tuple[str, Key], Workload]) -> str:
    """The hash that the pods of a dump without its ReplicaSets carry: they then belong to the set that is made for it."""
    namespace = deployment.meta.namespace

    def fits(pod: Pod) -> bool:
        name = f"{deployment.meta.name}-{pod.meta.labels.get(HASH, '')}"
        owners = (None, Ref("replicaset", namespace, name))
        return HASH in pod.meta.labels and pod.meta.owner in owners and ("ReplicaSet", Key(namespace, name)) not in taken

    hashes = [pod.meta.labels[HASH] for pod in known.selected(namespace, deployment.selector) if fits(pod)]
    return max(hashes, key=hashes.count) if hashes else ""
