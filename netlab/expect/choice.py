"""Which endpoints of a Service port a node may choose: what is ready, near, or serves to the last (kube-proxy's topology.go).

It refuses to know who asks, and how.
"""

from netlab.endpoints import ServiceEndpoint
from netlab.model import Node


def usable(node: Node, endpoints: tuple[ServiceEndpoint, ...]) -> tuple[ServiceEndpoint, ...]:
    """Policy Cluster: the ready endpoints that topology hints leave; where none is ready, those that serve to the last."""
    ready = tuple(endpoint for endpoint in endpoints if endpoint.ready)
    if not ready:
        return tuple(endpoint for endpoint in endpoints if last_resort(endpoint))
    hinted_node = tuple(endpoint for endpoint in ready if node.meta.name in endpoint.node_hints)
    if hinted_node and all(endpoint.node_hints for endpoint in ready):
        return hinted_node
    hinted_zone = tuple(endpoint for endpoint in ready if node.zone in endpoint.zone_hints)
    if hinted_zone and all(endpoint.zone_hints for endpoint in ready):
        return hinted_zone
    return ready


def local_endpoints(node: Node, endpoints: tuple[ServiceEndpoint, ...]) -> tuple[ServiceEndpoint, ...]:
    """Policy Local: this node's ready endpoints; where none is ready, its own that serve to the last. Hints do not count."""
    own = tuple(endpoint for endpoint in endpoints if endpoint.node == node.meta.name)
    ready = tuple(endpoint for endpoint in own if endpoint.ready)
    return ready or tuple(endpoint for endpoint in own if last_resort(endpoint))


def last_resort(endpoint: ServiceEndpoint) -> bool:
    return endpoint.serving and endpoint.terminating
