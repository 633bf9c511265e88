"""What a walk finds: paths, and the stays in namespaces that they consist of. Values only."""

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from netlab.model import Backend, OutcomeKind
from netlab.trace.packets import Met, Packet


class Hop(NamedTuple):
    """A packet's stay in one namespace. `in_device` '' where it starts, `out_device` '' where it ends.

    entered, left: the packet as it came and as it went. met: the rules that did something. route: the routing decision.
    through: the ends of links that it passed on its way to the next hop, as (namespace, device).
    """

    netns: str
    in_device: str
    out_device: str
    entered: Packet
    left: Packet
    met: tuple[Met, ...] = ()
    route: str = ""
    through: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Path:
    """One branch. `kind` is what the client sees of it (None: the receiver runs a program of its own, which nobody can foretell).

    backend: where it arrived, or where rules sent it in vain; None when it was lost un-rewritten. back: the namespaces that the
    answer passes; () when there is none.
    """

    probability: Fraction
    kind: OutcomeKind | None
    hops: tuple[Hop, ...]
    backend: Backend | None = None
    why: str = ""
    back: tuple[str, ...] = ()
