"""What a rule that the kernel met is in the plan: who made it, what it does, in words.

Decides how a kernel rule is recognised: by its place in its chain while the chain has as many rules as planned, otherwise by its
text (iptables). A rule that is not recognised is somebody else's, and is said to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import assert_never

from netlab.model import Protocol, Ref
from netlab.ops import Ruleset, VirtualServer
from netlab.plan import Plan
from netlab.probes.witnessed import RuleMet, Shown
from netlab.rendering import iptables
from netlab.ruleset import (
    Accept,
    Chain,
    Dnat,
    DnatLookup,
    DnatRandom,
    Drop,
    Family,
    Field,
    Goto,
    GotoRandom,
    InSet,
    Jump,
    Lookup,
    MapDef,
    Masquerade,
    OrMark,
    RecentlySeen,
    Redirect,
    Reject,
    RememberSource,
    Return,
    Rule,
    Statement,
    Table,
    UpdateSet,
    Verdict,
    XorMark,
)

EFFECTS = (Drop, Reject, OrMark, Dnat, DnatRandom, DnatLookup, Redirect, Masquerade)
"""Statements that both the offline trace and the kernel's tell of."""


@dataclass(frozen=True, slots=True)
class Known:
    """A rule of the plan. `owner` None: it serves every Service. `effect`: it changes or ends the packet. `did`: in words."""

    rule: Rule
    owner: Ref | None
    effect: bool
    did: str
    choice: int = 0
    """Between how many endpoints it chooses at random; 0 for no choice."""
    remembered: bool = False
    """It holds because the client was remembered (session affinity)."""


class PlannedRules:
    """The rules of every namespace of a plan for one IP version."""

    def __init__(self, plan: Plan, version: int = 4) -> None:
        self._family: Family = "ip" if version == 4 else "ip6"
        self._tables: dict[tuple[str, str], Table] = {}
        self._chains: dict[tuple[str, str, str], Chain] = {}
        self._dialects: dict[tuple[str, str], str] = {}
        self._lines: dict[str, Mapping[str, tuple[str, ...]]] = {}
        self._rulesets: dict[str, Ruleset] = {}
        self._virtual = {
            (op.netns, str(op.address), op.port, op.protocol): op for op in plan.ops.values() if isinstance(op, VirtualServer)
        }
        for op in plan.ops.values():
            if isinstance(op, Ruleset):
                if op.value.dialect == "iptables":
                    self._rulesets[op.netns] = op
                for table in op.value.tables:
                    self._dialects[op.netns, table.name] = op.value.dialect
                    if table.family == self._family:
                        self._tables[op.netns, table.name] = table
                        self._chains.update({(op.netns, table.name, chain.name): chain for chain in table.chains})

    def chain(self, netns: str, table: str, chain: str) -> Chain | None:
        return self._chains.get((netns, table, chain))

    def policy(self, met: RuleMet) -> bool:
        """Whether the end of this base chain is as planned. iptables' own chains are nobody's, and accept."""
        chain = self.chain(met.netns, met.table, met.chain)
        if chain is not None and chain.base is not None:
            return chain.base.policy == met.verdict
        return met.verdict == "accept"

    def virtual_server(self, netns: str, packet: Shown) -> VirtualServer | None:
        """The virtual server that IPVS has in the namespace for the packet, as it was before any rewriting."""
        return self._virtual.get((netns, packet.dst, packet.dport, Protocol(packet.proto)))

    def find(self, met: RuleMet) -> Known | None:
        """The planned rule; None for a policy, and for a rule that is not netlab's."""
        chain = self.chain(met.netns, met.table, met.chain)
        if chain is None or met.position < 0:
            return None
        index = self._index(chain, met)
        return None if index is None else self._known(met, chain, index)

    def index(self, met: RuleMet) -> int | None:
        """Where the rule stands in the planned chain."""
        chain = self.chain(met.netns, met.table, met.chain)
        return None if chain is None or met.position < 0 else self._index(chain, met)

    def _index(self, chain: Chain, met: RuleMet) -> int | None:
        if self._dialects.get((met.netns, met.table)) == "iptables" and met.text:
            planned = self._planned_lines(met.netns, met.table, met.chain)
            if 0 <= met.position < len(planned) and planned[met.position] == met.text:
                return met.position
            return planned.index(met.text) if met.text in planned else None
        return met.position if met.rules == len(chain.rules) else None

    def _planned_lines(self, netns: str, table: str, chain: str) -> list[str]:
        if netns not in self._lines:
            self._lines[netns] = iptables.lines(self._rulesets[netns].value, self._family)
        return [line for line in self._lines[netns].get(table, ()) if line.startswith(f"-A {chain} ")]

    def _known(self, met: RuleMet, chain: Chain, index: int) -> Known:
        rule = chain.rules[index]
        lookup = next((one for one in rule.statements if isinstance(one, Lookup)), None)
        verdict, comment = self._looked_up(met, lookup) if lookup is not None else (None, "")
        statements = rule.statements if verdict is None else (*rule.statements, verdict)
        owner = rule.owner or self._owner(met, verdict, comment)
        remembered = any(isinstance(one, RecentlySeen) or _is_affinity(one) for one in rule.matches)
        did = "; ".join(word for one in statements if (word := said(one)))
        if remembered:
            did = f"the client was remembered (session affinity): {did}"
        effect = any(isinstance(one, EFFECTS) for one in statements)
        return Known(rule, owner, effect, did, self._choice(chain, index, met), remembered)

    def _looked_up(self, met: RuleMet, lookup: Lookup) -> tuple[Verdict | None, str]:
        """The element of the map that the packet found; the kernel's verdict tells which, where the keys cannot."""
        table = self._tables[met.netns, met.table]
        for map_ in table.maps:
            if map_.name == lookup.map_name:
                return _element(map_, lookup, met)
        return None, ""

    def _owner(self, met: RuleMet, verdict: Verdict | None, comment: str) -> Ref | None:
        if comment:
            namespace, _, name = comment.partition(":")[0].partition("/")
            return Ref("svc", namespace, name)
        if verdict is not None and met.target:
            chain = self.chain(met.netns, met.table, met.target)
            if chain is not None:
                return next((rule.owner for rule in chain.rules if rule.owner is not None), None)
        return None

    def _choice(self, chain: Chain, index: int, met: RuleMet) -> int:
        for statement in chain.rules[index].statements:
            match statement:
                case DnatRandom(targets):
                    return len(targets)
                case GotoRandom(chains):
                    return len(chains)
                case DnatLookup(_, _, modulus):
                    return modulus
                case Goto(name) if name.startswith("endpoint-"):
                    return sum(isinstance(rule.matches[0], InSet) for rule in chain.rules if rule.matches)
                case Jump(name) if name.startswith("KUBE-SEP-"):
                    return sum(_to_endpoint(rule) for rule in chain.rules)
        return 0


def _to_endpoint(rule: Rule) -> bool:
    remembered = any(isinstance(one, RecentlySeen) for one in rule.matches)
    return not remembered and any(isinstance(one, Jump) and one.chain.startswith("KUBE-SEP-") for one in rule.statements)


def _is_affinity(match: object) -> bool:
    return isinstance(match, InSet) and match.set_name.startswith("affinity-")


def _element(map_: MapDef, lookup: Lookup, met: RuleMet) -> tuple[Verdict | None, str]:
    values = {
        Field.SADDR: ip_address(met.packet.src),
        Field.DADDR: ip_address(met.packet.dst),
        Field.L4PROTO: Protocol(met.packet.proto),
        Field.DPORT: met.packet.dport,
    }
    key = tuple(values[field] for field in lookup.fields)
    comments = map_.element_comments or ("",) * len(map_.elements)
    for (known, verdict), comment in zip(map_.elements, comments, strict=True):
        if known == key:
            return verdict, comment
    return None, ""


def said(statement: Statement) -> str:
    """What a statement does, in words; '' for what is not worth saying."""
    match statement:
        case Accept():
            return "accepted"
        case Drop():
            return "dropped"
        case Reject():
            return "rejected with ICMP port unreachable"
        case Return():
            return "back to the chain that called"
        case Jump(chain) | Goto(chain):
            return f"goes on in {chain}"
        case OrMark():
            return "marked: to be masqueraded on the way out"
        case XorMark():
            return "the mark is taken off"
        case Dnat(address, port):
            return f"destination becomes {address}:{port}"
        case Redirect(port):
            return f"goes to port {port} of this machine: the proxy process"
        case DnatLookup(_, _, modulus):
            return "destination becomes the only endpoint" if modulus == 1 else f"destination becomes one of {modulus}, at random"
        case DnatRandom(targets):
            return f"destination becomes one of {len(targets)}, at random" if len(targets) > 1 else _only(targets[0])
        case GotoRandom(chains):
            return f"goes on in one of {len(chains)} chains, at random"
        case Masquerade():
            return "source becomes this machine's own address (masquerade)"
        case RememberSource() | UpdateSet():
            return "the client is remembered (session affinity)"
        case Lookup():
            return ""
        case _:
            assert_never(statement)


def _only(target: tuple[object, int]) -> str:
    return f"destination becomes {target[0]}:{target[1]}, the only endpoint"
