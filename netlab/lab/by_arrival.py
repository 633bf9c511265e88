"""SCTP where the kernel has no SCTP sockets: nobody listens and nobody answers. What can be seen is where the INIT chunk arrives.

Decides what such an arrival proves: the way there, and nothing about a receiver. Results say so in `notes`.
"""

from collections.abc import Sequence
from dataclasses import replace

from netlab.kernel.features import has_sctp
from netlab.model import Judgement, Observation, Outcome, OutcomeKind, Protocol, Verdict
from netlab.probes.evidence import unanswered_protocol
from netlab.probes.story import Story

SILENT = unanswered_protocol(Protocol.SCTP)
NOTE = f"{SILENT}: delivered means that the INIT arrived there; nobody listened or answered (modprobe sctp, where there is one)"
UNSEEN = "a refusal by an SCTP receiver cannot be seen here"


def notes(seen: Observation) -> tuple[str, ...]:
    """What a reader of the result must know."""
    return (NOTE,) if SILENT in seen.evidence else ()


def unseen_refusal(expected: Outcome, seen: Observation) -> Verdict | None:
    """The verdict where a receiver was to refuse, and could not; None where the verdict is the judge's.

    A refusal by a rule needs no receiver: what arrived in spite of it is the judge's to condemn.
    """
    if SILENT not in seen.evidence or expected.kind is not OutcomeKind.REJECTED:
        return None
    receivers = {(one.address, one.port) for one in expected.backends if one.fate is OutcomeKind.REJECTED}
    arrived = {(address, port) for (address, port, _), number in seen.arrivals.items() if number}
    if not arrived or not arrived <= receivers:
        return None
    return Verdict(Judgement.INCONCLUSIVE, (UNSEEN,))


def told(story: Story, protocol: Protocol) -> tuple[Story, Sequence[str]]:
    """The story of a packet that arrived and met silence, as a probe would judge it; and the note on it."""
    arrived = story.hops[-1]["event"] == "delivered" and not story.reply
    if protocol is not Protocol.SCTP or story.outcome != "dropped" or not arrived or has_sctp():
        return story, ()
    return replace(story, outcome="delivered", where=""), (NOTE,)
