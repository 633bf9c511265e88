"""Decides on which nodes a DaemonSet has its pod: every node that its template tolerates and selects, exactly one each."""

from dataclasses import replace

from netlab.controllers import lifecycle
from netlab.controllers.pods import index, is_active
from netlab.controllers.replicas import claims, made
from netlab.controllers.scheduler import unfit
from netlab.model import Cluster, Pod, Workload


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every DaemonSet's pods; the same object when nothing changed."""
    daemon_sets = [workload for (kind, _), workload in cluster.workloads.items() if kind == "DaemonSet"]
    if not daemon_sets:
        return cluster
    known = index(cluster.pods)
    pods = dict(cluster.pods)
    serial = cluster.serial
    changed = False
    for workload in daemon_sets:
        released, adopted = claims(workload, known)
        gone = {pod.meta.key for pod in released}
        owned = [pod for pod in known.owned(workload.ref) if pod.meta.key not in gone and is_active(pod)] + adopted
        missing, superfluous = _difference(workload, cluster, owned)
        for pod in (*released, *adopted):
            pods[pod.meta.key] = _owned_by(pod, workload if pod.meta.key not in gone else None)
        for pod in superfluous:
            lifecycle.without(pods, pod.meta.key, cluster.clock)
        for node in missing:
            pod, serial = made(workload, pods, serial, cluster.clock, node)
            pods[pod.meta.key] = pod
        changed = changed or bool(released or adopted or missing or superfluous)
    return cluster.with_(pods=pods, serial=serial) if changed else cluster


def _difference(workload: Workload, cluster: Cluster, owned: list[Pod]) -> tuple[list[str], list[Pod]]:
    """(nodes that lack their pod, pods that are one too many)."""
    spec = workload.template.spec
    wanted = [name for name, node in cluster.nodes.items() if not unfit(spec, node) and spec.node_name in ("", name)]
    seen: set[str] = set()
    superfluous = []
    for pod in owned:
        node = pod.node or pod.spec.node_name
        if node in wanted and node not in seen:
            seen.add(node)
        else:
            superfluous.append(pod)
    return [name for name in wanted if name not in seen], superfluous


def _owned_by(pod: Pod, workload: Workload | None) -> Pod:
    return replace(pod, meta=replace(pod.meta, owner=workload.ref if workload else None))
