"""`rollout`: what kubectl's verb does to a workload and says of it: status, history, undo, restart, pause, resume.

Decides the words, which are kubectl's own (kubectl pkg/polymorphichelpers), and refuses what kubectl refuses.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from netlab.controllers.availability import is_available
from netlab.controllers.deployments import CAUSE, family_of, has_stalled, revision_of, same_template, without_hash
from netlab.controllers.objects import find, not_found, restamped
from netlab.controllers.pods import is_active
from netlab.controllers.revisions import is_of
from netlab.controllers.settling import settle
from netlab.errors import ApiError
from netlab.model import Cluster, Key, Pod, PodTemplate, Ref, Workload

KINDS = ("Deployment", "DaemonSet", "StatefulSet")
NAMES = {"Deployment": "deployment", "DaemonSet": "daemon set", "StatefulSet": "statefulset"}


@dataclass(frozen=True, slots=True)
class Told:
    """What `rollout status` says now. `done`: nothing more is to come; `failed`: nor can it (the deadline has passed)."""

    message: str
    done: bool
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Past:
    """One line of `rollout history`."""

    revision: int
    cause: str
    template: PodTemplate


def workload_of(cluster: Cluster, kind: str, key: Key) -> Workload:
    """The workload that a rollout verb is about. Raises: ApiError when there is none, or its kind has no rollouts."""
    found = find(cluster, kind, key)
    if found is None:
        raise not_found(kind, key.name)
    if kind not in KINDS or not isinstance(found, Workload):
        raise ApiError(400, "BadRequest", f"no rollouts for a {kind}: deployments, daemonsets and statefulsets have them")
    return found


def rollout_message(cluster: Cluster, kind: str, key: Key) -> Told:
    """What kubectl rollout status prints now. Raises: ApiError."""
    workload = workload_of(cluster, kind, key)
    match kind:
        case "Deployment":
            return _of_deployment(cluster, workload)
        case "DaemonSet":
            return _of_daemons(cluster, workload)
        case _:
            return _of_stateful(cluster, workload)


def _pods(cluster: Cluster, owner: Ref) -> list[Pod]:
    return [pod for pod in cluster.pods.values() if pod.meta.owner == owner and is_active(pod)]


def _of_deployment(cluster: Cluster, workload: Workload) -> Told:
    what = f'deployment "{workload.meta.name}"'
    if has_stalled(workload, cluster.clock):
        return Told(f"error: {what} exceeded its progress deadline", True, True)
    family = family_of(workload, _sets(cluster, workload), ())
    updated = _pods(cluster, family.current.ref) if family.current is not None else []
    old = sum(len(_pods(cluster, one.ref)) for one in family.old)
    available = sum(is_available(pod, workload, cluster.clock) for pod in updated)
    waiting = f"Waiting for {what} rollout to finish: "
    if len(updated) < workload.replicas:
        return Told(f"{waiting}{len(updated)} out of {workload.replicas} new replicas have been updated...", False)
    if old:
        return Told(f"{waiting}{old} old replicas are pending termination...", False)
    if available < len(updated):
        return Told(f"{waiting}{available} of {len(updated)} updated replicas are available...", False)
    return Told(f"{what} successfully rolled out", True)


def _sets(cluster: Cluster, workload: Workload) -> list[Workload]:
    return [one for (kind, _), one in cluster.workloads.items() if kind == "ReplicaSet" and one.meta.owner == workload.ref]


def _refuse_on_delete(workload: Workload) -> None:
    if workload.rollout.type != "RollingUpdate":
        raise ApiError(400, "BadRequest", f"rollout status is only available for RollingUpdate strategy type: {workload.ref}")


def _of_daemons(cluster: Cluster, workload: Workload) -> Told:
    _refuse_on_delete(workload)
    pods = _pods(cluster, workload.ref)
    updated = sum(is_of(pod, workload, workload.revisions[-1]) for pod in pods)
    available = sum(is_available(pod, workload, cluster.clock) for pod in pods)
    waiting = f'Waiting for daemon set "{workload.meta.name}" rollout to finish: '
    if updated < workload.replicas:
        return Told(f"{waiting}{updated} out of {workload.replicas} new pods have been updated...", False)
    if available < workload.replicas:
        return Told(f"{waiting}{available} of {workload.replicas} updated pods are available...", False)
    return Told(f'daemon set "{workload.meta.name}" successfully rolled out', True)


def _of_stateful(cluster: Cluster, workload: Workload) -> Told:
    _refuse_on_delete(workload)
    pods = _pods(cluster, workload.ref)
    ready = sum(is_available(pod, workload, cluster.clock) for pod in pods)
    updated = [pod for pod in pods if is_of(pod, workload, workload.revisions[-1])]
    if ready < workload.replicas:
        return Told(f"Waiting for {workload.replicas - ready} pods to be ready...", False)
    wanted = workload.replicas - workload.rollout.partition
    if workload.rollout.partition:
        if len(updated) < wanted:
            words = f"{len(updated)} out of {wanted} new pods have been updated..."
            return Told(f"Waiting for partitioned roll out to finish: {words}", False)
        return Told(f"partitioned roll out complete: {len(updated)} new pods have been updated...", True)
    if len(updated) < workload.replicas:
        words = f"{len(updated)} pods at revision {workload.meta.name}-{workload.revisions[-1].hash}..."
        return Told(f"waiting for statefulset rolling update to complete {words}", False)
    name = f"{workload.meta.name}-{workload.revisions[-1].hash}"
    return Told(f"statefulset rolling update complete {len(updated)} pods at revision {name}...", True)


# ---------------------------------------------------------------- history and undo


def history(cluster: Cluster, kind: str, key: Key) -> tuple[Past, ...]:
    """The revisions that are kept, oldest first. Raises: ApiError."""
    workload = workload_of(cluster, kind, key)
    if kind == "Deployment":
        sets = family_of(workload, _sets(cluster, workload), ()).all
        found = [Past(revision_of(one), one.meta.annotations.get(CAUSE, ""), without_hash(one.template)) for one in sets]
        return tuple(sorted(found, key=lambda past: past.revision))
    return tuple(Past(one.number, one.cause, one.template) for one in workload.revisions)


def revision(cluster: Cluster, kind: str, key: Key, number: int) -> Past:
    """One revision. Raises: ApiError when it is not kept."""
    found = next((past for past in history(cluster, kind, key) if past.revision == number), None)
    if found is None:
        raise ApiError(404, "NotFound", f"unable to find the specified revision {number} in history")
    return found


def undo(cluster: Cluster, kind: str, key: Key, number: int = 0) -> tuple[Cluster, str]:
    """Back to a revision (0: the one before), and what kubectl says: `rolled back`, or that there is nothing to do.

    Raises: ApiError when the revision is not kept, or the Deployment is paused.
    """
    workload = workload_of(cluster, kind, key)
    past = history(cluster, kind, key)
    if workload.rollout.paused:
        how = f"`netlab rollout resume {kind.lower()}/{key.name}`"
        raise ApiError(400, "BadRequest", f"you cannot rollback a paused deployment; resume it first with {how} and try again")
    if not number and len(past) < 2:
        raise ApiError(404, "NotFound", f'no rollout history found for {NAMES[kind]} "{key.name}"')
    wanted = past[-2] if not number else revision(cluster, kind, key, number)
    if same_template(wanted.template, workload.template):
        return cluster, f"skipped rollback (current template already matches revision {wanted.revision})"
    meta = replace(workload.meta, generation=workload.meta.generation + 1)
    if wanted.cause and kind == "Deployment":
        meta = replace(meta, annotations={**meta.annotations, CAUSE: wanted.cause})
    return _put(cluster, replace(workload, template=wanted.template, meta=meta)), "rolled back"


def restart(cluster: Cluster, kind: str, key: Key, stamp: str) -> Cluster:
    """All its pods made anew, as `rollout restart` does it: the template is stamped. Raises: ApiError."""
    workload = workload_of(cluster, kind, key)
    if workload.rollout.paused:
        raise ApiError(400, "BadRequest", f'can\'t restart paused deployment (run rollout resume first): "{key.name}"')
    bare = replace(
        workload.template, annotations={k: v for k, v in workload.template.annotations.items() if "restartedAt" not in k}
    )
    meta = replace(workload.meta, generation=workload.meta.generation + 1)
    return _put(cluster, replace(workload, template=restamped(bare, stamp), meta=meta))


def pause(cluster: Cluster, kind: str, key: Key, paused: bool) -> Cluster:
    """The Deployment paused, or going on. Raises: ApiError: only Deployments can be paused, and each only once."""
    workload = workload_of(cluster, kind, key)
    verb = "pause" if paused else "resume"
    if kind != "Deployment":
        raise ApiError(400, "BadRequest", f'{NAMES[kind]} "{key.name}": {verb} is not supported')
    if workload.rollout.paused == paused:
        raise ApiError(400, "BadRequest", f'deployments.apps "{key.name}" is {"already" if paused else "not"} paused')
    progress = None if workload.progress is None else replace(workload.progress, at=cluster.clock)
    return _put(cluster, replace(workload, rollout=replace(workload.rollout, paused=paused), progress=progress))


def _put(cluster: Cluster, workload: Workload) -> Cluster:
    return settle(cluster.with_(workloads={**cluster.workloads, (workload.kind, workload.meta.key): workload}))


def shown_revision(past: Sequence[Past]) -> list[dict[str, object]]:
    """History as plain data: revision, cause, and the template as it was given."""
    return [
        {
            "revision": one.revision,
            "changeCause": one.cause,
            "template": {**one.template.manifest, "labels": dict(one.template.labels)},
        }
        for one in past
    ]
