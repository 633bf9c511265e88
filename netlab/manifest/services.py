"""Services to the model, with the API server's rules between fields.

Decides defaults (targetPort = port, timeout 10800 s, families from clusterIPs). Refuses to know which addresses and
node ports are free.
"""

from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from netlab.manifest.formats import ip, label_key, label_name, object_name
from netlab.manifest.meta import EMPTY, Json, items, labels, note_annotations, raw, read_meta
from netlab.manifest.problems import Place, Report
from netlab.model import Address, LoadBalancerIngress, Protocol, Service, ServicePort, ServiceType

MOST_AFFINITY_S = 86400


_BALANCERS = ("metallb.io", "metallb.universe.tf")
_TOPOLOGY_MODES = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")


def read_service(data: Json, manifest: Json, place: Place, report: Report) -> Service:
    """One Service; given clusterIPs and nodePorts are kept."""
    spec = data.get("spec") or EMPTY
    at = (place, "spec")
    kind = ServiceType(spec.get("type") or "ClusterIP")
    given = _cluster_ips(spec, at, report)
    headless = given[:1] == ["None"]
    ports = _ports(spec, manifest, kind, at, report)
    for rule in (_type_rules, _policy_rules, _load_balancer_rules, _affinity_rules):
        rule(spec, kind, headless, at, report)
    no_ports = not spec.get("ports") and raw(manifest, "spec", "ports") in (None, [])
    if no_ports and not headless and kind is not ServiceType.EXTERNAL_NAME:
        report.problem(
            (at, "ports"), "required, but missing: only a headless Service (clusterIP: None) and ExternalName have no ports"
        )
    addresses = tuple(ip_address(text) for text in given if text not in ("", "None"))
    families = tuple(dict.fromkeys(spec.get("ipFamilies") or [f"IPv{address.version}" for address in addresses] or ["IPv4"]))
    note_annotations(
        data, place, report, _BALANCERS, "; `cluster: {loadBalancer: ...}` of the topology and spec.loadBalancerIP are"
    )
    for key in _TOPOLOGY_MODES:
        if str(((data.get("metadata") or EMPTY).get("annotations") or EMPTY).get(key)).lower() == "auto":
            at_key = (((place, "metadata"), "annotations"), key)
            report.note(f"annotation {key}: not acted on, no hints are made; spec.trafficDistribution: PreferSameZone is", at_key)
    affinity: Literal["None", "ClientIP"] = spec.get("sessionAffinity") or "None"
    return Service(
        meta=read_meta(data, place, report, "Service", True),
        type=kind,
        cluster_ips=addresses,
        headless=headless,
        ports=ports,
        selector=labels(spec.get("selector")),
        session_affinity=affinity,
        affinity_timeout_s=_timeout(spec) or 10800,
        external_traffic_policy=spec.get("externalTrafficPolicy") or "Cluster",
        internal_traffic_policy=spec.get("internalTrafficPolicy") or "Cluster",
        external_ips=tuple(ip_address(text) for _, text in items(spec.get("externalIPs"))),
        external_name=spec.get("externalName") or "",
        load_balancer=_load_balancer(data, place, report),
        load_balancer_ip=_wished(spec, at, report),
        load_balancer_class=spec.get("loadBalancerClass") or "",
        source_ranges=tuple(ip_network(text.strip(), strict=False) for _, text in items(spec.get("loadBalancerSourceRanges"))),
        allocate_node_ports=spec.get("allocateLoadBalancerNodePorts") is not False,
        health_check_node_port=spec.get("healthCheckNodePort") or None,
        publish_not_ready_addresses=bool(spec.get("publishNotReadyAddresses")),
        traffic_distribution=spec.get("trafficDistribution") or "",
        ip_families=families,
        ip_family_policy=spec.get("ipFamilyPolicy") or ("RequireDualStack" if len(families) > 1 else "SingleStack"),
        manifest=manifest,
    )


def _wished(spec: Json, place: Place, report: Report) -> Address | None:
    text = spec.get("loadBalancerIP")
    if not text:
        return None
    if error := ip(text):
        report.problem((place, "loadBalancerIP"), error)
        return None
    return ip_address(text)


def _cluster_ips(spec: Json, place: Place, report: Report) -> list[str]:
    one = spec.get("clusterIP") or ""
    several = [text for _, text in items(spec.get("clusterIPs")) if text]
    if one and several and several[0] != one:
        report.problem((place, "clusterIPs"), f"the first of them must be clusterIP, {one}, not {several[0]}")
    found = several or ([one] if one else [])
    addresses = [ip_address(text) for text in found if text != "None"]
    if len(found) > 1 and len(addresses) < len(found):
        report.problem((place, "clusterIPs"), "None stands alone: a headless Service has no addresses")
    elif len(found) > 2 or len({address.version for address in addresses}) < len(addresses):
        report.problem((place, "clusterIPs"), "at most one address of each family")
    return found


def _ports(spec: Json, manifest: Json, kind: ServiceType, place: Place, report: Report) -> tuple[ServicePort, ...]:
    at = (place, "ports")
    entries = list(items(spec.get("ports")))
    ports: list[ServicePort] = []
    numbers: dict[tuple[str, int], int] = {}
    node_ports: dict[tuple[str, int], int] = {}
    names: dict[str, int] = {}
    for index, entry in entries:
        here = (at, index)
        name, protocol = entry.get("name") or "", entry.get("protocol") or "TCP"
        if not name and len(spec["ports"]) > 1 and raw(manifest, "spec", "ports", index, "name") in (None, ""):
            report.problem((here, "name"), "required, but missing: with several ports each needs a name")
        elif name and (error := label_name(name)):
            report.problem((here, "name"), error)
        elif name and names.setdefault(name, index) != index:
            report.problem((here, "name"), f"two ports of this Service are called {name}")
        if entry.get("appProtocol") and (error := label_key(entry["appProtocol"])):
            report.problem((here, "appProtocol"), error)
        if not entry.get("port"):
            continue
        port, node_port = entry["port"], entry.get("nodePort") or None
        if numbers.setdefault((protocol, port), index) != index:
            report.problem((here, "port"), f"{port}/{protocol} is there twice, first as ports[{numbers[protocol, port]}]")
        if node_port and kind not in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER):
            report.problem((here, "nodePort"), f"not allowed when type is {kind}; did you mean type: NodePort?")
        elif node_port and node_ports.setdefault((protocol, node_port), index) != index:
            report.problem(
                (here, "nodePort"), f"{node_port}/{protocol} is there twice, first in ports[{node_ports[protocol, node_port]}]"
            )
        ports.append(ServicePort(port, name, Protocol(protocol), entry.get("targetPort") or port, node_port))
    return tuple(ports)


def _type_rules(spec: Json, kind: ServiceType, headless: bool, place: Place, report: Report) -> None:
    if headless and kind in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER):
        report.problem(
            (place, "clusterIP"), f"None is not allowed when type is {kind}: a headless Service has no address to forward from"
        )
    if kind is ServiceType.EXTERNAL_NAME:
        name = (spec.get("externalName") or "").rstrip(".")
        if not name:
            report.problem((place, "externalName"), "required when type is ExternalName")
        elif error := object_name(name):
            report.problem((place, "externalName"), error)
        for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(key):
                report.problem((place, key), "not allowed when type is ExternalName")


def _policy_rules(spec: Json, kind: ServiceType, headless: bool, place: Place, report: Report) -> None:
    outside = kind in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER) or bool(spec.get("externalIPs"))
    if spec.get("externalTrafficPolicy") and not outside:
        report.problem(
            (place, "externalTrafficPolicy"),
            f"only for Services that are reached from outside, and type is {kind} without externalIPs",
        )
    local = kind is ServiceType.LOAD_BALANCER and spec.get("externalTrafficPolicy") == "Local"
    if spec.get("healthCheckNodePort") and not local:
        report.problem((place, "healthCheckNodePort"), "only with type: LoadBalancer and externalTrafficPolicy: Local")
    elif (number := spec.get("healthCheckNodePort")) and number in [one.get("nodePort") for _, one in items(spec.get("ports"))]:
        report.problem((place, "healthCheckNodePort"), f"{number} is a nodePort of this Service already")
    families = [text for _, text in items(spec.get("ipFamilies"))]
    if len(families) != len(set(families)):
        report.problem((place, "ipFamilies"), "names a family twice")
    elif len(families) > 1 and spec.get("ipFamilyPolicy") == "SingleStack":
        report.problem((place, "ipFamilyPolicy"), "must not be SingleStack with two ipFamilies")


def _load_balancer_rules(spec: Json, kind: ServiceType, headless: bool, place: Place, report: Report) -> None:
    if spec.get("loadBalancerClass") and (error := label_key(spec["loadBalancerClass"])):
        report.problem((place, "loadBalancerClass"), error)
    if kind is ServiceType.LOAD_BALANCER:
        return
    wrong: tuple[tuple[str, Callable[[Any], bool]], ...] = (
        ("loadBalancerSourceRanges", bool),
        ("loadBalancerClass", bool),
        ("allocateLoadBalancerNodePorts", lambda value: value is not None),
    )
    for key, given in wrong:
        if given(spec.get(key)):
            report.problem((place, key), f"only allowed when type is LoadBalancer, not {kind}")


def _timeout(spec: Json) -> int | None:
    config = (spec.get("sessionAffinityConfig") or EMPTY).get("clientIP") or EMPTY
    seconds: int | None = config.get("timeoutSeconds")
    return seconds


def _affinity_rules(spec: Json, kind: ServiceType, headless: bool, place: Place, report: Report) -> None:
    seconds = _timeout(spec)
    at = (((place, "sessionAffinityConfig"), "clientIP"), "timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= MOST_AFFINITY_S:
        report.problem(at, f"must be between 1 and {MOST_AFFINITY_S} (a day), not {seconds}")
    if spec.get("sessionAffinityConfig") is not None and (spec.get("sessionAffinity") or "None") == "None":
        report.problem((place, "sessionAffinityConfig"), "only allowed with sessionAffinity: ClientIP")


def _load_balancer(data: Json, place: Place, report: Report) -> tuple[LoadBalancerIngress, ...]:
    status = (data.get("status") or EMPTY).get("loadBalancer") or EMPTY
    found: list[LoadBalancerIngress] = []
    at = (((place, "status"), "loadBalancer"), "ingress")
    for index, entry in items(status.get("ingress")):
        if entry.get("ipMode") and not entry.get("ip"):
            report.problem(((at, index), "ipMode"), "not allowed without ip")
        address: Address | None = ip_address(entry["ip"]) if entry.get("ip") else None
        found.append(LoadBalancerIngress(address, entry.get("hostname") or "", entry.get("ipMode")))
    return tuple(found)
