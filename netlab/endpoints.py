"""Which Services a proxy looks at, under which addresses, and which endpoints each port of them has.

Facts only, shared by the planners and the oracle: the join of Services and EndpointSlices, the API's defaults, the merge of
slices. It refuses to know any policy: who may be chosen, from where, and whether the source is rewritten, planners and oracle
each decide by themselves, so that one mistake cannot hide in both.

Source: kubernetes/kubernetes v1.36 pkg/proxy (endpointslicecache.go, serviceport.go, util/utils.go) and cmd/kube-proxy.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from netlab.model import Address, Cluster, Endpoint, EndpointSlice, Key, Ref, Service, ServicePort, ServiceType

Family = Literal["IPv4", "IPv6"]

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """One endpoint of a Service port. `node` None: the slice does not say, so it is remote for every node.

    The conditions are as the slice reports them, absent ones filled in (ready, serving: true; terminating: false).
    """

    address: Address
    port: int
    node: str | None = None
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()
    target: Ref | None = None

    def __str__(self) -> str:
        return f"{self.address}:{self.port}" if self.address.version == 4 else f"[{self.address}]:{self.port}"


def family_of(address: Address) -> Family:
    return "IPv4" if address.version == 4 else "IPv6"


def is_proxied(service: Service) -> bool:
    """Whether a Service proxy handles this Service at all.

    Headless ones, ExternalName (even with a clusterIP), those that name another proxy by label, and those whose clusterIP is
    not allocated yet are left alone.
    """
    return not (
        service.headless
        or service.type is ServiceType.EXTERNAL_NAME
        or PROXY_NAME_LABEL in service.meta.labels
        or not service.cluster_ips
    )


def proxied_services(cluster: Cluster) -> tuple[Service, ...]:
    """The Services that a proxy handles, in order of namespace and name."""
    return tuple(service for _, service in sorted(cluster.services.items()) if is_proxied(service))


def cluster_ip(service: Service, family: Family = "IPv4") -> Address | None:
    """The Service's clusterIP of that family; None when it has none."""
    return next((address for address in service.cluster_ips if family_of(address) == family), None)


def external_ips(service: Service, family: Family = "IPv4") -> tuple[Address, ...]:
    """spec.externalIPs of that family, in the order given."""
    return tuple(address for address in service.external_ips if family_of(address) == family)


def load_balancer_ips(service: Service, family: Family = "IPv4") -> tuple[Address, ...]:
    """The load balancer's addresses that a node captures: ipMode absent or VIP; hostnames and ipMode Proxy are not."""
    found = (ingress.ip for ingress in service.load_balancer if ingress.ip_mode != "Proxy")
    return tuple(address for address in found if address is not None and family_of(address) == family)


def slices_by_service(cluster: Cluster) -> Mapping[Key, tuple[EndpointSlice, ...]]:
    """The slices that a proxy lists, in order of name, by their Service. Make it once for a walk over many Services."""
    found: dict[Key, list[EndpointSlice]] = {}
    for _, one in sorted(cluster.slices.items()):
        if HEADLESS_LABEL not in one.meta.labels:
            found.setdefault(one.service, []).append(one)
    return {key: tuple(slices) for key, slices in found.items()}


def endpoints_of(
    cluster: Cluster,
    service: Service,
    port: ServicePort,
    family: Family = "IPv4",
    slices: Mapping[Key, tuple[EndpointSlice, ...]] | None = None,
    headless: bool = False,
) -> tuple[ServiceEndpoint, ...]:
    """Every endpoint of a Service port, usable or not, sorted by its ip:port string and unique in it.

    `headless`: those of headless Services, too, which proxies do not list, but Ingress controllers do.

    The join is by Service name, port name and protocol; the number is the slice's, targetPort is never read.
    """
    mine = slices.get(service.meta.key, ()) if slices is not None else _slices_of(cluster, service, headless)
    found: dict[str, ServiceEndpoint] = {}
    for one in mine:
        if one.address_type == family:
            for candidate in _of_slice(one, port):
                name = str(candidate)
                known = found.get(name)
                # While an endpoint moves between slices it is in both: the copy that lives on wins.
                if known is None or (known.terminating and not candidate.terminating):
                    found[name] = candidate
    return tuple(found[text] for text in sorted(found))


def _slices_of(cluster: Cluster, service: Service, headless: bool) -> list[EndpointSlice]:
    mine = (
        one
        for one in cluster.slices.values()
        if one.service == service.meta.key and (headless or HEADLESS_LABEL not in one.meta.labels)
    )
    return sorted(mine, key=lambda one: one.meta.key)


def _of_slice(one: EndpointSlice, port: ServicePort) -> Iterable[ServiceEndpoint]:
    for slice_port in one.ports:
        if slice_port.name == port.name and slice_port.protocol == port.protocol and slice_port.port:
            for endpoint in one.endpoints:
                if endpoint.addresses:
                    yield _conditions(endpoint, slice_port.port)


def _conditions(endpoint: Endpoint, port: int) -> ServiceEndpoint:
    return ServiceEndpoint(
        address=endpoint.addresses[0],  # the API allows several, every consumer reads the first
        port=port,
        node=endpoint.node_name or None,
        ready=endpoint.ready is not False,
        serving=endpoint.serving is not False,
        terminating=endpoint.terminating is True,
        zone_hints=endpoint.zone_hints,
        node_hints=endpoint.node_hints,
        target=endpoint.target,
    )
