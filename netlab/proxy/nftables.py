"""Mode `nftables`: table kube-proxy as kube-proxy's nftables back end makes it on a node, with its names, order and comments.

Decides the chains, sets and maps that every node has and fills them; what one service needs is in nftables_service.py, what no
service changes in nftables_chains.py, the other layout in nftables_maps.py. Refuses to know how rules are written
(rendering/nftables.py). Source: kubernetes pkg/proxy/nftables/proxier.go, v1.36.

Theory. nat-prerouting and nat-output look a packet up in the map service-ips (address, protocol, port) or service-nodeports and
go to the service's chain, which rewrites. nat-postrouting masquerades what was marked, and hairpin connections (a local endpoint
that talks to itself). At filter priority, what was not rewritten is looked up in no-endpoint-services/-nodeports (reject or
drop), and what is left of the Service addresses is refused by cluster-ips-check. Source ranges are checked before any rewriting.

One departure: detectLocal by interface matches the name (iifname) where kube-proxy v1.36 says iif, which cannot match a prefix
and fails to load while the interface does not exist.
"""

from collections.abc import Callable
from functools import lru_cache

from netlab.model import Cluster, Layout, Node
from netlab.ops import Op, Ruleset, Sysctl
from netlab.proxy import nftables_maps
from netlab.proxy.nftables_chains import (
    ADDRESS_KEY,
    COMMENT,
    PORT_KEY,
    TABLE,
    base_chains,
    closing_chains,
    dispatch,
    endpoint_checks,
    shared_sets,
)
from netlab.proxy.nftables_service import Element, ServiceParts, service_parts
from netlab.proxy.port_blocks import PortBlock, blocks_of
from netlab.proxy.service_ports import choose_at, families
from netlab.proxy.settings import View, settings, view
from netlab.ruleset import Chain, Family, Field, Key, Lookup, MapDef, Rule, Table
from netlab.ruleset import Ruleset as RulesetValue

NAME = "nftables"
LAYOUTS: tuple[Layout, ...] = ("chains", "maps")


def plan(cluster: Cluster, node: Node) -> tuple[Op, ...]:
    """The node's Ruleset: table kube-proxy in each family."""
    table = nftables_maps.table if cluster.topology.cluster.proxy.layout == "maps" else _table
    tables = tuple(table(cluster, node, family) for family in families(cluster))
    netns = f"node/{node.meta.name}"
    # NodePorts on localhost are never served here; the kernel would inherit this from the machine.
    localnet = Sysctl(netns, "net/ipv4/conf/all/route_localnet", "0")
    return (localnet, Ruleset(netns, RulesetValue("nftables", tables)))


def _table(cluster: Cluster, node: Node, family: Family) -> Table:
    set_ = settings(cluster, node, family, primary_by_default=True)
    blocks = list(map(_parts_for(view(node, set_)), blocks_of(cluster).by_family[family]))
    services = [service for parts, _ in blocks for service in parts]
    hairpins = dict.fromkeys(hairpin for _, here in blocks for hairpin in here)
    firewall = Chain("firewall-check", (Rule((), (Lookup("firewall-ips", ADDRESS_KEY),)),))
    chains = (
        *base_chains(),
        *endpoint_checks(set_),
        firewall,
        Chain("services", dispatch(set_)),
        *closing_chains(set_),
        *(chain for service in services for chain in service.chains),
    )
    cluster_ips = tuple(dict.fromkeys(service.cluster_ip for service in services))
    sets = (*shared_sets(cluster_ips, tuple(hairpins), set_), *(one for service in services for one in service.affinity_sets))
    return Table(family, TABLE, chains, sets, _maps(services), COMMENT)


@lru_cache(maxsize=64)
def _parts_for(seen: View) -> Callable[[PortBlock], tuple[tuple[ServiceParts, ...], tuple[Key, ...]]]:
    """The parts of a block's ports on a node that has this view, and its hairpins. Asked again for the same block, they are
    at hand.
    """

    def parts(block: PortBlock) -> tuple[tuple[ServiceParts, ...], tuple[Key, ...]]:
        chosen = [(port.front, *choose_at(port, seen.node, seen.zone)) for port in block.ports]
        return (
            tuple(service_parts(front, one, seen.policy, seen.allowed(front.source_ranges)) for front, one, _ in chosen),
            tuple((t.address, t.address, front.protocol, t.port) for front, _, here in chosen for t in here),
        )

    return lru_cache(maxsize=1 << 12)(parts)


def _maps(services: list[ServiceParts]) -> tuple[MapDef, ...]:
    return (
        _map(
            "no-endpoint-services",
            ADDRESS_KEY,
            "vmap to drop or reject packets to services with no endpoints",
            [element for service in services for element in service.no_endpoint_services],
        ),
        _map(
            "no-endpoint-nodeports",
            PORT_KEY,
            "vmap to drop or reject packets to service nodeports with no endpoints",
            [element for service in services for element in service.no_endpoint_node_ports],
        ),
        _map(
            "firewall-ips",
            ADDRESS_KEY,
            "destinations that are subject to LoadBalancerSourceRanges",
            [element for service in services for element in service.firewall_ips],
        ),
        _map(
            "service-ips",
            ADDRESS_KEY,
            "ClusterIP, ExternalIP and LoadBalancer IP traffic",
            [element for service in services for element in service.service_ips],
        ),
        _map(
            "service-nodeports",
            PORT_KEY,
            "NodePort traffic",
            [element for service in services for element in service.node_ports],
        ),
    )


def _map(name: str, fields: tuple[Field, ...], comment: str, elements: list[Element]) -> MapDef:
    """Where two services claim one address and port the first wins, as it does in iptables mode."""
    first: dict[Key, Element] = {}
    for element in elements:
        first.setdefault(element.key, element)
    kept = first.values()
    comments = tuple(element.comment for element in kept)
    return MapDef(
        name, fields, tuple((element.key, element.verdict) for element in kept), comment, comments if any(comments) else ()
    )
