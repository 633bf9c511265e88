"""What rules look at: a packet, the namespace that it is in, and what they left behind. Values only.

NamedTuples, because a walk makes some forty of them for each flow: `_replace` of one takes 1 us, dataclasses.replace 8.
"""

from fractions import Fraction
from typing import Literal, NamedTuple
from typing import Protocol as Interface

from netlab.model import Address, Protocol, Ref
from netlab.ruleset import Hook

CERTAIN = Fraction(1)
UNDECIDED: frozenset[str] = frozenset()
DECIDED = frozenset(("dst", "src"))


class Packet(NamedTuple):
    """The first packet of a connection, as one namespace holds it. `mark`, `dnat` and `decided` are forgotten on leaving it.

    dnat: the connection has been through DNAT here. decided: the halves ("dst", "src") of NAT that are settled, also where no
    rule rewrote anything (and not told where there are no rules). state: conntrack's word. affinity: the
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
    dnat: bool = False
    decided: frozenset[str] = UNDECIDED
    state: str = "new"
    affinity: bool = False
    masqueraded: bool = False
    virtual: tuple[Address, Protocol, int] | None = None

    def entering(self, device: str) -> "Packet":
        """As it is in the next namespace, for which it is a new one: skb_scrub_packet forgets mark and conntrack entry.

        Made directly, and `settled` too: half of all packets are, and `_replace` takes three times as long.
        """
        source, destination, protocol, port, source_port, _, _, _, _, state, affinity, masqueraded, _ = self
        return Packet(
            source, destination, protocol, port, source_port, 0, device, False, UNDECIDED, state, affinity, masqueraded, None
        )

    def settled(self) -> "Packet":
        """Behind the hooks at which NAT settles either half of the connection."""
        source, destination, protocol, port, source_port, mark, device, dnat, _, state, affinity, masqueraded, virtual = self
        return Packet(
            source, destination, protocol, port, source_port, mark, device, dnat, DECIDED, state, affinity, masqueraded, virtual
        )


class Met(NamedTuple):
    """A rule that did something to the packet: where it stands, what it did, and the object that made it."""

    hook: Hook
    table: str
    chain: str
    rule: int
    did: str
    comment: str = ""
    owner: Ref | None = None


class Branch(NamedTuple):
    """One thing that may happen at a hook."""

    probability: Fraction
    packet: Packet
    verdict: Literal["accept", "drop", "reject"]
    met: tuple[Met, ...]


class Namespace(Interface):
    """What rules may ask of the namespace."""

    def is_local(self, address: Address) -> bool: ...

    def address_on(self, device: str, hop: Address) -> Address | None:
        """The source that a packet gets there which is masqueraded on its way to `hop`; None if there is none."""

    def primary(self, device: str) -> Address | None:
        """The first address of a device, which REDIRECT means."""
