"""Small clusters for tests, made by hand: no manifest reader and no controller stands between a test and what it tests."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network
from typing import Any

from netlab.model import (
    Address,
    Cluster,
    ClusterConfig,
    Container,
    ContainerPort,
    HostSpec,
    Key,
    Lan,
    Meta,
    Node,
    Pod,
    PodSpec,
    Protocol,
    ProxyConfig,
    Service,
    ServicePort,
    Topology,
)

ROUTES = (
    (IPv4Network("10.96.0.0/12"), IPv4Address("192.168.0.169")),
    (IPv4Network("10.244.0.0/16"), IPv4Address("192.168.0.169")),
)


def address(text: str) -> Address:
    return ip_address(text)


def topology(count: int = 3, *, first: int = 169, mode: str = "iptables", fabric: str = "bridge", **proxy: Any) -> Topology:
    """The default topology of the contract, or one like it with more nodes."""
    lan = Lan("lan", IPv4Network("192.168.0.0/24"), IPv4Address("192.168.0.1"))
    config = ClusterConfig(proxy=ProxyConfig(mode=mode, **proxy), fabric=fabric)
    host = HostSpec("client", (IPv4Address("192.168.0.100"),), ROUTES)
    return Topology(cluster=config, networks=(lan,), hosts=(host,))


def node(name: str, addresses: Iterable[str], pod_cidr: str) -> Node:
    return Node(Meta(name), tuple(map(ip_address, addresses)), (ip_network(pod_cidr),))


def pod(
    name: str, node: str, addresses: str, *ports: int, namespace: str = "default", image: str = "luksa/kubia", **spec: Any
) -> Pod:
    container = Container("main", image, tuple(spec.pop("command", ())), tuple(ContainerPort(port) for port in ports))
    return Pod(
        Meta(name, namespace),
        PodSpec((container,), **spec),
        node,
        tuple(map(ip_address, addresses.split())),
        phase="Running",
        ready=True,
        serving=True,
    )


def service(name: str, cluster_ip: str, *ports: tuple[int, int], namespace: str = "default", **more: Any) -> Service:
    made = tuple(ServicePort(port, target_port=target, protocol=Protocol.TCP) for port, target in ports)
    return Service(Meta(name, namespace), cluster_ips=(ip_address(cluster_ip),), ports=made, **more)


def cluster(pods: Iterable[Pod] = (), services: Iterable[Service] = (), nodes: int = 3, **options: Any) -> Cluster:
    """node-169 (gateway of the host `client`), node-170, ...: 192.168.0.169 and on, podCIDRs 10.244.0.0/24 and on."""
    made = [node(f"node-{169 + i}", [f"192.168.0.{169 + i}"], f"10.244.{i}.0/24") for i in range(nodes)]
    return Cluster(
        topology(**options),
        nodes={one.meta.name: one for one in made},
        pods={one.meta.key: one for one in pods},
        services={one.meta.key: one for one in services},
    )


def default(**options: Any) -> Cluster:
    """Three kubia pods on two nodes, a client pod, the Service kubia and `kubernetes`."""
    pods = [
        pod("client", "node-170", "10.244.1.2", image="curl"),
        pod("kubia-a", "node-170", "10.244.1.3", 8080),
        pod("kubia-b", "node-171", "10.244.2.2", 8080),
        pod("kubia-c", "node-171", "10.244.2.3", 8080),
    ]
    services = [service("kubernetes", "10.96.0.1", (443, 6443)), service("kubia", "10.96.0.80", (80, 8080))]
    return cluster(pods, services, **options)


def without_dns(topology: Topology) -> Topology:
    """The topology without DNS pods, for tests that count pods."""
    return replace(topology, cluster=replace(topology.cluster, dns=False))


def key(name: str, namespace: str = "default") -> Key:
    return Key(namespace, name)
