"""Ingress: what the controllers of a cluster are told. Pure: Cluster -> ops. One module a proxy turns a Table into its language.

table.py    the routes of all Ingresses that a controller serves, merged; what is wrong with them, as sentences
haproxy.py  configuration with backends allocated ahead, map files, and the runtime commands between two tables
nginx.py    configuration files
traefik.py  files for its file provider
"""

from netlab import ingresses
from netlab.images import ProxyName
from netlab.ingress import table
from netlab.ingresses import Table
from netlab.model import Cluster, Key
from netlab.ops import IngressProxy


def plan(cluster: Cluster) -> tuple[IngressProxy, ...]:
    """A proxy for each controller pod that runs; those of one flavour are told the same."""
    found, tables = [], dict[ProxyName, Table]()
    for one in ingresses.controllers(cluster):
        if one.flavour not in tables:
            tables[one.flavour] = table.table(cluster, one.flavour)
        pod = cluster.pods[Key(one.pod.namespace, one.pod.name)]
        ipv6 = any(address.version == 6 for address in (*pod.addresses, *cluster.nodes[one.node].addresses))
        found.append(IngressProxy(one.netns, str(one.pod), one.proxy, tables[one.flavour], ipv6))
    return tuple(found)
