"""What one port of one Service needs in mode `iptables`: its rules in the shared chains, and the chains of its own.

A pure function of (frontend, chosen endpoints, policy), memoised: nodes that choose alike share one result, and so do two plans
one change apart, whose comparison is then mostly `is`. Source: kubernetes pkg/proxy/iptables/proxier.go `syncProxyRules`, v1.36.
"""

from base64 import b32encode
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_network

from netlab.model import Address, Network, Protocol
from netlab.proxy.service_ports import Chosen, Frontend, Target
from netlab.proxy.settings import Policy
from netlab.ruleset import (
    Accept,
    Chain,
    Destination,
    DestinationLocal,
    DestinationPort,
    Dnat,
    Drop,
    Jump,
    L4Proto,
    Match,
    Probability,
    RecentlySeen,
    Reject,
    RememberSource,
    Rule,
    Source,
    SourceLocal,
    Statement,
)

MARK = (Jump("KUBE-MARK-MASQ"),)


@dataclass(frozen=True, slots=True)
class ServiceRules:
    """Rules by the chain they belong to (`nat_services`: KUBE-SERVICES of table nat), and the service's own nat chains."""

    nat_services: tuple[Rule, ...]
    nat_node_ports: tuple[Rule, ...]
    filter_services: tuple[Rule, ...]
    filter_external: tuple[Rule, ...]
    filter_firewall: tuple[Rule, ...]
    filter_node_ports: tuple[Rule, ...]
    chains: tuple[Chain, ...]


@lru_cache(maxsize=1 << 16)
def service_rules(front: Frontend, chosen: Chosen, policy: Policy, allow_from_node: bool, large: bool) -> ServiceRules:
    """`allow_from_node`: a source range holds the node's own address, so the load-balancer IP itself may be a source too.

    `large`: the cluster has so many endpoints that the rules of each have no comment (kube-proxy's large-cluster mode).
    """
    return _Service(front, chosen, policy, allow_from_node, large).rules()


@dataclass(frozen=True, slots=True)
class _Service:
    """The names and questions that several of a service's rules share."""

    front: Frontend
    chosen: Chosen
    policy: Policy
    allow_from_node: bool
    large: bool

    def rules(self) -> ServiceRules:
        return ServiceRules(
            nat_services=self.nat_services(),
            nat_node_ports=self.nat_node_ports(),
            filter_services=self.filter_services(),
            filter_external=self.filter_external(),
            filter_firewall=self.filter_firewall(),
            filter_node_ports=self.filter_node_ports(),
            chains=self.chains(),
        )

    # ---- which chains there are

    def chain(self, prefix: str) -> str:
        return f"KUBE-{prefix}-{_hash(self.front.name + self.front.protocol.lower())}"

    def endpoint_chain(self, target: Target) -> str:
        return f"KUBE-SEP-{_hash(self.front.name + self.front.protocol.lower() + target.text)}"

    @property
    def internal_chain(self) -> str:
        return self.chain("SVL" if self.front.internal_local else "SVC")

    @property
    def has_internal(self) -> bool:
        return bool(self.chosen.local) if self.front.internal_local else self.chosen.anywhere

    @property
    def has_external(self) -> bool:
        return bool(self.chosen.local) if self.front.external_local else self.chosen.anywhere

    @property
    def has_firewall(self) -> bool:
        return self.chosen.anywhere and bool(self.front.load_balancer_ips) and bool(self.front.source_ranges)

    # ---- rules in shared chains

    def rule(self, matches: tuple[Match, ...], statements: tuple[Statement, ...], comment: str = "") -> Rule:
        return Rule(matches, statements, comment, self.front.owner)

    def to(self, address: Address) -> tuple[Match, ...]:
        return (Destination((host(address),)), *self.to_port(self.front.port))

    def to_port(self, port: int) -> tuple[Match, ...]:
        return (L4Proto(self.front.protocol), DestinationPort(port))

    def nat_services(self) -> tuple[Rule, ...]:
        front = self.front
        rules: list[Rule] = []
        if self.has_internal:
            rules.append(self.rule(self.to(front.cluster_ip), (Jump(self.internal_chain),), f"{front.name} cluster IP"))
        if self.chosen.anywhere:
            external = (Jump(self.chain("EXT")),)
            balancer = (Jump(self.chain("FW")),) if self.has_firewall else external
            rules += (self.rule(self.to(ip), external, f"{front.name} external IP") for ip in front.external_ips)
            rules += (self.rule(self.to(ip), balancer, f"{front.name} loadbalancer IP") for ip in front.load_balancer_ips)
        return tuple(rules)

    def nat_node_ports(self) -> tuple[Rule, ...]:
        port = self.front.node_port
        if port is None or not self.chosen.anywhere:
            return ()
        return (self.rule(self.to_port(port), (Jump(self.chain("EXT")),), self.front.name),)

    def refusal(self) -> tuple[tuple[Statement, ...], str]:
        """Reject where no endpoint exists at all; drop where it is only this node that has none."""
        if self.chosen.anywhere:
            return (Drop(),), f"{self.front.name} has no local endpoints"
        return (Reject(),), f"{self.front.name} has no endpoints"

    def filter_services(self) -> tuple[Rule, ...]:
        return () if self.has_internal else (self.rule(self.to(self.front.cluster_ip), *self.refusal()),)

    def filter_external(self) -> tuple[Rule, ...]:
        if self.has_external:
            return ()
        front = self.front
        rules = [self.rule(self.to(ip), *self.refusal()) for ip in (*front.external_ips, *front.load_balancer_ips)]
        if front.node_port is not None:
            rules.append(self.rule((DestinationLocal(), *self.to_port(front.node_port)), *self.refusal()))
        return tuple(rules)

    def filter_firewall(self) -> tuple[Rule, ...]:
        if not self.has_firewall:
            return ()
        comment = f"{self.front.name} traffic not accepted by {self.chain('FW')}"
        return tuple(self.rule(self.to(ip), (Drop(),), comment) for ip in self.front.load_balancer_ips)

    def filter_node_ports(self) -> tuple[Rule, ...]:
        port = self.front.health_check_node_port
        if port is None:
            return ()
        matches = (L4Proto(Protocol.TCP), DestinationPort(port))
        return (self.rule(matches, (Accept(),), f"{self.front.name} health check node port"),)

    # ---- chains of its own

    def chains(self) -> tuple[Chain, ...]:
        front, chosen = self.front, self.chosen
        chains: list[Chain] = []
        if chosen.anywhere and front.external:
            chains.append(Chain(self.chain("EXT"), self.external_rules()))
        if self.has_firewall:
            chains.append(Chain(self.chain("FW"), self.firewall_rules()))
        if chosen.cluster and front.uses_cluster:
            chains.append(self.policy_chain(self.chain("SVC"), chosen.cluster))
        if chosen.local and front.uses_local:
            chains.append(self.policy_chain(self.chain("SVL"), chosen.local))
        chains += (Chain(self.endpoint_chain(target), self.endpoint_rules(target)) for target in chosen.reachable)
        return tuple(chains)

    def external_rules(self) -> tuple[Rule, ...]:
        """KUBE-EXT: masquerade (Cluster policy) or the short cuts of pods and of the node itself (Local), then the policy."""
        where = f"{self.front.name} external destinations"
        rules: list[Rule] = []
        if not self.front.external_local:
            rules.append(self.rule((), MARK, f"masquerade traffic for {where}"))
            rules.append(self.rule((), (Jump(self.chain("SVC")),)))
            return tuple(rules)
        cluster = (Jump(self.chain("SVC")),)
        if self.policy.local is not None:
            rules.append(self.rule((self.policy.local,), cluster, f"pod traffic for {where}"))
        # The load-balancer IP may be an address of the node: its own traffic would then keep that address as its source.
        rules.append(self.rule((SourceLocal(),), MARK, f"masquerade LOCAL traffic for {where}"))
        rules.append(self.rule((SourceLocal(),), cluster, f"route LOCAL traffic for {where}"))
        if self.has_external:
            rules.append(self.rule((), (Jump(self.chain("SVL")),)))
        return tuple(rules)

    def firewall_rules(self) -> tuple[Rule, ...]:
        front = self.front
        own = tuple(host(ip) for ip in front.load_balancer_ips) if self.allow_from_node else ()
        allowed = (Jump(self.chain("EXT")),)
        comment = f"{front.name} loadbalancer IP"
        rules = [self.rule((Source((network,)),), allowed, comment) for network in (*front.source_ranges, *own)]
        # Says only what becomes of the rest: it was not rewritten, so KUBE-PROXY-FIREWALL will see and drop it.
        rules.append(self.rule((), (), f"other traffic to {front.name} will be dropped by KUBE-PROXY-FIREWALL"))
        return tuple(rules)

    def policy_chain(self, name: str, targets: tuple[Target, ...]) -> Chain:
        rules = self.masquerade_rules() if name == self.internal_chain else ()
        return Chain(name, (*rules, *self.affinity_rules(targets), *self.balance_rules(targets)))

    def masquerade_rules(self) -> tuple[Rule, ...]:
        """ClusterIP traffic that comes from outside the cluster (or all of it) may leave this node for the endpoint."""
        comment = f"{self.front.name} cluster IP"
        if not self.has_internal:
            return ()
        if self.policy.masquerade_all:
            return (self.rule(self.to(self.front.cluster_ip), MARK, comment),)
        if self.policy.remote is not None:
            return (self.rule((self.policy.remote, *self.to(self.front.cluster_ip)), MARK, comment),)
        return ()

    def affinity_rules(self, targets: tuple[Target, ...]) -> tuple[Rule, ...]:
        if self.front.affinity_s is None:
            return ()
        names = [(target, self.endpoint_chain(target)) for target in targets]
        return tuple(
            self.rule((RecentlySeen(name, self.front.affinity_s),), (Jump(name),), self.arrow(target)) for target, name in names
        )

    def balance_rules(self, targets: tuple[Target, ...]) -> tuple[Rule, ...]:
        """The i-th of n takes 1/(n-i) of what is left; the last takes all, so that each gets the same share."""
        left = len(targets)
        return tuple(
            self.rule(
                (Probability(1 / (left - index)),) if index < left - 1 else (),
                (Jump(self.endpoint_chain(target)),),
                self.arrow(target),
            )
            for index, target in enumerate(targets)
        )

    def arrow(self, target: Target) -> str:
        return self.of_endpoint(f"{self.front.name} -> {target.text}")

    def of_endpoint(self, comment: str) -> str:
        """The comment of a rule of which there is one for each endpoint: upstream's `appendServiceCommentLocked`."""
        return "" if self.large else comment

    def endpoint_rules(self, target: Target) -> tuple[Rule, ...]:
        """Hairpin first: a pod that reaches itself must not see its own address as the source (kubernetes#13375)."""
        front = self.front
        remember = (RememberSource(self.endpoint_chain(target)),) if front.affinity_s is not None else ()
        rewrite = (*remember, Dnat(target.address, target.port))
        return (
            self.rule((Source((host(target.address),)),), MARK, self.of_endpoint(front.name)),
            self.rule((L4Proto(front.protocol),), rewrite, self.of_endpoint(front.name)),
        )


@lru_cache(maxsize=1 << 16)
def host(address: Address) -> Network:
    """The network that holds just this address."""
    return ip_network(address)


def _hash(text: str) -> str:
    return b32encode(sha256(text.encode()).digest()[:10]).decode()  # ten bytes are sixteen letters
