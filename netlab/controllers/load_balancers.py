"""Decides the addresses of Services of type LoadBalancer, from the topology's pool, and which nodes announce them.

An address stays with its Service until that is deleted, changes its type or wishes another one (spec.loadBalancerIP). A Service
with a loadBalancerClass other than netlab's own is somebody else's. Announced is only what has a ready endpoint, as MetalLB has
it: by one node of those that may (`l2`; which one, a hash of node and address says, so that addresses spread over nodes and stay
where they are when another node comes or goes), or by all of them (`bgp`). A node may when it is ready, its link is not down, it
is not labelled otherwise, and, with externalTrafficPolicy Local, has a ready endpoint of its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from hashlib import blake2b

from netlab import ipam
from netlab.endpoints import Family, endpoints_of, slices_by_service
from netlab.model import (
    Address,
    Cluster,
    EndpointSlice,
    Key,
    LoadBalancerConfig,
    LoadBalancerIngress,
    Node,
    Service,
    ServiceType,
)

Slices = Mapping[Key, tuple[EndpointSlice, ...]]
CLASSES = ("", "netlab")
EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every load balancer's addresses and announcers; the same object when nothing changed."""
    config = cluster.topology.cluster.load_balancer
    if config is None:
        return cluster
    taken = {ingress.ip for service in cluster.services.values() if _ours(service) for ingress in service.load_balancer}
    slices = slices_by_service(cluster) if any(map(_ours, cluster.services.values())) else {}
    changed = {}
    for key, service in cluster.services.items():
        after = _announced(cluster, config, _addressed(config, service, taken), slices)
        if after != service:
            changed[key] = after
    return cluster.with_(services={**cluster.services, **changed}) if changed else cluster


def _ours(service: Service) -> bool:
    return service.type is ServiceType.LOAD_BALANCER and service.load_balancer_class in CLASSES


# ---------------------------------------------------------------- addresses


def _addressed(config: LoadBalancerConfig, service: Service, taken: set[Address | None]) -> Service:
    """The Service with an address of each of its families; `taken` holds all that are given, and is kept up to date."""
    if not _ours(service):
        kept = tuple(one for one in service.load_balancer if one.ip not in config)
        gone = len(kept) < len(service.load_balancer)
        return replace(service, load_balancer=kept, pending="") if gone or service.pending else service
    if any(one.ip not in config for one in service.load_balancer):
        return service  # a dump's, from another pool: it is kept as it is, and nobody here announces it
    own: dict[int, Address] = {one.ip.version: one.ip for one in service.load_balancer if one.ip is not None}
    wish, problem = service.load_balancer_ip, ""
    if wish is not None and own.get(wish.version) != wish:
        taken.discard(own.pop(wish.version, None))
        problem = _refusal(config, wish, taken)
        if not problem:
            own[wish.version] = wish
    families: tuple[Family, ...] = service.ip_families or ("IPv4",)
    for version in (int(family[-1]) for family in families) if not problem else ():
        if version not in own:
            found = next((address for address in _free(config, version) if address not in taken), None)
            if found is not None:
                own[version] = found
                taken.add(found)
    taken.update(own.values())
    if not own and not problem:
        problem = f"no available IPs: the pool has no free address of {' and '.join(families)}"
    found_all = tuple(LoadBalancerIngress(own[version]) for version in _order(service) if version in own) if not problem else ()
    if tuple(one.ip for one in found_all) == tuple(one.ip for one in service.load_balancer):
        found_all = service.load_balancer
    return replace(service, load_balancer=found_all, pending=problem)


def _order(service: Service) -> tuple[int, ...]:
    return tuple(dict.fromkeys((*(int(family[-1]) for family in service.ip_families), 4, 6)))


def _refusal(config: LoadBalancerConfig, wish: Address, taken: set[Address | None]) -> str:
    if wish not in config:
        return f"loadBalancerIP {wish} is not in the pool"
    return f"loadBalancerIP {wish} is taken by another Service" if wish in taken else ""


def _free(config: LoadBalancerConfig, version: int) -> Iterator[Address]:
    for first, last in config.pool:
        if first.version == version:
            for number in range(int(first), int(last) + 1):
                yield type(first)(number)


# ---------------------------------------------------------------- announcers


def _announced(cluster: Cluster, config: LoadBalancerConfig, service: Service, slices: Slices) -> Service:
    by = _announcers(cluster, config, service, slices)
    return service if by == service.announced_by else replace(service, announced_by=by)


def _announcers(cluster: Cluster, config: LoadBalancerConfig, service: Service, slices: Slices) -> tuple[str, ...]:
    addresses = [one.ip for one in service.load_balancer if one.ip in config]
    if not _ours(service) or not addresses or addresses[0] is None:
        return ()
    families: tuple[Family, ...] = service.ip_families or ("IPv4",)
    asked = ((port, family) for port in service.ports for family in families)
    found = (one for port, family in asked for one in endpoints_of(cluster, service, port, family, slices))
    homes = {one.node for one in found if one.ready}
    if not homes:
        return ()
    local = service.external_traffic_policy == "Local"
    able = [node for node in cluster.nodes.values() if _may(cluster, config, node, addresses[0])]
    names = [node.meta.name for node in able if not local or node.meta.name in homes]
    if config.announce == "bgp":
        return tuple(names)
    return tuple(sorted(names, key=lambda name: blake2b(f"{name}#{addresses[0]}".encode(), digest_size=8).digest())[:1])


def _may(cluster: Cluster, config: LoadBalancerConfig, node: Node, address: Address) -> bool:
    """Whether the node is one that announces at all. With BGP its session ends by itself when its link is down."""
    if not node.ready or EXCLUDED in node.meta.labels:
        return False
    if config.announce == "bgp":
        return True
    lan = ipam.announcing_lan(cluster.topology, address)
    end = f"node/{node.meta.name}"
    leg = next((one for one in ipam.attachments(cluster.topology, node.addresses) if lan and one.lan == lan.name), None)
    if leg is None or lan is None:
        return False
    return not cluster.links_down.intersection(((end, leg.device), (f"lan/{lan.name}", ipam.lan_port(end))))
