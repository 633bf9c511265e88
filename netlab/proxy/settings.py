"""One node's proxy settings in one family: what `cluster.proxy` means for it. Shared by the modes; knows no dialect.

Source: kubernetes cmd/kube-proxy/app/server_linux.go, pkg/proxy/util/{localdetector,nodeport_addresses}.go, v1.36.
"""

from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import assert_never

from netlab import ipam
from netlab.model import Address, Cluster, Network, Node
from netlab.ruleset import Destination, Family, InInterface, Match, Source

MASQUERADE_MARK = 0x4000


@dataclass(frozen=True, slots=True)
class Policy:
    """What of the settings a single service's rules depend on; equal on most nodes.

    `local` matches traffic from pods and `remote` all other; both are None without a detector.
    """

    masquerade_all: bool
    local: Match | None
    remote: Match | None


@dataclass(frozen=True, slots=True)
class Settings:
    """`node_port_addresses` None: every address of the node. `loopback`: 127.0.0.0/8 is among what was asked for."""

    family: Family
    policy: Policy
    node_ip: Address | None
    node_port_addresses: tuple[Address, ...] | None
    loopback: bool
    service_cidrs: tuple[Network, ...]

    @property
    def not_localhost(self) -> Match:
        return Destination((localhost(self.family),), negate=True)

    def allows_node(self, source_ranges: tuple[Network, ...]) -> bool:
        """One of the ranges holds the node's own address; a load-balancer IP is then allowed as a source as well."""
        return self.node_ip is not None and any(self.node_ip in network for network in source_ranges)


@dataclass(frozen=True, slots=True)
class View:
    """What of a node and its settings the rules of a single service depend on."""

    node: str
    zone: str
    policy: Policy
    node_ip: Address | None

    def allowed(self, source_ranges: tuple[Network, ...]) -> bool:
        """One of the ranges holds the node's own address; a load-balancer IP is then allowed as a source as well."""
        return self.node_ip is not None and any(self.node_ip in network for network in source_ranges)


def view(node: Node, set_: Settings) -> View:
    """The view that this node has of services."""
    return View(node.meta.name, node.zone, set_.policy, set_.node_ip)


def localhost(family: Family) -> Network:
    return ip_network("127.0.0.0/8" if family == "ip" else "::1/128")


def settings(cluster: Cluster, node: Node, family: Family, primary_by_default: bool) -> Settings:
    """The settings of this node. `primary_by_default`: what the mode makes of an absent nodePortAddresses (row 14)."""
    config = cluster.topology.cluster
    version = 4 if family == "ip" else 6
    node_ip = next((address for address in node.addresses if address.version == version), None)
    wanted = _node_port_networks(cluster, node_ip, version, primary_by_default)
    everything = any(network.prefixlen == 0 for network in wanted)
    own = own_addresses(cluster, node, version)
    return Settings(
        family=family,
        policy=_policy(cluster, node, version),
        node_ip=node_ip,
        node_port_addresses=None if everything else tuple(a for a in own if any(a in network for network in wanted)),
        loopback=any(network.is_loopback or _loopback(version) in network for network in wanted),
        service_cidrs=tuple(cidr for cidr in config.service_cidrs if cidr.version == version),
    )


def _node_port_networks(cluster: Cluster, node_ip: Address | None, version: int, primary_by_default: bool) -> tuple[Network, ...]:
    everything = ip_network("0.0.0.0/0" if version == 4 else "::/0")
    given = cluster.topology.cluster.proxy.node_port_addresses
    if given == "primary" or (given is None and primary_by_default):
        return (ip_network(node_ip),) if node_ip is not None else (everything,)
    # Networks of the other family only: then every address of this one (NewNodePortAddresses).
    return tuple(network for network in given or () if network.version == version) or (everything,)


def own_addresses(cluster: Cluster, node: Node, version: int) -> tuple[Address, ...]:
    """Every address that the node has: those of its LANs, loopback, and the pod bridge's (the first of the podCIDR)."""
    bridge = ipam.gateway(node, "IPv4" if version == 4 else "IPv6") if cluster.topology.cluster.fabric == "bridge" else None
    lans = tuple(address for address in node.addresses if address.version == version)
    return (*lans, _loopback(version), *(() if bridge is None else (bridge,)))


def _loopback(version: int) -> Address:
    return ip_address("127.0.0.1" if version == 4 else "::1")


def _policy(cluster: Cluster, node: Node, version: int) -> Policy:
    config = cluster.topology.cluster
    proxy = config.proxy
    local: Match | None
    remote: Match | None
    match proxy.detect_local:
        case "ClusterCIDR" | "NodeCIDR" as kind:
            cidrs = config.pod_cidrs if kind == "ClusterCIDR" else node.pod_cidrs
            networks = tuple(cidr for cidr in cidrs if cidr.version == version)[:1]
            local, remote = (Source(networks), Source(networks, negate=True)) if networks else (None, None)
        case "BridgeInterface":
            local, remote = InInterface(proxy.bridge_interface), InInterface(proxy.bridge_interface, negate=True)
        case "InterfaceNamePrefix":
            prefix = proxy.interface_name_prefix
            local, remote = InInterface(prefix, prefix=True), InInterface(prefix, prefix=True, negate=True)
        case "none":
            local, remote = None, None
        case _:
            assert_never(proxy.detect_local)
    return Policy(proxy.masquerade_all, local, remote)
