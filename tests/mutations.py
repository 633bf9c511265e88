"""Plans and planners broken on purpose, each in one way. `make mutations` lists them with the flow that catches each.

A mutation breaks rules (`rules`: one node's Ruleset to another), ops (`ops`: leaves some out), or a planner (`planner`: it is
given a Cluster in which a policy is not what it is, so that it plans as if it ignored the policy, while the oracle sees the real
one). It must be caught by a flow of the offline suite, in every mode in which it changes anything. Over 400 lines: one table.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_network
from typing import Any

from netlab import ops as op_kinds
from netlab import plan
from netlab.expect import expect
from netlab.model import Cluster, Endpoint, EndpointSlice, Flow, Outcome, Protocol, Service, ServiceType, SlicePort
from netlab.plan import Plan
from netlab.ruleset import (
    Base,
    Chain,
    CtDnat,
    CtState,
    Destination,
    DestinationLocal,
    DestinationPort,
    Dnat,
    DnatRandom,
    Drop,
    Goto,
    GotoRandom,
    Hook,
    InSet,
    Jump,
    L4Proto,
    Lookup,
    MapDef,
    MarkSet,
    Masquerade,
    Match,
    OrMark,
    Probability,
    RecentlySeen,
    Reject,
    RememberSource,
    Rule,
    Ruleset,
    SetDef,
    Source,
    SourceLocal,
    Statement,
    Table,
    UpdateSet,
)
from netlab.trace import Tracer
from tests import flows, spec

Rules = Callable[[Ruleset], Ruleset]
Planner = Callable[[Cluster], Plan]


@dataclass(frozen=True)
class Mutation:
    """`broken(cluster, plan)`: the broken plan. `modes`: in which the mutation must be caught."""

    name: str
    broken: Callable[[Cluster, Plan], Plan]
    modes: tuple[str, ...] = spec.MODES

    @property
    def dresses(self) -> tuple[str, ...]:
        """The modes, and the flat layout of nftables where that has what is broken."""
        return (*self.modes, spec.MAPS) if "nftables" in self.modes and self.name != CHAINS_ONLY else self.modes


CHAINS_ONLY = "firewall-ips is empty"
"""The one mutation of nftables that finds nothing to break in the flat layout."""


@dataclass(frozen=True)
class Caught:
    """Which flow of which case told, and how."""

    case: str
    flow: Flow
    problem: str

    def __str__(self) -> str:
        to = f"{self.flow.destination}:{self.flow.port}/{self.flow.protocol.lower()}"
        return f"{self.case}: {self.flow.sender} -> {to}: {self.problem}"


# ---------------------------------------------------------------- how to break


def rules(name: str, change: Rules, *modes: str) -> Mutation:
    def broken(_: Cluster, whole: Plan) -> Plan:
        return Plan(
            {i: replace(op, value=change(op.value)) if isinstance(op, op_kinds.Ruleset) else op for i, op in whole.ops.items()}
        )

    return Mutation(name, broken, modes or spec.MODES)


def without_ops(name: str, gone: Callable[[op_kinds.Op], bool], *modes: str) -> Mutation:
    def broken(_: Cluster, whole: Plan) -> Plan:
        return Plan({identity: op for identity, op in whole.ops.items() if not gone(op)})

    return Mutation(name, broken, modes or spec.MODES)


def planner(name: str, blind: Callable[[Cluster], Cluster], *modes: str) -> Mutation:
    return Mutation(name, lambda cluster, _: plan.build(blind(cluster)), modes or spec.MODES)


def tables(change: Callable[[Table], Table]) -> Rules:
    return lambda value: replace(value, tables=tuple(change(table) for table in value.tables))


def chains(change: Callable[[Chain], Chain | None]) -> Rules:
    def of_table(table: Table) -> Table:
        return replace(table, chains=tuple(after for chain in table.chains if (after := change(chain)) is not None))

    return tables(of_table)


def each_rule(change: Callable[[Rule], Rule | None], where: Callable[[Chain], bool] = lambda chain: True) -> Rules:
    def of_chain(chain: Chain) -> Chain:
        if not where(chain):
            return chain
        return replace(chain, rules=tuple(after for rule in chain.rules if (after := change(rule)) is not None))

    return chains(of_chain)


def no_rule(*kinds: type, where: Callable[[Chain], bool] = lambda chain: True) -> Rules:
    """Without the rules that have such a statement or match."""
    return each_rule(
        lambda rule: None if any(isinstance(one, kinds) for one in (*rule.matches, *rule.statements)) else rule, where
    )


def no_match(*kinds: type) -> Rules:
    """The rules stay, but do not ask."""
    return each_rule(lambda rule: replace(rule, matches=tuple(one for one in rule.matches if not isinstance(one, kinds))))


def statement(change: Callable[[Statement], Statement]) -> Rules:
    return each_rule(lambda rule: replace(rule, statements=tuple(map(change, rule.statements))))


def match(change: Callable[[Match], Match]) -> Rules:
    return each_rule(lambda rule: replace(rule, matches=tuple(map(change, rule.matches))))


def no_jump(prefix: str, where: Callable[[Chain], bool] = lambda chain: True) -> Rules:
    def leads_there(rule: Rule) -> bool:
        return any(isinstance(one, Jump | Goto) and one.chain.startswith(prefix) for one in rule.statements)

    return each_rule(lambda rule: None if leads_there(rule) else rule, where)


def named(*prefixes: str) -> Callable[[Chain], bool]:
    return lambda chain: chain.name.startswith(prefixes)


def hung_on(*hooks: Hook, kind: str = "nat") -> Callable[[Chain], bool]:
    return lambda chain: chain.base is not None and chain.base.hook in hooks and chain.base.type == kind


def unhung(where: Callable[[Chain], bool]) -> Rules:
    """The base chains hang there, but are empty."""
    return chains(lambda chain: replace(chain, rules=()) if where(chain) else chain)


def rehung(change: Callable[[Base], Base], where: Callable[[Chain], bool]) -> Rules:
    return chains(lambda chain: replace(chain, base=change(chain.base)) if chain.base is not None and where(chain) else chain)


def set_(name: str, change: Callable[[SetDef], SetDef]) -> Rules:
    def of_table(table: Table) -> Table:
        return replace(table, sets=tuple(change(one) if one.name.startswith(name) else one for one in table.sets))

    return tables(of_table)


def map_(name: str, change: Callable[[MapDef], MapDef]) -> Rules:
    def of_table(table: Table) -> Table:
        return replace(table, maps=tuple(change(one) if one.name.startswith(name) else one for one in table.maps))

    return tables(of_table)


def emptied_set(one: SetDef) -> SetDef:
    return replace(one, elements=())


def emptied_map(one: MapDef) -> MapDef:
    return replace(one, elements=(), element_comments=())


def without_first(one: MapDef) -> MapDef:
    return replace(one, elements=one.elements[1:], element_comments=one.element_comments[1:])


def of_protocol(old: Protocol, new: Protocol) -> Rules:
    """One protocol taken for another, in rules and in keys."""

    def keys(one: Any) -> Any:
        return tuple(new if part is old else part for part in one)

    def of_table(table: Table) -> Table:
        sets = tuple(replace(one, elements=tuple(map(keys, one.elements))) for one in table.sets)
        maps = tuple(replace(one, elements=tuple((keys(key), verdict) for key, verdict in one.elements)) for one in table.maps)
        return replace(table, sets=sets, maps=maps)

    in_rules = match(lambda one: replace(one, protocol=new) if isinstance(one, L4Proto) and one.protocol is old else one)
    return lambda value: in_rules(tables(of_table)(value))


def verdicts(old: type, new: Statement) -> Rules:
    return statement(lambda one: new if isinstance(one, old) else one)


def services(change: Callable[[Service], Service]) -> Callable[[Cluster], Cluster]:
    return lambda cluster: cluster.with_(services={key: change(one) for key, one in cluster.services.items()})


def slices(change: Callable[[EndpointSlice], EndpointSlice]) -> Callable[[Cluster], Cluster]:
    return lambda cluster: cluster.with_(slices={key: change(one) for key, one in cluster.slices.items()})


def endpoints(change: Callable[[Endpoint], Endpoint | None]) -> Callable[[Cluster], Cluster]:
    def of_slice(one: EndpointSlice) -> EndpointSlice:
        return replace(one, endpoints=tuple(after for each in one.endpoints if (after := change(each)) is not None))

    return slices(of_slice)


def proxy(**settings: Any) -> Callable[[Cluster], Cluster]:
    def changed(cluster: Cluster) -> Cluster:
        config = cluster.topology.cluster
        config = replace(config, proxy=replace(config.proxy, **settings))
        return cluster.with_(topology=replace(cluster.topology, cluster=config))

    return changed


def own_target_port(cluster: Cluster) -> Cluster:
    """The numbers of the Service's targetPort instead of the slice's."""

    def of_slice(one: EndpointSlice) -> EndpointSlice:
        service = cluster.services.get(one.service)
        targets = {port.name: port.target_port for port in service.ports} if service is not None else {}
        ports = (replace(p, port=t) if isinstance(t := targets.get(p.name or ""), int) and t else p for p in one.ports)
        return replace(one, ports=tuple(ports))

    return slices(of_slice)(cluster)


def names_ignored(one: EndpointSlice) -> EndpointSlice:
    """Every port of the slice has the first one's number."""
    return replace(one, ports=tuple(SlicePort(port.name, one.ports[0].port, port.protocol) for port in one.ports))


def first_slice_only(cluster: Cluster) -> Cluster:
    kept: dict[Any, EndpointSlice] = {}
    for key, one in sorted(cluster.slices.items()):
        if one.service not in {other.service for other in kept.values()}:
            kept[key] = one
    return cluster.with_(slices=kept)


def off_by_one(one: Statement) -> Statement:
    match one:
        case Dnat(address, port):
            return Dnat(address + 1, port)
        case DnatRandom(targets):
            return DnatRandom(tuple((address + 1, port) for address, port in targets))
        case _:
            return one


def wrong_port(one: Statement) -> Statement:
    match one:
        case Dnat(address, port):
            return Dnat(address, port + 1)
        case DnatRandom(targets):
            return DnatRandom(tuple((address, port + 1) for address, port in targets))
        case _:
            return one


def one_less(one: Statement) -> Statement:
    match one:
        case DnatRandom(targets) if len(targets) > 1:
            return DnatRandom(targets[1:])
        case GotoRandom(names) if len(names) > 1:
            return GotoRandom(names[1:])
        case _:
            return one


def twice(one: Statement) -> Statement:
    match one:
        case DnatRandom(targets) if len(targets) > 1:
            return DnatRandom((*targets, targets[0]))
        case GotoRandom(names) if len(names) > 1:
            return GotoRandom((*names, names[0]))
        case _:
            return one


def odds(change: Callable[[float], float]) -> Rules:
    return match(lambda one: Probability(change(one.value)) if isinstance(one, Probability) else one)


def inverted(*kinds: type) -> Rules:
    def turned(one: Any) -> Any:
        changes: dict[str, Any] = {"negate": not one.negate} if isinstance(one, kinds) and hasattr(one, "negate") else {}
        return replace(one, **changes)

    return match(turned)


def no_rule_at(position: int, *prefixes: str) -> Rules:
    """Without one rule of each chain of that name."""

    def of_chain(chain: Chain) -> Chain:
        if not chain.name.startswith(prefixes) or len(chain.rules) <= abs(position):
            return chain
        kept = list(chain.rules)
        del kept[position]
        return replace(chain, rules=tuple(kept))

    return chains(of_chain)


IPT, NFT = "iptables", "nftables"
PRE, OUT, POST, IN, FWD = Hook.PREROUTING, Hook.OUTPUT, Hook.POSTROUTING, Hook.INPUT, Hook.FORWARD

MUTATIONS: tuple[Mutation, ...] = (
    # rules of each kind removed
    rules("masquerade removed", no_rule(Masquerade)),
    rules("nothing is marked for masquerading", no_rule(OrMark)),
    rules("mark-for-masquerade jumps removed", no_jump("KUBE-MARK-MASQ"), IPT),
    rules("the mark is asked for in the wrong bit", match(lambda m: replace(m, mask=0x8000) if isinstance(m, MarkSet) else m)),
    rules("the mark is set in the wrong bit", statement(lambda s: OrMark(0x8000) if isinstance(s, OrMark) else s)),
    rules("DNAT removed", no_rule(Dnat, DnatRandom), IPT, NFT),
    rules("rejects removed", no_rule(Reject)),
    rules("drops removed", no_rule(Drop)),
    rules("nat is not hung on prerouting", unhung(hung_on(PRE))),
    rules("nat is not hung on output", unhung(hung_on(OUT))),
    rules("nat is not hung on postrouting", unhung(hung_on(POST))),
    rules("filter is not hung on input", unhung(hung_on(IN, kind="filter"))),
    rules("filter is not hung on forward", unhung(hung_on(FWD, kind="filter")), IPT, NFT),
    rules("filter is not hung on output", unhung(hung_on(OUT, kind="filter")), IPT, NFT),
    rules("nat prerouting hangs on output", rehung(lambda base: replace(base, hook=OUT), hung_on(PRE))),
    rules("nat output hangs on prerouting", rehung(lambda base: replace(base, hook=PRE), hung_on(OUT))),
    rules(
        "the firewall runs after DNAT",
        rehung(lambda base: replace(base, priority=-90), named("filter-prerouting", "filter-output-pre")),
        NFT,
    ),
    rules("forward drops by policy", rehung(lambda base: replace(base, policy="drop"), hung_on(FWD, kind="filter"))),
    rules("cluster IP rules removed", no_jump("KUBE-SVC-", named("KUBE-SERVICES")), IPT),
    rules("external addresses removed", no_jump("KUBE-EXT-", named("KUBE-SERVICES")), IPT),
    rules("node ports removed", no_jump("KUBE-EXT-", named("KUBE-NODEPORTS")), IPT),
    rules("node ports are never reached", no_jump("KUBE-NODEPORTS", named("KUBE-SERVICES")), IPT),
    rules("source ranges removed", no_jump("KUBE-FW-"), IPT),
    rules("the load balancer firewall is never reached", no_jump("KUBE-PROXY-FIREWALL"), IPT),
    rules("external chains masquerade no more, or lose their first short cut", no_rule_at(0, "KUBE-EXT-", "external-"), IPT, NFT),
    rules("external chains lose their second rule", no_rule_at(1, "KUBE-EXT-", "external-"), IPT, NFT),
    rules("external chains lead nowhere", no_rule_at(-1, "KUBE-EXT-", "external-"), IPT, NFT),
    rules("loopback is not guarded", no_rule(Drop, where=named("KUBE-FIREWALL")), IPT),
    rules("affinity is not remembered", no_rule(RememberSource, UpdateSet), IPT, NFT),
    rules(
        "affinity is not asked for",
        each_rule(
            lambda rule: (
                None
                if any(
                    isinstance(m, RecentlySeen) or (isinstance(m, InSet) and m.set_name.startswith("affinity"))
                    for m in rule.matches
                )
                else rule
            )
        ),
        IPT,
        NFT,
    ),
    rules("helper chain rejects nothing", unhung(named("reject-chain")), NFT),
    rules(
        "jumps do not return",
        statement(lambda s: Goto(s.chain) if isinstance(s, Jump) and s.chain == "KUBE-MARK-MASQ" else s),
        IPT,
    ),
    without_ops("the case's own node has no rules", lambda op: isinstance(op, op_kinds.Ruleset) and op.netns == "node/node-a"),
    without_ops("the other node has no rules", lambda op: isinstance(op, op_kinds.Ruleset) and op.netns == "node/node-b"),
    # sets and maps
    rules("cluster-ips is empty", set_("cluster-ips", emptied_set), NFT),
    rules("nodeport-ips is empty", set_("nodeport-ips", emptied_set), NFT),
    rules("hairpin-connections is empty", set_("hairpin-connections", emptied_set), NFT),
    rules("the hairpin rule does not ask for DNAT and is gone", no_rule(CtDnat), NFT),
    rules("service-ips lacks its first element", map_("service-ips", without_first), NFT),
    rules("service-nodeports lacks its first element", map_("service-nodeports", without_first), NFT),
    rules("no-endpoint-services is empty", map_("no-endpoint-services", emptied_map), NFT),
    rules("no-endpoint-nodeports is empty", map_("no-endpoint-nodeports", emptied_map), NFT),
    rules("firewall-ips is empty", map_("firewall-ips", emptied_map), NFT),
    rules("maps are never asked", no_rule(Lookup), NFT),
    # endpoints and chances
    rules("endpoint swapped for its neighbour", statement(off_by_one), IPT, NFT),
    rules("endpoint's port is wrong", statement(wrong_port), IPT, NFT),
    rules("one endpoint is left out", statement(one_less), NFT),
    rules("one endpoint is named twice", statement(twice), NFT),
    rules(
        "the first endpoint is left out",
        each_rule(lambda rule: None if any(isinstance(m, Probability) for m in rule.matches) else rule),
        IPT,
    ),
    rules("probabilities halved", odds(lambda value: value / 2), IPT),
    rules("the first endpoint gets everything", no_match(Probability), IPT),
    rules("probabilities inverted", odds(lambda value: round(1 - value, 10)), IPT),
    # verdicts and matches confused
    rules("drop instead of reject", verdicts(Reject, Drop())),
    rules("reject instead of drop", verdicts(Drop, Reject())),
    rules(
        "destination ports are one too high",
        match(lambda m: DestinationPort(m.port + 1) if isinstance(m, DestinationPort) else m),
        IPT,
    ),
    rules("destination ports are not asked for", no_match(DestinationPort), IPT),
    rules("protocols are not asked for", no_match(L4Proto), IPT),
    rules("TCP taken for UDP", of_protocol(Protocol.TCP, Protocol.UDP)),
    rules("UDP taken for TCP", of_protocol(Protocol.UDP, Protocol.TCP), IPT, NFT),
    rules("SCTP taken for TCP", of_protocol(Protocol.SCTP, Protocol.TCP), IPT, NFT),
    rules("source tests inverted", inverted(Source)),
    rules("source tests left out", no_match(Source)),
    rules("destination tests inverted", inverted(Destination), IPT),
    rules("set tests inverted", inverted(InSet), NFT),
    rules("set tests left out", no_match(InSet), NFT),
    rules("mark tests inverted", inverted(MarkSet)),
    rules("whether the destination is local is not asked", no_match(DestinationLocal), IPT, NFT),
    rules("whether the source is local is not asked", no_match(SourceLocal), IPT, NFT),
    rules("rules for the node's own traffic removed", no_rule(SourceLocal), IPT, NFT),
    rules("connection states inverted", inverted(CtState)),
    # planners that ignore a policy
    planner("sessionAffinity ignored", services(lambda one: replace(one, session_affinity="None"))),
    planner("internalTrafficPolicy ignored", services(lambda one: replace(one, internal_traffic_policy="Cluster"))),
    planner("externalTrafficPolicy ignored", services(lambda one: replace(one, external_traffic_policy="Cluster"))),
    planner(
        "the two traffic policies mixed up",
        services(
            lambda one: replace(
                one, external_traffic_policy=one.internal_traffic_policy, internal_traffic_policy=one.external_traffic_policy
            )
        ),
    ),
    planner("loadBalancerSourceRanges ignored", services(lambda one: replace(one, source_ranges=()))),
    planner("externalIPs ignored", services(lambda one: replace(one, external_ips=()))),
    planner("load balancer addresses ignored", services(lambda one: replace(one, load_balancer=()))),
    planner(
        "ipMode ignored",
        services(lambda one: replace(one, load_balancer=tuple(replace(i, ip_mode=None) for i in one.load_balancer))),
    ),
    planner("node ports ignored", services(lambda one: replace(one, ports=tuple(replace(p, node_port=None) for p in one.ports)))),
    planner("service-proxy-name ignored", services(lambda one: replace(one, meta=replace(one.meta, labels={})))),
    planner(
        "ExternalName is proxied",
        services(lambda one: replace(one, type=ServiceType.CLUSTER_IP) if one.type is ServiceType.EXTERNAL_NAME else one),
    ),
    planner("health checks forgotten", services(lambda one: replace(one, health_check_node_port=None))),
    planner("only the first port of a Service", services(lambda one: replace(one, ports=one.ports[:1]))),
    planner("readiness ignored", endpoints(lambda one: replace(one, ready=True))),
    planner(
        "terminating taken for ready",
        endpoints(lambda one: replace(one, ready=True, terminating=False) if one.terminating else one),
    ),
    planner("terminating endpoints never serve", endpoints(lambda one: None if one.terminating else one)),
    planner("serving ignored", endpoints(lambda one: replace(one, serving=True))),
    planner("what serves but is not ready gets traffic", endpoints(lambda one: replace(one, ready=True) if one.serving else one)),
    planner("zone hints ignored", endpoints(lambda one: replace(one, zone_hints=()))),
    planner("node hints ignored", endpoints(lambda one: replace(one, node_hints=()))),
    planner("endpoints taken for local ones", endpoints(lambda one: replace(one, node_name="node-a"))),
    planner("targetPort read instead of the slice", own_target_port),
    planner("port names ignored", slices(names_ignored)),
    planner("only the first slice is read", first_slice_only),
    planner("UDP ports planned as TCP", lambda cluster: _as_tcp(cluster, Protocol.UDP)),
    planner("masqueradeAll ignored", proxy(masquerade_all=False)),
    planner("everything masqueraded", proxy(masquerade_all=True)),
    planner("no detector of local traffic", proxy(detect_local="none")),
    planner("NodeCIDR instead of the detector asked for", proxy(detect_local="NodeCIDR")),
    planner("nodePortAddresses ignored", proxy(node_port_addresses=None)),
    planner("node ports on every address", proxy(node_port_addresses=(ip_network("0.0.0.0/0"),)), NFT),
    planner("localhostNodePorts ignored", proxy(localhost_node_ports=False), IPT),
    without_ops("health checks are not listened for", lambda op: isinstance(op, op_kinds.Listener) and op.health is not None),
    without_ops("route_localnet is not set", lambda op: isinstance(op, op_kinds.Sysctl) and "route_localnet" in op.key, IPT),
    without_ops("no rules at all", lambda op: isinstance(op, op_kinds.Ruleset)),
)


def _as_tcp(cluster: Cluster, protocol: Protocol) -> Cluster:
    def of_service(one: Service) -> Service:
        return replace(one, ports=tuple(replace(p, protocol=Protocol.TCP) if p.protocol is protocol else p for p in one.ports))

    def of_slice(one: EndpointSlice) -> EndpointSlice:
        return replace(one, ports=tuple(replace(p, protocol=Protocol.TCP) if p.protocol is protocol else p for p in one.ports))

    return slices(of_slice)(services(of_service)(cluster))


# ---------------------------------------------------------------- catching


@cache
def asked(case_id: str, mode: str) -> tuple[Cluster, Plan, tuple[tuple[Flow, Outcome], ...]]:
    """The case's cluster, its sound plan, and what the oracle says of each of its flows."""
    case = next(case for case in flows.CASES if case.id == case_id)
    cluster = spec.cluster_of(case, mode)
    return cluster, plan.build(cluster), tuple((flow, expect(cluster, flow)) for flow in flows.flows_of(case_id))


def caught(mutation: Mutation, mode: str, cases: Iterable[spec.Case] = flows.CASES) -> Caught | None:
    """The first flow that tells the broken plan from a sound one; None: nothing does, the mutation survives."""
    for case in cases:
        cluster, sound, questions = asked(case.id, mode)
        broken = mutation.broken(cluster, sound)
        if broken != sound and (found := told(broken, questions, case.id)):
            return found
    return None


def told(broken: Plan, questions: Iterable[tuple[Flow, Outcome]], case: str) -> Caught | None:
    try:
        tracer = Tracer(broken)
        for flow, expected in questions:
            if told := flows.problem(expected, tracer.trace(flow)):
                return Caught(case, flow, told)
    except KeyError as error:  # a rule that leads to a chain which is gone: the kernel would refuse to load it
        return Caught(case, flow, f"no such chain or set: {error}")
    return None


def run(mutations: Iterable[Mutation] = MUTATIONS) -> Iterator[tuple[Mutation, Mapping[str, Caught | None]]]:
    for mutation in mutations:
        yield mutation, {mode: caught(mutation, mode) for mode in mutation.dresses}


def main() -> int:
    """Print each mutation with the flow that caught it; 1 when one survives."""
    survivors = total = 0
    for mutation, by_mode in run():
        for mode, found in by_mode.items():
            total += 1
            survivors += found is None
            print(f"{mutation.name} [{mode}]: {f'caught by {found}' if found else 'SURVIVES'}", flush=True)
    print(f"{len(MUTATIONS)} mutations, {total} broken plans, {survivors} not caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
