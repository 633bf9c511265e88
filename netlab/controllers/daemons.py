"""Decides on which nodes a DaemonSet has its pod, one each, and how pods of an old template are replaced.

Every node that its template selects and tolerates has one; what the controller adds to the tolerations keeps a pod on a node that
is cordoned or out of reach. RollingUpdate replaces at most maxUnavailable pods at a time (or has maxSurge new ones beside the
old), OnDelete none. Source: Kubernetes pkg/controller/daemon/update.go.
"""

from dataclasses import replace

from netlab.controllers.availability import is_available
from netlab.controllers.lifecycle import end
from netlab.controllers.pods import index, is_active
from netlab.controllers.replicas import Special, claims, made
from netlab.controllers.revisions import LABEL, is_of, label_of, with_current
from netlab.controllers.rolling import resolved
from netlab.controllers.scheduler import unfit, unselected
from netlab.controllers.taints import OF_DAEMONS, may_stay
from netlab.model import Cluster, Pod, PodSpec, Workload


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every DaemonSet's pods; the same object when nothing changed."""
    daemon_sets = [workload for (kind, _), workload in cluster.workloads.items() if kind == "DaemonSet"]
    if not daemon_sets:
        return cluster
    known = index(cluster.pods)
    pods = dict(cluster.pods)
    workloads = dict(cluster.workloads)
    serial = cluster.serial
    changed = False
    for workload in daemon_sets:
        released, adopted = claims(workload, known)
        gone = {pod.meta.key for pod in released}
        owned = [pod for pod in known.owned(workload.ref) if pod.meta.key not in gone] + adopted
        current = with_current(workload, owned)
        nodes = nodes_of(current, cluster)
        current = current if current.replicas == len(nodes) else replace(current, replicas=len(nodes))
        workloads["DaemonSet", workload.meta.key] = current
        missing, superfluous = _difference(current, cluster, owned, nodes)
        for pod in (*released, *adopted):
            pods[pod.meta.key] = _owned_by(pod, workload if pod.meta.key not in gone else None)
        for pod in superfluous:
            end(pods, pod, cluster)
        for node in missing:
            pod, serial = made(current, pods, serial, cluster.clock, node, _special(current))
            pods[pod.meta.key] = pod
        changed = changed or bool(released or adopted or missing or superfluous) or current is not workload
    return cluster.with_(pods=pods, workloads=workloads, serial=serial) if changed else cluster


def spec_of(workload: Workload) -> PodSpec:
    """The spec of a DaemonSet's pods: the template's, with the tolerations that the controller adds."""
    spec = workload.template.spec
    return replace(spec, tolerations=(*spec.tolerations, *OF_DAEMONS))


def nodes_of(workload: Workload, cluster: Cluster) -> list[str]:
    """The nodes that shall have a pod."""
    spec = spec_of(workload)
    return [name for name, node in cluster.nodes.items() if not unfit(spec, node) and spec.node_name in ("", name)]


def _may_stay(workload: Workload, cluster: Cluster) -> set[str]:
    """The nodes whose pods are left alone, though some of them would get no new one now."""
    spec = spec_of(workload)
    nodes = ((name, node) for name, node in cluster.nodes.items() if spec.node_name in ("", name))
    return {name for name, node in nodes if may_stay(spec, node) and not unselected(spec, node)}


def _special(workload: Workload) -> Special:
    labels = {LABEL: label_of(workload, workload.revisions[-1])}
    given = workload.template.manifest.get("spec", {}).get("tolerations") or []
    added = [{"key": one.key, "operator": "Exists", "effect": one.effect} for one in OF_DAEMONS]
    return Special(labels=labels, spec={"tolerations": spec_of(workload).tolerations}, manifest={"tolerations": [*given, *added]})


def _difference(workload: Workload, cluster: Cluster, owned: list[Pod], wanted: list[str]) -> tuple[list[str], list[Pod]]:
    """(nodes that lack their pod, pods that have to go)."""
    rollout, clock = workload.rollout, cluster.clock
    rolling = rollout.type == "RollingUpdate"
    surge = resolved(rollout.max_surge, len(wanted), True) if rolling else 0
    by_node: dict[str, list[Pod]] = {}
    for pod in owned:
        by_node.setdefault(pod.node or pod.spec.node_name, []).append(pod)
    missing: list[str] = []
    staying = _may_stay(workload, cluster)
    superfluous = [pod for node, pods in by_node.items() if node not in staying for pod in pods if is_active(pod)]
    outdated: list[Pod] = []
    unavailable = surging = 0
    for node in wanted:
        here = by_node.get(node, [])
        new = [pod for pod in here if is_active(pod) and is_of(pod, workload, workload.revisions[-1])]
        old = [pod for pod in here if is_active(pod) and pod not in new]
        superfluous += [*new[1:], *old[1:]]
        available = bool(new) and is_available(new[0], workload, clock)
        if new and old and surge and not available:
            surging += 1
        elif new and old:
            superfluous.append(old[0])
        if old and not new:
            outdated.append(old[0])
        elif not new and not any(pod.terminating for pod in here):
            missing.append(node)
        unavailable += not available and not (old and is_available(old[0], workload, clock))
    if rolling:
        more, replaced = _rolled(workload, cluster, outdated, surge - surging, unavailable, len(wanted), bool(surge))
        missing += more
        superfluous += replaced
    return missing, superfluous


def _rolled(
    workload: Workload, cluster: Cluster, outdated: list[Pod], room: int, unavailable: int, nodes: int, surges: bool
) -> tuple[list[str], list[Pod]]:
    """(nodes that get a new pod beside the old one, old pods that go now, those that do not work first)."""
    useless = [pod for pod in outdated if not is_available(pod, workload, cluster.clock)]
    useful = [pod for pod in outdated if pod not in useless]
    if surges:
        return [pod.node for pod in useful][: max(room, 0)], useless
    most = max(resolved(workload.rollout.max_unavailable, nodes, True), 1)
    return [], [*useless, *useful[: max(most - unavailable, 0)]]


def _owned_by(pod: Pod, workload: Workload | None) -> Pod:
    return replace(pod, meta=replace(pod.meta, owner=workload.ref if workload else None))
