"""What one port of one Service needs in mode `nftables`: its elements of the shared sets and maps, and its own chains and sets.

A pure function of (frontend, chosen endpoints, policy), memoised: nodes that choose alike share one result, and so do two plans
one change apart, whose comparison is then mostly `is`. Source: kubernetes pkg/proxy/nftables/proxier.go `syncProxyRules`, v1.36.
"""

from base64 import b32encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import collapse_addresses, ip_network
from typing import NamedTuple

from netlab.model import Address, Network
from netlab.proxy.service_ports import Chosen, Frontend, Target
from netlab.proxy.settings import MASQUERADE_MARK, Policy
from netlab.ruleset import (
    Chain,
    Dnat,
    DnatRandom,
    Drop,
    Field,
    Goto,
    GotoRandom,
    InSet,
    Key,
    L4Proto,
    Match,
    OrMark,
    Rule,
    SetDef,
    Source,
    SourceLocal,
    Statement,
    UpdateSet,
    Verdict,
)

NAME_MAX = 240
COMMENT_MAX = 128


class Element(NamedTuple):
    """One element of a verdict map."""

    key: Key
    verdict: Verdict
    comment: str = ""


@dataclass(frozen=True, slots=True)
class ServiceParts:
    """Elements by the set or map they belong to; then what is the service's own."""

    cluster_ip: Key
    service_ips: tuple[Element, ...]
    node_ports: tuple[Element, ...]
    no_endpoint_services: tuple[Element, ...]
    no_endpoint_node_ports: tuple[Element, ...]
    firewall_ips: tuple[Element, ...]
    affinity_sets: tuple[SetDef, ...]
    chains: tuple[Chain, ...]


@lru_cache(maxsize=1 << 16)
def service_parts(front: Frontend, chosen: Chosen, policy: Policy, allow_from_node: bool) -> ServiceParts:
    """`allow_from_node`: a source range holds the node's own address, so the load-balancer IP itself may be a source too."""
    return _Service(front, chosen, policy, allow_from_node).parts()


@dataclass(frozen=True, slots=True)
class _Service:
    """The names and questions that several of a service's parts share."""

    front: Frontend
    chosen: Chosen
    policy: Policy
    allow_from_node: bool

    def parts(self) -> ServiceParts:
        return ServiceParts(
            cluster_ip=(self.front.cluster_ip,),
            service_ips=self.service_ips(),
            node_ports=self.node_ports(),
            no_endpoint_services=self.no_endpoint_services(),
            no_endpoint_node_ports=self.no_endpoint_node_ports(),
            firewall_ips=self.firewall_ips(),
            affinity_sets=self.affinity_sets(),
            chains=self.chains(),
        )

    # ---- which chains there are

    @property
    def base_name(self) -> str:
        front = self.front
        return f"{front.service.namespace}/{front.service.name}/{front.protocol.lower()}/{front.port_name}"

    def chain(self, prefix: str) -> str:
        return f"{prefix}-{_hashed(self.base_name)}"

    def of_endpoint(self, prefix: str, target: Target) -> str:
        address = str(target.address).replace(":", ".")  # a name may hold no colon
        return f"{prefix}-{_hashed(f'{self.base_name}__{address}/{target.port}')}"

    @property
    def internal_chain(self) -> str:
        return self.chain("local" if self.front.internal_local else "service")

    @property
    def has_internal(self) -> bool:
        return bool(self.chosen.local) if self.front.internal_local else self.chosen.anywhere

    @property
    def has_external(self) -> bool:
        return bool(self.chosen.local) if self.front.external_local else self.chosen.anywhere

    @property
    def has_firewall(self) -> bool:
        """Unlike in iptables mode it is there without endpoints too (row 19)."""
        return bool(self.front.load_balancer_ips) and bool(self.front.source_ranges)

    # ---- elements of shared sets and maps

    def key(self, address: Address) -> Key:
        return (address, self.front.protocol, self.front.port)

    def service_ips(self) -> tuple[Element, ...]:
        front = self.front
        elements: list[Element] = []
        if self.has_internal:
            elements.append(Element(self.key(front.cluster_ip), Goto(self.internal_chain)))
        if self.chosen.anywhere:
            external = Goto(self.chain("external"))
            elements += (Element(self.key(ip), external) for ip in (*front.external_ips, *front.load_balancer_ips))
        return tuple(elements)

    def node_ports(self) -> tuple[Element, ...]:
        port = self.front.node_port
        if port is None or not self.chosen.anywhere:
            return ()
        return (Element((self.front.protocol, port), Goto(self.chain("external"))),)

    def refusal(self) -> Verdict:
        """Reject where no endpoint exists at all; drop where it is only this node that has none."""
        return Drop() if self.chosen.anywhere else Goto("reject-chain")

    def no_endpoint_services(self) -> tuple[Element, ...]:
        front = self.front
        addresses: tuple[Address, ...] = () if self.has_internal else (front.cluster_ip,)
        if not self.has_external:
            addresses += front.external_ips + front.load_balancer_ips
        return tuple(Element(self.key(ip), self.refusal(), front.name[:COMMENT_MAX]) for ip in addresses)

    def no_endpoint_node_ports(self) -> tuple[Element, ...]:
        port = self.front.node_port
        if port is None or self.has_external:
            return ()
        return (Element((self.front.protocol, port), self.refusal(), self.front.name[:COMMENT_MAX]),)

    def firewall_ips(self) -> tuple[Element, ...]:
        if not self.has_firewall:
            return ()
        return tuple(Element(self.key(ip), Goto(self.chain("firewall"))) for ip in self.front.load_balancer_ips)

    def affinity_sets(self) -> tuple[SetDef, ...]:
        timeout_s = self.front.affinity_s
        if timeout_s is None:
            return ()
        return tuple(
            SetDef(self.of_endpoint("affinity", target), (Field.SADDR,), timeout_s=timeout_s) for target in self.chosen.reachable
        )

    # ---- chains of its own

    def rule(self, matches: tuple[Match, ...], statements: tuple[Statement, ...], comment: str = "") -> Rule:
        return Rule(matches, statements, comment, self.front.owner)

    def chains(self) -> tuple[Chain, ...]:
        front, chosen = self.front, self.chosen
        chains: list[Chain] = []
        if chosen.cluster and front.uses_cluster:
            chains.append(Chain(self.chain("service"), self.balance_rules(chosen.cluster)))
        if chosen.local and front.uses_local:
            chains.append(Chain(self.chain("local"), self.balance_rules(chosen.local)))
        if chosen.anywhere and front.external:
            chains.append(Chain(self.chain("external"), self.external_rules()))
        if self.has_firewall:
            chains.append(Chain(self.chain("firewall"), self.firewall_rules()))
        if front.affinity_s is not None:
            chains += (Chain(self.of_endpoint("endpoint", t), self.endpoint_rules(t)) for t in chosen.reachable)
        return tuple(chains)

    def balance_rules(self, targets: tuple[Target, ...]) -> tuple[Rule, ...]:
        """One rule for any number of endpoints; with affinity one more an endpoint, and a chain for each to remember in."""
        if self.front.affinity_s is None:
            spread = DnatRandom(tuple((target.address, target.port) for target in targets))
            return (self.rule((L4Proto(self.front.protocol),), (spread,)),)
        remembered = (
            self.rule(
                (InSet(self.of_endpoint("affinity", target), (Field.SADDR,)),), (Goto(self.of_endpoint("endpoint", target)),)
            )
            for target in targets
        )
        return (*remembered, self.rule((), (GotoRandom(tuple(self.of_endpoint("endpoint", t) for t in targets)),)))

    def endpoint_rules(self, target: Target) -> tuple[Rule, ...]:
        return (
            self.rule((), (UpdateSet(self.of_endpoint("affinity", target)),)),
            self.rule((L4Proto(self.front.protocol),), (Dnat(target.address, target.port),)),
        )

    def external_rules(self) -> tuple[Rule, ...]:
        """Masquerade (Cluster policy), or the short cuts of pods and of the node itself (Local policy); then the policy."""
        mark = (OrMark(MASQUERADE_MARK),)
        cluster = (Goto(self.chain("service")),)
        if not self.front.external_local:
            return (self.rule((), mark, "masquerade"), self.rule((), cluster))
        rules: list[Rule] = []
        if self.policy.local is not None:
            rules.append(self.rule((self.policy.local,), cluster, "short-circuit pod traffic"))
        # The load-balancer IP may be an address of the node: its own traffic would then keep that address as its source.
        rules.append(self.rule((SourceLocal(),), mark, "masquerade local traffic"))
        rules.append(self.rule((SourceLocal(),), cluster, "short-circuit local traffic"))
        if self.has_external:
            rules.append(self.rule((), (Goto(self.chain("local")),)))
        return tuple(rules)

    def firewall_rules(self) -> tuple[Rule, ...]:
        own = tuple(ip_network(ip) for ip in self.front.load_balancer_ips) if self.allow_from_node else ()
        return (self.rule((Source(disjoint((*self.front.source_ranges, *own)), negate=True),), (Drop(),)),)


def disjoint(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    """The same addresses, in order and none twice: intervals that overlap are an error to some versions of nft."""
    collapsed: Iterator[Network] = collapse_addresses(networks)  # type: ignore[type-var]  # one family only, unknown to mypy
    return tuple(collapsed)


def _hashed(name: str) -> str:
    """The name with its hash in front, so that names that differ late differ early; cut to what the kernel takes."""
    full = f"{b32encode(sha256(name.encode()).digest()[:5]).decode()}-{name}"
    return full if len(full) <= NAME_MAX else full[: NAME_MAX - 3] + "..."
