"""Takes objects out of a cluster: with what they own (background), or leaving that behind without an owner (orphan)."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal, TypeVar

from netlab.controllers.lifecycle import end
from netlab.controllers.objects import find, not_found
from netlab.controllers.putting import ALWAYS
from netlab.errors import ApiError
from netlab.model import Cluster, EndpointSlice, Key, Meta, Pod, Ref

K = TypeVar("K")
V = TypeVar("V")
Cascade = Literal["background", "orphan"]
WORKLOADS = ("ReplicationController", "ReplicaSet", "Deployment", "DaemonSet", "StatefulSet", "Job")


def remove(cluster: Cluster, kind: str, key: Key, cascade: Cascade, grace_s: float | None = None) -> Cluster:
    """The cluster without the object, not settled. Pods leave in their own time (`lifecycle.leaving`).

    Raises: ApiError 404, 403 (system namespaces), 405 (nodes).
    """
    if find(cluster, kind, key) is None:
        raise not_found(kind, key.name)
    match kind:
        case "Pod":
            return cluster.with_(pods=_without_pods(cluster, {key}, grace_s))
        case "Service":
            return _without_service(cluster, key)
        case "EndpointSlice":
            return cluster.with_(slices=_without(cluster.slices, key))
        case "Endpoints":
            return cluster.with_(endpoints=_without(cluster.endpoints, key))
        case "Node":
            raise ApiError(405, "MethodNotAllowed", f'node "{key.name}" is part of the topology; a running lab keeps its nodes')
        case "Namespace":
            return _without_namespace(cluster, key.name)
        case _ if kind in WORKLOADS:
            rest = cluster.with_(workloads=_without(cluster.workloads, (kind, key)))
            return _cascaded(rest, Ref(kind.lower(), key.namespace, key.name), cascade, grace_s)
        case _:
            return cluster.with_(others=_without(cluster.others, (kind, key)))


def _without(objects: Mapping[K, V], key: K) -> dict[K, V]:
    return {one: value for one, value in objects.items() if one != key}


def _without_pods(cluster: Cluster, keys: Iterable[Key], grace_s: float | None) -> dict[Key, Pod]:
    pods = dict(cluster.pods)
    for key in keys:
        end(pods, pods[key], cluster, grace_s)
    return pods


def _cascaded(cluster: Cluster, owner: Ref, cascade: Cascade, grace_s: float | None) -> Cluster:
    """Dependents go, and theirs; with orphan they stay and have no owner any more."""
    pods = {key: pod for key, pod in cluster.pods.items() if pod.meta.owner == owner}
    sets = {slot: one for slot, one in cluster.workloads.items() if one.meta.owner == owner}
    if cascade == "orphan":
        freed_pods = {key: replace(pod, meta=_freed(pod.meta)) for key, pod in pods.items()}
        freed_sets = {slot: replace(one, meta=_freed(one.meta)) for slot, one in sets.items()}
        return cluster.with_(pods={**cluster.pods, **freed_pods}, workloads={**cluster.workloads, **freed_sets})
    cluster = cluster.with_(
        pods=_without_pods(cluster, pods.keys(), grace_s),
        workloads={slot: one for slot, one in cluster.workloads.items() if slot not in sets},
    )
    for one in sets.values():
        cluster = _cascaded(cluster, one.ref, cascade, grace_s)
    return cluster


def _freed(meta: Meta) -> Meta:
    return replace(meta, owner=None)


def _without_service(cluster: Cluster, key: Key) -> Cluster:
    """A Service goes with its Endpoints and with the slices that it owns; slices that a user made for it stay."""

    def owned(one: EndpointSlice) -> bool:
        references = (one.manifest.get("metadata") or {}).get("ownerReferences") or ()
        return one.service == key and (one.managed or any(reference.get("kind") == "Service" for reference in references))

    return cluster.with_(
        services=_without(cluster.services, key),
        endpoints=_without(cluster.endpoints, key),
        slices={name: one for name, one in cluster.slices.items() if not owned(one)},
    )


def _without_namespace(cluster: Cluster, name: str) -> Cluster:
    if name in ALWAYS:
        raise ApiError(403, "Forbidden", f'namespaces "{name}" is forbidden: this namespace may not be deleted')
    others = _without(cluster.others, ("Namespace", Key("", name)))
    return cluster.with_(
        pods=_without_pods(cluster, {key for key in cluster.pods if key.namespace == name}, None),
        workloads={slot: one for slot, one in cluster.workloads.items() if slot[1].namespace != name},
        services={key: one for key, one in cluster.services.items() if key.namespace != name},
        slices={key: one for key, one in cluster.slices.items() if key.namespace != name},
        endpoints={key: one for key, one in cluster.endpoints.items() if key.namespace != name},
        others={slot: one for slot, one in others.items() if slot[1].namespace != name},
    )
