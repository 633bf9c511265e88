"""What packet-filter rules do to a packet at one hook, with every random choice followed.

Decides: the order of base chains, and what a statement leaves behind. What matches is decided in matches.py.
Refuses to know: where addresses are, routes, links.

Theory. A state is a stack of (rules, next one), the packet and the probability of having come here. A rule that holds at random
splits it: the part that matches goes on in the same loop, the part that does not is another state to be looked at. Every state
ends in a verdict for its base chain. First packets are traced: the sets and lists that clients fill are empty. Most packets pass
most hooks untouched: that is asked first (chains.py), and rules are followed one by one only where something may happen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from ipaddress import IPv4Address
from typing import Literal, assert_never

from netlab.model import Address
from netlab.ruleset import (
    Accept,
    Chain,
    Dnat,
    DnatLookup,
    DnatRandom,
    Drop,
    Goto,
    GotoRandom,
    Hook,
    IpSet,
    Jump,
    Key,
    Lookup,
    Masquerade,
    OrMark,
    Redirect,
    Reject,
    RememberSource,
    Return,
    Rule,
    Statement,
    Table,
    Targets,
    UpdateSet,
    Verdict,
    XorMark,
)
from netlab.trace.alike import Classes, destinations_named, sources_named
from netlab.trace.chains import Chains, Ready
from netlab.trace.matches import Members, key_maker
from netlab.trace.packets import CERTAIN, Branch, Met, Namespace, Packet

LOCALHOST = IPv4Address("127.0.0.1")
MANGLING = ("dst", "src")
NAT_INPUT = 100
Leaving = tuple[str, Address]
EVERY = range(-(1 << 31), 1 << 31)
"""All priorities that a base chain can have."""


class Rules:
    """The tables of one namespace in one family, indexed for look-ups."""

    __slots__ = (
        *("_asked", "_base", "_chains", "_data", "_destinations", "_ipsets", "_maps", "_namespace"),
        *("_passing", "_sets", "_sources", "_through"),
    )

    def __init__(self, tables: Sequence[Table], namespace: Namespace, ipsets: Sequence[IpSet] = ()) -> None:
        self._chains: dict[str, Chains] = {}
        self._sets: dict[tuple[str, str], Members] = {}
        self._maps: dict[tuple[str, str], Members] = {}
        self._data: dict[tuple[str, str], dict[Key, Targets]] = {}
        self._base: dict[Hook, list[tuple[Table, Chain]]] = {}
        self._namespace = namespace
        self._asked: frozenset[tuple[str, str]] | None = None
        self._passing: dict[Hook, dict[tuple[object, ...], bool]] = {hook: {} for hook in Hook}
        self._through: dict[tuple[object, ...], bool] = {}
        self._sources = Classes(sources_named(tables, ipsets), namespace.is_local)
        self._destinations = Classes(destinations_named(tables, ipsets), namespace.is_local)
        for table in tables:
            self._chains[table.name] = Chains(table.chains, partial(self._set, table.name), partial(self._map, table.name))
            for chain in table.chains:
                if chain.base is not None:
                    self._base.setdefault(chain.base.hook, []).append((table, chain))
            for set_ in table.sets:
                self._sets[table.name, set_.name] = Members((key, None) for key in set_.elements)
            for map_ in table.maps:
                self._maps[table.name, map_.name] = Members(map_.elements)
            for data in table.data_maps:
                self._data[table.name, data.name] = dict(data.elements)
        # A set of ipset belongs to no table: every table asks it under its own name.
        self._ipsets = {one.name: Members((key, None) for key in one.elements) for one in ipsets}
        for chains in self._base.values():
            chains.sort(key=lambda pair: pair[1].base.priority if pair[1].base else 0)

    def at(self, hook: Hook, packet: Packet, priorities: range = EVERY, way: Leaving | None = None) -> tuple[Branch, ...]:
        """All that may happen to the packet at the hook, in its chains of these priorities; the probabilities add up to one.

        `way`: by which device it leaves for which machine, where it is about to.
        """
        if not self._base:
            return (Branch(CERTAIN, packet, "accept", ()),)
        half = MANGLING[0] if hook is Hook.PREROUTING or hook is Hook.OUTPUT else MANGLING[1]
        decides = hook is not Hook.FORWARD and (hook is not Hook.INPUT or priorities.stop > NAT_INPUT)
        start = Branch(CERTAIN, packet, "accept", ())
        if priorities is EVERY and self._passes_all(hook, packet, half):
            return (_decided(start, half) if decides else start,)
        branches = self._followed(hook, start, half, priorities, way)
        return tuple([_decided(branch, half) for branch in branches] if decides else branches)

    def _followed(self, hook: Hook, start: Branch, half: str, priorities: range, way: Leaving | None) -> list[Branch]:
        branches = [start]
        for table, chain in self._base.get(hook, ()):
            assert chain.base is not None
            if chain.base.priority not in priorities:
                continue
            following: list[Branch] = []
            for branch in branches:
                if branch.verdict != "accept" or self._passes(table, chain, branch.packet, half):
                    following.append(branch)
                else:
                    following.extend(self._run(table, chain, hook, branch, way))
            branches = following
        return branches

    def pass_by(self, packet: Packet) -> bool:
        """Whether nothing happens to a packet that is forwarded here, at none of its hooks."""
        if not self._base:
            return True
        alike = self._alike(packet)
        known = self._through.get(alike)
        if known is None:
            dst, src = MANGLING
            routed = packet._replace(decided=packet.decided | {dst})
            known = self._passes_all(Hook.PREROUTING, packet, dst) and all(
                self._passes_all(hook, routed, src) for hook in (Hook.FORWARD, Hook.POSTROUTING)
            )
            self._through[alike] = known
        return known

    def passed_by(self, packet: Packet) -> Packet:
        """The packet behind all hooks, none of which does anything to it."""
        return packet.settled() if self._base else packet

    def _alike(self, packet: Packet) -> tuple[object, ...]:
        """What rules can tell of a packet: the same for all to which the same happens."""
        source, destination, protocol, port, _, mark, device, dnat, decided, state, _, _, virtual = packet
        near, far = self._sources.of(source), self._destinations.of(destination)
        return near, far, protocol, port, mark, device, dnat, decided, state, virtual

    def _passes_all(self, hook: Hook, packet: Packet, half: str) -> bool:
        """Whether nothing happens to the packet at the hook. That is the same for all packets of which rules see the same."""
        alike = self._alike(packet)
        known = self._passing[hook].get(alike)
        if known is None:
            known = all(self._passes(table, chain, packet, half) for table, chain in self._base.get(hook, ()))
            self._passing[hook][alike] = known
        return known

    def _passes(self, table: Table, chain: Chain, packet: Packet, half: str) -> bool:
        """Whether the chain has nothing to say to the packet, or nothing that would change it."""
        assert chain.base is not None
        if chain.base.type == "nat" and half in packet.decided:
            return True
        met = self._chains[table.name].quiet(chain.name, packet, self._namespace)
        return met == "accepted" or (met == "ended" and chain.base.policy == "accept")

    def _run(self, table: Table, chain: Chain, hook: Hook, start: Branch, way: Leaving | None) -> Iterator[Branch]:
        assert chain.base is not None
        walk = _Walk(self, table.name, self._chains[table.name], hook, self._namespace, chain.base.policy, way)
        todo = [_State(start.packet, start.probability, (walk.enter(chain.name, start.packet),), start.met)]
        while todo:
            ended = walk.advance(todo.pop(), todo)
            if ended is not None:
                yield ended

    def asks(self, table: str, name: str) -> bool:
        """Whether some rule asks who is on the list or in the set: without that, remembering a client is in vain."""
        if self._asked is None:
            self._asked = frozenset((where, name) for where, chains in self._chains.items() for name in chains.asked())
        return (table, name) in self._asked

    def targets(self, table: str, name: str, key: Key) -> Targets:
        """What a data map has under the key; () when it has nothing."""
        return self._data[table, name].get(key, ())

    def found(self, table: str, name: str, key: Key) -> tuple[bool, Verdict | None]:
        """Whether a verdict map has the key, and the verdict."""
        return self._map(table, name).find(key)

    def _set(self, table: str, name: str) -> Members:
        return self._sets[table, name] if (table, name) in self._sets else self._ipsets[name]

    def _map(self, table: str, name: str) -> Members:
        return self._maps[table, name]


def _decided(branch: Branch, half: str) -> Branch:
    packet = branch.packet
    if half in packet.decided:
        return branch
    return Branch(branch.probability, packet._replace(decided=packet.decided | {half}), branch.verdict, branch.met)


@dataclass(slots=True)
class _State:
    packet: Packet
    probability: Fraction
    frames: tuple[tuple[tuple[Ready, ...], int], ...]
    met: tuple[Met, ...]


@dataclass(frozen=True, slots=True)
class _Walk:
    """One packet's way through one base chain."""

    rules: Rules
    table: str
    chains: Chains
    hook: Hook
    namespace: Namespace
    policy: Literal["accept", "drop"]
    way: Leaving | None

    def enter(self, chain: str, packet: Packet) -> tuple[tuple[Ready, ...], int]:
        return self.chains.rules(chain, packet.destination), 0

    def advance(self, state: _State, todo: list[_State]) -> Branch | None:
        """Follow the state until it ends (the branch) or splits (None; the parts stand in `todo`)."""
        while state.frames:
            rules, index = state.frames[-1]
            if index >= len(rules):
                state.frames = state.frames[:-1]
                continue
            ready = rules[index]
            state.frames = (*state.frames[:-1], (rules, index + 1))
            if not ready.holds(state.packet, self.namespace):
                continue
            if ready.odds is not CERTAIN:
                if not ready.odds:
                    continue
                todo.append(_State(state.packet, state.probability * (1 - ready.odds), state.frames, state.met))
                state.probability *= ready.odds
            for statement in ready.rule.statements:
                more = self._more(state, statement, ready, todo)
                if isinstance(more, Branch):
                    return more
                if more == "split":
                    return None
                if more == "left":
                    break
        return self._end(state, self.policy)

    def _more(
        self, state: _State, statement: Statement, place: Ready, todo: list[_State]
    ) -> Branch | Literal["on", "left", "split"]:
        """Run one statement: go on with the next one, leave the rule, split into several states, or end the base chain."""
        packet = state.packet
        match statement:
            case Accept() | Drop() | Return() | Reject() | Jump() | Goto():
                return self._verdict(state, statement, place)
            case OrMark(bits):
                state.packet = packet._replace(mark=packet.mark | bits)
                self._note(state, place, f"mark |= {bits:#x}")
            case XorMark(bits):
                state.packet = packet._replace(mark=packet.mark ^ bits)
            case Dnat(address, port):
                return self._dnat(state, address, port, place)
            case Redirect(port):
                target = LOCALHOST if self.hook is Hook.OUTPUT else self.namespace.primary(packet.in_device)
                if target is None:
                    self._note(state, place, f"drop: {packet.in_device} has no address to redirect to")
                    return self._end(state, "drop")
                return self._dnat(state, target, port, place)
            case DnatRandom(targets):
                return self._spread(state, targets, place, todo)
            case DnatLookup(name, fields, modulus):
                found_targets = self.rules.targets(self.table, name, key_maker(fields)(packet))
                assert len(found_targets) in (0, modulus), f"{name} holds {len(found_targets)} targets under one key"
                return self._spread(state, found_targets, place, todo) if found_targets else "left"
            case GotoRandom(chains):
                for name in chains:
                    frames = (*state.frames[:-1], self.enter(name, packet))
                    todo.append(_State(packet, state.probability / len(chains), frames, state.met))
                return "split"
            case Masquerade():
                return self._masquerade(state, place)
            case RememberSource(name):
                state.packet = packet._replace(affinity=packet.affinity or self.rules.asks(self.table, name))
                self._note(state, place, f"remember the client on list {name}")
            case UpdateSet(name):
                state.packet = packet._replace(affinity=packet.affinity or self.rules.asks(self.table, name))
                self._note(state, place, f"remember the client in set {name}")
            case Lookup(name, fields):
                found, verdict = self.rules.found(self.table, name, key_maker(fields)(packet))
                if not found or verdict is None:
                    return "left"
                return self._verdict(state, verdict, place)
            case _:
                assert_never(statement)
        return "on"

    def _spread(self, state: _State, targets: Targets, place: Ready, todo: list[_State]) -> Literal["split"]:
        """Each of the targets with the same probability."""
        for address, port in targets:
            part = _State(state.packet, state.probability / len(targets), (), state.met)
            branch = self._dnat(part, address, port, place)
            todo.append(_State(branch.packet, branch.probability, ((_ACCEPT, 0),), branch.met))
        return "split"

    def _verdict(self, state: _State, verdict: Verdict, place: Ready) -> Branch | Literal["left"]:
        match verdict:
            case Accept():
                return self._end(state, "accept")
            case Drop():
                self._note(state, place, "drop")
                return self._end(state, "drop")
            case Reject():
                self._note(state, place, "reject")
                return self._end(state, "reject")
            case Return():
                state.frames = state.frames[:-1]
            case Jump(name):
                self._note(state, place, f"jump {name}", only_owned=True)
                state.frames = (*state.frames, self.enter(name, state.packet))
            case Goto(name):
                self._note(state, place, f"goto {name}", only_owned=True)
                state.frames = (*state.frames[:-1], self.enter(name, state.packet))
            case _:
                assert_never(verdict)
        return "left"

    def _dnat(self, state: _State, address: Address, port: int, place: Ready) -> Branch:
        decided = state.packet.decided | {MANGLING[0]}
        state.packet = state.packet._replace(destination=address, port=port, dnat=True, decided=decided)
        self._note(state, place, f"destination = {address}:{port}")
        return self._end(state, "accept")

    def _masquerade(self, state: _State, place: Ready) -> Branch:
        source = self.namespace.address_on(*self.way) if self.way is not None else None
        if source is None:
            self._note(state, place, "drop: no address to masquerade with")
            return self._end(state, "drop")
        decided = state.packet.decided | {MANGLING[1]}
        state.packet = state.packet._replace(source=source, source_port=0, decided=decided, masqueraded=True)
        self._note(state, place, f"source = {source}")
        return self._end(state, "accept")

    def _end(self, state: _State, verdict: Literal["accept", "drop", "reject"]) -> Branch:
        return Branch(state.probability, state.packet, verdict, state.met)

    def _note(self, state: _State, place: Ready, did: str, only_owned: bool = False) -> None:
        rule = place.rule
        if rule.owner is not None or not only_owned:
            state.met = (*state.met, Met(self.hook, self.table, place.chain, place.index, did, rule.comment, rule.owner))


_ACCEPT = (Ready("", 0, Rule((), (Accept(),)), (), CERTAIN, Accept()),)
"""What a packet meets whose way through the base chain is over."""
