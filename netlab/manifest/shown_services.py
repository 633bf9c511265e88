"""Services, EndpointSlices and Endpoints as kubectl shows them.

Decides the shown form of defaults. Refuses to know how addresses and ports were chosen.
"""

from collections.abc import Mapping
from typing import Any

from netlab.model import Endpoint, Endpoints, EndpointSlice, Ref, Service, ServicePort, ServiceType, SlicePort

_KINDS = {"pod": "Pod", "node": "Node", "svc": "Service"}


def service_spec(service: Service, given: Mapping[str, Any]) -> dict[str, Any]:
    """spec of a Service with everything that was defaulted and allocated."""
    kept = {key: value for key, value in given.items() if value is not None}
    spec: dict[str, Any] = {**kept, "type": str(service.type), "sessionAffinity": service.session_affinity}
    if service.type is not ServiceType.EXTERNAL_NAME:
        addresses = ["None"] if service.headless else [str(address) for address in service.cluster_ips]
        if addresses:
            spec |= {"clusterIP": addresses[0], "clusterIPs": addresses}
        spec["ipFamilies"] = list(service.ip_families)
        spec["ipFamilyPolicy"] = service.ip_family_policy
        spec["internalTrafficPolicy"] = service.internal_traffic_policy
    if service.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER) or service.external_ips:
        spec["externalTrafficPolicy"] = service.external_traffic_policy
    if service.type is ServiceType.LOAD_BALANCER:
        spec["allocateLoadBalancerNodePorts"] = service.allocate_node_ports
        if service.health_check_node_port:
            spec["healthCheckNodePort"] = service.health_check_node_port
    if service.session_affinity == "ClientIP":
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": service.affinity_timeout_s}}
    if service.selector:
        spec["selector"] = dict(service.selector)
    if service.ports:
        old = given.get("ports") or ()
        spec["ports"] = [_port(port, old[index] if index < len(old) else {}) for index, port in enumerate(service.ports)]
    return spec


def _port(port: ServicePort, given: Mapping[str, Any]) -> dict[str, Any]:
    shown = {
        **({"name": port.name} if port.name else {}),
        "port": port.port,
        "protocol": str(port.protocol),
        "targetPort": port.target_port,
    }
    if port.node_port:
        shown["nodePort"] = port.node_port
    if given.get("appProtocol"):
        shown["appProtocol"] = given["appProtocol"]
    return shown


def service_status(service: Service, given: Mapping[str, Any]) -> dict[str, Any]:
    """status of a Service."""
    ingress = []
    for entry in service.load_balancer:
        shown = {"ip": str(entry.ip)} if entry.ip else {}
        if entry.hostname:
            shown["hostname"] = entry.hostname
        if entry.ip:
            shown["ipMode"] = entry.ip_mode or "VIP"
        ingress.append(shown)
    status: dict[str, Any] = {"loadBalancer": {"ingress": ingress} if ingress else {}}
    if service.pending:
        condition = {"type": "LoadBalancerAllocated", "status": "False", "reason": "AllocationFailed", "message": service.pending}
        status["conditions"] = [condition]
    elif service.announced_by:
        by = ", ".join(service.announced_by)
        condition = {"type": "LoadBalancerAnnounced", "status": "True", "reason": "Announced", "message": f"announced by {by}"}
        status["conditions"] = [condition]
    return status


def slice_json(entry: EndpointSlice) -> dict[str, Any]:
    """What an EndpointSlice has beside its metadata. FQDN endpoints are shown as given."""
    if entry.address_type == "FQDN":
        return {key: entry.manifest[key] for key in ("addressType", "endpoints", "ports") if key in entry.manifest}
    return {
        "addressType": entry.address_type,
        "endpoints": [_endpoint(endpoint) for endpoint in entry.endpoints],
        "ports": [_slice_port(port) for port in entry.ports],
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    states = {"ready": endpoint.ready, "serving": endpoint.serving, "terminating": endpoint.terminating}
    shown: dict[str, Any] = {
        "addresses": [str(address) for address in endpoint.addresses],
        "conditions": {name: state for name, state in states.items() if state is not None},
    }
    for key, value in (("nodeName", endpoint.node_name), ("zone", endpoint.zone), ("hostname", endpoint.hostname)):
        if value:
            shown[key] = value
    if endpoint.target is not None:
        shown["targetRef"] = _target(endpoint.target)
    hints: dict[str, Any] = {}
    if endpoint.zone_hints:
        hints["forZones"] = [{"name": name} for name in endpoint.zone_hints]
    if endpoint.node_hints:
        hints["forNodes"] = [{"name": name} for name in endpoint.node_hints]
    return {**shown, "hints": hints} if hints else shown


def _target(target: Ref) -> dict[str, str]:
    shown = {"kind": _KINDS.get(target.kind, target.kind), "name": target.name}
    return {**shown, "namespace": target.namespace} if target.namespace else shown


def _slice_port(port: SlicePort) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": port.name or "", "protocol": str(port.protocol)}
    return {**shown, "port": port.port} if port.port is not None else shown


def endpoints_json(endpoints: Endpoints) -> dict[str, Any]:
    """What an Endpoints object has beside its metadata."""
    shown = []
    for addresses, ports in endpoints.subsets:
        subset: dict[str, Any] = {}
        for key, wanted in (("addresses", True), ("notReadyAddresses", False)):
            chosen = [_old_address(entry) for entry in addresses if (entry.ready is not False) is wanted]
            if chosen:
                subset[key] = chosen
        if ports:
            subset["ports"] = [_old_port(port) for port in ports]
        shown.append(subset)
    return {"subsets": shown} if shown else {}


def _old_address(endpoint: Endpoint) -> dict[str, Any]:
    shown: dict[str, Any] = {"ip": str(endpoint.addresses[0])}
    for key, value in (("hostname", endpoint.hostname), ("nodeName", endpoint.node_name)):
        if value:
            shown[key] = value
    if endpoint.target is not None:
        shown["targetRef"] = _target(endpoint.target)
    return shown


def _old_port(port: SlicePort) -> dict[str, Any]:
    shown = {"name": port.name} if port.name else {}
    return {**shown, "port": port.port or 0, "protocol": str(port.protocol)}
