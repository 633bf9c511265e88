"""What the Services of one block have in mode `nftables`, `layout: maps`: their elements of the sets and maps that all share.

Pure, and kept under the block and the node's view of it: nothing is worked out again that did not change. Affinity's chains are
those of the other layout (nftables_service.py).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from ipaddress import ip_network
from typing import Any, Literal, NamedTuple

from netlab.model import Address, Network, Protocol
from netlab.proxy.nftables_chains import ADDRESS_KEY, PORT_KEY
from netlab.proxy.nftables_service import COMMENT_MAX, ServiceParts, disjoint, service_parts
from netlab.proxy.port_blocks import PortBlock
from netlab.proxy.service_ports import Chosen, Frontend, PortEndpoints, Target, choose_at
from netlab.proxy.settings import View
from netlab.ruleset import Chain, DataMap, Drop, Goto, Key, SetDef, Verdict

ENDPOINTS, ALL_ENDPOINTS, EXTERNAL, EXTERNAL_LOCAL = "endpoints", "all-endpoints", "external", "external-local"
NODE_PORT = "nodeport-"
"""What the names of the same chains and maps for node ports begin with."""
COMMENTS = " comments"
"""Under a map's name and this, BlockElements has the texts of its elements."""
UNIQUE = ("cluster-ips", "hairpin-connections")


class Part(NamedTuple):
    """An element, and the set or map that it is for: of a set its key, of a map (key, verdict), of a DataMap (key, targets)."""

    where: str
    element: Any
    comment: str = ""


class Claimed(NamedTuple):
    """A frontend's key at one stage of a packet's way. It can belong to one service only."""

    stage: Literal["firewall", "nat", "filter"]
    key: Key


class Claim(NamedTuple):
    claimed: Claimed
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BlockElements:
    """A block's elements by the set or map that they are for, each in order.

    claims: what the block wants, no key twice; claimed: their keys. own: parts that need no claim. keys: the elements of UNIQUE.
    """

    claims: tuple[Claim, ...]
    own: tuple[Part, ...]
    claimed: frozenset[Claimed]
    elements: Mapping[str, tuple[Any, ...]]
    keys: Mapping[str, frozenset[Key]]
    chains: tuple[Chain, ...] = ()
    affinity_sets: tuple[SetDef, ...] = ()


@lru_cache(maxsize=64)
def elements_for(view: View) -> Callable[[PortBlock], BlockElements]:
    """block_elements for this view. Asked again for the same block, which is compared by identity, it has the answer at hand."""
    return lru_cache(maxsize=1 << 11)(partial(block_elements, view=view))


def block_elements(block: PortBlock, view: View) -> BlockElements:
    """The elements of the block's Services on a node that has this view."""
    claims: dict[Claimed, Claim] = {}
    own: list[Part] = []
    chains: list[Chain] = []
    affinity_sets: list[SetDef] = []
    for port in block.ports:
        chosen, here = choose_at(port, view.node, view.zone)
        front = port.front
        own.append(Part("cluster-ips", (front.cluster_ip,)))
        own += (Part("hairpin-connections", (t.address, t.address, front.protocol, t.port)) for t in here)
        service = _Service(front, chosen, _with_chains(port, chosen, view))
        for claim in service.claims(view):
            claims.setdefault(claim.claimed, claim)
        if service.sticky is not None:
            chains += (one for one in service.sticky.chains if not one.name.startswith("firewall-"))
            affinity_sets += service.sticky.affinity_sets
    return together(tuple(claims.values()), tuple(own), tuple(chains), tuple(affinity_sets))


def together(
    claims: tuple[Claim, ...], own: tuple[Part, ...], chains: tuple[Chain, ...], affinity_sets: tuple[SetDef, ...]
) -> BlockElements:
    """All elements, by where they go."""
    elements: dict[str, list[Any]] = {}
    for part in (*own, *(part for claim in claims for part in claim.parts)):
        elements.setdefault(part.where, []).append(part.element)
        if part.comment:
            elements.setdefault(part.where + COMMENTS, []).append(part.comment)
    keys = {name: dict.fromkeys(elements.get(name, ())) for name in UNIQUE}
    found = {**{name: tuple(values) for name, values in elements.items()}, **{name: tuple(one) for name, one in keys.items()}}
    unique = {name: frozenset(one) for name, one in keys.items()}
    return BlockElements(claims, own, frozenset(claim.claimed for claim in claims), found, unique, chains, affinity_sets)


def first_come(blocks: Iterable[BlockElements]) -> BlockElements:
    """All blocks as one, where services of two of them claim one key: the first has it, as in every other mode."""
    every = list(blocks)
    claims: dict[Claimed, Claim] = {}
    for block in every:
        for claim in block.claims:
            claims.setdefault(claim.claimed, claim)
    return together(
        tuple(claims.values()),
        tuple(part for block in every for part in block.own),
        tuple(one for block in every for one in block.chains),
        tuple(one for block in every for one in block.affinity_sets),
    )


def data_map(name: str, elements: tuple[Any, ...]) -> DataMap | None:
    """The DataMap of this name; None when the name is none of a DataMap."""
    kind, _, rest = name.partition(f"{ENDPOINTS}-")
    protocol, _, number = rest.partition("-")
    if not number:
        return None
    fields = PORT_KEY if kind.startswith(NODE_PORT) else ADDRESS_KEY
    comment = "endpoints of eTP Local, for short cuts" if ALL_ENDPOINTS in name else ""
    return DataMap(name, fields, Protocol(protocol.upper()), int(number), elements, comment)


def _with_chains(port: PortEndpoints, chosen: Chosen, view: View) -> ServiceParts | None:
    """The parts that a Service with affinity has in the other layout."""
    if port.front.affinity_s is None:
        return None
    return service_parts(port.front, chosen, view.policy, False)


@dataclass(frozen=True, slots=True)
class _Service:
    """One port. `sticky`: what it has with chains of its own, where it remembers its clients."""

    front: Frontend
    chosen: Chosen
    sticky: ServiceParts | None

    def claims(self, view: View) -> list[Claim]:
        front, chosen = self.front, self.chosen
        inside = chosen.local if front.internal_local else chosen.cluster
        outside = chosen.local if front.external_local else chosen.cluster
        allowed = front.load_balancer_ips and front.source_ranges and self.allowed(view)
        found = [self.firewall(ip, allowed) for ip in front.load_balancer_ips] if allowed else []
        found.append(self.nat(front.cluster_ip, inside) if inside else self.refusal(front.cluster_ip))
        addresses: tuple[Address | None, ...] = (*front.external_ips, *front.load_balancer_ips)
        if front.node_port is not None:
            addresses += (None,)
        for address in addresses:
            if chosen.anywhere:
                found.append(self.external(address, outside))
            if not outside:
                found.append(self.refusal(address))
        if self.sticky is not None:
            found = [claim for claim in found if claim.claimed.stage != "nat"]
            for element in self.sticky.service_ips:
                found.append(self._claim("nat", element.key, Part("service-ips", (element.key, element.verdict))))
            for element in self.sticky.node_ports:
                found.append(self._claim("nat", element.key, Part("service-nodeports", (element.key, element.verdict))))
        return found

    def key(self, address: Address | None) -> Key:
        """None: the node port."""
        front = self.front
        return (front.protocol, front.node_port or 0) if address is None else (address, front.protocol, front.port)

    def where(self, kind: str, targets: tuple[Target, ...]) -> str:
        return f"{kind}-{self.front.protocol.lower()}-{len(targets)}"

    def _claim(self, stage: Literal["firewall", "nat", "filter"], key: Key, *parts: Part) -> Claim:
        return Claim(Claimed(stage, key), parts)

    def nat(self, address: Address, targets: tuple[Target, ...]) -> Claim:
        key = self.key(address)
        return self._claim("nat", key, Part(self.where(ENDPOINTS, targets), (key, targets)))

    def external(self, address: Address | None, targets: tuple[Target, ...]) -> Claim:
        """Its kind; its endpoints; and with Local policy all endpoints for those who take the short cut."""
        key = self.key(address)
        where, prefix = ("service-nodeports", NODE_PORT) if address is None else ("service-ips", "")
        kind: Verdict = Goto(prefix + (EXTERNAL_LOCAL if self.front.external_local else EXTERNAL))
        parts = [Part(where, (key, kind))]
        if targets:
            parts.append(Part(self.where(prefix + ENDPOINTS, targets), (key, targets)))
        if self.front.external_local:
            every = self.chosen.cluster
            parts.append(Part(self.where(prefix + ALL_ENDPOINTS, every), (key, every)))
        return self._claim("nat", key, *parts)

    def refusal(self, address: Address | None) -> Claim:
        """Reject where no endpoint exists at all; drop where it is only this node that has none."""
        key = self.key(address)
        verdict: Verdict = Drop() if self.chosen.anywhere else Goto("reject-chain")
        where = "no-endpoint-nodeports" if address is None else "no-endpoint-services"
        return self._claim("filter", key, Part(where, (key, verdict), self.front.name[:COMMENT_MAX]))

    def allowed(self, view: View) -> tuple[Network, ...]:
        """The source ranges; where one holds the node's own address, the load-balancer IPs themselves may be sources too."""
        front = self.front
        own = tuple(ip_network(ip) for ip in front.load_balancer_ips) if view.allowed(front.source_ranges) else ()
        return disjoint((*front.source_ranges, *own))

    def firewall(self, address: Address, allowed: tuple[Network, ...]) -> Claim:
        key = self.key(address)
        sources = ((*key, n.network_address if n.prefixlen == n.max_prefixlen else n) for n in allowed)
        return self._claim("firewall", key, Part("firewall-ips", key), *(Part("firewall-sources", one) for one in sources))
