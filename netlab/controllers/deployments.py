"""Decides which ReplicaSets a Deployment has, with which revision, and when a rollout has stalled. `rolling` says how many pods
each set keeps. It never touches pods.

A new template makes a new ReplicaSet. The old ones give up pods only as fast as new ones become available, so a rollout whose
pods never get ready leaves the old ones in service.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from netlab.controllers import names, rolling
from netlab.controllers.availability import is_available
from netlab.controllers.pods import PodIndex, index, is_active
from netlab.model import Cluster, Key, Labels, Meta, Pod, PodTemplate, Progress, Ref, Selector, Workload
from netlab.numerals import natural

HASH = "pod-template-hash"
REVISION = "deployment.kubernetes.io/revision"
DESIRED = "deployment.kubernetes.io/desired-replicas"
MAXIMUM = "deployment.kubernetes.io/max-replicas"
CAUSE = "kubernetes.io/change-cause"
NOT_COPIED = (REVISION, DESIRED, MAXIMUM, "kubectl.kubernetes.io/last-applied-configuration")
Sets = dict[tuple[str, Key], Workload]


@dataclass(frozen=True, slots=True)
class Family:
    """A Deployment's ReplicaSets: `current` has its template (None: not made yet), `old` are the others, oldest first."""

    current: Workload | None
    old: tuple[Workload, ...]

    @property
    def all(self) -> tuple[Workload, ...]:
        return (*self.old, *(() if self.current is None else (self.current,)))


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every Deployment's ReplicaSets one step further; the same object when nothing changed."""
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
    for deployment in deployments:
        family = family_of(deployment, sets.get(deployment.ref, []), sets.get(deployment.meta.namespace, []))
        if family.current is None and not deployment.rollout.paused and not _waits(deployment, family, known):
            family = replace(family, current=_replica_set(deployment, family, known, workloads, serial, cluster.clock))
            serial += 1
        elif family.current is not None:
            family = replace(family, current=_renewed(deployment, family.current, family.old))
        after = _stepped(deployment, family, known, cluster.clock)
        kept = _without_history(deployment, after, known)
        for gone in {one.meta.key for one in after.all} - {one.meta.key for one in kept.all}:
            del workloads["ReplicaSet", gone]
        for one in kept.all:
            workloads["ReplicaSet", one.meta.key] = one
        workloads["Deployment", deployment.meta.key] = _noted(deployment, kept, known, cluster.clock)
    same = len(workloads) == len(cluster.workloads) and all(cluster.workloads.get(slot) is one for slot, one in workloads.items())
    return cluster if same else cluster.with_(workloads=workloads, serial=serial)


def family_of(deployment: Workload, owned: Iterable[Workload], orphans: Iterable[Workload]) -> Family:
    """Its ReplicaSets; those without an owner that its selector matches are adopted."""
    adopted = (one for one in orphans if deployment.selector.matches(one.template.labels))
    sets = [*owned, *(replace(one, meta=replace(one.meta, owner=deployment.ref)) for one in adopted)]
    current = next((one for one in sets if same_template(one.template, deployment.template)), None)
    old = sorted((one for one in sets if one is not current), key=lambda one: one.meta.created)
    return Family(current, tuple(old))


def _waits(deployment: Workload, family: Family, known: PodIndex) -> bool:
    """Recreate: nothing new while a pod of an old set is still there, be it terminating."""
    if deployment.rollout.type != "Recreate":
        return False
    return any(pod.phase not in ("Succeeded", "Failed") for one in family.old for pod in known.owned(one.ref))


def _stepped(deployment: Workload, family: Family, known: PodIndex, clock: float) -> Family:
    current = family.current
    rollout, replicas = deployment.rollout, deployment.replicas
    new = _size(current, known, deployment, clock) if current is not None else None
    old = [_size(one, known, deployment, clock) for one in family.old]
    scaling = any(one.replicas and one.meta.annotations.get(DESIRED, str(replicas)) != str(replicas) for one in family.all)
    wanted: int | None
    if scaling or rollout.paused:
        changed = scaling or (len(family.all) > 0 and not any(one.replicas for one in family.all))
        unchanged = (None if new is None else new.replicas), _replicas(family.old)
        wanted, sizes = rolling.scaled(rollout, replicas, new, old) if changed else unchanged
    elif new is None:
        wanted, sizes = None, tuple(0 for _ in old)  # Recreate, waiting
    elif rollout.type == "Recreate":
        wanted, sizes = (new.replicas if _waits(deployment, family, known) else replicas), tuple(0 for _ in old)
    else:
        wanted, sizes = rolling.step(rollout, replicas, new, old)
    mark = scaling or None
    resized = tuple(_resized(one, size, deployment, mark) for one, size in zip(family.old, sizes, strict=True))
    return Family(None if current is None else _resized(current, wanted or 0, deployment, True), resized)


def _replicas(sets: tuple[Workload, ...]) -> tuple[int, ...]:
    return tuple(one.replicas for one in sets)


def _size(one: Workload, known: PodIndex, deployment: Workload, clock: float) -> rolling.Size:
    available = sum(is_active(pod) and is_available(pod, deployment, clock) for pod in known.owned(one.ref))
    maximum = one.meta.annotations.get(MAXIMUM, "")
    return rolling.Size(one.replicas, min(available, one.replicas), natural(maximum) or 0)


def _resized(one: Workload, replicas: int, deployment: Workload, mark: bool | None) -> Workload:
    """The set with this size, and with the Deployment's own noted on it where it changed or `mark` asks for it."""
    if one.replicas != replicas or mark:
        surge, _ = rolling.fenceposts(deployment.rollout, deployment.replicas)
        surge = surge if deployment.rollout.type == "RollingUpdate" else 0
        noted = {DESIRED: str(deployment.replicas), MAXIMUM: str(deployment.replicas + surge)}
        one = _annotated(one, noted)
    if one.replicas == replicas and one.rollout.min_ready_s == deployment.rollout.min_ready_s:
        return one
    grown = one.meta.generation + (one.replicas != replicas)
    rollout = replace(one.rollout, min_ready_s=deployment.rollout.min_ready_s)
    return replace(one, replicas=replicas, rollout=rollout, meta=replace(one.meta, generation=grown))


def _annotated(one: Workload, annotations: Labels) -> Workload:
    if all(one.meta.annotations.get(key) == value for key, value in annotations.items()):
        return one
    return replace(one, meta=replace(one.meta, annotations={**one.meta.annotations, **annotations}))


def revision_of(one: Workload) -> int:
    """The revision that a ReplicaSet or Deployment carries, 0 for none."""
    return natural(one.meta.annotations.get(REVISION, "")) or 0


def _renewed(deployment: Workload, current: Workload, old: tuple[Workload, ...]) -> Workload:
    """The current set with the newest revision and the Deployment's own annotations."""
    newest = max(map(revision_of, old), default=0)
    revision = {REVISION: str(newest + 1)} if revision_of(current) <= newest else {}
    return _annotated(current, {**_copied(deployment), **revision})


def _copied(deployment: Workload) -> dict[str, str]:
    return {key: value for key, value in deployment.meta.annotations.items() if key not in NOT_COPIED}


def _noted(deployment: Workload, family: Family, known: PodIndex, clock: float) -> Workload:
    """The Deployment with its revision and with what its rollout has reached."""
    progress = _progress(deployment, family, known, clock)
    current = family.current
    if current is not None and revision_of(current) != revision_of(deployment):
        deployment = _annotated(deployment, {REVISION: str(revision_of(current))})
    return deployment if progress is deployment.progress else replace(deployment, progress=progress)


def _progress(deployment: Workload, family: Family, known: PodIndex, clock: float) -> Progress:
    pods = [(one is family.current, pod) for one in family.all for pod in known.owned(one.ref) if is_active(pod)]
    now = Progress(
        updated=sum(new for new, _ in pods),
        old=sum(not new for new, _ in pods),
        ready=sum(pod.ready for _, pod in pods),
        available=sum(is_available(pod, deployment, clock) for _, pod in pods),
        at=clock,
    )
    was = deployment.progress
    made = family.current is not None and deployment.meta.annotations.get(REVISION) != family.current.meta.annotations[REVISION]
    if was is None or made:
        return now
    if was == now:
        return was
    moved = now.updated > was.updated or now.old < was.old or now.ready > was.ready or now.available > was.available
    return now if moved else replace(now, at=was.at)


def is_complete(deployment: Workload) -> bool:
    """Whether every pod is of the newest template and available."""
    now = deployment.progress
    wanted = deployment.replicas
    return now is not None and now.old == 0 and now.updated == wanted == now.available


def has_stalled(deployment: Workload, clock: float) -> bool:
    """Whether a rollout has made no progress for its progressDeadlineSeconds."""
    now = deployment.progress
    if now is None or deployment.rollout.paused or is_complete(deployment):
        return False
    return clock >= now.at + deployment.rollout.deadline_s


def due(cluster: Cluster) -> Iterator[float]:
    """When a rollout that does not move counts as failed."""
    for (kind, _), one in cluster.workloads.items():
        if kind == "Deployment" and one.progress is not None and not one.rollout.paused and not is_complete(one):
            yield one.progress.at + one.rollout.deadline_s


def _without_history(deployment: Workload, family: Family, known: PodIndex) -> Family:
    """Once a rollout is complete, old sets beyond revisionHistoryLimit go, the oldest first."""
    too_many = len(family.old) - deployment.rollout.history
    if too_many <= 0 or family.current is None or not is_complete(deployment):
        return family
    oldest = sorted(family.old, key=revision_of)[:too_many]
    gone = {one.meta.key for one in oldest if not one.replicas and not any(known.owned(one.ref))}
    return replace(family, old=tuple(one for one in family.old if one.meta.key not in gone))


def same_template(one: PodTemplate, other: PodTemplate) -> bool:
    """Whether two templates make the same pods; the hash label does not count."""
    return _without_hash(one) == _without_hash(other) and one.spec == other.spec


def _without_hash(template: PodTemplate) -> tuple[dict[str, str], dict[str, str], Any]:
    labels = {key: value for key, value in template.labels.items() if key != HASH}
    return labels, dict(template.annotations), template.manifest.get("spec", {})


def without_hash(template: PodTemplate) -> PodTemplate:
    """A ReplicaSet's template as the Deployment had it."""
    labels = {key: value for key, value in template.labels.items() if key != HASH}
    given = template.manifest
    metadata = {**given.get("metadata", {}), "labels": labels}
    return replace(template, labels=labels, manifest={**given, "metadata": metadata})


def _replica_set(
    deployment: Workload, family: Family, known: PodIndex, taken: Mapping[tuple[str, Key], Workload], serial: int, clock: float
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
    revision = max(map(revision_of, family.old), default=0) + 1
    return Workload(
        kind="ReplicaSet",
        meta=Meta(
            name=name,
            namespace=namespace,
            labels=labels,
            annotations={**_copied(deployment), REVISION: str(revision)},
            uid=names.uid("ReplicaSet", namespace, name, serial),
            owner=deployment.ref,
            created=clock,
        ),
        replicas=0,
        selector=Selector({**deployment.selector.labels, HASH: hash_}, deployment.selector.expressions),
        template=replace(template, labels=labels, manifest={**given, "metadata": metadata}),
        manifest=_set_manifest(deployment, name, hash_, {**given, "metadata": metadata}),
    )


def _set_manifest(deployment: Workload, name: str, hash_: str, template: dict[str, Any]) -> dict[str, Any]:
    selector = deployment.manifest.get("spec", {}).get("selector") or {"matchLabels": dict(deployment.selector.labels)}
    selector = {**selector, "matchLabels": {**selector.get("matchLabels", {}), HASH: hash_}}
    return {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": name, "namespace": deployment.meta.namespace, "labels": template["metadata"]["labels"]},
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
