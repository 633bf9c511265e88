"""What packet-filter rules do to a packet at one hook, with every random choice followed.

Decides: the order of base chains, what matches, and what a statement leaves behind.
Refuses to know: where addresses are, routes, links.

Theory. A state is a stack of (chain, next rule), the packet and the probability of having come here. A rule that holds at random
splits it: the part that matches goes on in the same loop, the part that does not is another state to be looked at. Every state
ends in a verdict for its base chain. First packets are traced: the sets and lists that clients fill are empty.

Over 400 lines: one function a statement and a match, a table in code that is read in one piece.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from ipaddress import IPv4Address
from typing import Literal, assert_never

from netlab.model import Address, Network, Protocol, Ref
from netlab.ruleset import (
    Accept,
    Chain,
    CtDnat,
    CtState,
    Destination,
    DestinationLocal,
    DestinationPort,
    Dnat,
    DnatLookup,
    DnatRandom,
    Drop,
    Field,
    Goto,
    GotoRandom,
    Hook,
    InInterface,
    InSet,
    IpSet,
    Jump,
    Key,
    L4Proto,
    Lookup,
    MarkSet,
    Masquerade,
    Match,
    OfVirtualServer,
    OrMark,
    Probability,
    RecentlySeen,
    Redirect,
    Reject,
    RememberSource,
    Return,
    Rule,
    Source,
    SourceLocal,
    Statement,
    Table,
    Targets,
    UpdateSet,
    Verdict,
    XorMark,
)

LOCALHOST = IPv4Address("127.0.0.1")
CERTAIN = Fraction(1)
NEVER = Fraction(0)
MANGLING = ("dst", "src")
NAT_INPUT = 100
EVERY = range(-(1 << 31), 1 << 31)
"""All priorities that a base chain can have."""


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a connection, as one namespace holds it. `mark`, `dnat` and `decided` are forgotten on leaving it.

    dnat: the connection has been through DNAT here. decided: the halves ("dst", "src") of NAT that are settled, also where no
    rule rewrote anything. state: conntrack's word. affinity: the
    balancer noted the client. masqueraded: a rule did that, be it with the address that the packet had. virtual: the virtual
    server that took it here.
    """

    source: Address
    destination: Address
    protocol: Protocol
    port: int
    source_port: int = 0
    mark: int = 0
    in_device: str = ""
    out_device: str = ""
    dnat: bool = False
    decided: frozenset[str] = frozenset()
    state: str = "new"
    affinity: bool = False
    masqueraded: bool = False
    virtual: tuple[Address, Protocol, int] | None = None


@dataclass(frozen=True, slots=True)
class Met:
    """A rule that did something to the packet: where it stands, what it did, and the object that made it."""

    hook: Hook
    table: str
    chain: str
    rule: int
    did: str
    comment: str = ""
    owner: Ref | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """One thing that may happen at a hook."""

    probability: Fraction
    packet: Packet
    verdict: Literal["accept", "drop", "reject"]
    met: tuple[Met, ...]


@dataclass(frozen=True, slots=True)
class Namespace:
    """What rules may ask of the namespace. `masquerade`: the source that a packet gets on its way out; None if there is none.
    `primary`: the first address of a device, which REDIRECT means.
    """

    is_local: Callable[[Address], bool]
    masquerade: Callable[[Packet], Address | None]
    primary: Callable[[str], Address | None]


class Rules:
    """The tables of one namespace in one family, indexed for look-ups."""

    __slots__ = ("_asked", "_base", "_chains", "_data", "_ipsets", "_maps", "_sets")

    def __init__(self, tables: Iterable[Table], ipsets: Iterable[IpSet] = ()) -> None:
        self._chains: dict[tuple[str, str], Chain] = {}
        self._sets: dict[tuple[str, str], Members] = {}
        self._maps: dict[tuple[str, str], Members] = {}
        self._data: dict[tuple[str, str], dict[Key, Targets]] = {}
        self._base: dict[Hook, list[tuple[Table, Chain]]] = {}
        self._asked: frozenset[tuple[str, str]] | None = None
        for table in tables:
            for chain in table.chains:
                self._chains[table.name, chain.name] = chain
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

    def at(self, hook: Hook, packet: Packet, namespace: Namespace, priorities: range = EVERY) -> tuple[Branch, ...]:
        """All that may happen to the packet at the hook, in its chains of these priorities; the probabilities add up to one."""
        half = MANGLING[0] if hook in (Hook.PREROUTING, Hook.OUTPUT) else MANGLING[1]
        branches = [Branch(CERTAIN, packet, "accept", ())]
        for table, chain in self._base.get(hook, ()):
            assert chain.base is not None
            if chain.base.priority not in priorities:
                continue
            following: list[Branch] = []
            for branch in branches:
                settled = chain.base.type == "nat" and half in branch.packet.decided
                if branch.verdict != "accept" or settled:
                    following.append(branch)
                else:
                    following.extend(self._run(table, chain, hook, branch, namespace))
            branches = following
        if hook is Hook.FORWARD or (hook is Hook.INPUT and priorities.stop <= NAT_INPUT):
            return tuple(branches)
        return tuple(
            replace(branch, packet=replace(branch.packet, decided=branch.packet.decided | {half})) for branch in branches
        )

    def _run(self, table: Table, chain: Chain, hook: Hook, start: Branch, namespace: Namespace) -> Iterator[Branch]:
        assert chain.base is not None
        walk = _Walk(self, table.name, hook, namespace, chain.base.policy)
        todo = [_State(start.packet, start.probability, ((chain, 0),), start.met)]
        while todo:
            ended = walk.advance(todo.pop(), todo)
            if ended is not None:
                yield ended

    def asks(self, table: str, name: str) -> bool:
        """Whether some rule asks who is on the list or in the set: without that, remembering a client is in vain."""
        if self._asked is None:
            self._asked = frozenset(
                (where, match.name if isinstance(match, RecentlySeen) else match.set_name)
                for (where, _), chain in self._chains.items()
                for rule in chain.rules
                for match in rule.matches
                if isinstance(match, RecentlySeen | InSet)
            )
        return (table, name) in self._asked

    def chain(self, table: str, name: str) -> Chain:
        return self._chains[table, name]

    def targets(self, table: str, name: str, key: Key) -> Targets:
        """What a data map has under the key; () when it has nothing."""
        return self._data[table, name].get(key, ())

    def members(self, table: str, name: str, of_map: bool) -> "Members":
        if (table, name) not in self._sets and not of_map:
            return self._ipsets[name]
        return (self._maps if of_map else self._sets)[table, name]


class Members:
    """The elements of a set or map: by exact key, and one by one those whose key holds a network."""

    __slots__ = ("_exact", "_ranges")

    def __init__(self, elements: Iterable[tuple[Key, Verdict | None]]) -> None:
        self._exact: dict[Key, Verdict | None] = {}
        self._ranges: list[tuple[Key, Verdict | None]] = []
        for key, verdict in elements:
            if any(_is_network(part) for part in key):
                self._ranges.append((key, verdict))
            else:
                self._exact[key] = verdict

    def find(self, key: Key) -> tuple[bool, Verdict | None]:
        if key in self._exact:
            return True, self._exact[key]
        for other, verdict in self._ranges:
            if all(_covers(wanted, part) for wanted, part in zip(other, key, strict=True)):
                return True, verdict
        return False, None


def _is_network(part: object) -> bool:
    return hasattr(part, "prefixlen")


def _covers(wanted: object, part: object) -> bool:
    return part in wanted if _is_network(wanted) else part == wanted  # type: ignore[operator]  # a network holds addresses


@dataclass(slots=True)
class _State:
    packet: Packet
    probability: Fraction
    frames: tuple[tuple[Chain, int], ...]
    met: tuple[Met, ...]


@dataclass(frozen=True, slots=True)
class _Walk:
    """One packet's way through one base chain."""

    rules: Rules
    table: str
    hook: Hook
    namespace: Namespace
    policy: Literal["accept", "drop"]

    def advance(self, state: _State, todo: list[_State]) -> Branch | None:
        """Follow the state until it ends (the branch) or splits (None; the parts stand in `todo`)."""
        while state.frames:
            chain, index = state.frames[-1]
            if index >= len(chain.rules):
                state.frames = state.frames[:-1]
                continue
            rule = chain.rules[index]
            state.frames = (*state.frames[:-1], (chain, index + 1))
            odds = self._odds(rule, state.packet)
            if odds == NEVER:
                continue
            if odds < CERTAIN:
                todo.append(_State(state.packet, state.probability * (1 - odds), state.frames, state.met))
                state.probability *= odds
            for number, statement in enumerate(rule.statements):
                more = self._more(state, statement, (chain, index, rule), todo)
                if isinstance(more, Branch):
                    return more
                if more == "split":
                    return None
                if more == "left" or number == len(rule.statements) - 1:
                    break
        return self._end(state, self.policy)

    def _more(
        self, state: _State, statement: Statement, place: tuple[Chain, int, Rule], todo: list[_State]
    ) -> Branch | Literal["on", "left", "split"]:
        """Run one statement: go on with the next one, leave the rule, split into several states, or end the base chain."""
        packet = state.packet
        match statement:
            case Accept() | Drop() | Return() | Reject() | Jump() | Goto():
                return self._verdict(state, statement, place)
            case OrMark(bits):
                state.packet = replace(packet, mark=packet.mark | bits)
                self._note(state, place, f"mark |= {bits:#x}")
            case XorMark(bits):
                state.packet = replace(packet, mark=packet.mark ^ bits)
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
                found_targets = self.rules.targets(self.table, name, _key(packet, fields))
                assert len(found_targets) in (0, modulus), f"{name} holds {len(found_targets)} targets under one key"
                return self._spread(state, found_targets, place, todo) if found_targets else "left"
            case GotoRandom(chains):
                for name in chains:
                    frames = (*state.frames[:-1], (self.rules.chain(self.table, name), 0))
                    todo.append(_State(packet, state.probability / len(chains), frames, state.met))
                return "split"
            case Masquerade():
                return self._masquerade(state, place)
            case RememberSource(name):
                state.packet = replace(packet, affinity=packet.affinity or self.rules.asks(self.table, name))
                self._note(state, place, f"remember the client on list {name}")
            case UpdateSet(name):
                state.packet = replace(packet, affinity=packet.affinity or self.rules.asks(self.table, name))
                self._note(state, place, f"remember the client in set {name}")
            case Lookup(name, fields):
                found, verdict = self.rules.members(self.table, name, True).find(_key(packet, fields))
                if not found or verdict is None:
                    return "left"
                return self._verdict(state, verdict, place)
            case _:
                assert_never(statement)
        return "on"

    def _spread(self, state: _State, targets: Targets, place: tuple[Chain, int, Rule], todo: list[_State]) -> Literal["split"]:
        """Each of the targets with the same probability."""
        for address, port in targets:
            part = _State(state.packet, state.probability / len(targets), (), state.met)
            branch = self._dnat(part, address, port, place)
            # A state without frames ends at once, with what it has.
            todo.append(_State(branch.packet, branch.probability, (_ACCEPT,), branch.met))
        return "split"

    def _verdict(self, state: _State, verdict: Verdict, place: tuple[Chain, int, Rule]) -> Branch | Literal["left"]:
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
                state.frames = (*state.frames, (self.rules.chain(self.table, name), 0))
            case Goto(name):
                self._note(state, place, f"goto {name}", only_owned=True)
                state.frames = (*state.frames[:-1], (self.rules.chain(self.table, name), 0))
            case _:
                assert_never(verdict)
        return "left"

    def _dnat(self, state: _State, address: Address, port: int, place: tuple[Chain, int, Rule]) -> Branch:
        decided = state.packet.decided | {MANGLING[0]}
        state.packet = replace(state.packet, destination=address, port=port, dnat=True, decided=decided)
        self._note(state, place, f"destination = {address}:{port}")
        return self._end(state, "accept")

    def _masquerade(self, state: _State, place: tuple[Chain, int, Rule]) -> Branch:
        source = self.namespace.masquerade(state.packet)
        if source is None:
            self._note(state, place, "drop: no address to masquerade with")
            return self._end(state, "drop")
        decided = state.packet.decided | {MANGLING[1]}
        state.packet = replace(state.packet, source=source, source_port=0, decided=decided, masqueraded=True)
        self._note(state, place, f"source = {source}")
        return self._end(state, "accept")

    def _end(self, state: _State, verdict: Literal["accept", "drop", "reject"]) -> Branch:
        return Branch(state.probability, state.packet, verdict, state.met)

    def _note(self, state: _State, place: tuple[Chain, int, Rule], did: str, only_owned: bool = False) -> None:
        chain, index, rule = place
        if rule.owner is not None or not only_owned:
            state.met = (*state.met, Met(self.hook, self.table, chain.name, index, did, rule.comment, rule.owner))

    # ------------------------------------------------------------ matches

    def _odds(self, rule: Rule, packet: Packet) -> Fraction:
        odds = CERTAIN
        for match in rule.matches:
            if isinstance(match, Probability):
                # 0.3333333333 is how ten decimals say one third.
                odds *= Fraction(match.value).limit_denominator(20000)
            elif not self._holds(match, packet):
                return NEVER
        return odds

    def _holds(self, match: Match, packet: Packet) -> bool:
        match match:
            case L4Proto(protocol):
                return packet.protocol is protocol
            case DestinationPort(port):
                return packet.port == port
            case Source(networks, negate):
                return _in(packet.source, networks) != negate
            case Destination(networks, negate):
                return _in(packet.destination, networks) != negate
            case SourceLocal(negate):
                return self.namespace.is_local(packet.source) != negate
            case DestinationLocal():
                return self.namespace.is_local(packet.destination)
            case InInterface(name, prefix, negate):
                return (packet.in_device.startswith(name) if prefix else packet.in_device == name) != negate
            case CtState(states, negate):
                return (packet.state in states or (packet.dnat and "dnat" in states)) != negate
            case CtDnat(negate):
                return packet.dnat != negate
            case MarkSet(mask, negate):
                return (packet.mark & mask == mask) != negate
            case RecentlySeen():
                return False
            case InSet(name, fields, negate):
                return self.rules.members(self.table, name, False).find(_key(packet, fields))[0] != negate
            case OfVirtualServer(address, protocol, port):
                return packet.virtual == (address, protocol, port)
            case Probability():
                raise AssertionError("handled by _odds")
            case _:
                assert_never(match)


_ACCEPT: tuple[Chain, int] = (Chain("", (Rule((), (Accept(),)),)), 0)


def _in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in network for network in networks)


def _key(packet: Packet, fields: tuple[Field, ...]) -> Key:
    values: Mapping[Field, Address | Protocol | int] = {
        Field.SADDR: packet.source,
        Field.DADDR: packet.destination,
        Field.L4PROTO: packet.protocol,
        Field.DPORT: packet.port,
    }
    return tuple(values[field] for field in fields)
