"""For the tests of proxy modes: a walk of one node's rules for the first packet of a connection.

It knows no topology, so that a planner is tested by itself; netlab.trace walks whole labs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any, assert_never

from netlab.model import (
    Address,
    Network,
    Protocol,
    Ref,
)
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
    Jump,
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
    Ruleset,
    Source,
    SourceLocal,
    Statement,
    Table,
    UpdateSet,
    XorMark,
)
from tests.proxy_support import NODE, NODE_2


@dataclass(frozen=True)
class Packet:
    """The first packet of a connection on its way through one node. `device` '' : the node itself sends it."""

    source: Address
    address: Address
    port: int
    protocol: Protocol = Protocol.TCP
    device: str = ""
    mark: int = 0
    rewritten: bool = False
    masqueraded: bool = False
    recent: frozenset[str] = frozenset()
    own: tuple[Network, ...] = ()


@dataclass(frozen=True)
class End:
    """Where one branch ends: accept, drop, reject; with the packet as it is then."""

    verdict: str
    packet: Packet
    owners: tuple[Ref, ...] = ()


OWN = (ip_network(NODE), ip_network(NODE_2), ip_network("127.0.0.0/8"), ip_network("10.244.1.1"))


def packet(source: str, to: str, port: int = 80, protocol: Protocol = Protocol.TCP, **fields: Any) -> Packet:
    """From a pod it comes in through the pod bridge, from outside through eth0, from an address of the node through nothing."""
    address = ip_address(source)
    own = any(address in network for network in OWN)
    fields.setdefault("device", "" if own else "cni0" if address in ip_network("10.244.1.0/24") else "eth0")
    return Packet(address, ip_address(to), port, protocol, own=OWN, **fields)


def outcome(rules: Ruleset, sent: Packet) -> tuple[str, dict[str, bool]]:
    """`endpoints`, `reject`, `drop` or `not-handled`; for endpoints whether each is reached with another source."""
    ends = list(walk(rules, sent))
    kinds = {_kind(end) for end in ends}
    assert len(kinds) == 1, f"it depends on chance: {kinds}"
    (kind,) = kinds
    if kind != "endpoints":
        return kind, {}
    found: dict[str, bool] = {}
    for end in ends:
        shown = f"{end.packet.address}:{end.packet.port}"
        assert found.setdefault(shown, end.packet.masqueraded) == end.packet.masqueraded, shown
    return kind, found


def _kind(end: End) -> str:
    return end.verdict if end.verdict != "accept" else "endpoints" if end.packet.rewritten else "not-handled"


def walk(rules: Ruleset, sent: Packet) -> Iterator[End]:
    """Every end that the packet may meet; random choices and session affinity branch."""
    if sent.device:
        for end in _hook(rules, Hook.PREROUTING, sent):
            if end.verdict == "accept":
                yield from _routed(rules, end.packet)
            else:
                yield end
        return
    for end in _hook(rules, Hook.OUTPUT, sent):
        if end.verdict == "accept":
            yield from _sent(rules, end.packet)
        else:
            yield end


def _sent(rules: Ruleset, sent: Packet) -> Iterator[End]:
    """What the node sends to itself comes back through lo; its addresses are not looked up a second time."""
    for end in _hook(rules, Hook.POSTROUTING, sent):
        if end.verdict == "accept" and _is_own(sent, end.packet.address):
            yield from _hook(rules, Hook.INPUT, end.packet)
        else:
            yield end


def _routed(rules: Ruleset, sent: Packet) -> Iterator[End]:
    if _is_own(sent, sent.address):
        yield from _hook(rules, Hook.INPUT, sent)
        return
    for end in _hook(rules, Hook.FORWARD, sent):
        if end.verdict == "accept":
            yield from _hook(rules, Hook.POSTROUTING, end.packet)
        else:
            yield end


def _hook(rules: Ruleset, hook: Hook, sent: Packet) -> Iterator[End]:
    bases = [(table, chain) for table in rules.tables for chain in table.chains if chain.base and chain.base.hook is hook]
    bases.sort(key=lambda pair: pair[1].base.priority if pair[1].base else 0)
    ends = [End("accept", sent)]
    for table, chain in bases:
        ends = [after for end in ends for after in (_base(table, chain, end.packet) if end.verdict == "accept" else [end])]
    yield from ends


def _base(table: Table, chain: Chain, sent: Packet) -> list[End]:
    return [replace(end, verdict="accept") if end.verdict == "" else end for end in _chain(table, chain.name, sent)]


def _chain(table: Table, name: str, sent: Packet) -> list[End]:
    """Verdict '' : the chain came to its end, or returned."""
    (chain,) = (chain for chain in table.chains if chain.name == name)
    ends: list[End] = []
    going = [sent]
    for rule in chain.rules:
        going = [end.packet for end in _apply(table, rule, going, ends)]
    return [*ends, *(End("", one) for one in going)]


def _apply(table: Table, rule: Rule, going: list[Packet], ends: list[End]) -> list[End]:
    """Packets that go on to the next rule; what ended is added to `ends`."""
    on: list[End] = []
    for one in going:
        chance = any(isinstance(match, Probability) for match in rule.matches)
        if not all(_holds(table, match, one) for match in rule.matches):
            on.append(End("", one))
            continue
        if chance:
            on.append(End("", one))
        states = [End("", one)]
        for statement in rule.statements:
            states = [after for s in states for after in (_run(table, statement, s.packet) if s.verdict == "" else [s])]
        for state in states:
            (on if state.verdict == "" else ends).append(
                replace(state, verdict="" if state.verdict == "return" else state.verdict)
            )
    return on


def _run(table: Table, statement: Statement, one: Packet) -> list[End]:
    match statement:
        case Accept() | Drop() | Reject():
            return [End(type(statement).__name__.lower(), one)]
        case Return():
            return [End("return", one)]
        case Jump(chain):
            return _chain(table, chain, one)
        case Goto(chain):
            return [replace(end, verdict=end.verdict or "return") for end in _chain(table, chain, one)]
        case GotoRandom(chains):
            return [end for chain in chains for end in _run(table, Goto(chain), one)]
        case OrMark(bits):
            return [End("", replace(one, mark=one.mark | bits))]
        case XorMark(bits):
            return [End("", replace(one, mark=one.mark ^ bits))]
        case Dnat(address, port):
            return [End("accept", replace(one, address=address, port=port, rewritten=True))]
        case DnatRandom(targets):
            return [end for address, port in targets for end in _run(table, Dnat(address, port), one)]
        case DnatLookup(map_name, fields, _):
            (data,) = (item for item in table.data_maps if item.name == map_name)
            given = dict(data.elements).get(_values(one, fields))
            return [End("", one)] if given is None else _run(table, DnatRandom(given), one)
        case Redirect(port):
            return [End("accept", replace(one, port=port, rewritten=True))]
        case Masquerade():
            return [End("accept", replace(one, masqueraded=True))]
        case RememberSource(name) | UpdateSet(name):
            return [End("", replace(one, recent=one.recent | {name}))]
        case Lookup(map_name, fields):
            (found,) = (item for item in table.maps if item.name == map_name)
            verdict = dict(found.elements).get(_values(one, fields))
            return [End("", one)] if verdict is None else _run(table, verdict, one)
        case _:
            assert_never(statement)


def _holds(table: Table, match: Match, one: Packet) -> bool:
    match match:
        case L4Proto(protocol):
            return one.protocol is protocol
        case DestinationPort(port):
            return one.port == port
        case Source(networks, negate):
            return any(one.source in network for network in networks) != negate
        case Destination(networks, negate):
            return any(one.address in network for network in networks) != negate
        case SourceLocal():
            return _is_own(one, one.source)
        case DestinationLocal():
            return _is_own(one, one.address)
        case InInterface(name, prefix, negate):
            return (one.device.startswith(name) if prefix else one.device == name) != negate
        case CtState(states, negate):
            return ("new" in states or ("dnat" in states and one.rewritten)) != negate
        case CtDnat(negate):
            return one.rewritten != negate
        case MarkSet(mask, negate):
            return (one.mark & mask == mask) != negate
        case Probability():
            return True
        case RecentlySeen(name):
            return name in one.recent
        case InSet(set_name, fields, negate):
            (found,) = (item for item in table.sets if item.name == set_name)
            known = one.recent if found.timeout_s is not None else ()
            values = _values(one, fields)
            held = values in found.elements or (found.interval and any(_covered(values, key) for key in found.elements))
            return (held or set_name in known) != negate
        case OfVirtualServer():
            raise AssertionError("this walk knows no IPVS: netlab/trace does")
        case _:
            assert_never(match)


def _values(one: Packet, fields: tuple[Field, ...]) -> tuple[Any, ...]:
    values = {Field.SADDR: one.source, Field.DADDR: one.address, Field.L4PROTO: one.protocol, Field.DPORT: one.port}
    return tuple(values[field] for field in fields)


def _covered(values: tuple[Any, ...], key: tuple[Any, ...]) -> bool:
    return all(v in k if hasattr(k, "prefixlen") else v == k for v, k in zip(values, key, strict=True))


def _is_own(one: Packet, address: Address) -> bool:
    return any(address in network for network in one.own)
