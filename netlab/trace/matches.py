"""What a rule asks of a packet: each match made into a function, once for all packets.

Decides what matches. First packets are traced: the lists that clients fill are empty. Refuses to know what follows from it.
"""

from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from typing import assert_never

from netlab.model import Address, Network, Protocol
from netlab.ruleset import (
    CtDnat,
    CtState,
    Destination,
    DestinationLocal,
    DestinationPort,
    Field,
    InInterface,
    InSet,
    Key,
    L4Proto,
    MarkSet,
    Match,
    OfVirtualServer,
    Probability,
    RecentlySeen,
    Rule,
    Source,
    SourceLocal,
    Verdict,
)
from netlab.trace.packets import CERTAIN, Namespace, Packet

Question = Callable[[Packet, Namespace], bool]


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


def key_maker(fields: tuple[Field, ...]) -> Callable[[Packet], Key]:
    """What a packet is looked up under."""
    match fields:
        case (Field.DADDR, Field.L4PROTO, Field.DPORT):  # of every Service
            return lambda packet: (packet.destination, packet.protocol, packet.port)
        case _:
            return lambda packet: tuple(_values(packet)[field] for field in fields)


def _values(packet: Packet) -> Mapping[Field, Address | Protocol | int]:
    return {
        Field.SADDR: packet.source,
        Field.DADDR: packet.destination,
        Field.L4PROTO: packet.protocol,
        Field.DPORT: packet.port,
    }


def odds_of(rule: Rule) -> Fraction:
    """How often the rule holds for a packet of which all else is true."""
    odds = CERTAIN
    for match in rule.matches:
        if isinstance(match, Probability):
            # 0.3333333333 is how ten decimals say one third.
            odds *= Fraction(match.value).limit_denominator(20000)
    return CERTAIN if odds == CERTAIN else odds


def questions_of(rule: Rule, members: Callable[[str], Members]) -> tuple[Question, ...]:
    """All that must be true of a packet for the rule to hold, but for chance. `members`: the set of a name."""
    return tuple(_question(match, members) for match in rule.matches if not isinstance(match, Probability))


def _question(match: Match, members: Callable[[str], Members]) -> Question:
    match match:
        case L4Proto(protocol):
            return lambda packet, _: packet.protocol is protocol
        case DestinationPort(port):
            return lambda packet, _: packet.port == port
        case Source(networks, negate):
            return lambda packet, _: any(packet.source in network for network in networks) != negate
        case Destination(networks, negate):
            return lambda packet, _: any(packet.destination in network for network in networks) != negate
        case SourceLocal(negate):
            return lambda packet, namespace: namespace.is_local(packet.source) != negate
        case DestinationLocal():
            return lambda packet, namespace: namespace.is_local(packet.destination)
        case InInterface(name, prefix, negate):
            if prefix:
                return lambda packet, _: packet.in_device.startswith(name) != negate
            return lambda packet, _: (packet.in_device == name) != negate
        case CtState(states, negate):
            through = "dnat" in states
            return lambda packet, _: (packet.state in states or (packet.dnat and through)) != negate
        case CtDnat(negate):
            return lambda packet, _: packet.dnat != negate
        case MarkSet(mask, negate):
            return lambda packet, _: (packet.mark & mask == mask) != negate
        case RecentlySeen():
            return lambda _packet, _namespace: False
        case InSet(name, fields, negate):
            key, elements = key_maker(fields), members(name)
            return lambda packet, _: elements.find(key(packet))[0] != negate
        case OfVirtualServer(address, protocol, port):
            server = (address, protocol, port)
            return lambda packet, _: packet.virtual == server
        case Probability():
            raise AssertionError("a matter of chance")
        case _:
            assert_never(match)


def single_destinations(rule: Rule) -> tuple[Address, ...]:
    """The addresses that a packet must be for, where the rule names them one by one; () where it does not."""
    found: tuple[Network, ...] = ()
    for match in rule.matches:
        if isinstance(match, Destination) and not match.negate:
            if any(network.prefixlen != network.max_prefixlen for network in match.networks):
                continue
            found = match.networks
    return tuple(network.network_address for network in found)
