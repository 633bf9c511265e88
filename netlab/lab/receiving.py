"""How results name whoever a packet reached: pods by name, everything else by `ip:port`, as the contract says."""

from collections.abc import Mapping

from netlab.model import Address, Cluster
from netlab.probes.values import place

Names = Mapping[tuple[Address, int], str]
"""(address, port) -> name; port 0 stands for every port of the address."""


def receivers(cluster: Cluster) -> Names:
    """The pods of the lab by address, those that are ending too; on their node's network by address and declared port."""
    names: dict[tuple[Address, int], str] = {}
    for pod in (*cluster.ending.values(), *cluster.pods.values()):
        for address in pod.addresses:
            if not pod.spec.host_network:
                names[address, 0] = str(pod.ref)
                continue
            for container in pod.spec.containers:
                names.update({(address, port.port): str(pod.ref) for port in container.ports})
    return names


def name_of(address: Address, port: int, names: Names) -> str:
    """A receiver as results name it."""
    return names.get((address, port)) or names.get((address, 0)) or place(address, port)
