"""Workloads and nodes as kubectl shows them.

Decides how replicas are counted: by the pods that belong to a workload, a Deployment's through its ReplicaSets.
Refuses to know how they were made.
"""

from collections.abc import Mapping
from typing import Any

from netlab.manifest.pods import CONTROL_PLANE
from netlab.manifest.shown_pods import template_spec
from netlab.manifest.shown_time import timestamp
from netlab.model import Cluster, Node, Pod, Selector, Workload

_VERSION = "v1.36.2"


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
    return spec if workload.kind == "DaemonSet" else {**spec, "replicas": workload.replicas}


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


def workload_status(workload: Workload, cluster: Cluster) -> dict[str, Any]:
    """status of a workload, counted from the cluster's pods."""
    pods = pods_of(workload, cluster)
    ready = sum(pod.ready for pod in pods)
    if workload.kind == "DaemonSet":
        return {
            "currentNumberScheduled": sum(bool(pod.node) for pod in pods),
            "desiredNumberScheduled": len(pods),
            "numberAvailable": ready,
            "numberMisscheduled": 0,
            "numberReady": ready,
            "numberUnavailable": len(pods) - ready,
            "observedGeneration": workload.meta.generation,
            "updatedNumberScheduled": _updated(workload, pods),
        }
    status: dict[str, Any] = {
        "observedGeneration": workload.meta.generation,
        "replicas": len(pods),
        "readyReplicas": ready,
        "availableReplicas": ready,
    }
    if workload.kind == "Deployment":
        status |= {"updatedReplicas": _updated(workload, pods), "unavailableReplicas": max(workload.replicas - ready, 0)}
        available = ready >= workload.replicas
        status["conditions"] = [
            _condition("Available", available, "MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable"),
            _condition("Progressing", True, "NewReplicaSetAvailable" if available else "ReplicaSetUpdated"),
        ]
    else:
        status["fullyLabeledReplicas"] = len(pods)
    return status


def _updated(workload: Workload, pods: list[Pod]) -> int:
    wanted = workload.template.labels.items()
    return sum(wanted <= pod.meta.labels.items() and pod.spec.containers == workload.template.spec.containers for pod in pods)


def _condition(name: str, holds: bool, reason: str) -> dict[str, str]:
    return {"type": name, "status": "True" if holds else "False", "reason": reason}


def node_spec(node: Node, given: Mapping[str, Any]) -> dict[str, Any]:
    """spec of a node."""
    spec = dict(given)
    if node.pod_cidrs:
        spec |= {"podCIDR": str(node.pod_cidrs[0]), "podCIDRs": [str(network) for network in node.pod_cidrs]}
    if node.control_plane and not given.get("taints"):
        spec["taints"] = [{"key": CONTROL_PLANE[0], "effect": "NoSchedule"}]
    return spec


def node_status(node: Node, given: Mapping[str, Any], started: float) -> dict[str, Any]:
    """status of a node: its addresses, whether it is ready, and what it claims to run."""
    since = timestamp(started + node.meta.created)
    addresses = [{"type": "InternalIP", "address": str(address)} for address in node.addresses]
    healthy = {
        "MemoryPressure": False,
        "DiskPressure": False,
        "PIDPressure": False,
        "NetworkUnavailable": False,
        "Ready": node.ready,
    }
    reason = {"Ready": "KubeletReady" if node.ready else "KubeletNotReady"}
    conditions = [
        {
            "type": name,
            "status": "True" if holds else "False",
            "reason": reason.get(name, f"KubeletHasNo{name}"),
            "lastHeartbeatTime": since,
            "lastTransitionTime": since,
        }
        for name, holds in healthy.items()
    ]
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
