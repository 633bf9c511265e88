"""EndpointSlices and Endpoints to the model.

Decides which slices netlab's controller may change: those that the cluster's own controller made (label
endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io), provided that every pod they name was loaded
with them; then the lab's controller goes on where the cluster's stopped, and from pods with the same addresses and
readiness it makes the same endpoints. Any other slice - written by hand, mirrored, made by the API server for
`kubernetes`, or of a dump without its pods - is kept as given: nobody could make it again. A port without a name has
the name '' (the API server sets it); one without a number stays without. Refuses to know Services.
"""

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Literal

from netlab.manifest.formats import endpoint_ip, label_name, object_name, string
from netlab.manifest.meta import EMPTY, Json, items, read_meta
from netlab.manifest.problems import Place, Report
from netlab.model import Address, Endpoint, Endpoints, EndpointSlice, Key, Protocol, Ref, SlicePort

SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
CONTROLLER = "endpointslice-controller.k8s.io"
_MOST_ADDRESSES = 100
_MOST_ENDPOINTS = 1000
_MOST_HINTS = 8
_KINDS = {"Pod": "pod", "Node": "node", "Service": "svc"}


def read_slice(data: Json, manifest: Json, place: Place, report: Report) -> EndpointSlice:
    """One EndpointSlice. `managed` only says what its label says; `objects` takes it back where pods are missing."""
    meta = read_meta(data, place, report, "EndpointSlice", True)
    kind: Literal["IPv4", "IPv6", "FQDN"] = data.get("addressType") or "IPv4"
    endpoints: list[Endpoint] = []
    if len(data.get("endpoints") or ()) > _MOST_ENDPOINTS:
        report.problem((place, "endpoints"), f"at most {_MOST_ENDPOINTS}, not {len(data['endpoints'])}: use several slices")
    for index, entry in items(data.get("endpoints")):
        endpoints.append(_endpoint(entry, kind, meta.namespace, ((place, "endpoints"), index), report))
    return EndpointSlice(
        meta=meta,
        service=Key(meta.namespace, meta.labels.get(SERVICE_NAME, "")),
        address_type=kind,
        endpoints=tuple(endpoints),
        ports=_ports(data.get("ports"), (place, "ports"), report),
        managed=meta.labels.get(MANAGED_BY) == CONTROLLER,
        manifest=manifest,
    )


def _endpoint(data: Json, kind: str, namespace: str, place: Place, report: Report) -> Endpoint:
    conditions, hints = data.get("conditions") or EMPTY, data.get("hints") or EMPTY
    old = data.get("deprecatedTopology") or EMPTY
    _check_node_name(data, place, report)
    for key in ("forZones", "forNodes"):
        _check_hints([entry.get("name") for _, entry in items(hints.get(key))], ((place, "hints"), key), report)
    return Endpoint(
        addresses=_addresses(data.get("addresses"), kind, (place, "addresses"), report),
        ready=conditions.get("ready"),
        serving=conditions.get("serving"),
        terminating=conditions.get("terminating"),
        node_name=data.get("nodeName") or old.get("kubernetes.io/hostname"),
        zone=data.get("zone") or old.get("topology.kubernetes.io/zone"),
        hostname=data.get("hostname"),
        target=_target(data.get("targetRef"), namespace),
        zone_hints=tuple(entry["name"] for _, entry in items(hints.get("forZones")) if entry.get("name")),
        node_hints=tuple(entry["name"] for _, entry in items(hints.get("forNodes")) if entry.get("name")),
    )


def _check_node_name(data: Json, place: Place, report: Report) -> None:
    if data.get("nodeName") and (error := object_name(data["nodeName"])):
        report.problem((place, "nodeName"), error)


def _check_hints(names: list[Any], place: Place, report: Report) -> None:
    if len(names) > _MOST_HINTS:
        report.problem(place, f"at most {_MOST_HINTS}, not {len(names)}")
    for index, name in enumerate(names):
        if name and name in names[:index]:
            report.problem(((place, index), "name"), f"{name} is there twice")


def _addresses(values: Any, kind: str, place: Place, report: Report) -> tuple[Address, ...]:
    if values == [] or len(values or ()) > _MOST_ADDRESSES:
        report.problem(place, f"must hold 1 to {_MOST_ADDRESSES} addresses, not {len(values)}")
    test: Callable[[Any], str] = string if kind == "FQDN" else endpoint_ip
    found: list[Address] = []
    for index, text in items(values):
        if error := test(text):
            report.problem((place, index), error)
        elif kind != "FQDN":
            address = ip_address(text)
            if f"IPv{address.version}" != kind:
                report.problem((place, index), f"{text} is no {kind} address, as addressType says")
            found.append(address)
    return tuple(found)


def _target(data: Json | None, namespace: str) -> Ref | None:
    if not data or not data.get("kind") or not data.get("name"):
        return None
    kind = _KINDS.get(data["kind"], data["kind"].lower())
    return Ref(kind, "" if kind == "node" else data.get("namespace") or namespace, data["name"])


def _ports(values: Any, place: Place, report: Report) -> tuple[SlicePort, ...]:
    ports: list[SlicePort] = []
    for index, entry in items(values):
        port = SlicePort(entry.get("name") or "", entry.get("port"), Protocol(entry.get("protocol") or "TCP"))
        if port.name and (error := label_name(port.name)):
            report.problem(((place, index), "name"), error)
        if any(port.name == other.name for other in ports):
            report.problem(((place, index), "name"), f'two ports have the name "{port.name}"')
        ports.append(port)
    return tuple(ports)


def read_endpoints(data: Json, manifest: Json, place: Place, report: Report) -> Endpoints:
    """One v1 Endpoints."""
    meta = read_meta(data, place, report, "Endpoints", True)
    subsets = []
    for index, subset in items(data.get("subsets")):
        at = ((place, "subsets"), index)
        for key in ("addresses", "notReadyAddresses"):
            for number, entry in items(subset.get(key)):
                _check_node_name(entry, ((at, key), number), report)
        ready = [_old_endpoint(entry, True, meta.namespace) for _, entry in items(subset.get("addresses")) if entry.get("ip")]
        others = [
            _old_endpoint(entry, False, meta.namespace) for _, entry in items(subset.get("notReadyAddresses")) if entry.get("ip")
        ]
        if not ready and not others and not subset.get("addresses") and not subset.get("notReadyAddresses"):
            report.problem(at, "a subset needs addresses or notReadyAddresses")
        subsets.append((tuple(ready + others), _ports(subset.get("ports"), (at, "ports"), report)))
    return Endpoints(meta=meta, subsets=tuple(subsets), manifest=manifest)


def _old_endpoint(data: Json, ready: bool, namespace: str) -> Endpoint:
    return Endpoint(
        addresses=(ip_address(data["ip"]),),
        ready=ready,
        node_name=data.get("nodeName"),
        hostname=data.get("hostname") or None,
        target=_target(data.get("targetRef"), namespace),
    )
