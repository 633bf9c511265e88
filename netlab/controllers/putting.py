"""Puts objects into a cluster as the API server does, or refuses them in its words, all refusals at once.

Decides what may not change and what two objects may not share.
Refuses to know what follows from a change: that is the controllers' work.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from netlab import ingresses
from netlab.controllers import families, names, nodes, services
from netlab.controllers.objects import asked_of_job, kind_of, merged
from netlab.controllers.pods import is_active
from netlab.controllers.services import Taken
from netlab.errors import InputError, Problem
from netlab.ipam import gateway
from netlab.memory import replaced
from netlab.model import (
    NOTHING,
    Address,
    Cluster,
    Endpoints,
    EndpointSlice,
    Key,
    KubernetesObject,
    Meta,
    Node,
    Other,
    Pod,
    PodSpec,
    PodTemplate,
    Service,
    Workload,
)

Name = TypeVar("Name")
ALWAYS = ("default", "kube-node-lease", "kube-public", "kube-system")


def namespace(name: str) -> Other:
    meta = Meta(name, labels={"kubernetes.io/metadata.name": name}, uid=names.uid("Namespace", "", name, 0))
    manifest = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": name, "labels": dict(meta.labels)},
        "spec": {"finalizers": ["kubernetes"]},
        "status": {"phase": "Active"},
    }
    return Other("Namespace", "v1", meta, manifest)


@dataclass(slots=True)
class Draft:
    """A cluster while objects are put into it: copied once, so that thousands of objects cost no more than their sum."""

    cluster: Cluster
    nodes: dict[str, Node]
    pods: dict[Key, Pod]
    workloads: dict[tuple[str, Key], Workload]
    services: dict[Key, Service]
    slices: dict[Key, EndpointSlice]
    endpoints: dict[Key, Endpoints]
    others: dict[tuple[str, Key], Other]
    taken: Taken
    pod_addresses: dict[Address, Key]
    serial: int
    problems: list[Problem]


def put_all(cluster: Cluster, objects: Iterable[KubernetesObject]) -> Cluster:
    """The cluster with all objects in it, not settled. Raises: InputError with everything that the API server would refuse."""
    given = list(objects)
    draft = Draft(
        cluster,
        dict(cluster.nodes),
        dict(cluster.pods),
        dict(cluster.workloads),
        dict(cluster.services),
        dict(cluster.slices),
        dict(cluster.endpoints),
        dict(cluster.others),
        services.taken(cluster.services.values() if any(isinstance(obj, Service) for obj in given) else ()),
        _pod_addresses(cluster) if any(isinstance(obj, Pod) for obj in given) else {},
        cluster.serial,
        [],
    )
    for obj in given:
        _put(draft, obj)
    if any(isinstance(obj, Other) and obj.kind in ("Ingress", "IngressClass") for obj in given):
        _name_default_class(draft)
    if draft.problems:
        raise InputError(tuple(draft.problems))
    return cluster.with_(
        nodes=_kept(cluster.nodes, draft.nodes),
        pods=_kept(cluster.pods, draft.pods),
        workloads=_kept(cluster.workloads, draft.workloads),
        services=_kept(cluster.services, draft.services),
        slices=_kept(cluster.slices, draft.slices),
        endpoints=_kept(cluster.endpoints, draft.endpoints),
        others=_kept(cluster.others, draft.others),
        serial=draft.serial,
    )


def _kept(old: Mapping[Name, Any], new: dict[Name, Any]) -> Mapping[Name, Any]:
    """The very same mapping where nothing in it has changed: that is how controllers see that they have nothing to do."""
    return old if replaced(old, new) == set() else new


def _put(draft: Draft, obj: KubernetesObject) -> None:
    key = obj.meta.key
    if key.namespace and ("Namespace", Key("", key.namespace)) not in draft.others:
        draft.others["Namespace", Key("", key.namespace)] = namespace(key.namespace)
    match obj:
        case Node():
            known = draft.nodes.get(obj.meta.name)
            if known is None:
                draft.problems.append(Problem(f"node/{obj.meta.name}: {nodes.unknown(obj.meta.name, draft.nodes)}"))
            else:
                draft.nodes[obj.meta.name] = nodes.overlaid(known, obj, draft.cluster.clock)
        case Pod():
            _put_pod(draft, obj)
        case Workload():
            _put_workload(draft, obj)
        case Service():
            _put_service(draft, obj)
        case EndpointSlice():
            known_slice = draft.slices.get(key)
            if known_slice is not None and known_slice.address_type != obj.address_type:
                _refuse(draft, obj, [f'addressType: Invalid value: "{obj.address_type}": field is immutable'])
                return
            draft.slices[key] = _stored(draft, draft.slices.get(key), obj)  # type: ignore[assignment]  # merged keeps the kind
        case Endpoints():
            draft.endpoints[key] = _stored(draft, draft.endpoints.get(key), obj)  # type: ignore[assignment]  # the same
        case Other():
            draft.others[obj.kind, key] = _stored(draft, draft.others.get((obj.kind, key)), obj)  # type: ignore[assignment]  # the same


def _name_default_class(draft: Draft) -> None:
    """New Ingresses without a class get the default one written into them, as the admission plugin DefaultIngressClass does.

    What is put at one moment is there together; one that is applied again keeps the class.
    """
    default = ingresses.default_class(draft.others)
    for slot, one in [*draft.others.items()] if default else ():
        spec = one.manifest.get("spec") or {}
        if slot[0] != "Ingress" or spec.get("ingressClassName") or ingresses.CLASS_ANNOTATION in one.meta.annotations:
            continue
        old = draft.cluster.others.get(slot)
        had = ((old.manifest.get("spec") or {}) if old is not None else {}).get("ingressClassName")
        if one.api_version == ingresses.API and (one.meta.created == draft.cluster.clock or had == default):
            draft.others[slot] = replace(one, manifest={**one.manifest, "spec": {**spec, "ingressClassName": default}})


def _stored(draft: Draft, old: KubernetesObject | None, obj: KubernetesObject) -> KubernetesObject:
    """The object as it is kept: laid over the one that is there, or new with a uid and a time of its own."""
    if old is not None:
        after = merged(old, obj)
        return old if after == old else after
    draft.serial += 1
    meta = obj.meta
    uid = meta.uid or names.uid(kind_of(obj), meta.namespace, meta.name, draft.serial)
    return replace(obj, meta=replace(meta, uid=uid, created=draft.cluster.clock))


def _refuse(draft: Draft, obj: KubernetesObject, reasons: Iterable[str]) -> bool:
    before = len(draft.problems)
    draft.problems.extend(Problem(f'{kind_of(obj)} "{obj.meta.name}" is invalid: {reason}') for reason in reasons)
    return len(draft.problems) > before


def _put_pod(draft: Draft, pod: Pod) -> None:
    old = draft.pods.get(pod.meta.key)
    reasons = _node_refusals(draft, "spec.nodeName", pod.spec)
    if old is not None and _without_images(old.spec) != _without_images(pod.spec):
        reasons.append(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`; delete the pod first, or "
            "change the template of its owner"
        )
    if old is None and not pod.spec.host_network and is_active(pod):
        for address in pod.addresses:
            holder = draft.pod_addresses.setdefault(address, pod.meta.key)
            if holder != pod.meta.key:
                what = f"pod/{holder.namespace}/{holder.name}" if holder.namespace else holder.name
                reasons.append(f"status.podIP: Invalid value: {address}: it is the address of {what}")
    if not _refuse(draft, pod, reasons):
        draft.pods[pod.meta.key] = _stored(draft, old, pod)  # type: ignore[assignment]  # merged keeps the kind


def _pod_addresses(cluster: Cluster) -> dict[Address, Key]:
    """Who has each address that a pod may not be given: pods, and the nodes with their bridges."""
    found: dict[Address, Key] = {}
    for node in cluster.nodes.values():
        found.update(dict.fromkeys(node.addresses, Key("", f"node/{node.meta.name}")))
        for bridge in (gateway(node), gateway(node, "IPv6")):
            if bridge is not None:
                found[bridge] = Key("", f"the bridge of node/{node.meta.name}")
    for pod in cluster.pods.values():
        if not pod.spec.host_network:
            found.update(dict.fromkeys(pod.addresses, pod.meta.key))
    return found


def _without_images(spec: PodSpec) -> PodSpec:
    return replace(spec, node_name="", containers=tuple(replace(one, image="") for one in spec.containers))


def _node_refusals(draft: Draft, field: str, spec: PodSpec) -> list[str]:
    if spec.node_name and spec.node_name not in draft.nodes:
        return [f"{field}: {nodes.unknown(spec.node_name, draft.nodes)}"]
    return []


def _put_workload(draft: Draft, workload: Workload) -> None:
    slot = (workload.kind, workload.meta.key)
    old = draft.workloads.get(slot)
    reasons = _node_refusals(draft, "spec.template.spec.nodeName", workload.template.spec)
    if not workload.selector.matches(workload.template.labels):
        reasons.append("spec.template.metadata.labels: Invalid value: `selector` does not match template `labels`")
    if workload.replicas < 0:
        reasons.append(f"spec.replicas: Invalid value: {workload.replicas}: must be greater than or equal to 0")
    if old is not None:
        reasons += _immutable(old, workload)
    if _refuse(draft, workload, reasons):
        return
    draft.workloads[slot] = _stored(draft, old, workload)  # type: ignore[assignment]  # merged keeps the kind


def _immutable(old: Workload, new: Workload) -> Iterator[str]:
    """What of a workload may not change, in the API server's words."""
    match new.kind:
        case "ReplicationController":
            return
        case "StatefulSet":
            if _fixed(old) != _fixed(new):
                yield f"spec: Forbidden: updates to statefulset spec for fields other than {SET_MAY_CHANGE} are forbidden"
            return
        case "Job":
            yield from _immutable_of_job(old, new)
        case _:
            pass
    if old.selector != new.selector:
        yield f"spec.selector: Invalid value: {dict(new.selector.labels)}: field is immutable"


SET_MAY_CHANGE = (
    "'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and "
    "'minReadySeconds'"
)


def _fixed(one: Workload) -> tuple[Any, ...]:
    """What of a StatefulSet may not change."""
    assert one.stateful is not None
    claims = (one.manifest.get("spec") or {}).get("volumeClaimTemplates") or ()
    named = [((claim.get("metadata") or {}).get("name"), claim.get("spec")) for claim in claims]
    return one.selector, one.stateful.service_name, one.stateful.pod_management, named


def _immutable_of_job(old: Workload, new: Workload) -> Iterator[str]:
    was, now = old.batch, asked_of_job(old, new)
    assert was is not None
    if was.completions != now.completions:
        given = "null" if now.completions is None else now.completions
        if not was.indexed:
            yield f"spec.completions: Invalid value: {given}: field is immutable"
        elif now.completions != now.parallelism:
            yield f"spec.completions: Invalid value: {given}: can only be modified in tandem with spec.parallelism"
    if was.indexed != now.indexed:
        yield f'spec.completionMode: Invalid value: "{"Indexed" if now.indexed else "NonIndexed"}": field is immutable'
    waits = was.suspended and was.started is None  # where its pods may run can still be changed
    if _template(old, waits) != _template(new, waits):
        yield "spec.template: Invalid value: field is immutable; delete the Job and create it again"


def _template(one: Workload, waits: bool) -> PodTemplate:
    bare = replace(one.template, manifest=NOTHING)
    if not waits:
        return bare
    spec = replace(bare.spec, node_selector=NOTHING, node_affinity=(), tolerations=())
    return PodTemplate(spec)


def _put_service(draft: Draft, service: Service) -> None:
    old = draft.services.get(service.meta.key)
    config = draft.cluster.topology.cluster
    service = families.completed(config, service, old)
    carried = services.carried(service, old) if old is not None else service
    live = bool(service.meta.uid) and old is None  # a live cluster took it
    unfit = () if live else families.refusals(config, carried)
    if _refuse(draft, service, (*services.refusals(config, carried, old, draft.taken), *unfit)):
        return
    stored = _stored(draft, old, service)
    assert isinstance(stored, Service)
    draft.services[service.meta.key] = stored
    draft.taken.add(stored)
