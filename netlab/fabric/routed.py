"""Fabric `routed`: no bridge. A pod has a /32 and a link-local gateway, its node one route per pod.

Nothing is learned and nothing is flooded, so that a thousand pods cost no more per pod than ten.
"""

from collections.abc import Mapping
from itertools import chain

from netlab import overlay
from netlab.fabric import lan, pods, sysctls
from netlab.memory import kept_for_each
from netlab.model import Cluster, Node, Pod
from netlab.ops import Op

NAME = "routed"


def plan(cluster: Cluster) -> tuple[Op, ...]:
    """The namespaces and links of machines and pods."""
    rest = (cluster.nodes, cluster.links_down, sysctls.speaks_ipv6(cluster), overlay.mtu_bytes(cluster))
    return (*lan.plan(cluster), *chain.from_iterable(_pod_ops(pods.wired(cluster), rest)))


@kept_for_each
def _pod_ops(pod: Pod, rest: tuple[Mapping[str, Node], frozenset[tuple[str, str]], bool, int]) -> tuple[Op, ...]:
    nodes, links_down, ipv6, mtu_bytes = rest
    node = nodes[pod.node]
    return (*pods.namespace(pod, node, links_down, ipv6, "", mtu_bytes), *pods.routed_addresses(pod, node))
