"""Fabric `routed`: no bridge. A pod has a /32 and a link-local gateway, its node one route per pod.

Nothing is learned and nothing is flooded, so that a thousand pods cost no more per pod than ten.
"""

from netlab import overlay
from netlab.fabric import lan, pods, sysctls
from netlab.model import Cluster
from netlab.ops import Op

NAME = "routed"


def plan(cluster: Cluster) -> tuple[Op, ...]:
    """The namespaces and links of machines and pods."""
    ops: list[Op] = list(lan.plan(cluster))
    ipv6 = sysctls.speaks_ipv6(cluster)
    mtu_bytes = overlay.mtu_bytes(cluster)
    for pod, node in pods.wired(cluster):
        ops.extend(pods.namespace(pod, node, cluster.links_down, ipv6, "", mtu_bytes))
        ops.extend(pods.routed_addresses(pod, node))
    return tuple(ops)
