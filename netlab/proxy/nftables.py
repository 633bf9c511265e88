"""Mode `nftables`: table kube-proxy as kube-proxy's nftables back end makes it on a node, with its names, order and comments.

Decides the chains, sets and maps that every node has and fills them; what one service needs is in nftables_service.py. Refuses
to know how rules are written (rendering/nftables.py). Source: kubernetes pkg/proxy/nftables/proxier.go, v1.36.

Theory. nat-prerouting and nat-output look a packet up in the map service-ips (address, protocol, port) or service-nodeports and
go to the service's chain, which rewrites. nat-postrouting masquerades what was marked, and hairpin connections (a local endpoint
that talks to itself). At filter priority, what was not rewritten is looked up in no-endpoint-services/-nodeports (reject or
drop), and what is left of the Service addresses is refused by cluster-ips-check. Source ranges are checked before any rewriting.

One departure: detectLocal by interface matches the name (iifname) where kube-proxy v1.36 says iif, which cannot match a prefix
and fails to load while the interface does not exist.
"""

from netlab.model import Cluster, Node
from netlab.ops import Op, Ruleset, Sysctl
from netlab.proxy.nftables_service import Element, ServiceParts, service_parts
from netlab.proxy.service_ports import PortsByFamily, choose, service_ports_by_family
from netlab.proxy.settings import MASQUERADE_MARK, Settings, settings
from netlab.ruleset import (
    Base,
    Chain,
    CtDnat,
    CtState,
    Destination,
    DestinationLocal,
    Drop,
    Family,
    Field,
    Hook,
    InSet,
    Jump,
    Key,
    Lookup,
    MapDef,
    MarkSet,
    Masquerade,
    Match,
    OrMark,
    Reject,
    Rule,
    SetDef,
    Table,
    XorMark,
)
from netlab.ruleset import Ruleset as RulesetValue

NAME = "nftables"

TABLE = "kube-proxy"
ADDRESS_KEY = (Field.DADDR, Field.L4PROTO, Field.DPORT)
PORT_KEY = (Field.L4PROTO, Field.DPORT)
HAIRPIN_KEY = (Field.SADDR, Field.DADDR, Field.L4PROTO, Field.DPORT)


def plan(cluster: Cluster, node: Node, ports: PortsByFamily | None = None) -> tuple[Op, ...]:
    """The node's Ruleset: table kube-proxy in each family.

    `ports` is what service_ports_by_family gives; passing it saves working it out again for every node.
    """
    ports = service_ports_by_family(cluster) if ports is None else ports
    tables = tuple(_table(cluster, node, family, ports) for family in ports)
    netns = f"node/{node.meta.name}"
    # NodePorts on localhost are never served here; the kernel would inherit this from the machine.
    localnet = Sysctl(netns, "net/ipv4/conf/all/route_localnet", "0")
    return (localnet, Ruleset(netns, RulesetValue("nftables", tables)))


def _table(cluster: Cluster, node: Node, family: Family, ports: PortsByFamily) -> Table:
    set_ = settings(cluster, node, family, primary_by_default=True)
    services: list[ServiceParts] = []
    hairpins: dict[Key, None] = {}
    for port in ports[family]:
        chosen, here = choose(port, node)
        services.append(service_parts(port.front, chosen, set_.policy, set_.allows_node(port.front.source_ranges)))
        hairpins.update(dict.fromkeys((t.address, t.address, port.front.protocol, t.port) for t in here))
    chains = (*_base_chains(), *_shared_chains(set_), *(chain for service in services for chain in service.chains))
    return Table(family, TABLE, chains, _sets(services, tuple(hairpins), set_), _maps(services), "rules for kube-proxy")


def _sets(services: list[ServiceParts], hairpins: tuple[Key, ...], set_: Settings) -> tuple[SetDef, ...]:
    cluster_ips = tuple(dict.fromkeys(service.cluster_ip for service in services))
    sets = [
        SetDef("cluster-ips", (Field.DADDR,), cluster_ips, comment="Active ClusterIPs"),
        SetDef("hairpin-connections", HAIRPIN_KEY, hairpins, comment="service hairpin connections"),
    ]
    if set_.node_port_addresses is not None:
        # Loopback never: this mode does not serve NodePorts on localhost.
        own: tuple[Key, ...] = tuple((address,) for address in set_.node_port_addresses if not address.is_loopback)
        sets.append(SetDef("nodeport-ips", (Field.DADDR,), own, comment="IPs that accept NodePort traffic"))
    return (*sets, *(affinity for service in services for affinity in service.affinity_sets))


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


def _base_chains() -> tuple[Chain, ...]:
    new = (CtState(("new",)),)
    node_ports = Rule(new, (Jump("nodeport-endpoints-check"),))
    endpoints = Rule(new, (Jump("service-endpoints-check"),))
    cluster_ips = Rule(new, (Jump("cluster-ips-check"),))
    firewall = Rule(new, (Jump("firewall-check"),))
    services = Rule((), (Jump("services"),))
    return (
        # Source ranges are about the address that the client sent to, so they are looked at before DNAT.
        Chain("filter-prerouting-pre-dnat", (firewall,), Base(Hook.PREROUTING, "filter", -110)),
        Chain("filter-output-pre-dnat", (firewall,), Base(Hook.OUTPUT, "filter", -110)),
        Chain("filter-input", (node_ports, endpoints), Base(Hook.INPUT, "filter", 0)),
        Chain("filter-forward", (endpoints, cluster_ips), Base(Hook.FORWARD, "filter", 0)),
        Chain("filter-output", (endpoints, cluster_ips), Base(Hook.OUTPUT, "filter", 0)),
        Chain("nat-prerouting", (services,), Base(Hook.PREROUTING, "nat", -100)),
        Chain("nat-output", (services,), Base(Hook.OUTPUT, "nat", -100)),
        Chain("nat-postrouting", (Rule((), (Jump("masquerading"),)),), Base(Hook.POSTROUTING, "nat", 100)),
    )


def _shared_chains(set_: Settings) -> tuple[Chain, ...]:
    to_node: tuple[Match, ...]
    local: tuple[Match, ...]
    if set_.node_port_addresses is None:
        to_node, local = (set_.not_localhost,), (DestinationLocal(),)
    else:
        to_node, local = (InSet("nodeport-ips", (Field.DADDR,)),), ()
    return (
        Chain("nodeport-endpoints-check", (Rule(to_node, (Lookup("no-endpoint-nodeports", PORT_KEY),)),)),
        Chain("service-endpoints-check", (Rule((), (Lookup("no-endpoint-services", ADDRESS_KEY),)),)),
        Chain("firewall-check", (Rule((), (Lookup("firewall-ips", ADDRESS_KEY),)),)),
        Chain(
            "services",
            (
                *_masquerade_cluster_ips(set_),
                Rule((), (Lookup("service-ips", ADDRESS_KEY),)),
                Rule((*local, *to_node), (Lookup("service-nodeports", PORT_KEY),)),
            ),
        ),
        Chain(
            "masquerading",
            (
                Rule((MarkSet(MASQUERADE_MARK),), (XorMark(MASQUERADE_MARK), Masquerade())),
                Rule((CtDnat(), InSet("hairpin-connections", HAIRPIN_KEY)), (Masquerade(),)),
            ),
        ),
        Chain("cluster-ips-check", _cluster_ips_check(set_)),
        Chain("reject-chain", (Rule((), (Reject(),)),), comment="helper for @no-endpoint-services / @no-endpoint-nodeports"),
    )


def _masquerade_cluster_ips(set_: Settings) -> tuple[Rule, ...]:
    to_cluster_ip = InSet("cluster-ips", (Field.DADDR,))
    mark = (OrMark(MASQUERADE_MARK),)
    if set_.policy.masquerade_all:
        return (Rule((to_cluster_ip,), mark, "masquerade all clusterIP traffic"),)
    if set_.policy.remote is not None:
        # From outside the cluster it may leave this node again, and the answer must come back this way.
        return (Rule((to_cluster_ip, set_.policy.remote), mark, "masquerade clusterIP traffic from outside cluster"),)
    return ()


def _cluster_ips_check(set_: Settings) -> tuple[Rule, ...]:
    """What is left of traffic to Service addresses once the declared ports have been rewritten (rows 20 and 21)."""
    reject = Rule((InSet("cluster-ips", (Field.DADDR,)),), (Reject(),), "Reject traffic to invalid ports of ClusterIPs")
    if not set_.service_cidrs:
        return (reject,)
    return (reject, Rule((Destination(set_.service_cidrs),), (Drop(),), "Drop traffic to unallocated ClusterIPs"))
