"""Which Services a packet may be for, found by where it goes; and the addresses of nodes. Made once a cluster.

Decides nothing: a Service that is found here has the address or the number, and a proxy mode says what follows. What is not found
here has neither, and no mode can claim the packet for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from netlab import overlay
from netlab.endpoints import is_proxied
from netlab.memory import last_ones_kept
from netlab.model import Address, Cluster, Key, Node, Service

AT_ONCE = 3
"""Clusters that a walk asks of by turns: the one that is, and during an outage the ones that nodes out of reach know."""


@dataclass(frozen=True, slots=True)
class _Claims:
    by_address: Mapping[Address, tuple[Service, ...]]
    by_node_port: Mapping[int, tuple[Service, ...]]


def of_address(cluster: Cluster, address: Address) -> tuple[Service, ...]:
    """The Services that a proxy handles and that have this address, of whatever kind; by namespace and name."""
    return _claims(cluster.services).by_address.get(address, ())


def of_node_port(cluster: Cluster, number: int) -> tuple[Service, ...]:
    """Those that have this NodePort, of whatever protocol; by namespace and name."""
    return _claims(cluster.services).by_node_port.get(number, ())


def is_nobodys(cluster: Cluster, address: Address) -> bool:
    """Whether no Service has the address, nor could get it out of the service CIDRs, nor is it in 127.0.0.0/8."""
    known = _nobodys(cluster)
    found = known.get(address)
    if found is None:
        reserved = any(address in cidr for cidr in cluster.topology.cluster.service_cidrs)
        found = known[address] = not (reserved or address.is_loopback or of_address(cluster, address))
    return found


@last_ones_kept(AT_ONCE)
def _nobodys(_cluster: Cluster) -> dict[Address, bool]:
    """What was asked so far of this cluster."""
    return {}


@last_ones_kept(AT_ONCE)
def _claims(services: Mapping[Key, Service]) -> _Claims:
    by_address: dict[Address, list[Service]] = {}
    by_node_port: dict[int, list[Service]] = {}
    for _, service in sorted(services.items()):
        if is_proxied(service):
            balanced = (one.ip for one in service.load_balancer if one.ip is not None)
            for address in dict.fromkeys((*service.cluster_ips, *service.external_ips, *balanced)):
                by_address.setdefault(address, []).append(service)
            for number in dict.fromkeys(port.node_port for port in service.ports if port.node_port):
                by_node_port.setdefault(number, []).append(service)
    return _Claims(
        {address: tuple(found) for address, found in by_address.items()},
        {number: tuple(found) for number, found in by_node_port.items()},
    )


@dataclass(frozen=True, slots=True)
class OwnAddresses:
    """A node's own addresses without 127.0.0.0/8, the InternalIPs first."""

    node: Node
    listed: tuple[Address, ...]
    all: frozenset[Address]


def own_addresses(cluster: Cluster, node: Node) -> OwnAddresses:
    known = _of_nodes(cluster).get(node.meta.name)
    return known if known is not None and known.node is node else _own(cluster, node)


@last_ones_kept(AT_ONCE)
def _of_nodes(cluster: Cluster) -> dict[str, OwnAddresses]:
    return {name: _own(cluster, node) for name, node in cluster.nodes.items()}


def _own(cluster: Cluster, node: Node) -> OwnAddresses:
    listed = (*node.addresses, *bridge_addresses(cluster, node), *overlay.addresses(cluster, node))
    return OwnAddresses(node, listed, frozenset(listed))


def bridge_addresses(cluster: Cluster, node: Node) -> tuple[Address, ...]:
    """The addresses of the node's bridge, the first of each podCIDR: the gateways of its pods; none in the routed fabric."""
    if cluster.topology.cluster.fabric != "bridge":
        return ()
    return tuple(cidr[1] if cidr.num_addresses > 2 else cidr[0] for cidr in node.pod_cidrs)
