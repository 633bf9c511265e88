"""Which pods have a namespace, and the two ways to hang one on its node: under the node's bridge, or by a route of its own.

Refuses to know: what a pod runs (see `programs`), and how other nodes find it (see routing).

By a route of its own goes every pod of the fabric `routed`, and in any fabric a pod whose address lies outside its node's
podCIDR, as a dump of a cloud's cluster may say: no bridge address could be its gateway.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netlab import ipam
from netlab.fabric import sysctls
from netlab.model import Address, Cluster, Network, Node, Pod
from netlab.ops import DeviceAddress, Neighbour, Netns, Op, Route, Sysctl, Veth

LINK_GATEWAY: dict[int, Address] = {4: IPv4Address("169.254.1.1"), 6: IPv6Address("fe80::ecee:eeff:feee:eeee")}
EVERYWHERE: dict[int, Network] = {4: IPv4Network("0.0.0.0/0"), 6: IPv6Network("::/0")}


def wired(cluster: Cluster) -> Iterator[Pod]:
    """The pods that have a network namespace of their own (their node is in the cluster), in the cluster's order."""
    for pod in cluster.pods.values():
        if pod.node in cluster.nodes and pod.addresses and not pod.spec.host_network and pod.phase not in ("Succeeded", "Failed"):
            yield pod


def gateways(pod: Pod, node: Node) -> dict[Address, tuple[Network, Address]]:
    """For each address of the pod that lies in a podCIDR of its node: that network, and the bridge's address in it."""
    found: dict[Address, tuple[Network, Address]] = {}
    for address in pod.addresses:
        for network in node.pod_cidrs:
            gateway = network[1] if network.num_addresses > 2 else network[0]
            if address in network and address != gateway:
                found[address] = (network, gateway)
    return found


def namespace(
    pod: Pod, node: Node, links_down: frozenset[tuple[str, str]], ipv6: bool, bridge: str, mtu_bytes: int
) -> Iterator[Op]:
    """The pod's namespace, its sysctls, and its veth; `bridge` is the one that the node's end is a port of, '' for none."""
    netns, node_ns = str(pod.ref), f"node/{node.meta.name}"
    device, port = ipam.POD_DEVICE, ipam.host_device(netns)
    yield Netns(netns)
    yield from pod_sysctls(netns, ipv6)
    yield Veth(
        netns,
        device,
        ipam.mac(netns, device),
        node_ns,
        port,
        ipam.mac(node_ns, port),
        peer_master=bridge,
        mtu_bytes=mtu_bytes,
        up=(netns, device) not in links_down,
        peer_up=(node_ns, port) not in links_down,
    )


def pod_sysctls(netns: str, ipv6: bool) -> tuple[Sysctl, ...]:
    return sysctls.of_pod(netns, ipv6)


def routed_addresses(pod: Pod, node: Node) -> Iterator[Op]:
    """Addresses, routes and neighbours on both sides of a pod that hangs by a route of its own."""
    netns, node_ns = str(pod.ref), f"node/{node.meta.name}"
    device, port = ipam.POD_DEVICE, ipam.host_device(netns)
    mac, port_mac = ipam.mac(netns, device), ipam.mac(node_ns, port)
    for address in pod.addresses:
        link = LINK_GATEWAY[address.version]
        yield DeviceAddress(netns, device, address, address.max_prefixlen)
        yield Route(netns, ipam.host_route(link), device=device)
        yield Route(netns, EVERYWHERE[address.version], gateway=link, device=device)
        # Permanent even where neighbours are learned: nobody has the gateway's address, so nobody would answer for it.
        yield Neighbour(netns, device, link, port_mac)
        # The node's end has no address: without a source the kernel would take that of whichever device comes first.
        source = next((own for own in node.addresses if own.version == address.version), None)
        yield Route(node_ns, ipam.host_route(address), device=port, source=source, owner=pod.ref)
        yield Neighbour(node_ns, port, address, mac)
