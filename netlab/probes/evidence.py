"""Sentences about flows that were not delivered: where each was last seen, how it was refused, what came instead of an answer.

Decides the wording and what is worth saying. Refuses to judge.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from netlab.kernel.packet_sockets import OUTGOING
from netlab.model import OutcomeKind, Protocol
from netlab.probes import packets
from netlab.probes.flows import Sent
from netlab.probes.packets import Kind, Seen
from netlab.probes.values import name_of, place
from netlab.probes.watching import Eye

OTHERHOST = 3
"""sll_pkttype of a frame for another machine's hardware address; at a bridge's port that is how all come in."""
Sighting = tuple[int, int, Eye, str, int, bytes, Seen]
"""Time, order within its eye, eye, interface, pkttype, packet, what it is."""
Trails = Mapping[int, Sequence[Sighting]]


def sentences(flows: Sequence[Sent]) -> tuple[str, ...]:
    """One sentence for each different fate of flows that were not (or more than once) delivered, most frequent first."""
    fates: Counter[str] = Counter()
    for flow in flows:
        if flow.outcome is not OutcomeKind.DELIVERED:
            fates[_fate(flow)] += 1
        elif len(flow.arrivals) > 1:
            fates["arrived more than once: " + ", ".join(_receiver(flow, number) for number in range(len(flow.arrivals)))] += 1
    return tuple(_counted(number, len(flows)) + fate for fate, number in fates.most_common(8))


def trail_sentences(flows: Sequence[Sent], trails: Trails) -> tuple[str, ...]:
    """Where flows that got no answer were last seen, and one dissected sample."""
    places: Counter[str] = Counter()
    sample = ""
    silent = [flow for flow in flows if flow.outcome is not OutcomeKind.REJECTED]
    for flow in silent:
        trail = sorted(trails.get(flow.index, ()), key=lambda sighting: sighting[:2])
        places[_whereabouts(flow, trail)] += 1
        if flow.outcome is None and not sample and trail:
            sample = packets.summary(trail[-1][5])
    texts = [_counted(number, len(silent)) + place for place, number in places.most_common(4)]
    return tuple(texts) + ((f"the packet when it was last seen: {sample}",) if sample else ())


def _counted(number: int, total: int) -> str:
    return "" if total == 1 else f"all {total} flows " if number == total else f"{number} of {total} flows "


def _fate(flow: Sent) -> str:
    parts = [flow.detail] if flow.detail else []
    if flow.arrivals and flow.outcome is None:
        parts.append(f"arrived at {_receiver(flow, 0)}, but no answer came back")
    if flow.stray and flow.outcome is None:
        parts.append(flow.stray)
    return "; ".join(parts) or "arrived at no watched place and got no answer"


def _whereabouts(flow: Sent, trail: Sequence[Sighting]) -> str:
    if flow.outcome is OutcomeKind.DELIVERED:
        return "delivered this time"
    answer = _answer_trail(trail)
    return answer if answer else _last_seen(flow, trail)


def _receiver(flow: Sent, number: int) -> str:
    _, packed, port, _ = flow.arrivals[number]
    address = packets.address(packed)
    name, where = name_of(flow.batch.request.names, address, port), place(address, port)
    return name if name == where else f"{name} ({where})"


def _answer_trail(trail: Sequence[Sighting]) -> str:
    answers = [sighting for sighting in trail if sighting[6].kind is not Kind.REQUEST]
    if not answers:
        return ""
    seen = answers[-1][6]
    what = {Kind.REPLY: "an answer", Kind.REFUSAL: "a refusal", Kind.ICMP_ERROR: "an ICMP error"}[seen.kind]
    source, target = _address(seen.source, seen.source_port), _address(seen.destination, seen.destination_port)
    return f"{what} from {source} to {target} was last seen {_where(answers[-1])}"


def _last_seen(flow: Sent, trail: Sequence[Sighting]) -> str:
    requests = [sighting for sighting in trail if sighting[6].kind is Kind.REQUEST]
    if not requests:
        return f"never seen to leave {flow.batch.label}"
    last = [sighting for sighting in requests if _on_its_way(sighting)][-1:] or requests[-1:]
    return _seen_last(flow, last[0])


def _on_its_way(sighting: Sighting) -> bool:
    """Not the copy of a frame that a switch flooded to a machine which ignores it, nor the switch's sending of one."""
    _, _, eye, device, pkttype, _, _ = sighting
    return not eye.label.startswith("lan/") and (pkttype != OTHERHOST or device.startswith("veth"))


def _seen_last(flow: Sent, last: Sighting) -> str:
    seen = last[6]
    now = _address(seen.destination, seen.destination_port)
    asked = flow.asked
    addressed = f"still addressed to {now} (no rule rewrote it)" if now == asked else f"rewritten to {now}"
    eye, coming_in = last[2], last[4] != OUTGOING
    refused = (
        "; its stack there did not accept it" if coming_in and packets.address(seen.destination) in eye.addresses.values() else ""
    )
    return f"last seen {_where(last)}, {addressed}{refused}"


def _where(sighting: Sighting) -> str:
    _, _, eye, device, pkttype, _, _ = sighting
    return f"{'leaving' if pkttype == OUTGOING else 'entering'} {eye.label} on {device}"


def _address(address: bytes, port: int) -> str:
    return place(packets.address(address), port)


def unanswered_protocol(protocol: Protocol) -> str:
    return f"this kernel has no {protocol}: flows are judged by their arrival alone"
