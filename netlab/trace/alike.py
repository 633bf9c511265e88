"""Which addresses a namespace's rules cannot tell apart, so that what was found for one packet holds for all that are like it.

Theory. A rule asks three things of an address: whether it is this very one (a match or the key of a set or map names it),
whether it lies in a network that is named, and whether it is the namespace's own. An address that is named is a class by itself.
Any other is of the class of all that lie in the same of the named networks and are own or not. Sources and destinations are
classed apart: every endpoint is named as a source (hairpin traffic), and only Services as destinations.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netlab.model import Address, Network
from netlab.ruleset import Destination, Field, IpSet, Key, Source, Table

Named = Address | Network


class Classes:
    """The classes of addresses at one place in packets: source or destination."""

    __slots__ = ("_is_local", "_known", "_named", "_networks", "_numbers")

    def __init__(self, named: Iterable[Named], is_local: Callable[[Address], bool]) -> None:
        self._is_local = is_local
        self._named: set[Address] = set()
        networks: dict[Network, None] = {}
        for one in named:
            match one:
                case IPv4Network() | IPv6Network() if one.prefixlen < one.max_prefixlen:
                    networks[one] = None
                case IPv4Network() | IPv6Network():
                    self._named.add(one.network_address)
                case _:
                    self._named.add(one)
        self._networks = tuple(networks)
        self._numbers: dict[object, int] = {}
        self._known: dict[Address, int] = {}

    def of(self, address: Address) -> int:
        """A number that is the same for addresses that are alike."""
        found = self._known.get(address)
        if found is None:
            inside = tuple(address in network for network in self._networks)
            alike = address if address in self._named else (self._is_local(address), inside)
            found = self._known[address] = self._numbers.setdefault(alike, len(self._numbers))
        return found


def sources_named(tables: Sequence[Table], ipsets: Sequence[IpSet]) -> Iterator[Named]:
    """The addresses and networks that rules, sets and verdict maps name for sources. Of sets of ipset(8) all, whatever for."""
    for match in (match for table in tables for chain in table.chains for rule in chain.rules for match in rule.matches):
        if isinstance(match, Source):
            yield from match.networks
    yield from _keys(tables, ipsets, Field.SADDR)


def destinations_named(tables: Sequence[Table], ipsets: Sequence[IpSet]) -> Iterator[Named]:
    """The same for destinations."""
    for match in (match for table in tables for chain in table.chains for rule in chain.rules for match in rule.matches):
        if isinstance(match, Destination):
            yield from match.networks
    yield from _keys(tables, ipsets, Field.DADDR)


def _keys(tables: Sequence[Table], ipsets: Sequence[IpSet], wanted: Field) -> Iterator[Named]:
    for table in tables:
        held: list[tuple[tuple[Field, ...], Iterable[Key]]] = [(one.fields, one.elements) for one in table.sets]
        held += [(one.fields, (key for key, _ in one.elements)) for one in table.maps]
        for fields, keys in held:
            places = [place for place, field in enumerate(fields) if field is wanted]
            yield from _addresses(key[place] for key in keys for place in places)
    yield from _addresses(part for one in ipsets for key in one.elements for part in key)


def _addresses(parts: Iterable[object]) -> Iterator[Named]:
    for part in parts:
        match part:
            case IPv4Address() | IPv6Address() | IPv4Network() | IPv6Network():
                yield part
