"""A table's chains, read once: what each rule asks made into functions, and rules that name their destination found by it.

A chain of ten thousand Services is asked for those of one address only. What is left out could not have held: a rule that names
single addresses holds for no other, and nothing rewrites a destination in the middle of a base chain (what does ends it).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from netlab.model import Address
from netlab.ruleset import Accept, Chain, Goto, InSet, Jump, Key, Lookup, RecentlySeen, Return, Rule, Statement
from netlab.trace.matches import Members, Question, key_maker, odds_of, questions_of, single_destinations
from netlab.trace.packets import CERTAIN, Namespace, Packet

MOST_DEEP = 64
Quiet = Literal["ended", "accepted", "something"]


@dataclass(frozen=True, slots=True)
class Ready:
    """A rule that is ready to be asked: its questions, and how often it holds for whom all of them are true.

    plain: its only statement, where that leads on or ends the chain. looks_up: the map of that, and what to look for in it.
    """

    chain: str
    index: int
    rule: Rule
    questions: tuple[Question, ...]
    odds: Fraction
    plain: Statement | None
    looks_up: tuple[Members, Callable[[Packet], Key]] | None = None

    def holds(self, packet: Packet, namespace: Namespace) -> bool:
        """But for chance."""
        return all(question(packet, namespace) for question in self.questions)


@dataclass(slots=True)
class _Indexed:
    """The rules of one chain: `always` to be asked, and those that name single destinations. `merged`: what was asked so far."""

    always: tuple[Ready, ...]
    named: dict[Address, list[Ready]]
    merged: dict[Address, tuple[Ready, ...]] = field(default_factory=dict)

    def of(self, destination: Address) -> tuple[Ready, ...]:
        if destination not in self.named:
            return self.always
        found = self.merged.get(destination)
        if found is None:
            found = tuple(sorted((*self.always, *self.named[destination]), key=lambda one: one.index))
            self.merged[destination] = found
        return found


class Chains:
    """The chains of one table. `sets`, `maps`: those of a name."""

    __slots__ = ("_chains", "_indexed", "_maps", "_sets")

    def __init__(self, chains: tuple[Chain, ...], sets: Callable[[str], Members], maps: Callable[[str], Members]) -> None:
        self._chains = {chain.name: chain for chain in chains}
        self._sets, self._maps = sets, maps
        self._indexed: dict[str, _Indexed] = {}

    def rules(self, name: str, destination: Address) -> tuple[Ready, ...]:
        """The rules of a chain that may hold for a packet to `destination`, in order. Raises: KeyError for an unknown chain."""
        found = self._indexed.get(name)
        if found is None:
            found = self._indexed[name] = self._read(name)
        return found.of(destination)

    def asked(self) -> Iterator[str]:
        """The lists and sets that some rule asks."""
        for match in (match for chain in self._chains.values() for rule in chain.rules for match in rule.matches):
            if isinstance(match, RecentlySeen):
                yield match.name
            elif isinstance(match, InSet):
                yield match.set_name

    def _read(self, name: str) -> _Indexed:
        always: list[Ready] = []
        named: dict[Address, list[Ready]] = {}
        for index, rule in enumerate(self._chains[name].rules):
            ready = self._made_ready(name, index, rule)
            single = single_destinations(rule)
            for address in dict.fromkeys(single):
                named.setdefault(address, []).append(ready)
            if not single:
                always.append(ready)
        return _Indexed(tuple(always), named)

    def _made_ready(self, chain: str, index: int, rule: Rule) -> Ready:
        only = rule.statements[0] if len(rule.statements) == 1 else None
        looks_up = (self._maps(only.map_name), key_maker(only.fields)) if isinstance(only, Lookup) else None
        plain = only if isinstance(only, Accept | Return | Jump | Goto | Lookup) else None
        return Ready(chain, index, rule, questions_of(rule, self._sets), odds_of(rule), plain, looks_up)

    def quiet(self, name: str, packet: Packet, namespace: Namespace, depth: int = 0) -> Quiet:
        """Whether a packet goes through a chain without anything that would have to be told: `something` says no more than that
        its rules have to be followed one by one.
        """
        for ready in self.rules(name, packet.destination):
            for question in ready.questions:
                if not question(packet, namespace):
                    break
            else:
                verdict = ready.plain
                if ready.looks_up is not None:
                    members, key = ready.looks_up
                    found, verdict = members.find(key(packet))
                    if not found:
                        continue
                certain = ready.odds is CERTAIN and depth < MOST_DEEP
                now = self._followed(verdict, ready.rule, packet, namespace, depth) if certain else "something"
                if now is not None:
                    return now
        return "ended"

    def _followed(self, verdict: Statement | None, rule: Rule, packet: Packet, namespace: Namespace, depth: int) -> Quiet | None:
        """What comes of a verdict; None: go on with the next rule. A rule that somebody owns leaves a note when it leads on."""
        match verdict:
            case Accept():
                return "accepted"
            case Return():
                return "ended"
            case Jump(chain) if rule.owner is None:
                inner = self.quiet(chain, packet, namespace, depth + 1)
                return None if inner == "ended" else inner
            case Goto(chain) if rule.owner is None:
                return self.quiet(chain, packet, namespace, depth + 1)
            case _:
                return "something"
