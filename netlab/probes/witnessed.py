"""What one packet's way left behind in the kernel: values only, made by witness.py and told by story.py."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from netlab.model import NOTHING, Address, Flow


class Shown(NamedTuple):
    """A packet as it was somewhere. Ports are 0 where the protocol has none."""

    src: str
    dst: str
    sport: int
    dport: int
    proto: str


@dataclass(frozen=True, slots=True)
class Sighting:
    """The packet, or an answer to it, at one interface. `part`: request, reply, refusal or icmp-error."""

    at: int
    netns: str
    device: str
    leaving: bool
    part: str
    packet: Shown
    foreign: bool = False
    """It was for another machine's hardware address: flooded by a switch, and ignored there."""
    bridge: bool = False
    port: bool = False


@dataclass(frozen=True, slots=True)
class RuleMet:
    """One message of the kernel's nftables trace: a rule that held, or the policy at the end of a base chain.

    `run` numbers a packet's pass through one base chain; `packet` is what it was when that began. `position` counts from 0 in the
    chain's `rules` rules, -1 for a policy. `text` is the rule as its tool prints it now.
    """

    netns: str
    part: str
    run: int
    hook: str
    table: str
    chain: str
    position: int
    rules: int
    verdict: str
    target: str
    packet: Shown
    in_device: str = ""
    out_device: str = ""
    text: str = ""
    handle: int = 0


@dataclass(frozen=True, slots=True)
class Errand:
    """One packet to be sent and followed. `places`: every namespace by name -> a path that opens it.

    `live_s`: none is sent; the first TCP connection, UDP datagram or ping of a program of the sender's to the flow's destination
    is followed, from whichever of `sources`; it is waited for so many seconds.
    """

    sender: str
    flow: Flow
    places: Mapping[str, str]
    timeout_s: float = 0.3
    live_s: float = 0.0
    sources: tuple[Address, ...] = ()
    tunnel: int = 0
    """The UDP port of the nodes' overlay, 0 without one."""

    @property
    def live(self) -> bool:
        return self.live_s > 0


@dataclass(frozen=True, slots=True)
class Witnessed:
    """What was seen. Sightings in the order of their time, rules in the kernel's order within each namespace.

    accepted: (namespace, part, packet) that a stack took for its own. traced: namespaces whose rules the kernel told of. routes,
    neighbours, conntrack, links: what the kernel lists in the namespaces that the packet met. refused: why the sender's kernel
    did not send it, '' if it did. blind: what could not be seen, and why; notes: what the kernel does not show here.
    """

    flow: Flow
    sightings: tuple[Sighting, ...] = ()
    rules: tuple[RuleMet, ...] = ()
    accepted: tuple[tuple[str, str, Shown], ...] = ()
    traced: tuple[str, ...] = ()
    routes: Mapping[str, tuple[Mapping[str, Any], ...]] = NOTHING
    neighbours: Mapping[str, tuple[Mapping[str, Any], ...]] = NOTHING
    conntrack: Mapping[str, tuple[Mapping[str, Any], ...]] = NOTHING
    refused: str = ""
    blind: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    live: bool = False
    """It is a real program's packet."""
    envelopes: tuple[Sighting, ...] = ()
    """Of the datagrams that carried the packet and its answers between nodes, with their own addresses."""
    settings: Mapping[str, Mapping[str, str]] = NOTHING
    """Namespace -> what suspects.py reads there."""
