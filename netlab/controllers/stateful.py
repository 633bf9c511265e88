"""Decides which pods a StatefulSet has: `web-0`, `web-1`, ..., in which order they come, go and are replaced.

Theory: OrderedReady makes the next pod once all before it are available, and removes the last one once the others are; Parallel
does not wait. An update goes from the highest ordinal down to `partition`, each pod once the one before is available again. A
name is free only when its pod is really gone, so that a pod on a node that is out of reach is never there twice. Source:
Kubernetes pkg/controller/statefulset/stateful_set_control.go.
"""

from collections.abc import Iterable
from dataclasses import replace

from netlab.controllers.availability import is_available
from netlab.controllers.lifecycle import end
from netlab.controllers.pods import index
from netlab.controllers.replicas import Special, made
from netlab.controllers.revisions import LABEL, is_of, label_of, with_current
from netlab.model import Cluster, Key, Pod, Revision, Stateful, Workload
from netlab.numerals import natural

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every StatefulSet one step further; the same object when nothing changed."""
    sets = [workload for (kind, _), workload in cluster.workloads.items() if kind == "StatefulSet"]
    if not sets:
        return cluster
    known = index(cluster.pods)
    pods = dict(cluster.pods)
    workloads = dict(cluster.workloads)
    serial = cluster.serial
    for workload in sets:
        for pod in known.selected(workload.meta.namespace, workload.selector):
            if pod.meta.owner is None and not pod.terminating and ordinal(workload, pod.meta.name) is not None:
                pods[pod.meta.key] = replace(pod, meta=replace(pod.meta, owner=workload.ref))
        mine = [pod for pod in pods.values() if pod.meta.owner == workload.ref] if known.by_namespace else []
        workload = _renewed(workload, mine)
        workloads["StatefulSet", workload.meta.key] = workload
        serial = _step(workload, cluster, mine, pods, serial)
    same = all(workloads[slot] is one for slot, one in cluster.workloads.items())
    if same and len(pods) == len(cluster.pods) and all(pods.get(key) is pod for key, pod in cluster.pods.items()):
        return cluster
    return cluster.with_(pods=pods, workloads=workloads, serial=serial)


def ordinal(workload: Workload, name: str) -> int | None:
    """The ordinal in a pod's name; None when it is not this set's name."""
    base, _, number = name.rpartition("-")
    return natural(number) if base == workload.meta.name else None


def _renewed(workload: Workload, mine: list[Pod]) -> Workload:
    """The set with its revisions; `current` becomes the newest one once all pods are of it and available."""
    workload = with_current(workload, mine)
    newest = workload.revisions[-1]
    stateful = workload.stateful or Stateful()
    if stateful.current == newest.hash:
        return workload
    updated = [pod for pod in mine if is_of(pod, workload, newest) and pod.ready and not pod.terminating]
    known = {one.hash for one in workload.revisions}
    if stateful.current not in known or (len(updated) == workload.replicas == len(mine)):
        return replace(workload, stateful=replace(stateful, current=newest.hash))
    return workload


def current_revision(workload: Workload) -> Revision:
    """The revision before the update in progress; the newest one when there is none."""
    wanted = workload.stateful.current if workload.stateful is not None else ""
    return next((one for one in workload.revisions if one.hash == wanted), workload.revisions[-1])


def _step(workload: Workload, cluster: Cluster, mine: list[Pod], pods: dict[Key, Pod], serial: int) -> int:
    """Change `pods` by one step; the next serial number."""
    stateful = workload.stateful or Stateful()
    ordered = stateful.pod_management == "OrderedReady"
    slots = range(stateful.start, stateful.start + workload.replicas)
    by_ordinal = {number: pod for pod in mine if (number := ordinal(workload, pod.meta.name)) is not None}

    def healthy(pod: Pod | None) -> bool:
        return pod is not None and not pod.terminating and is_available(pod, workload, cluster.clock)

    for number in slots:
        pod = by_ordinal.get(number)
        if pod is not None and pod.phase in ("Succeeded", "Failed") and not pod.terminating:
            del pods[pod.meta.key]
            pod = None
        if pod is None and Key(workload.meta.namespace, f"{workload.meta.name}-{number}") not in pods:
            new, serial = _pod(workload, number, pods, serial, cluster.clock)
            pods[new.meta.key] = new
            if ordered:
                return serial
        elif ordered and not healthy(pod):
            return serial
    condemned = sorted((number for number in by_ordinal if number not in slots), reverse=True)
    for number in condemned:
        if by_ordinal[number].terminating:
            if ordered:
                return serial
            continue
        end(pods, by_ordinal[number], cluster)
        if ordered:
            return serial
    _update(workload, cluster, [by_ordinal.get(number) for number in reversed(slots)], healthy_of(workload, cluster), pods)
    return serial


def healthy_of(workload: Workload, cluster: Cluster) -> set[Key]:
    """The pods of a set that are available."""
    owned = (pod for pod in cluster.pods.values() if pod.meta.owner == workload.ref)
    return {pod.meta.key for pod in owned if not pod.terminating and is_available(pod, workload, cluster.clock)}


def _update(
    workload: Workload, cluster: Cluster, descending: Iterable[Pod | None], healthy: set[Key], pods: dict[Key, Pod]
) -> None:
    """Delete the highest pod that is not of the newest template, unless one above it is not available yet."""
    if workload.rollout.type != "RollingUpdate":
        return
    first = (workload.stateful or Stateful()).start + workload.rollout.partition
    for pod in descending:
        if pod is None or (ordinal(workload, pod.meta.name) or 0) < first:
            return
        if not is_of(pod, workload, workload.revisions[-1]) and not pod.terminating:
            end(pods, pod, cluster)
            return
        if pod.meta.key not in healthy:
            return


def _pod(workload: Workload, number: int, pods: dict[Key, Pod], serial: int, clock: float) -> tuple[Pod, int]:
    stateful = workload.stateful or Stateful()
    name = f"{workload.meta.name}-{number}"
    old = number < stateful.start + workload.rollout.partition
    revision = current_revision(workload) if old else workload.revisions[-1]
    named = {"hostname": name, **({"subdomain": stateful.service_name} if stateful.service_name else {})}
    special = Special(
        name=name,
        labels={LABEL: label_of(workload, revision), POD_NAME: name, POD_INDEX: str(number)},
        spec=named,
        manifest=named,
    )
    return made(replace(workload, template=revision.template), pods, serial, clock, special=special)
