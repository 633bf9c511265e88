"""Decides since when a pod has been ready, and whether that is long enough to count as available (minReadySeconds)."""

from collections.abc import Iterator
from dataclasses import replace

from netlab.model import Cluster, Pod, Workload


def stamp(cluster: Cluster) -> Cluster:
    """The cluster with `ready_since` of every pod right; the same object when nothing changed."""
    changed = {
        key: replace(pod, ready_since=cluster.clock if pod.ready else None)
        for key, pod in cluster.pods.items()
        if pod.ready != (pod.ready_since is not None)
    }
    return cluster.with_(pods={key: changed.get(key, pod) for key, pod in cluster.pods.items()}) if changed else cluster


def is_available(pod: Pod, workload: Workload, clock: float) -> bool:
    """Whether a pod has been ready for the workload's minReadySeconds."""
    return pod.ready and (pod.ready_since is None or clock - pod.ready_since >= workload.rollout.min_ready_s)


def due(cluster: Cluster) -> Iterator[float]:
    """When a ready pod becomes available."""
    patient = {one.ref: one.rollout.min_ready_s for one in cluster.workloads.values() if one.rollout.min_ready_s}
    for pod in cluster.pods.values() if patient else ():
        if pod.ready_since is not None and pod.meta.owner in patient:
            yield pod.ready_since + patient[pod.meta.owner]
