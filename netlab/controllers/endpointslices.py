"""Decides which EndpointSlices a Service with a selector has, and mirrors Endpoints that were given by hand.

Theory: every selected pod with an address becomes one endpoint. Named targetPorts are looked up in each pod, so pods may differ
in their port numbers; endpoints with the same set of numbers share a slice, at most 100 in each. A Service without endpoints has
one empty slice. A slice that somebody wrote for the Service stands beside these, and proxies use both. One that the cluster's own
controllers made, of a dump without the pods, stands for what is made here. Endpoints given by hand are mirrored, but of a Service
with a selector only those that came out of a dump without their pods: of others the cluster's controller would write its own.
When a Service loses its selector, its slices stay as they are.
Source: Kubernetes pkg/controller/endpointslice, pkg/controller/endpointslicemirroring, staging/src/k8s.io/endpointslice.
It refuses to know what a proxy makes of conditions and hints.
"""

from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from netlab.controllers import names
from netlab.controllers.pods import PodIndex, index
from netlab.memory import replaced
from netlab.model import (
    Cluster,
    Endpoint,
    Endpoints,
    EndpointSlice,
    Key,
    Meta,
    Node,
    Pod,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
)

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
MIRRORING = "endpointslicemirroring-controller.k8s.io"
SKIP_MIRROR = "endpointslice.kubernetes.io/skip-mirror"
HEADLESS = "service.kubernetes.io/headless"
MOST_ENDPOINTS = 100

Family = Literal["IPv4", "IPv6"]
Ports = tuple[SlicePort, ...]
Group = tuple[Family, Ports]
Content = list[tuple[Group, tuple[Endpoint, ...]]]


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every managed slice as it must be; the same object when nothing changed."""
    memory = _memory()
    affected = _affected(memory.last, cluster)
    known = index(cluster.pods)
    managed: dict[Key, list[EndpointSlice]] = {}
    given: set[Key] = set()
    for one in _slices_of(cluster, affected):
        if one.managed:
            managed.setdefault(one.service, []).append(one)
        elif one.meta.labels.get(MANAGED_BY) in (CONTROLLER, MIRRORING):
            given.add(one.service)
    made: dict[Key, EndpointSlice] = {}
    gone: set[Key] = set()
    serial = cluster.serial
    for key in _there(cluster, affected):
        service = cluster.services[key]
        left_alone, existing = _parted(service, managed.pop(key, []))
        content = [] if key in given else _content(cluster, service, known)
        kept, serial = _matched(service, content, existing, cluster, serial)
        names_kept = {one.meta.key for one in (*kept, *left_alone)}
        gone.update(one.meta.key for one in existing if one.meta.key not in names_kept)
        made.update({one.meta.key: one for one in kept if cluster.slices.get(one.meta.key) is not one})
    gone.update(one.meta.key for orphans in managed.values() for one in orphans)
    if not made and not gone:
        memory.last = cluster
        return cluster
    slices = {key: one for key, one in cluster.slices.items() if key not in gone}
    return cluster.with_(slices={**slices, **made}, serial=serial)


def _parted(service: Service, managed: list[EndpointSlice]) -> tuple[list[EndpointSlice], list[EndpointSlice]]:
    """What nobody looks after any more, and the rest. A Service that lost its selector keeps what it had, as it was."""
    lost = not service.selector and service.type is not ServiceType.EXTERNAL_NAME
    kept = [one for one in managed if lost and one.meta.labels.get(MANAGED_BY) == CONTROLLER]
    return kept, [one for one in managed if one not in kept]


def _slices_of(cluster: Cluster, affected: Set[Key]) -> list[EndpointSlice]:
    """In the cluster's order. One Service is found by comparing, which costs a third of hashing the Service of every slice."""
    if len(affected) == 1:
        return [one for key in affected for one in cluster.slices.values() if one.service == key]
    return [one for one in cluster.slices.values() if one.service in affected]


def _there(cluster: Cluster, affected: Set[Key]) -> list[Key]:
    """The Services that there are, in the cluster's order."""
    if len(affected) == 1:
        return [key for key in affected if key in cluster.services]
    return [key for key in cluster.services if key in affected]


@dataclass(slots=True)
class _Memory:
    """The last cluster in which there was nothing to do."""

    last: Cluster | None = None


@cache
def _memory() -> _Memory:
    return _Memory()


def _affected(last: Cluster | None, cluster: Cluster) -> Set[Key]:
    """The Services whose slices may not be as they must be, given that those of `last` were."""
    if last is None or last.nodes is not cluster.nodes:  # a node has a zone, which every endpoint on it tells
        return {*cluster.services, *(one.service for one in cluster.slices.values())}
    found = replaced(last.services, cluster.services) | replaced(last.endpoints, cluster.endpoints)
    slices = replaced(last.slices, cluster.slices)
    found.update(one.service for some in (last.slices, cluster.slices) for key in slices if (one := some.get(key)) is not None)
    pods = replaced(last.pods, cluster.pods)
    changed = [pod for some in (last.pods, cluster.pods) for key in pods if (pod := some.get(key)) is not None]
    labels = {(pod.meta.namespace, *label) for pod in changed for label in pod.meta.labels.items()}
    for key, service in cluster.services.items() if labels else ():
        if any((key.namespace, *label) in labels for label in service.selector.items()):
            found.add(key)
    return found


def _content(cluster: Cluster, service: Service, known: PodIndex) -> Content:
    if service.type is ServiceType.EXTERNAL_NAME:
        return []
    by_hand = cluster.endpoints.get(service.meta.key)
    if by_hand is not None and _is_mirrored(cluster, service, by_hand):
        return _chunks(_mirrored(by_hand), ())
    if not service.selector:
        return []
    groups: dict[Group, list[Endpoint]] = {}
    families: tuple[Family, ...] = service.ip_families or ("IPv4",)
    for pod in known.having(service.meta.namespace, service.selector):
        if not pod.addresses:  # not placed yet, or finished: lifecycle has taken its address
            continue
        ports = _ports(service.ports, pod)
        for family in families:
            version = 4 if family == "IPv4" else 6
            addresses = tuple(address for address in pod.addresses if address.version == version)
            if addresses:
                endpoint = _endpoint(service, pod, cluster.nodes.get(pod.node))
                groups.setdefault((family, ports), []).append(replace(endpoint, addresses=addresses[:1]))
    return _chunks(groups, families)


def _is_mirrored(cluster: Cluster, service: Service, given: Endpoints) -> bool:
    if given.meta.labels.get(SKIP_MIRROR) == "true":
        return False
    targets = [endpoint.target for endpoints, _ in given.subsets for endpoint in endpoints]
    pods = [Key(target.namespace, target.name) for target in targets if target is not None and target.kind == "pod"]
    lone = bool(pods) and len(pods) == len(targets) and not any(key in cluster.pods for key in pods)
    return lone or not service.selector


def _chunks(groups: dict[Group, list[Endpoint]], placeholders: Iterable[Family]) -> Content:
    """Slices of at most 100 endpoints, in order of address; an empty one for a family that has none."""
    content: Content = []
    for group, endpoints in groups.items():
        ordered = sorted(endpoints, key=lambda endpoint: int(endpoint.addresses[0]))
        for start in range(0, len(ordered), MOST_ENDPOINTS):
            content.append((group, tuple(ordered[start : start + MOST_ENDPOINTS])))
    families = {family for family, _ in groups}
    content.extend(((family, ()), ()) for family in placeholders if family not in families)
    return content


def _ports(ports: Sequence[ServicePort], pod: Pod) -> Ports:
    """The Service's ports with the numbers that this pod gives them; a name that the pod does not know is left out."""
    found = []
    for port in ports:
        target: int | str | None = port.target_port or port.port
        if isinstance(target, str):
            target = _named(pod, target, port)
        if target is not None:
            found.append(SlicePort(port.name, target, port.protocol))
    return tuple(found)


def _named(pod: Pod, name: str, port: ServicePort) -> int | None:
    """Sidecars are asked last, other init containers never."""
    for container in (*pod.spec.containers, *(one for one in pod.spec.init if one.sidecar)):
        for declared in container.ports:
            if declared.name == name and declared.protocol == port.protocol:
                return declared.port
    return None


def _endpoint(service: Service, pod: Pod, node: Node | None) -> Endpoint:
    serving = pod.serving if pod.terminating else pod.ready
    ready = service.publish_not_ready_addresses or (serving and not pod.terminating)
    zone = node.zone if node is not None else ""
    near = service.traffic_distribution if ready else ""
    same_zone = near in ("PreferClose", "PreferSameZone", "PreferSameNode")
    named = bool(pod.spec.hostname) and pod.spec.subdomain == service.meta.name
    return Endpoint(
        addresses=pod.addresses,
        ready=ready,
        serving=serving,
        terminating=pod.terminating,
        node_name=pod.node or None,
        zone=zone or None,
        hostname=pod.spec.hostname if named else None,
        target=pod.ref,
        zone_hints=(zone,) if same_zone and zone else (),
        node_hints=(pod.node,) if near == "PreferSameNode" and pod.node else (),
    )


def _mirrored(given: Endpoints) -> dict[Group, list[Endpoint]]:
    groups: dict[Group, list[Endpoint]] = {}
    for endpoints, ports in given.subsets:
        for endpoint in endpoints:
            family: Family = "IPv4" if endpoint.addresses[0].version == 4 else "IPv6"
            groups.setdefault((family, ports), []).append(endpoint)
    return groups


def _matched(
    service: Service, content: Content, existing: list[EndpointSlice], cluster: Cluster, serial: int
) -> tuple[list[EndpointSlice], int]:
    """The content laid into slices: into those that have its ports already, into new ones for the rest."""
    left = list(existing)
    found = []
    by_hand = cluster.endpoints.get(service.meta.key)
    mirrored = by_hand is not None and _is_mirrored(cluster, service, by_hand)
    for (family, ports), endpoints in content:
        old = next((one for one in left if one.address_type == family and one.ports == ports), None)
        labels = _labels(service, mirrored)
        if old is None:
            serial += 1
            meta = _meta(service, labels, cluster.clock, serial)
            found.append(EndpointSlice(meta, service.meta.key, family, endpoints, ports, managed=True))
        else:
            left.remove(old)
            found.append(_updated(old, labels, endpoints))
    return found, serial


def _labels(service: Service, mirrored: bool) -> dict[str, str]:
    labels = {**service.meta.labels, SERVICE_NAME: service.meta.name, MANAGED_BY: MIRRORING if mirrored else CONTROLLER}
    if service.headless:
        labels[HEADLESS] = ""
    return labels


def _updated(old: EndpointSlice, labels: dict[str, str], endpoints: tuple[Endpoint, ...]) -> EndpointSlice:
    same = old.endpoints == endpoints or (len(old.endpoints) == len(endpoints) and set(old.endpoints) == set(endpoints))
    if same and old.meta.labels == labels:
        return old
    meta = replace(old.meta, labels=labels, generation=old.meta.generation + (not same))
    return replace(old, endpoints=endpoints, meta=meta)


def _meta(service: Service, labels: dict[str, str], clock: float, serial: int) -> Meta:
    namespace = service.meta.namespace
    name = names.generated(service.meta.name, serial)
    uid = names.uid("EndpointSlice", namespace, name, serial)
    return Meta(name=name, namespace=namespace, labels=labels, uid=uid, owner=service.ref, created=clock)
