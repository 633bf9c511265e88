"""Workloads and nodes as kubectl shows them.

Decides how replicas are counted: by the pods that belong to a workload, a Deployment's through its ReplicaSets.
Refuses to know how they were made.
"""

from collections.abc import Mapping
from typing import Any

from netlab.manifest.pods import CONTROL_PLANE
from netlab.manifest.shown_pods import template_spec
from netlab.manifest.shown_time import timestamp
from netlab.model import Batch, Cluster, Node, Pod, Ref, Selector, Stateful, Workload

_VERSION = "v1.36.2"
REVISION = "deployment.kubernetes.io/revision"
REVISION_HASH = "controller-revision-hash"


def workload_spec(workload: Workload, given: Mapping[str, Any]) -> dict[str, Any]:
    """spec of a workload with selector, replicas and template."""
    template = workload.template
    old = template.manifest.get("metadata") or {}
    kept = {key: value for key, value in given.items() if value is not None}
    meta = {**{key: value for key, value in old.items() if value is not None}, "labels": dict(template.labels)}
    spec = {
        **kept,
        "selector": dict(workload.selector.labels) if workload.kind == "ReplicationController" else _selector(workload.selector),
        "template": {"metadata": meta, "spec": template_spec(template.spec, template.manifest.get("spec") or {})},
    }
    return {**_defaults(workload), **spec, **_told(workload)}


def _told(workload: Workload) -> dict[str, Any]:
    """What verbs change: the count, and whether a Deployment is paused."""
    match workload.kind:
        case "DaemonSet" | "Job":
            return {}
        case "Deployment" if workload.rollout.paused:
            return {"replicas": workload.replicas, "paused": True}
        case _:
            return {"replicas": workload.replicas}


def _defaults(workload: Workload) -> dict[str, Any]:
    """What the API server fills in of how pods are replaced."""
    rollout = workload.rollout
    limits = {"maxSurge": rollout.max_surge, "maxUnavailable": rollout.max_unavailable}
    rolling = {"rollingUpdate": limits} if rollout.type == "RollingUpdate" else {}
    match workload.kind:
        case "Deployment":
            deadline = {"progressDeadlineSeconds": int(rollout.deadline_s), "revisionHistoryLimit": rollout.history}
            return {"strategy": {"type": rollout.type, **rolling}, **deadline}
        case "DaemonSet":
            return {"updateStrategy": {"type": rollout.type, **rolling}, "revisionHistoryLimit": rollout.history}
        case "StatefulSet":
            stateful = workload.stateful or Stateful()
            partition = {"rollingUpdate": {"partition": rollout.partition}} if rollout.type == "RollingUpdate" else {}
            how = {"updateStrategy": {"type": rollout.type, **partition}, "revisionHistoryLimit": rollout.history}
            return {"podManagementPolicy": stateful.pod_management, "serviceName": stateful.service_name, **how}
        case "Job":
            batch = workload.batch or Batch()
            count = {} if batch.completions is None else {"completions": batch.completions}
            mode = {"completionMode": "Indexed" if batch.indexed else "NonIndexed", "suspend": batch.suspended}
            return {**count, "parallelism": batch.parallelism, "backoffLimit": batch.backoff_limit, **mode}
        case "ReplicaSet" | "ReplicationController":
            return {}


def _selector(selector: Selector) -> dict[str, Any]:
    shown: dict[str, Any] = {"matchLabels": dict(selector.labels)} if selector.labels else {}
    if selector.expressions:
        shown["matchExpressions"] = [
            {"key": key, "operator": operator, **({"values": list(values)} if values else {})}
            for key, operator, values in selector.expressions
        ]
    return shown


def pods_of(workload: Workload, cluster: Cluster) -> list[Pod]:
    """The pods that a workload keeps in being."""
    owners = {workload.ref}
    if workload.kind == "Deployment":
        owners = {child.ref for child in cluster.workloads.values() if child.meta.owner == workload.ref}
    return [
        pod
        for pod in cluster.pods.values()
        if pod.meta.owner in owners and not pod.terminating and pod.phase not in ("Succeeded", "Failed")
    ]


def workload_status(workload: Workload, cluster: Cluster, started: float = 0.0) -> dict[str, Any]:
    """status of a workload, counted from the cluster's pods."""
    pods = pods_of(workload, cluster)
    match workload.kind:
        case "Job":
            return _job_status(workload, pods, started)
        case "DaemonSet":
            return _daemon_status(workload, pods, cluster)
        case "StatefulSet":
            return _stateful_status(workload, pods, cluster)
        case "Deployment":
            return _deployment_status(workload, pods, cluster)
        case "ReplicaSet" | "ReplicationController":
            return {**_counts(workload, pods, cluster), "fullyLabeledReplicas": len(pods)}


def _available(workload: Workload, pods: list[Pod], cluster: Cluster) -> int:
    patience = workload.rollout.min_ready_s
    return sum(pod.ready and (pod.ready_since is None or cluster.clock - pod.ready_since >= patience) for pod in pods)


def _counts(workload: Workload, pods: list[Pod], cluster: Cluster) -> dict[str, Any]:
    return {
        "observedGeneration": workload.meta.generation,
        "replicas": len(pods),
        "readyReplicas": sum(pod.ready for pod in pods),
        "availableReplicas": _available(workload, pods, cluster),
    }


def _deployment_status(workload: Workload, pods: list[Pod], cluster: Cluster) -> dict[str, Any]:
    counts = _counts(workload, pods, cluster)
    available = counts["availableReplicas"]
    updated = sum(pod.meta.owner == _newest_set(workload, cluster) for pod in pods)
    done = updated == workload.replicas == len(pods) and available >= workload.replicas
    enough = available >= workload.replicas - _allowed_to_miss(workload)
    return {
        **counts,
        "updatedReplicas": updated,
        "unavailableReplicas": max(max(workload.replicas, len(pods)) - available, 0),
        "conditions": [
            _condition("Available", enough, "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable"),
            _progressing(workload, done, cluster),
        ],
    }


def _newest_set(workload: Workload, cluster: Cluster) -> Ref | None:
    """The ReplicaSet of a Deployment's own revision."""
    revision = workload.meta.annotations.get(REVISION)
    owned = (one for one in cluster.workloads.values() if one.meta.owner == workload.ref)
    return next((one.ref for one in owned if one.meta.annotations.get(REVISION) == revision), None)


def _allowed_to_miss(workload: Workload) -> int:
    if workload.rollout.type == "Recreate":
        return 0
    given = workload.rollout.max_unavailable
    return given if isinstance(given, int) else int(given.rstrip("%")) * workload.replicas // 100


def _progressing(workload: Workload, done: bool, cluster: Cluster) -> dict[str, str]:
    if workload.rollout.paused:
        return {"type": "Progressing", "status": "Unknown", "reason": "DeploymentPaused"}
    if done:
        return _condition("Progressing", True, "NewReplicaSetAvailable")
    progress = workload.progress
    late = progress is not None and cluster.clock >= progress.at + workload.rollout.deadline_s
    return _condition("Progressing", not late, "ProgressDeadlineExceeded" if late else "ReplicaSetUpdated")


def _daemon_status(workload: Workload, pods: list[Pod], cluster: Cluster) -> dict[str, Any]:
    available = _available(workload, pods, cluster)
    nodes = {pod.node for pod in pods if pod.node}
    return {
        "currentNumberScheduled": len(nodes),
        "desiredNumberScheduled": workload.replicas,
        "numberAvailable": available,
        "numberMisscheduled": 0,
        "numberReady": sum(pod.ready for pod in pods),
        "numberUnavailable": max(workload.replicas - available, 0),
        "observedGeneration": workload.meta.generation,
        "updatedNumberScheduled": _updated(workload, pods),
    }


def _stateful_status(workload: Workload, pods: list[Pod], cluster: Cluster) -> dict[str, Any]:
    current = workload.stateful.current if workload.stateful is not None else ""
    newest = workload.revisions[-1].hash if workload.revisions else ""
    return {
        **_counts(workload, pods, cluster),
        "currentReplicas": sum(pod.meta.labels.get(REVISION_HASH) == f"{workload.meta.name}-{current}" for pod in pods),
        "updatedReplicas": _updated(workload, pods),
        "currentRevision": f"{workload.meta.name}-{current}",
        "updateRevision": f"{workload.meta.name}-{newest}",
        "collisionCount": 0,
    }


def _job_status(workload: Workload, pods: list[Pod], started: float) -> dict[str, Any]:
    batch = workload.batch or Batch()
    done = len({number for _, number in batch.succeeded}) if batch.indexed else len(batch.succeeded)
    status: dict[str, Any] = {"ready": sum(pod.ready for pod in pods), "terminating": 0}
    if pods:
        status["active"] = len(pods)
    if done:
        status["succeeded"] = done
    if batch.failed:
        status["failed"] = len(batch.failed)
    if batch.started is not None:
        status["startTime"] = timestamp(started + batch.started)
    if batch.over is not None:
        at = timestamp(started + batch.over)
        good = batch.verdict == "Complete"
        reason = {"reason": "CompletionsReached" if good else batch.verdict}
        status["conditions"] = [{"type": "Complete" if good else "Failed", "status": "True", "lastTransitionTime": at, **reason}]
        if good:
            status["completionTime"] = at
    elif batch.suspended:
        status["conditions"] = [{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]
    return status


def _updated(workload: Workload, pods: list[Pod]) -> int:
    """How many pods are of a DaemonSet's or StatefulSet's newest revision."""
    newest = workload.revisions[-1].hash if workload.revisions else ""
    label = f"{workload.meta.name}-{newest}" if workload.kind == "StatefulSet" else newest
    return sum(pod.meta.labels.get(REVISION_HASH) == label for pod in pods)


def _condition(name: str, holds: bool, reason: str) -> dict[str, str]:
    return {"type": name, "status": "True" if holds else "False", "reason": reason}


def node_spec(node: Node, given: Mapping[str, Any]) -> dict[str, Any]:
    """spec of a node."""
    spec = dict(given)
    if node.pod_cidrs:
        spec |= {"podCIDR": str(node.pod_cidrs[0]), "podCIDRs": [str(network) for network in node.pod_cidrs]}
    spec.pop("unschedulable", None)
    if node.unschedulable:
        spec["unschedulable"] = True
    taints: list[dict[str, Any]] = [{"key": CONTROL_PLANE[0], "effect": "NoSchedule"}] if node.control_plane else []
    taints += [{"key": one.key, **({"value": one.value} if one.value else {}), "effect": one.effect} for one in node.taints]
    if node.unschedulable:
        taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
    if not node.ready:
        taints += [{"key": "node.kubernetes.io/unreachable", "effect": effect} for effect in ("NoSchedule", "NoExecute")]
    spec.pop("taints", None)
    return {**spec, "taints": taints} if taints else spec


def node_status(node: Node, given: Mapping[str, Any], started: float) -> dict[str, Any]:
    """status of a node: its addresses, whether it is ready, and what it claims to run."""
    since, changed = timestamp(started + node.meta.created), timestamp(started + node.ready_changed)
    addresses = [{"type": "InternalIP", "address": str(address)} for address in node.addresses]
    healthy = dict.fromkeys(("MemoryPressure", "DiskPressure", "PIDPressure"), False) | {"Ready": True}
    conditions = [_node_condition(name, holds, node.ready, since, changed) for name, holds in healthy.items()]
    info = {
        "architecture": "amd64",
        "bootID": "",
        "containerRuntimeVersion": "netlab://0.1",
        "kernelVersion": "",
        "kubeProxyVersion": "",
        "kubeletVersion": _VERSION,
        "machineID": "",
        "operatingSystem": "linux",
        "osImage": "netlab",
        "systemUUID": "",
    }
    size = {"cpu": "2", "memory": "4Gi", "pods": "110"}
    return {
        "capacity": size,
        "allocatable": size,
        **given,
        "addresses": [*addresses, {"type": "Hostname", "address": node.meta.name}],
        "conditions": conditions,
        "nodeInfo": given.get("nodeInfo") or info,
    }


def _node_condition(name: str, holds: bool, reachable: bool, since: str, changed: str) -> dict[str, str]:
    words = {"Ready": ("KubeletReady", "kubelet is posting ready status")}
    pressure = name.removesuffix("Pressure").lower()
    reason, message = words.get(name, (f"KubeletHasNo{name}", f"kubelet has no {pressure} pressure"))
    if not reachable:
        reason, message = "NodeStatusUnknown", "Kubelet stopped posting node status."
    return {
        "type": name,
        "status": ("True" if holds else "False") if reachable else "Unknown",
        "reason": reason,
        "message": message,
        "lastHeartbeatTime": since,
        "lastTransitionTime": changed,
    }
