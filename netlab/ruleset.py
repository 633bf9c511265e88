"""Typed packet-filter rules: what a proxy mode plans, the tracer walks, the renderers print and the loader installs.

One vocabulary serves both dialects (iptables and nftables), so that one tracer can walk either. A renderer prints a
Ruleset in its dialect's own words and rejects, by assertion, what that dialect cannot say. A Ruleset is a value: two
equal Rulesets render to the same text, byte for byte.

Theory: a packet meets, at each hook, the base chains of all tables in order of priority. A rule applies when every match
holds; then its statements run in order. `Dnat` and `Masquerade` are final for the hook, as are Accept, Drop and Reject;
Accept ends only the base chain it was met in. Jump returns to the next rule; Goto returns to the caller's caller.
nat chains see only the first packet of a connection (the tracer traces first packets, so it visits them always).

Over 400 lines: one vocabulary, in one place.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from netlab.model import Address, Network, Protocol, Ref

Family = Literal["ip", "ip6"]


class Hook(StrEnum):
    """Netfilter's hooks, in the order in which a forwarded packet meets them."""

    PREROUTING = "prerouting"
    INPUT = "input"
    FORWARD = "forward"
    OUTPUT = "output"
    POSTROUTING = "postrouting"


# ---------------------------------------------------------------- matches


@dataclass(frozen=True, slots=True)
class L4Proto:
    """The transport protocol is this one."""

    protocol: Protocol


@dataclass(frozen=True, slots=True)
class DestinationPort:
    """The transport destination port is this one. Comes with an L4Proto before it, in both dialects."""

    port: int


@dataclass(frozen=True, slots=True)
class Source:
    """The source address is in one of the networks (`negate`: in none of them)."""

    networks: tuple[Network, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """The destination address is in one of the networks (`negate`: in none of them)."""

    networks: tuple[Network, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class SourceLocal:
    """The source address is one of this namespace's own (addrtype --src-type LOCAL; fib saddr type local).

    `negate` (iptables only): is none of them.
    """

    negate: bool = False


@dataclass(frozen=True, slots=True)
class DestinationLocal:
    """The destination address is one of this namespace's own (addrtype --dst-type LOCAL; fib daddr type local)."""


@dataclass(frozen=True, slots=True)
class InInterface:
    """The packet came in through this interface; with `prefix`, through one whose name begins so."""

    name: str
    prefix: bool = False
    negate: bool = False


@dataclass(frozen=True, slots=True)
class CtState:
    """The conntrack state is one of these, in lower case: new, established, related, invalid (`negate`: is none of them).

    iptables counts "has been through DNAT" among the states, so `states` may hold `dnat` there (as in KUBE-FIREWALL); it is
    then true of a connection whose destination was rewritten, whatever else its state. nftables says CtDnat instead.
    """

    states: tuple[str, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class CtDnat:
    """The connection has been through DNAT (ct status dnat; ctstate DNAT)."""

    negate: bool = False


@dataclass(frozen=True, slots=True)
class MarkSet:
    """All bits of `mask` are set in the packet mark (`negate`: they are not). The planners only ask for single bits."""

    mask: int
    negate: bool = False


@dataclass(frozen=True, slots=True)
class Probability:
    """Holds at random with this probability (iptables -m statistic --mode random; ten decimals are kept)."""

    value: float


@dataclass(frozen=True, slots=True)
class RecentlySeen:
    """iptables -m recent --rcheck --seconds N --reap: the source was put on list `name` within `seconds`."""

    name: str
    seconds: int


class Field(StrEnum):
    """A packet field that keys a set or a map."""

    SADDR = "saddr"
    DADDR = "daddr"
    L4PROTO = "l4proto"
    DPORT = "dport"


Key = tuple[Address | Network | Protocol | int, ...]


@dataclass(frozen=True, slots=True)
class InSet:
    """The packet's `fields`, joined, are an element of the named set (`negate`: are not). Of iptables the set is an IpSet."""

    set_name: str
    fields: tuple[Field, ...]
    negate: bool = False


@dataclass(frozen=True, slots=True)
class OfVirtualServer:
    """iptables -m ipvs --vaddr --vproto --vport: IPVS sent the packet on, for this virtual server."""

    address: Address
    protocol: Protocol
    port: int


Match = (
    L4Proto
    | DestinationPort
    | Source
    | Destination
    | SourceLocal
    | DestinationLocal
    | InInterface
    | CtState
    | CtDnat
    | MarkSet
    | Probability
    | RecentlySeen
    | InSet
    | OfVirtualServer
)

# ---------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True)
class Accept:
    pass


@dataclass(frozen=True, slots=True)
class Drop:
    pass


@dataclass(frozen=True, slots=True)
class Return:
    pass


@dataclass(frozen=True, slots=True)
class Reject:
    """ICMP port unreachable, for TCP too: plain `reject` of both dialects."""


@dataclass(frozen=True, slots=True)
class Jump:
    chain: str


@dataclass(frozen=True, slots=True)
class Goto:
    chain: str


@dataclass(frozen=True, slots=True)
class OrMark:
    """Set these bits of the packet mark."""

    bits: int


@dataclass(frozen=True, slots=True)
class XorMark:
    """Flip these bits of the packet mark."""

    bits: int


@dataclass(frozen=True, slots=True)
class Dnat:
    """Rewrite the destination."""

    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class Redirect:
    """Rewrite the destination to this machine: the primary address of the interface that the packet came in through, this port.

    What comes in through an interface without an address is dropped (nf_nat_redirect_ipv4); own packets go to 127.0.0.1.
    """

    port: int


@dataclass(frozen=True, slots=True)
class DnatRandom:
    """nftables: `dnat ip addr . port to numgen random mod N map {...}`; one of the targets, uniformly."""

    targets: tuple[tuple[Address, int], ...]


@dataclass(frozen=True, slots=True)
class GotoRandom:
    """nftables: `numgen random mod N vmap { 0 : goto a, ... }`; one of the chains, uniformly."""

    chains: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Rewrite the source to the address of the outgoing interface, with a fully random port unless told."""

    random_fully: bool = True


@dataclass(frozen=True, slots=True)
class RememberSource:
    """iptables -m recent --name N --set: put the source on the list."""

    name: str


@dataclass(frozen=True, slots=True)
class UpdateSet:
    """nftables `update @set { ip saddr }`: add the source to a dynamic set, renewing its timeout."""

    set_name: str


@dataclass(frozen=True, slots=True)
class Lookup:
    """nftables `<fields> vmap @map`: run the verdict stored under the packet's fields; go on when there is none."""

    map_name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class DnatLookup:
    """nftables `dnat ip to <fields> . numgen random mod N map @map`: rewrite the destination to one of the N targets that a
    DataMap has under the packet's fields, uniformly; go on when it has none."""

    map_name: str
    fields: tuple[Field, ...]
    modulus: int


Verdict = Accept | Drop | Return | Reject | Jump | Goto
Statement = (
    Verdict
    | OrMark
    | XorMark
    | Dnat
    | Redirect
    | DnatRandom
    | DnatLookup
    | GotoRandom
    | Masquerade
    | RememberSource
    | UpdateSet
    | Lookup
)

# ---------------------------------------------------------------- structure


@dataclass(frozen=True, slots=True)
class Rule:
    """`owner` is the object that made the rule and `comment` what its dialect shows; neither changes its meaning."""

    matches: tuple[Match, ...]
    statements: tuple[Statement, ...]
    comment: str = ""
    owner: Ref | None = None


@dataclass(frozen=True, slots=True)
class Base:
    """Where a base chain hangs: hook, type, priority (netfilter's numbers: dstnat -100, filter 0, srcnat 100), policy."""

    hook: Hook
    type: Literal["filter", "nat"]
    priority: int
    policy: Literal["accept", "drop"] = "accept"


@dataclass(frozen=True, slots=True)
class Chain:
    name: str
    rules: tuple[Rule, ...] = ()
    base: Base | None = None
    comment: str = ""


@dataclass(frozen=True, slots=True)
class SetDef:
    """A set: its key's fields and its elements in a stable order. `timeout_s` makes it dynamic; `interval`: keys may hold
    networks.
    """

    name: str
    fields: tuple[Field, ...]
    elements: tuple[Key, ...] = ()
    timeout_s: int | None = None
    comment: str = ""
    interval: bool = False


IpSetType = Literal["hash:ip", "hash:ip,port", "hash:ip,port,ip", "hash:ip,port,net", "bitmap:port"]


@dataclass(frozen=True, slots=True)
class IpSet:
    """A set of ipset(8), which rules of every iptables table of its family may ask by name.

    An element has the parts that `type` says, a protocol before each port but those of bitmap:port: (address, protocol, port,
    network). In a stable order, none twice.
    """

    family: Family
    name: str
    type: IpSetType
    elements: tuple[Key, ...] = ()


@dataclass(frozen=True, slots=True)
class MapDef:
    """A verdict map: its key's fields, and (key, verdict) pairs in a stable order, no key twice.

    `element_comments` is () or has one text for each element ('' for none); it changes no meaning.
    """

    name: str
    fields: tuple[Field, ...]
    elements: tuple[tuple[Key, Verdict], ...] = ()
    comment: str = ""
    element_comments: tuple[str, ...] = ()


Targets = tuple[tuple[Address, int], ...]
"""Destinations (address, port) among which chance decides."""


@dataclass(frozen=True, slots=True)
class DataMap:
    """What DnatLookup asks: under each key `modulus` targets, numbered from 0. No key twice, in a stable order.

    It is asked about packets of one protocol only. In the kernel an element is one target: its key is the fields and the number.
    """

    name: str
    fields: tuple[Field, ...]
    protocol: Protocol
    modulus: int
    elements: tuple[tuple[Key, Targets], ...] = ()
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """iptables: `filter`, `nat`; nftables: `kube-proxy`. Chains in the order in which they are printed."""

    family: Family
    name: str
    chains: tuple[Chain, ...]
    sets: tuple[SetDef, ...] = ()
    maps: tuple[MapDef, ...] = ()
    comment: str = ""
    data_maps: tuple[DataMap, ...] = ()


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All rules that netlab owns in one network namespace. Replaced as a whole, or by the difference, atomically.

    `backend` is iptables' (nft or legacy) and is ignored by nftables, which has no `ipsets` either: those are iptables'.
    """

    dialect: Literal["iptables", "nftables"]
    tables: tuple[Table, ...]
    backend: Literal["nft", "legacy"] = "nft"
    ipsets: tuple[IpSet, ...] = ()
