"""Mode `nftables`, `layout: maps`: a Service is some elements of sets and maps that all Services share, and never a chain.

Decides those sets and maps, and the few chains that ask them; which elements one Service has is in nftables_elements.py. Refuses
to know how rules are written. What it does to a packet is what the layout with chains does (nftables.py); only session
affinity keeps its chains there, because it has to remember clients an endpoint.

Theory. The map service-ips says what KIND of frontend an address is: `external` (masquerade), `external-local` (short cuts
first), or a chain of its own (affinity); ClusterIPs are not in it. Then chain `endpoints` has one rule for each protocol and
number N of endpoints in use: rewrite to what the map endpoints-tcp-N has under address, protocol, port and a random number below
N. all-endpoints-tcp-N is asked instead by what takes a short cut. Node ports have the same again, keyed without the address.

Elements are put together block by block (nftables_together.py), and a block's work is kept: after one changed endpoint, 15
Services are looked at again and not 10,000.
"""

from functools import lru_cache

from netlab.model import Cluster, Node
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
from netlab.proxy.nftables_elements import (
    ALL_ENDPOINTS,
    COMMENTS,
    ENDPOINTS,
    EXTERNAL,
    EXTERNAL_LOCAL,
    NODE_PORT,
)
from netlab.proxy.nftables_together import Kept
from netlab.proxy.port_blocks import blocks_of
from netlab.proxy.settings import MASQUERADE_MARK, Policy, View, settings, view
from netlab.ruleset import (
    Chain,
    DataMap,
    DnatLookup,
    Drop,
    Family,
    Field,
    Goto,
    InSet,
    L4Proto,
    MapDef,
    OrMark,
    Rule,
    SetDef,
    SourceLocal,
    Table,
)

SOURCE_KEY = (*ADDRESS_KEY, Field.SADDR)
_MAPS = (
    ("no-endpoint-services", ADDRESS_KEY, "vmap to drop or reject packets to services with no endpoints"),
    ("no-endpoint-nodeports", PORT_KEY, "vmap to drop or reject packets to service nodeports with no endpoints"),
    ("service-ips", ADDRESS_KEY, "what is special about ExternalIPs, LoadBalancer IPs and ClusterIPs"),
    ("service-nodeports", PORT_KEY, "NodePort traffic"),
)


def table(cluster: Cluster, node: Node, family: Family) -> Table:
    """Table kube-proxy of the node in this family."""
    set_ = settings(cluster, node, family, primary_by_default=True)
    every = _kept(view(node, set_), family).together(blocks_of(cluster).by_family[family])
    data, elements = every.data_maps, every.elements
    chains = (
        *base_chains(),
        *endpoint_checks(set_),
        Chain("firewall-check", _firewall()),
        Chain("services", (*dispatch(set_), Rule((), (Goto(ENDPOINTS),)))),
        *_kinds(set_.policy, data, ""),
        *_kinds(set_.policy, data, NODE_PORT),
        *closing_chains(set_),
        *every.chains,
    )
    sets = (
        *shared_sets(elements.get("cluster-ips", ()), elements.get("hairpin-connections", ()), set_),
        SetDef("firewall-ips", ADDRESS_KEY, elements.get("firewall-ips", ()), None, "subject to LoadBalancerSourceRanges"),
        SetDef("firewall-sources", SOURCE_KEY, elements.get("firewall-sources", ()), None, "sources they allow", interval=True),
        *every.affinity_sets,
    )
    maps = tuple(
        MapDef(name, fields, elements.get(name, ()), comment, elements.get(name + COMMENTS, ()))
        for name, fields, comment in _MAPS
    )
    return Table(family, TABLE, chains, sets, maps, COMMENT, data)


# ---------------------------------------------------------------- chains


def _firewall() -> tuple[Rule, ...]:
    return (Rule((InSet("firewall-ips", ADDRESS_KEY), InSet("firewall-sources", SOURCE_KEY, negate=True)), (Drop(),)),)


def _kinds(policy: Policy, data: tuple[DataMap, ...], prefix: str) -> tuple[Chain, ...]:
    """What becomes of the kinds of frontend; with `prefix` of those that are node ports."""
    endpoints, everywhere = Goto(prefix + ENDPOINTS), Goto(prefix + ALL_ENDPOINTS)
    mark = (OrMark(MASQUERADE_MARK),)
    local: list[Rule] = []
    if policy.local is not None:
        local.append(Rule((policy.local,), (everywhere,), "short-circuit pod traffic"))
    # The load-balancer IP may be an address of the node: its own traffic would then keep that address as its source.
    local.append(Rule((SourceLocal(),), mark, "masquerade local traffic"))
    local.append(Rule((SourceLocal(),), (everywhere,), "short-circuit local traffic"))
    return (
        Chain(prefix + EXTERNAL, (Rule((), mark, "masquerade"), Rule((), (endpoints,)))),
        Chain(prefix + EXTERNAL_LOCAL, (*local, Rule((), (endpoints,)))),
        Chain(prefix + ENDPOINTS, _balance(data, prefix + ENDPOINTS)),
        Chain(prefix + ALL_ENDPOINTS, _balance(data, prefix + ALL_ENDPOINTS)),
    )


def _balance(data: tuple[DataMap, ...], chain_name: str) -> tuple[Rule, ...]:
    """One rule for each protocol and number of endpoints in use; a frontend is in one map at most."""
    mine = (one for one in data if one.name == f"{chain_name}-{one.protocol.lower()}-{one.modulus}")
    return tuple(Rule((L4Proto(one.protocol),), (DnatLookup(one.name, one.fields, one.modulus),)) for one in mine)


@lru_cache(maxsize=64)
def _kept(seen: View, family: Family) -> Kept:
    del family  # it is part of the key
    return Kept(seen)
