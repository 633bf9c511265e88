"""Mode `nftables`, `layout: maps`: a Service is some elements of sets and maps that all Services share, and never a chain.

Decides those sets and maps, and the few chains that ask them; which elements one Service has is in nftables_elements.py. Refuses
to know how rules are written. What it does to a packet is what the layout with chains does (nftables.py); only session
affinity keeps its chains there, because it has to remember clients an endpoint.

Theory. The map service-ips says what KIND of frontend an address is: `external` (masquerade), `external-local` (short cuts
first), or a chain of its own (affinity); ClusterIPs are not in it. Then chain `endpoints` has one rule for each protocol and
number N of endpoints in use: rewrite to what the map endpoints-tcp-N has under address, protocol, port and a random number below
N. all-endpoints-tcp-N is asked instead by what takes a short cut. Node ports have the same again, keyed without the address.

Elements are put together block by block (port_blocks.py), and a block's work is kept: after one changed endpoint, 31 Services
are looked at again and not 10,000.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import Any

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
    UNIQUE,
    BlockElements,
    data_map,
    elements_for,
    first_come,
)
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
    seen = view(node, set_)
    blocks = list(map(elements_for(seen), blocks_of(cluster).by_family[family]))
    kept = _kept(seen, family)
    every: dict[str, tuple[Any, ...]]
    if not kept.apart("claimed", [block.claimed for block in blocks]):
        blocks = [first_come(blocks)]
    every = {
        name: kept.once(name, blocks) if name in UNIQUE else kept.joined(name, blocks)
        for name in sorted({name for block in blocks for name in block.elements}, key=_by_number)
    }
    data = tuple(made for name, elements in every.items() if (made := data_map(name, elements)) is not None)
    chains = (
        *base_chains(),
        *endpoint_checks(set_),
        Chain("firewall-check", _firewall()),
        Chain("services", (*dispatch(set_), Rule((), (Goto(ENDPOINTS),)))),
        *_kinds(set_.policy, data, ""),
        *_kinds(set_.policy, data, NODE_PORT),
        *closing_chains(set_),
        *(one for block in blocks for one in block.chains),
    )
    sets = (
        *shared_sets(every.get("cluster-ips", ()), every.get("hairpin-connections", ()), set_),
        SetDef("firewall-ips", ADDRESS_KEY, every.get("firewall-ips", ()), None, "subject to LoadBalancerSourceRanges"),
        SetDef("firewall-sources", SOURCE_KEY, every.get("firewall-sources", ()), None, "sources they allow", interval=True),
        *(one for block in blocks for one in block.affinity_sets),
    )
    maps = tuple(
        MapDef(name, fields, every.get(name, ()), comment, every.get(name + COMMENTS, ())) for name, fields, comment in _MAPS
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


# ---------------------------------------------------------------- elements of all blocks together


def _by_number(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (name, 0)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What was put together for the last cluster, each with the pieces it was made of: the same pieces make the same."""

    whole: dict[str, tuple[list[Any], tuple[Any, ...]]] = field(default_factory=dict)
    disjoint: dict[str, tuple[list[frozenset[Any]], bool]] = field(default_factory=dict)

    def joined(self, name: str, blocks: Sequence[BlockElements]) -> tuple[Any, ...]:
        """The elements of all blocks."""
        pieces = [block.elements[name] for block in blocks if name in block.elements]
        known = self.whole.get(name)
        if known is None or known[0] != pieces:
            self.whole[name] = known = (pieces, tuple(chain.from_iterable(pieces)))
        return known[1]

    def once(self, name: str, blocks: Sequence[BlockElements]) -> tuple[Any, ...]:
        """The same where several services may bring the same element."""
        every = self.joined(name, blocks)
        return every if self.apart(name, [block.keys[name] for block in blocks]) else tuple(dict.fromkeys(every))

    def apart(self, name: str, sets: list[frozenset[Any]]) -> bool:
        """No two of them have an element in common."""
        known = self.disjoint.get(name)
        if known is None or known[0] != sets:
            self.disjoint[name] = known = (sets, len(frozenset().union(*sets)) == sum(map(len, sets)))
        return known[1]


@lru_cache(maxsize=64)
def _kept(seen: View, family: Family) -> _Kept:
    del seen, family  # they are the key
    return _Kept()
