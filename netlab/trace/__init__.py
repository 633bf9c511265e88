"""The tracer: what becomes of a flow by the plan's own rules, routes and links, without a kernel.

`trace(plan, flow)` walks the plan's ops and nothing else, along every branch that a random choice opens. It imports no planner
and no oracle: what those get wrong must show here. It does not read the Cluster, and cannot know what a pod's own program does.

Where many flows are traced over one plan, `Tracer(plan)` reads it once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from netlab.memory import last_kept
from netlab.model import NOTHING, Backend, Flow, Outcome, OutcomeKind
from netlab.trace.packets import Met, Packet
from netlab.trace.paths import Hop, Path
from netlab.trace.relayed import PATIENCE_S
from netlab.trace.walk import walk
from netlab.trace.world import HasOps, World

__all__ = ["Hop", "Met", "Packet", "Path", "Trace", "Tracer", "trace"]


@dataclass(frozen=True, slots=True)
class Trace:
    """The tracer's answer.

    weights: the exact probability of each of the outcome's backends. shares: that of each thing that the client may see.
    paths: every branch, the likeliest first.
    """

    outcome: Outcome
    paths: tuple[Path, ...]
    weights: Mapping[Backend, Fraction] = NOTHING
    shares: Mapping[OutcomeKind, Fraction] = NOTHING

    @property
    def even(self) -> bool:
        """Whether every backend is equally likely."""
        return len(set(self.weights.values())) <= 1


class Tracer:
    """A plan, read once, for any number of flows."""

    def __init__(self, plan: HasOps) -> None:
        self._world = World(plan)

    def trace(self, flow: Flow, sender_netns: str = "", patience_s: float = PATIENCE_S) -> Trace:
        """What becomes of the flow. `sender_netns`: where it is sent from, if that is not named as the sender (hostNetwork).

        Raises: KeyError when the plan has no such namespace.
        """
        netns = sender_netns or str(flow.sender)
        if netns not in self._world.places:
            netns = self._home_of(flow)
        paths = tuple(walk(self._world, netns, flow, patience_s))
        return _single(paths[0]) if len(paths) == 1 else _summed(tuple(sorted(paths, key=lambda path: -path.probability)))

    def _home_of(self, flow: Flow) -> str:
        """The node that has the flow's source address: where a hostNetwork pod lives."""
        for name, place in self._world.places.items():
            if name.startswith("node/") and place.is_local(flow.source) and not flow.source.is_loopback:
                return name
        raise KeyError(f"the plan has no namespace for {flow.sender}")


def trace(plan: HasOps, flow: Flow, patience_s: float = PATIENCE_S, sender_netns: str = "") -> Trace:
    """What becomes of the flow by this plan, for a sender that waits so long."""
    return _tracer(plan).trace(flow, sender_netns, patience_s)


@last_kept
def _tracer(plan: HasOps) -> Tracer:
    return Tracer(plan)


def _single(path: Path) -> Trace:
    """The answer where nothing is left to chance, as for most flows."""
    kind = path.kind or OutcomeKind.DELIVERED
    backends = (path.backend,) if path.backend is not None else ()
    why = path.why if path.kind is not OutcomeKind.DELIVERED else ""
    outcome = Outcome(kind, backends, path.hops[-1].left.affinity, why)
    return Trace(outcome, (path,), dict.fromkeys(backends, path.probability), {kind: path.probability})


def _summed(paths: tuple[Path, ...]) -> Trace:
    weights: dict[Backend, Fraction] = {}
    fates: dict[Backend, Backend] = {}
    shares: dict[OutcomeKind, Fraction] = {}
    for path in paths:
        kind = path.kind or OutcomeKind.DELIVERED
        shares[kind] = shares.get(kind, Fraction(0)) + path.probability
        if path.backend is not None:
            weights[path.backend] = weights.get(path.backend, Fraction(0)) + path.probability
            known = fates.setdefault(path.backend, path.backend)
            fates[path.backend] = replace(known, sources=tuple(dict.fromkeys((*known.sources, *path.backend.sources))))
    order = (OutcomeKind.DELIVERED, OutcomeKind.REJECTED, OutcomeKind.DROPPED)
    best = next(kind for kind in order if kind in shares)
    affinity = any(path.hops[-1].left.affinity for path in paths)
    why = "; ".join(dict.fromkeys(path.why for path in paths if path.kind is not OutcomeKind.DELIVERED))
    backends = tuple(sorted(fates.values()))
    return Trace(Outcome(best, backends, affinity, why), paths, {backend: weights[backend] for backend in backends}, shares)
