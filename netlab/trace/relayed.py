"""A flow that a node's proxy process takes and hands on: which of its calls to endpoints the client gets to see.

Decides what agents/relay.py does: endpoints in turn; over TCP, one that cannot be reached is passed over for the next, four at
most; over UDP the first is it. Refuses to know how a call travels: the walk has found that out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from netlab.model import OutcomeKind, Protocol
from netlab.ops import RelayPort
from netlab.trace.paths import Path

DIALS_S = (0.25, 0.5, 1.0, 2.0)
PATIENCE_S = 1.0
"""How long a client waits for the first word."""


def relayed(first: Path, relay: RelayPort, calls: Sequence[Path], patience_s: float) -> Iterator[Path]:
    """The paths through the process. `first`: the client's half. `calls`: one path for each endpoint, in the process' order."""
    tcp = relay.protocol is Protocol.TCP
    if not calls:
        kind, does = (OutcomeKind.REJECTED, "closes the connection") if tcp else (OutcomeKind.DROPPED, "drops the datagram")
        yield replace(first, kind=kind, why=f"{first.why}, which has no endpoints and {does}")
        return
    share = first.probability * Fraction(1, len(calls))
    for start in range(len(calls)):
        turn = replace(first, probability=share)
        yield _connected(turn, calls, start, patience_s) if tcp else _sent(turn, calls[start])


def _connected(turn: Path, calls: Sequence[Path], start: int, patience_s: float) -> Path:
    waited = 0.0
    for number, patience in enumerate(DIALS_S):
        call = calls[(start + number) % len(calls)]
        if call.kind in (OutcomeKind.DELIVERED, None) and waited < patience_s:
            return replace(call, probability=turn.probability, hops=turn.hops + call.hops, back=turn.back)
        waited += patience if call.kind is OutcomeKind.DROPPED else 0.0
    kind = OutcomeKind.REJECTED if waited < patience_s else OutcomeKind.DROPPED
    return replace(turn, kind=kind, why=f"{turn.why}, which reaches no endpoint: {calls[start].why}")


def _sent(turn: Path, call: Path) -> Path:
    """A refusal reaches the process, not the client."""
    kind = OutcomeKind.DROPPED if call.kind is OutcomeKind.REJECTED else call.kind
    backend = replace(call.backend, fate=kind) if call.backend is not None else None
    return replace(call, probability=turn.probability, kind=kind, hops=turn.hops + call.hops, backend=backend, back=turn.back)
