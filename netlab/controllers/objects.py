"""Finds objects in a cluster, and lays a new version of one over the old one as `kubectl apply` does.

Decides what an object that is already there keeps: uid, addresses, ports, a scaled replica count.
"""

from dataclasses import replace
from typing import Literal

from netlab.controllers import nodes, services
from netlab.errors import ApiError
from netlab.model import (
    Batch,
    Cluster,
    Endpoint,
    Endpoints,
    Key,
    KubernetesObject,
    Meta,
    Node,
    Other,
    Pod,
    PodTemplate,
    Service,
    SlicePort,
    Workload,
)

Action = Literal["created", "configured", "unchanged"]


def kind_of(obj: KubernetesObject) -> str:
    """The Kubernetes kind of a model object."""
    return obj.kind if isinstance(obj, Workload | Other) else type(obj).__name__


def objects_of(cluster: Cluster, kind: str) -> tuple[KubernetesObject, ...]:
    """All objects of a kind, in the order in which they came."""
    match kind:
        case "Node":
            return tuple(cluster.nodes.values())
        case "Pod":
            return tuple(cluster.pods.values())
        case "Service":
            return tuple(cluster.services.values())
        case "EndpointSlice":
            return tuple(cluster.slices.values())
        case "Endpoints":
            return (*cluster.endpoints.values(), *_derived_endpoints(cluster))
        case "ReplicationController" | "ReplicaSet" | "Deployment" | "DaemonSet" | "StatefulSet" | "Job":
            return tuple(one for (its, _), one in cluster.workloads.items() if its == kind)
        case _:
            return tuple(one for (its, _), one in cluster.others.items() if its == kind)


def find(cluster: Cluster, kind: str, key: Key) -> KubernetesObject | None:
    """One object, None when it is not there."""
    match kind:
        case "Node":
            return cluster.nodes.get(key.name)
        case "Pod":
            return cluster.pods.get(key)
        case "Service":
            return cluster.services.get(key)
        case "EndpointSlice":
            return cluster.slices.get(key)
        case "Endpoints":
            derived = (one for one in _derived_endpoints(cluster) if one.meta.key == key)
            return cluster.endpoints.get(key) or next(derived, None)
        case "ReplicationController" | "ReplicaSet" | "Deployment" | "DaemonSet" | "StatefulSet" | "Job":
            return cluster.workloads.get((kind, key))
        case _:
            return cluster.others.get((kind, key))


def _derived_endpoints(cluster: Cluster) -> list[Endpoints]:
    """The old v1 form of every Service that has slices and no Endpoints of its own: what `kubectl get endpoints` still shows.

    As upstream's controller makes it: of the Service's first family only, without terminating endpoints, a subset for each set of
    ports. Source: kubernetes pkg/controller/endpoint/endpoints_controller.go, pkg/api/v1/endpoints/util.go RepackSubsets.
    """
    subsets: dict[Key, dict[tuple[SlicePort, ...], list[Endpoint]]] = {}
    for one in cluster.slices.values():
        service = cluster.services.get(one.service) if one.service is not None else None
        if service is None or one.service in cluster.endpoints:
            continue
        if not service.selector and one.service != services.KUBERNETES:
            continue  # slices made by hand: nobody mirrors these
        found = subsets.setdefault(service.meta.key, {})
        if one.address_type == primary_family(service):
            found.setdefault(one.ports, []).extend(end for end in one.endpoints if end.addresses and not end.terminating)
    return [
        Endpoints(
            replace(cluster.services[key].meta, owner=None, generation=1),
            tuple((tuple(sorted(ends, key=_address)), ports) for ports, ends in found.items() if ends),
        )
        for key, found in subsets.items()
    ]


def primary_family(service: Service) -> str:
    """The first of its families; of a Service from a dump that names none, its clusterIP's."""
    if service.ip_families:
        return service.ip_families[0]
    return f"IPv{service.cluster_ips[0].version}" if service.cluster_ips else "IPv4"


def _address(end: Endpoint) -> int:
    return int(end.addresses[0])


def action(cluster: Cluster, obj: KubernetesObject) -> Action:
    """What applying this object to this cluster does to it, in kubectl's word."""
    old = find(cluster, kind_of(obj), obj.meta.key)
    if old is None:
        return "created"
    return "unchanged" if merged(old, obj) == old else "configured"


def not_found(kind: str, name: str) -> ApiError:
    """The API server's own words for an object that is not there."""
    from netlab.manifest import kinds

    info = kinds.by_kind().get(kind)
    plural = info.plural + (f".{info.group}" if info.group else "") if info is not None else kind.lower() + "s"
    return ApiError(404, "NotFound", f'{plural} "{name}" not found')


# ---------------------------------------------------------------- one version over another


def merged(old: KubernetesObject, new: KubernetesObject) -> KubernetesObject:
    """`new` with all that `old` has and a manifest does not say. Equal to `old` when applying `new` changes nothing."""
    match old, new:
        case Node(), Node():
            return nodes.overlaid(old, new)
        case Pod(), Pod():
            result: KubernetesObject = replace(
                new,
                meta=_meta(old.meta, new.meta),
                node=old.node,
                addresses=old.addresses,
                phase=old.phase,
                ready=old.ready,
                serving=old.serving,
                restarts=old.restarts,
                message=old.message,
                ready_since=old.ready_since,
                statuses=old.statuses,
                grace_s=old.grace_s,
            )
        case Workload(), Workload():
            result = _workload(old, new)
        case Service(), Service():
            result = services.carried(replace(new, meta=_meta(old.meta, new.meta)), old)
        case _:
            result = replace(new, meta=_meta(old.meta, new.meta))
    if replace(result, meta=old.meta, manifest=old.manifest) != old:
        result = replace(result, meta=replace(result.meta, generation=result.meta.generation + 1))
    return result


def _meta(old: Meta, new: Meta) -> Meta:
    return replace(
        new,
        uid=old.uid or new.uid,
        owner=new.owner or old.owner,
        created=old.created,
        deleted=old.deleted,
        generation=old.generation,
        annotations={**{key: value for key, value in old.annotations.items() if "kubernetes.io/" in key}, **new.annotations}
        if old.annotations
        else new.annotations,
    )


def _workload(old: Workload, new: Workload) -> Workload:
    """What the controllers know of a workload stays; a template that `rollout restart` has stamped keeps its stamp."""
    stateful, batch = new.stateful, new.batch
    if stateful is not None and old.stateful is not None:
        stateful = replace(stateful, current=old.stateful.current)
    if batch is not None and old.batch is not None:
        batch = asked_of_job(old, new)
        asked = ("completions", "parallelism", "backoff_limit", "indexed", "suspended", "deadline_s", "ttl_s")
        batch = replace(old.batch, **{name: getattr(batch, name) for name in asked})
    told = any("paused" in (one.manifest.get("spec") or {}) for one in (old, new))
    return replace(
        new,
        rollout=new.rollout if told else replace(new.rollout, paused=old.rollout.paused),
        meta=_meta(old.meta, new.meta),
        replicas=_replicas(old, new),
        template=restamped(new.template, old.template.annotations.get(RESTARTED, "")),
        revisions=old.revisions,
        progress=old.progress,
        stateful=stateful,
        batch=batch,
    )


def asked_of_job(old: Workload, new: Workload) -> Batch:
    """What is asked of a Job that is there already: a count that no manifest names is the live one; one named no more goes.

    Where then neither is left both are 1, as the API server defaults them.
    """
    assert old.batch is not None and new.batch is not None
    was, now = (one.manifest.get("spec") or {} for one in (old, new))

    def laid(name: str, live: int | None, given: int | None) -> int | None:
        return given if now.get(name) is not None else None if was.get(name) is not None else live

    completions = laid("completions", old.batch.completions, new.batch.completions)
    parallelism = laid("parallelism", old.batch.parallelism, new.batch.parallelism)
    if parallelism is None and completions is None:
        completions = 1
    return replace(new.batch, completions=completions, parallelism=1 if parallelism is None else parallelism)


RESTARTED = "kubectl.kubernetes.io/restartedAt"


def restamped(template: PodTemplate, stamp: str) -> PodTemplate:
    """The template with the annotation that `rollout restart` leaves; the same object without a stamp or with one of its own."""
    if not stamp or RESTARTED in template.annotations:
        return template
    given = template.manifest.get("metadata") or {}
    metadata = {**given, "annotations": {**(given.get("annotations") or {}), RESTARTED: stamp}}
    annotations = {**template.annotations, RESTARTED: stamp}
    return replace(template, annotations=annotations, manifest={**template.manifest, "metadata": metadata})


def _replicas(old: Workload, new: Workload) -> int:
    """A count that no manifest names is whatever `scale` left (kubectl's three-way merge)."""
    named = (new.manifest.get("spec") or {}).get("replicas") is not None
    was_named = (old.manifest.get("spec") or {}).get("replicas") is not None
    return new.replicas if named or was_named else old.replicas
