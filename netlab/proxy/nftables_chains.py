"""What both layouts of mode `nftables` have: the base chains, and the chains that need no word about any Service.

Decides the hooks and their order, masquerading, refusing. Source: kubernetes pkg/proxy/nftables/proxier.go, v1.36.
"""

from netlab.proxy.settings import MASQUERADE_MARK, Settings
from netlab.ruleset import (
    Base,
    Chain,
    CtDnat,
    CtState,
    Destination,
    DestinationLocal,
    Drop,
    Field,
    Hook,
    InSet,
    Jump,
    Key,
    Lookup,
    MarkSet,
    Masquerade,
    Match,
    OrMark,
    Reject,
    Rule,
    SetDef,
    XorMark,
)

TABLE = "kube-proxy"
COMMENT = "rules for kube-proxy"
ADDRESS_KEY = (Field.DADDR, Field.L4PROTO, Field.DPORT)
PORT_KEY = (Field.L4PROTO, Field.DPORT)
HAIRPIN_KEY = (Field.SADDR, Field.DADDR, Field.L4PROTO, Field.DPORT)


def base_chains() -> tuple[Chain, ...]:
    """Where the table hangs in the kernel."""
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


def endpoint_checks(set_: Settings) -> tuple[Chain, ...]:
    """Refuse what is addressed to a Service that has nobody to answer."""
    return (
        Chain("nodeport-endpoints-check", (Rule(_to_node(set_), (Lookup("no-endpoint-nodeports", PORT_KEY),)),)),
        Chain("service-endpoints-check", (Rule((), (Lookup("no-endpoint-services", ADDRESS_KEY),)),)),
    )


def dispatch(set_: Settings) -> tuple[Rule, ...]:
    """Chain `services`: masquerade what comes to ClusterIPs from outside, then look address and node port up."""
    local: tuple[Match, ...] = (DestinationLocal(),) if set_.node_port_addresses is None else ()
    return (
        *_masquerade_cluster_ips(set_),
        Rule((), (Lookup("service-ips", ADDRESS_KEY),)),
        Rule((*local, *_to_node(set_)), (Lookup("service-nodeports", PORT_KEY),)),
    )


def closing_chains(set_: Settings) -> tuple[Chain, ...]:
    """Masquerading after the rewriting, and what is left of traffic to Service addresses."""
    return (
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


def shared_sets(cluster_ips: tuple[Key, ...], hairpins: tuple[Key, ...], set_: Settings) -> tuple[SetDef, ...]:
    """The ClusterIPs, the endpoints that may talk to themselves, and the addresses that take NodePort traffic."""
    sets = [
        SetDef("cluster-ips", (Field.DADDR,), cluster_ips, comment="Active ClusterIPs"),
        SetDef("hairpin-connections", HAIRPIN_KEY, hairpins, comment="service hairpin connections"),
    ]
    if set_.node_port_addresses is not None:
        # Loopback never: this mode does not serve NodePorts on localhost.
        own: tuple[Key, ...] = tuple((address,) for address in set_.node_port_addresses if not address.is_loopback)
        sets.append(SetDef("nodeport-ips", (Field.DADDR,), own, comment="IPs that accept NodePort traffic"))
    return tuple(sets)


def _to_node(set_: Settings) -> tuple[Match, ...]:
    if set_.node_port_addresses is None:
        return (set_.not_localhost,)
    return (InSet("nodeport-ips", (Field.DADDR,)),)


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
