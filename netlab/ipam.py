"""Which address, MAC and interface name each thing gets: pure, and the same for the same cluster on every machine.

Decides: every allocation order (always the lowest that is free) and every interface name, none longer than 15 characters.
Refuses to know: who asks, and what is done with the answer.

Allocation follows Kubernetes' two bands, so that what people write by hand (10.96.0.80, nodePort 30001) is seldom met by what
netlab picks: clusterIPs and nodePorts come from the upper band first and from the lower, "static" one only when that is full.
The `free_...` functions give all free values lazily, lowest first; take several from one iterator where several are needed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import ip_network
from itertools import chain
from typing import Literal

from netlab.errors import InputError
from netlab.model import Address, Cluster, ClusterConfig, Lan, Network, Node, Topology

Family = Literal["IPv4", "IPv6"]

NODE_PORTS = range(30000, 32768)
DEVICE_LENGTH = 15
POD_DEVICE = "eth0"
NODE_BRIDGE = "cni0"
LAN_BRIDGE = "br0"


# ---------------------------------------------------------------- addresses


def network_of(networks: Iterable[Network], family: Family = "IPv4") -> Network | None:
    """The first network of the family, None when there is none."""
    version = 4 if family == "IPv4" else 6
    return next((network for network in networks if network.version == version), None)


def gateway(node: Node, family: Family = "IPv4") -> Address | None:
    """The address of the node's own bridge: the first of its podCIDR; None when it has none of that family."""
    network = network_of(node.pod_cidrs, family)
    return None if network is None else network[1] if network.num_addresses > 2 else network[0]


def free_pod_addresses(cluster: Cluster, node: Node, family: Family = "IPv4") -> Iterator[Address]:
    """The free addresses of the node's podCIDR, from behind the one given out last. Not those of network, gateway and broadcast.

    Those of pods that are ending come last of all: whoever gets one takes it from them.

    Going round is what the CNI plugin host-local does: the address of a pod that is gone is not another's the moment after.
    """
    network = network_of(node.pod_cidrs, family)
    if network is None:
        return
    used = {address for pod in cluster.pods.values() for address in pod.addresses}
    used.update(address for other in cluster.nodes.values() for address in other.addresses)
    ending = dict.fromkeys(address for pod in cluster.ending.values() for address in pod.addresses)
    last = network.num_addresses - (2 if network.version == 4 else 1)
    before = cluster.last_addresses.get((node.meta.name, family))
    start = int(before) - int(network.network_address) + 1 if before is not None and before in network else 2
    for offset in chain(range(start, last + 1), range(2, min(start, last + 1))):
        address = network[offset]
        if address not in used and address not in ending:
            yield address
    yield from (address for address in ending if address in network and address not in used)


def service_address(config: ClusterConfig, index: int, family: Family | None = None) -> Address:
    """The index-th address of the service CIDR (the primary family's unless told): 1 is the `kubernetes` Service, 10 DNS.

    Raises: InputError without such a CIDR.
    """
    network = network_of(config.service_cidrs, family) if family else next(iter(config.service_cidrs), None)
    if network is None:
        raise InputError(f"the cluster has no {family or ''} serviceCIDR")
    return network[min(index, network.num_addresses - 1)]


def free_cluster_ips(cluster: Cluster, family: Family = "IPv4") -> Iterator[Address]:
    """The free addresses of the service CIDR: the upper band first, then the lower; never the first and the tenth (DNS)."""
    config = cluster.topology.cluster
    network = network_of(config.service_cidrs, family)
    if network is None:
        return
    used = {address for service in cluster.services.values() for address in service.cluster_ips}
    used.update((service_address(config, 1, family), service_address(config, 10, family)))
    size = network.num_addresses
    band = min(max(16, size // 16), 256) if size > 32 else 0
    for offset in chain(range(band + 1, size - 1), range(1, min(band + 1, size - 1))):
        address = network[offset]
        if address not in used:
            yield address


def cluster_ip(cluster: Cluster, family: Family = "IPv4") -> Address:
    """The clusterIP of the next new Service. Raises: InputError when the service CIDR is exhausted or missing."""
    for address in free_cluster_ips(cluster, family):
        return address
    raise InputError(f"no free clusterIP of family {family} in {', '.join(map(str, cluster.topology.cluster.service_cidrs))}")


def free_node_ports(cluster: Cluster) -> Iterator[int]:
    """The free node ports: the upper band (from 30086) first, then the lower. Health check ports count as used."""
    services = cluster.services.values()
    used = {port.node_port for service in services for port in service.ports} | {s.health_check_node_port for s in services}
    band = min(max(16, len(NODE_PORTS) // 32), 128)
    return (port for port in chain(NODE_PORTS[band:], NODE_PORTS[:band]) if port not in used)


def node_port(cluster: Cluster) -> int:
    """The nodePort of the next new ServicePort. Raises: InputError when all 2,768 are taken."""
    for port in free_node_ports(cluster):
        return port
    raise InputError("no free nodePort between 30000 and 32767")


def free_pod_cidrs(config: ClusterConfig, taken: Iterable[Network], family: Family = "IPv4") -> Iterator[Network]:
    """The free podCIDRs for nodes (a /24 of IPv4 where the cluster's podCIDR has room for 16, a /64 of IPv6), lowest first."""
    network = network_of(config.pod_cidrs, family)
    if network is None:
        return
    usual = 24 if network.version == 4 else 64
    prefix = usual if network.prefixlen <= usual - 4 else min(network.prefixlen + 4, network.max_prefixlen - 2)
    others = [other for other in taken if other.version == network.version]
    exact = {other for other in others if other.prefixlen == prefix}
    odd = [other for other in others if other.prefixlen != prefix]
    for subnet in network.subnets(new_prefix=max(prefix, network.prefixlen)):
        if subnet not in exact and not any(subnet.overlaps(other) for other in odd):
            yield subnet


def pod_cidr(config: ClusterConfig, taken: Iterable[Network], family: Family = "IPv4") -> Network:
    """The podCIDR of the next node that was given none. Raises: InputError when the cluster's podCIDR is exhausted."""
    for network in free_pod_cidrs(config, taken, family):
        return network
    raise InputError(f"no free podCIDR left in {', '.join(map(str, config.pod_cidrs))}; give cluster.podCIDR a shorter prefix")


def host_route(address: Address) -> Network:
    """The network that holds only this address."""
    return ip_network((address, address.max_prefixlen))


# ---------------------------------------------------------------- attachments to LANs


@dataclass(frozen=True, slots=True)
class Attachment:
    """One LAN interface of a node, host or router: `eth0`, `eth1`, ... in the order of the topology's networks.

    `networks`: those of the LAN's networks that it has an address in, one or one a family.
    """

    lan: str
    device: str
    networks: tuple[Network, ...]
    addresses: tuple[Address, ...]

    def network_of(self, address: Address) -> Network | None:
        """The connected network that holds the address; None when it is not on this link."""
        return next((network for network in self.networks if address in network), None)


def attachments(topology: Topology, addresses: Iterable[Address]) -> tuple[Attachment, ...]:
    """The LAN interfaces that a machine with these addresses has."""
    own = tuple(addresses)
    found: list[Attachment] = []
    for lan in topology.networks:
        inside = tuple(address for address in own if address in lan)
        if inside:
            found.append(_attachment(lan, len(found), inside))
    return tuple(found)


def router_attachments(topology: Topology) -> tuple[Attachment, ...]:
    """The interfaces of the router: one in every LAN that has a router address."""
    lans = [lan for lan in topology.networks if lan.routers]
    return tuple(_attachment(lan, index, lan.routers) for index, lan in enumerate(lans))


def _attachment(lan: Lan, index: int, addresses: tuple[Address, ...]) -> Attachment:
    networks = tuple(cidr for cidr in lan.cidrs if any(address in cidr for address in addresses))
    return Attachment(lan.name, f"eth{index}", networks, addresses)


def announcing_lan(topology: Topology, address: Address) -> Lan | None:
    """The network on which a load balancer's address is answered for: the one that holds it, else the first with a router."""
    holding = next((lan for lan in topology.networks if address in lan), None)
    version = address.version
    return holding or next((lan for lan in topology.networks if any(one.version == version for one in lan.routers)), None)


def off_lan(topology: Topology, addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Those of the addresses that lie in no network of the topology: they live on `lo`."""
    return tuple(address for address in addresses if not any(address in lan for lan in topology.networks))


# ---------------------------------------------------------------- names


def mac(netns: str, device: str) -> str:
    """The MAC of a device: locally administered, unicast, the same for the same name in every lab."""
    digest = blake2b(f"{netns} {device}".encode(), digest_size=5).digest()
    return "02:" + digest.hex(":")


NOBODY = "02:00:00:00:00:00"
"""The MAC of nobody: what is sent to it ends in the switch."""


def host_device(pod_netns: str) -> str:
    """The node's end of the veth of the pod whose namespace is `pod_netns` (`pod/NS/NAME`)."""
    return "veth" + blake2b(pod_netns.encode(), digest_size=4).hexdigest()


def lan_port(end: str) -> str:
    """The port of a LAN's switch towards `end` (`node/NAME`, `host/NAME`, `router/router`): `n-NAME`, or short with a hash."""
    kind, _, name = end.partition("/")
    device = f"{kind[0]}-{name}"
    if len(device) <= DEVICE_LENGTH and "." not in name:
        return device
    return f"{kind[0]}-{name[:4].replace('.', '-')}-{blake2b(end.encode(), digest_size=4).hexdigest()}"
