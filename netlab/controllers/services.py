"""Decides the addresses and node ports of Services, keeping those that were given, and refuses what the API server refuses.

Words of the refusals: Kubernetes' (pkg/registry/core/service, ipallocator, portallocator).
The `kubernetes` Service is always there.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from netlab import ipam
from netlab.controllers import families, names
from netlab.errors import ApiError
from netlab.model import (
    Address,
    Cluster,
    ClusterConfig,
    Endpoint,
    EndpointSlice,
    Key,
    Meta,
    Network,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
)

KUBERNETES = Key("default", "kubernetes")
SERVICE_NAME = "kubernetes.io/service-name"
API_PORT = 6443


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every Service having its addresses and ports; the same object when nothing changed."""
    if not any(_lacks_address(one) or _lacks_ports(one) for one in cluster.services.values()):
        return cluster
    services = dict(cluster.services)
    addresses: dict[ipam.Family, Iterator[Address]] = {}
    for key, service in services.items():
        if _lacks_address(service):
            services[key] = replace(service, cluster_ips=_addresses(cluster, service, addresses))
    ports = ipam.free_node_ports(cluster)
    for key, service in services.items():
        if _lacks_ports(service):
            services[key] = _with_ports(service, ports)
    return cluster.with_(services=services)


def external(service: Service) -> bool:
    return service.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)


def _lacks_address(service: Service) -> bool:
    lacking = len(service.cluster_ips) < max(1, len(service.ip_families))
    return lacking and not service.headless and service.type is not ServiceType.EXTERNAL_NAME


def _wants_node_ports(service: Service) -> bool:
    return service.type is ServiceType.NODE_PORT or (service.type is ServiceType.LOAD_BALANCER and service.allocate_node_ports)


def _wants_health_check(service: Service) -> bool:
    return service.type is ServiceType.LOAD_BALANCER and service.external_traffic_policy == "Local"


def _lacks_ports(service: Service) -> bool:
    lacking = _wants_node_ports(service) and any(port.node_port is None for port in service.ports)
    return lacking or (_wants_health_check(service) and service.health_check_node_port is None)


def _addresses(cluster: Cluster, service: Service, free: dict[ipam.Family, Iterator[Address]]) -> tuple[Address, ...]:
    """One address a family, given or free. The iterators are shared within one round, so that each is given once."""
    families: tuple[ipam.Family, ...] = service.ip_families or ("IPv4",)
    found = []
    for family in families:
        if known := [address for address in service.cluster_ips if family == f"IPv{address.version}"]:
            found.append(known[0])
            continue
        address = next(free.setdefault(family, ipam.free_cluster_ips(cluster, family)), None)
        if address is None:
            raise ApiError(
                500,
                "InternalError",
                f'Service "{service.meta.name}": failed to allocate a serviceIP: the range of {family} is full',
            )
        found.append(address)
    return tuple(found)


def _with_ports(service: Service, free: Iterator[int]) -> Service:
    ports: list[ServicePort] = list(service.ports)
    if _wants_node_ports(service):
        # TCP and UDP of the same port get one number (Kubernetes pkg/registry/core/service/storage/alloc.go).
        known = {port.port: port.node_port for port in ports if port.node_port}
        for position, port in enumerate(ports):
            if port.node_port is None:
                number = known.get(port.port) or _next(service, free)
                taken = {(other.node_port, other.protocol) for other in ports}
                number = number if (number, port.protocol) not in taken else _next(service, free)
                known[port.port] = number
                ports[position] = replace(port, node_port=number)
    health = service.health_check_node_port
    if _wants_health_check(service) and health is None:
        health = _next(service, free)
    return replace(service, ports=tuple(ports), health_check_node_port=health)


def _next(service: Service, free: Iterator[int]) -> int:
    number = next(free, None)
    if number is None:
        raise _exhausted(service, "nodePort: the range")
    return number


def _exhausted(service: Service, what: str) -> ApiError:
    return ApiError(500, "InternalError", f'Service "{service.meta.name}": failed to allocate a {what} is full')


# ---------------------------------------------------------------- what is refused


@dataclass(slots=True)
class Taken:
    """Which Service holds which clusterIP and node port; kept by whoever puts Services in, so that no check is a scan."""

    addresses: dict[Address, Key]
    ports: dict[int, Key]

    def add(self, service: Service) -> None:
        key = service.meta.key
        self.addresses.update(dict.fromkeys(service.cluster_ips, key))
        self.ports.update(dict.fromkeys((number for _, number in _node_ports(service)), key))


def taken(services: Iterable[Service]) -> Taken:
    found = Taken({}, {})
    for service in services:
        found.add(service)
    return found


def refusals(config: ClusterConfig, service: Service, previous: Service | None, taken: Taken) -> list[str]:
    """Why the API server would not take this Service, one sentence each; [] when it would."""
    found = _immutable(service, previous)
    live = bool(service.meta.uid) and previous is None  # a live cluster took it: its ranges are not ours to judge
    key = service.meta.key
    for address in service.cluster_ips:
        at = f"spec.clusterIPs: Invalid value: [{address}]: failed to allocate IP {address}"
        networks = [network for network in config.service_cidrs if network.version == address.version]
        if taken.addresses.get(address, key) != key or (not live and _is_kubernetes(config, address, key, taken)):
            found.append(f"{at}: provided IP is already allocated")
        elif not live and not any(_is_for_services(network, address) for network in networks):
            ranges = ", ".join(map(str, networks)) or "none"
            found.append(f"{at}: the provided IP is not in the valid range. The range of valid IPs is {ranges}")
    for field, number in _node_ports(service):
        if taken.ports.get(number, key) != key:
            found.append(f"{field}: Invalid value: {number}: provided port is already allocated")
        elif not live and number not in ipam.NODE_PORTS:
            why = (
                f"provided port is not in the valid range. The range of valid ports is {ipam.NODE_PORTS[0]}-{ipam.NODE_PORTS[-1]}"
            )
            found.append(f"{field}: Invalid value: {number}: {why}")
    return found


def _is_kubernetes(config: ClusterConfig, address: Address, key: Key, taken: Taken) -> bool:
    """Whether the Service `kubernetes`, which comes last into a new lab, will want the address."""
    return key != KUBERNETES and KUBERNETES not in taken.addresses.values() and address == ipam.service_address(config, 1)


def _is_for_services(network: Network, address: Address) -> bool:
    """Any but the network's own address and, of IPv4, the broadcast address."""
    reserved = (network.network_address, network.broadcast_address if network.version == 4 else None)
    return address in network and (network.num_addresses <= 2 or address not in reserved)


def _node_ports(service: Service) -> list[tuple[str, int]]:
    """(field, number) of every node port of a Service."""
    found = [(f"spec.ports[{n}].nodePort", port.node_port) for n, port in enumerate(service.ports)]
    found.append(("spec.healthCheckNodePort", service.health_check_node_port))
    return [(field, number) for field, number in found if number]


def _immutable(service: Service, previous: Service | None) -> list[str]:
    if previous is None or ServiceType.EXTERNAL_NAME in (service.type, previous.type):
        return []
    found = []
    if previous.headless != service.headless or (previous.cluster_ips and service.cluster_ips[:1] != previous.cluster_ips[:1]):
        wanted = "None" if service.headless else ", ".join(map(str, service.cluster_ips)) or "(allocated)"
        found.append(f"spec.clusterIPs[0]: Invalid value: [{wanted}]: may not change once set")
    kinds = {service.type, previous.type}
    if kinds == {ServiceType.LOAD_BALANCER} and service.load_balancer_class != previous.load_balancer_class:
        found.append(f'spec.loadBalancerClass: Invalid value: "{service.load_balancer_class}": may not change once set')
    if _wants_health_check(service) and _wants_health_check(previous):
        old, new = previous.health_check_node_port, service.health_check_node_port
        if old is not None and old != new:
            found.append(f"spec.healthCheckNodePort: Invalid value: {new}: field is immutable")
    return found


def carried(service: Service, previous: Service) -> Service:
    """A new version of a Service with what the first one was given and the new one does not name."""
    if service.type is ServiceType.EXTERNAL_NAME:
        return service
    if not service.headless and not service.cluster_ips:
        families_now = service.ip_families or ("IPv4", "IPv6")
        kept = tuple(address for address in previous.cluster_ips if f"IPv{address.version}" in families_now)
        service = replace(service, cluster_ips=kept)
        if not _names_headless(service) and previous.headless:
            service = replace(service, headless=True)
    if service.type is ServiceType.LOAD_BALANCER and not service.load_balancer:
        service = replace(service, load_balancer=previous.load_balancer)  # a status is not taken away by a new spec
    if external(service):
        known = {(port.port, port.protocol): port.node_port for port in previous.ports}
        taken = {(port.node_port, port.protocol) for port in service.ports if port.node_port}
        ports = []
        for port in service.ports:
            number = port.node_port or known.get((port.port, port.protocol))
            fresh = port.node_port is not None or (number, port.protocol) not in taken
            ports.append(replace(port, node_port=number if fresh else None))
        service = replace(service, ports=tuple(ports))
    if _wants_health_check(service) and service.health_check_node_port is None:
        service = replace(service, health_check_node_port=previous.health_check_node_port)
    return service


def _names_headless(service: Service) -> bool:
    spec = service.manifest.get("spec") or {}
    return bool(spec.get("clusterIP") or spec.get("clusterIPs"))


# ---------------------------------------------------------------- default/kubernetes


def with_kubernetes(cluster: Cluster) -> Cluster:
    """The cluster with the Service `kubernetes`, and its slice; the same object where both are there."""
    serial = cluster.serial
    if KUBERNETES not in cluster.services:
        serial += 1
        service = _kubernetes(cluster, serial)
        cluster = cluster.with_(services={KUBERNETES: service, **cluster.services}, serial=serial)
    if not any(one.service == KUBERNETES for one in cluster.slices.values()) and KUBERNETES not in cluster.endpoints:
        serial += 1
        cluster = cluster.with_(slices={KUBERNETES: _api_server(cluster, serial), **cluster.slices}, serial=serial)
    return cluster


def _kubernetes(cluster: Cluster, serial: int) -> Service:
    labels = {"component": "apiserver", "provider": "kubernetes"}
    family = families.of_cluster(cluster.topology.cluster)[0]
    port = {"name": "https", "port": 443, "protocol": "TCP", "targetPort": API_PORT}
    return Service(
        meta=Meta("kubernetes", "default", labels=labels, uid=names.uid("Service", "default", "kubernetes", serial)),
        cluster_ips=(ipam.service_address(cluster.topology.cluster, 1),),
        ports=(ServicePort(443, "https", target_port=API_PORT),),
        ip_families=(family,),
        manifest={
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "spec": {"type": "ClusterIP", "sessionAffinity": "None", "ports": [port]},
        },
    )


def _api_server(cluster: Cluster, serial: int) -> EndpointSlice:
    """The control plane's address (the first node's where there is no control plane), as the API server writes it itself."""
    nodes = sorted(cluster.nodes.values(), key=lambda node: not node.control_plane)
    family = families.of_cluster(cluster.topology.cluster)[0]
    own = [address for node in nodes[:1] for address in node.addresses]
    addresses = [address for address in own if family == f"IPv{address.version}"][:1]
    labels = {SERVICE_NAME: "kubernetes"}
    return EndpointSlice(
        meta=Meta("kubernetes", "default", labels=labels, uid=names.uid("EndpointSlice", "default", "kubernetes", serial)),
        service=KUBERNETES,
        address_type=family,
        endpoints=tuple(Endpoint((address,), ready=True) for address in addresses),
        ports=(SlicePort("https", API_PORT),),
        manifest={
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
            "addressType": family,
            "endpoints": [{"addresses": [str(address)], "conditions": {"ready": True}} for address in addresses],
            "ports": [{"name": "https", "port": API_PORT, "protocol": "TCP"}],
        },
    )
