"""Objects as `kubectl get -o json` shows them: the manifest as given, with defaults, what netlab assigned, and a status
laid over it.

Decides what is shown. The manifest is copied only where something is laid over it. Refuses to know how it is printed.
`started` is the Unix time of the lab's clock zero: a value object has no clock of its own.
"""

from collections.abc import Mapping
from typing import Any

from netlab import ingresses
from netlab.manifest.meta import EMPTY
from netlab.manifest.shown_pods import pod_status, shown_pod_spec
from netlab.manifest.shown_services import endpoints_json, service_spec, service_status, slice_json
from netlab.manifest.shown_time import timestamp, uid
from netlab.manifest.shown_workloads import node_spec, node_status, workload_spec, workload_status
from netlab.model import Cluster, Endpoints, EndpointSlice, Key, KubernetesObject, Meta, Node, Other, Pod, Service, Workload

_OWNERS = {
    "replicationcontroller": ("v1", "ReplicationController"),
    "replicaset": ("apps/v1", "ReplicaSet"),
    "deployment": ("apps/v1", "Deployment"),
    "daemonset": ("apps/v1", "DaemonSet"),
    "statefulset": ("apps/v1", "StatefulSet"),
    "job": ("batch/v1", "Job"),
    "svc": ("v1", "Service"),
    "service": ("v1", "Service"),
    "endpoints": ("v1", "Endpoints"),
}
_APPS = ("ReplicaSet", "Deployment", "DaemonSet", "StatefulSet")


def to_json(obj: KubernetesObject, cluster: Cluster, started: float = 0.0, resource_version: str = "1") -> dict[str, Any]:
    """One object as plain JSON data."""
    given = obj.manifest
    meta = _metadata(obj.meta, given.get("metadata") or EMPTY, kind_of(obj), cluster, started, resource_version)
    head: dict[str, Any] = {"apiVersion": api_version(obj), "kind": kind_of(obj), "metadata": meta}
    spec, status = given.get("spec") or EMPTY, given.get("status") or EMPTY
    match obj:
        case Pod():
            if obj.grace_s is not None and obj.meta.deleted is not None:  # the API's time stamp is that of the end
                meta["deletionTimestamp"] = timestamp(started + obj.meta.deleted + obj.grace_s)
                meta["deletionGracePeriodSeconds"] = int(obj.grace_s)
            return {**head, "spec": shown_pod_spec(obj, spec), "status": pod_status(obj, status, cluster, started)}
        case Service():
            return {**head, "spec": service_spec(obj, spec), "status": service_status(obj, status)}
        case Node():
            return {**head, "spec": node_spec(obj, spec), "status": node_status(obj, status, started)}
        case Workload():
            return {**head, "spec": workload_spec(obj, spec), "status": workload_status(obj, cluster, started)}
        case EndpointSlice():
            return {**head, **slice_json(obj)}
        case Endpoints():
            return {**head, **endpoints_json(obj)}
        case Other():
            rest = {key: value for key, value in given.items() if key not in head}
            if obj.kind == "Namespace":
                rest = {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}, **rest}
            if obj.kind == "Ingress":
                served = [{"ip": str(address)} for address in ingresses.addresses(cluster, ingresses.read(obj))]
                rest["status"] = {"loadBalancer": {"ingress": served} if served else {}}
            return {**head, **rest}


def kind_of(obj: KubernetesObject) -> str:
    """The Kubernetes kind of a model object."""
    return obj.kind if isinstance(obj, Workload | Other) else type(obj).__name__


def api_version(obj: KubernetesObject) -> str:
    """The current apiVersion; old forms are shown as what they are read as."""
    match obj:
        case Other():
            return obj.api_version
        case EndpointSlice():
            return "discovery.k8s.io/v1"
        case Workload():
            return "apps/v1" if obj.kind in _APPS else "batch/v1" if obj.kind == "Job" else "v1"
        case _:
            return "v1"


def _metadata(
    meta: Meta, given: Mapping[str, Any], kind: str, cluster: Cluster, started: float, resource_version: str
) -> dict[str, Any]:
    shown: dict[str, Any] = {
        key: value for key, value in given.items() if key not in ("managedFields", "ownerReferences", "generateName")
    }
    shown["name"] = meta.name
    if meta.namespace:
        shown["namespace"] = meta.namespace
    for key, labels in (("labels", meta.labels), ("annotations", meta.annotations)):
        shown.pop(key, None)
        if labels:
            shown[key] = dict(labels)
    shown["uid"] = meta.uid or uid(kind, meta.namespace, meta.name)
    shown["resourceVersion"] = given.get("resourceVersion") or resource_version
    shown["creationTimestamp"] = given.get("creationTimestamp") or timestamp(started + meta.created)
    if meta.generation > 1 or kind in _APPS:
        shown["generation"] = meta.generation
    if meta.deleted is not None:
        shown["deletionTimestamp"] = given.get("deletionTimestamp") or timestamp(started + meta.deleted)
    if meta.owner is not None:
        shown["ownerReferences"] = [_owner(meta, cluster)]
    elif given.get("ownerReferences"):
        shown["ownerReferences"] = given["ownerReferences"]
    return shown


def _owner(meta: Meta, cluster: Cluster) -> dict[str, Any]:
    assert meta.owner is not None
    api, kind = _OWNERS.get(meta.owner.kind, ("v1", meta.owner.kind))
    key = Key(meta.owner.namespace, meta.owner.name)
    workload = cluster.workloads.get((kind, key))
    return {
        "apiVersion": api,
        "kind": kind,
        "name": meta.owner.name,
        "uid": (workload.meta.uid if workload else "") or uid(kind, *key),
        "controller": True,
        "blockOwnerDeletion": True,
    }
