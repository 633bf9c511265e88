"""Impaired links: which device does what to the packets that it sends.

Decides: `out` of a link is what the machine sends, shaped at its own device; `in` is what it gets, shaped at the far end, where
it is sent: a port of the LAN's switch, or the node's end of a pod's link. So nothing is shaped twice and nothing on arrival.
A fault takes the place of what the topology says of that device.
"""

from collections.abc import Iterable, Iterator, Mapping

from netlab import ipam
from netlab.fabric.lan import ROUTER
from netlab.model import Address, Cluster, Impairment
from netlab.ops import Op, Qdisc, Veth

Device = tuple[str, str]


def plan(cluster: Cluster, ops: Iterable[Op]) -> Iterator[Qdisc]:
    """What the devices among `ops` need."""
    wanted = in_force(cluster)
    if wanted:
        for op in ops:
            if isinstance(op, Veth):
                for device in ((op.netns, op.device), (op.peer_netns, op.peer_device)):
                    if value := wanted.get(device):
                        yield Qdisc(*device, value)


def in_force(cluster: Cluster) -> Mapping[Device, Impairment]:
    """What each device does to what it sends; devices may be named that are not there any more."""
    return {**of_topology(cluster), **cluster.impaired}


def of_topology(cluster: Cluster) -> dict[Device, Impairment]:
    """What the topology's `links:` say, without faults."""
    found: dict[Device, Impairment] = {}
    for link in cluster.topology.links:
        netns, addresses = _end(cluster, link.end)
        attachments = (
            ipam.router_attachments(cluster.topology) if netns == ROUTER else ipam.attachments(cluster.topology, addresses)
        )
        for attachment in attachments:
            if attachment.lan == link.lan:
                found[netns, attachment.device] = link.out
                found[f"lan/{link.lan}", ipam.lan_port(netns)] = link.into
    return found


def told(cluster: Cluster) -> tuple[str, ...]:
    """A line a device for people, in a lasting order."""
    return tuple(f"{netns} {device} sends with {value}" for (netns, device), value in sorted(in_force(cluster).items()) if value)


def _end(cluster: Cluster, name: str) -> tuple[str, tuple[Address, ...]]:
    if name == "router":
        return ROUTER, ()
    if name in cluster.nodes:
        return f"node/{name}", cluster.nodes[name].addresses
    return f"host/{name}", next((host.addresses for host in cluster.topology.hosts if host.name == name), ())
