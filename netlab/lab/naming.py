"""Whose address and port something is: names for what the kernel shows as numbers. Pure; it reads the Cluster and no plan.

It decides that a Service's frontend is named before the machine that has the address: a connection to a node's port is one to
the Service whose node port that is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from netlab.endpoints import external_ips, is_proxied, load_balancer_ips
from netlab.model import Address, Cluster, Protocol


@dataclass(frozen=True, slots=True)
class Names:
    """frontends: (address, port, protocol) -> `svc/NS/NAME:PORT`, address None for node ports. owners: address -> who has it."""

    frontends: Mapping[tuple[Address | None, int, str], str]
    owners: Mapping[Address, str]
    nodes: frozenset[Address]

    def destination(self, address: Address, port: int, protocol: str) -> str:
        """The Service or machine that a packet is sent to; '' when nobody known has the address."""
        found = self.frontends.get((address, port, protocol))
        if found is None and address in self.nodes:
            found = self.frontends.get((None, port, protocol))
        return found or self.owners.get(address, "")

    def owner(self, address: Address) -> str:
        return self.owners.get(address, "")


def names_of(cluster: Cluster) -> Names:
    frontends: dict[tuple[Address | None, int, str], str] = {}
    for service in cluster.services.values():
        if not is_proxied(service):
            continue
        for port in service.ports:
            name, protocol = f"{service.ref}:{port.name or port.port}", port.protocol.lower()
            families = external_ips(service, "IPv4"), external_ips(service, "IPv6")
            balanced = load_balancer_ips(service, "IPv4"), load_balancer_ips(service, "IPv6")
            for addresses in (service.cluster_ips, *families, *balanced):
                frontends.update(dict.fromkeys(((address, port.port, protocol) for address in addresses), name))
            if port.node_port:
                frontends[None, port.node_port, protocol] = f"{name} (node port)"
    owners = {address: f"host/{host.name}" for host in cluster.topology.hosts for address in host.addresses}
    for pod in (*cluster.ending.values(), *cluster.pods.values()):
        if not pod.spec.host_network:
            owners.update({address: str(pod.ref) for address in pod.addresses})
    nodes: set[Address] = set()
    for name, node in cluster.nodes.items():
        bridges = [cidr[1] for cidr in node.pod_cidrs if cidr.num_addresses > 2]
        owners.update(dict.fromkeys((*bridges, *node.addresses), f"node/{name}"))
        nodes |= {*bridges, *node.addresses}
    return Names(frontends, owners, frozenset(nodes))


def named(row: Mapping[str, Any], names: Names) -> dict[str, Any]:
    """A conntrack row with `names`: of source, destination, who answers and to whom; '' where nobody known has the address."""
    protocol = str(row["protocol"]) if row["protocol"] in {one.lower() for one in Protocol} else ""
    return {
        **row,
        "names": {
            "src": names.owner(ip_address(row["src"])),
            "dst": names.destination(ip_address(row["dst"]), row["dport"], protocol),
            "reply_src": names.owner(ip_address(row["reply_src"])),
            "reply_dst": names.owner(ip_address(row["reply_dst"])),
        },
    }
