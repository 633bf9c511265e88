"""For the tests of proxy modes: clusters in a few words, and examples of them."""

from dataclasses import replace
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

from netlab.model import (
    Cluster,
    ClusterConfig,
    Endpoint,
    EndpointSlice,
    Key,
    LoadBalancerIngress,
    Meta,
    Node,
    Protocol,
    ProxyConfig,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
    Topology,
)
from netlab.ops import Op
from netlab.ops import Ruleset as RulesetOp
from netlab.ruleset import (
    Ruleset,
)

POD, OTHER_POD, OUTSIDE = "10.244.1.9", "10.244.2.9", "203.0.113.50"
NODE, NODE_2 = "192.168.50.10", "192.168.51.10"

# ---------------------------------------------------------------- clusters


def cluster(
    services: tuple[Service, ...] = (), slices: tuple[EndpointSlice, ...] = (), zone_a: str = "zone-a", **proxy: Any
) -> Cluster:
    """Two nodes; node-a (the one that is looked at) has two addresses. `proxy`: fields of ProxyConfig."""
    config = ClusterConfig(
        pod_cidrs=(IPv4Network("10.244.0.0/16"),), service_cidrs=(IPv4Network("10.96.0.0/16"),), proxy=ProxyConfig(**proxy)
    )
    nodes = {
        "node-a": _node("node-a", (NODE, NODE_2), "10.244.1.0/24", zone_a),
        "node-b": _node("node-b", ("192.168.50.11",), "10.244.2.0/24", "zone-b"),
    }
    return Cluster(
        Topology(cluster=config),
        nodes=nodes,
        services={service.meta.key: service for service in services},
        slices={one.meta.key: one for one in slices},
    )


def _node(name: str, addresses: tuple[str, ...], pod_cidr: str, zone: str) -> Node:
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    return Node(Meta(name, labels=labels), tuple(map(ip_address, addresses)), (ip_network(pod_cidr),))


def service(name: str = "web", ip: str = "10.96.0.10", **fields: Any) -> Service:
    """A TCP Service of one port, http 80, unless `ports` says else. `vips`: load-balancer addresses."""
    vips = fields.pop("vips", ())
    fields.setdefault("ports", (ServicePort(80, "http"),))
    if vips:
        fields.setdefault("type", ServiceType.LOAD_BALANCER)
    fields["load_balancer"] = tuple(LoadBalancerIngress(ip_address(vip)) for vip in vips)
    fields["external_ips"] = tuple(map(ip_address, fields.get("external_ips", ())))
    fields["source_ranges"] = tuple(map(ip_network, fields.get("source_ranges", ())))
    return Service(Meta(name, "default"), cluster_ips=(ip_address(ip),), **fields)


def slice_of(name: str, *endpoints: Endpoint, ports: tuple[SlicePort, ...] = (SlicePort("http", 8080),)) -> EndpointSlice:
    return EndpointSlice(Meta(f"{name}-1", "default"), Key("default", name), endpoints=endpoints, ports=ports)


LEAVING: dict[str, Any] = {"ready": False, "serving": True, "terminating": True}


def local(ip: str = "10.244.1.5", **fields: Any) -> Endpoint:
    return Endpoint((ip_address(ip),), node_name="node-a", **fields)


def remote(ip: str = "10.244.2.5", **fields: Any) -> Endpoint:
    return Endpoint((ip_address(ip),), node_name="node-b", **fields)


def ruleset(ops: tuple[Op, ...]) -> Ruleset:
    """The one Ruleset of a node's plan."""
    (found,) = (op.value for op in ops if isinstance(op, RulesetOp))
    return found


# ---------------------------------------------------------------- examples


def everything(**proxy: Any) -> Cluster:
    """One Service of every kind that makes rules of its own kind."""
    node_port = (ServicePort(80, "http", node_port=30080),)
    dns = (ServicePort(53, "dns", Protocol.UDP, node_port=30053), ServicePort(53, "dns-tcp"), ServicePort(53, "", Protocol.SCTP))
    balancer = {"ports": node_port, "vips": ("203.0.113.200",), "external_ips": ("192.0.2.33",)}
    ranges = ("203.0.113.0/24", "192.168.50.0/24", "198.51.100.7/32")
    services = (
        service("plain"),
        service("sticky", "10.96.0.11", session_affinity="ClientIP", affinity_timeout_s=600),
        service("dns", "10.96.0.12", type=ServiceType.NODE_PORT, ports=dns),
        service("cluster", "10.96.0.13", **(balancer | {"source_ranges": ranges})),
        service(
            "local",
            "10.96.0.14",
            **balancer | {"ports": (ServicePort(80, "http", node_port=30081),), "vips": ("203.0.113.201",)},
            external_traffic_policy="Local",
            health_check_node_port=32000,
        ),
        service("inside", "10.96.0.15", internal_traffic_policy="Local"),
        service("away", "10.96.0.16", internal_traffic_policy="Local", external_traffic_policy="Local", **_other(balancer)),
        service("empty", "10.96.0.17", type=ServiceType.NODE_PORT, ports=(ServicePort(80, "http", node_port=30083),)),
    )
    both = (local(), remote())
    slices = (
        slice_of("plain", *both, remote("10.244.2.6")),
        slice_of("sticky", *both),
        slice_of("dns", *both, ports=(SlicePort("dns", 5353, Protocol.UDP), SlicePort("dns-tcp", 5354))),
        slice_of("cluster", *both),
        slice_of("local", *both),
        slice_of("inside", *both),
        slice_of("away", remote()),
    )
    return cluster(services, slices, **proxy)


def _other(balancer: dict[str, Any]) -> dict[str, Any]:
    ports = (ServicePort(80, "http", node_port=30082),)
    return balancer | {"ports": ports, "vips": ("203.0.113.202",), "external_ips": ("192.0.2.34",)}


def dual_stack(**proxy: Any) -> Cluster:
    """The same with IPv6 as well: a Service with affinity and one without endpoints."""
    full = everything(**proxy)
    config = full.topology.cluster
    service_cidrs = (*config.service_cidrs, ip_network("fd00:96::/112"))
    pod_cidrs = (*config.pod_cidrs, ip_network("fd00:244::/56"))
    six = (
        service("six", "fd00:96::10", session_affinity="ClientIP", source_ranges=("fd00:5::/64",), vips=("fd00:9::1",)),
        service("six-empty", "fd00:96::11", external_ips=("fd00:9::2",)),
        service("six-local", "fd00:96::12", vips=("fd00:9::3",), external_traffic_policy="Local"),
    )
    slices = [
        replace(slice_of(name, local("fd00:244::5"), remote("fd00:244:0:1::5")), address_type="IPv6")
        for name in ("six", "six-local")
    ]
    node = full.nodes["node-a"]
    addresses = (*node.addresses, ip_address("fd00:50::10"))
    return full.with_(
        topology=replace(full.topology, cluster=replace(config, service_cidrs=service_cidrs, pod_cidrs=pod_cidrs)),
        nodes={**full.nodes, "node-a": replace(node, addresses=addresses)},
        services={**full.services, **{one.meta.key: one for one in six}},
        slices={**full.slices, **{one.meta.key: one for one in slices}},
    )


def states(**proxy: Any) -> dict[str, Cluster]:
    """Clusters to change one into another, by name."""
    full = everything(**proxy)
    services, slices = full.services, full.slices
    sticky, plain = Key("default", "sticky"), Key("default", "plain")
    without = {key: value for key, value in services.items() if key.name not in ("sticky", "local", "dns")}
    moved = (slice_of("plain", remote("10.244.2.7")), slice_of("sticky", local()))
    here = (slice_of("away", local()),)
    return {
        "nothing": cluster(**proxy),
        "everything": full,
        "services removed": full.with_(services=without),
        "endpoints moved": full.with_(slices={**slices, **{one.meta.key: one for one in moved}}),
        "endpoint came here": full.with_(slices={**slices, **{one.meta.key: one for one in here}}),
        "no endpoints": full.with_(slices={}),
        "longer affinity": full.with_(services={**services, sticky: replace(services[sticky], affinity_timeout_s=1200)}),
        "affinity on another": full.with_(
            services={
                **services,
                sticky: replace(services[sticky], session_affinity="None"),
                plain: replace(services[plain], session_affinity="ClientIP"),
            }
        ),
        "everything masqueraded": everything(**{**proxy, "masquerade_all": True, "conntrack_tcp_be_liberal": False}),
        "every address": everything(**{**proxy, "node_port_addresses": (ip_network("0.0.0.0/0"),), "detect_local": "none"}),
        "some addresses": everything(
            **{**proxy, "node_port_addresses": (ip_network("192.168.51.0/24"),), "detect_local": "InterfaceNamePrefix"}
        ),
    }
