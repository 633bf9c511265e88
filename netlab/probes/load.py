"""Load: what a generator is asked, what it recorded, and what the record says - counts, latencies, outages and a verdict.

The load is open: a request is sent when it is due, whatever became of those before it. So a dead backend shows as requests
that were lost, not as a client that politely waited. Decides how a record is counted and judged; refuses to know sockets.

An outage is an interval in which no request succeeded: from the sending of one that was lost to the sending of the next that
was answered (or the end). Two lost ones with an answered one between them are two outages.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import groupby
from typing import Any, Literal

from netlab.model import NOTHING, Address, Judgement
from netlab.probes.values import HttpRequest

MAXIMUM_RATE = 5_000.0
MAXIMUM_S = 3_600.0
LATE_S = 0.25
"""A request that leaves later than this after it was due did not test the moment that it was meant for."""
ON_TIME = 0.95
"""The share of requests that must leave on time; with fewer the generator did not keep its rate."""
SHOWN_OUTAGES = 1_000
UNNAMED = "(unnamed)"
"""A backend that answered, but does not say who it is: a program of its own."""

QUESTION = (
    b"\x6e\x6c\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x0akubernetes\x07default\x03svc\x07cluster\x05local\x00\x00\x01\x00\x01"
)
"""`kubernetes.default.svc.cluster.local. IN A`, recursion desired (RFC 1035, 4.1)."""

LoadProtocol = Literal["http", "tcp", "udp"]


class Fate(IntEnum):
    """What became of one request. UNSENT: this machine could not send it (no port, no descriptor), so it says nothing."""

    ANSWERED = 1
    REFUSED = 2
    TIMED_OUT = 3
    RESET = 4
    WRONG_STATUS = 5
    UNSENT = 6


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """`rate` requests a second from `source` in the namespace `netns` (a path), for `for_s` seconds or until told to stop.

    accepting: a finished TCP handshake is an answer even if nothing is said on the connection. With a proxy process on the way
    it is none.
    """

    netns: str
    source: Address
    destination: Address
    port: int
    protocol: LoadProtocol
    rate: float
    timeout_s: float = 1.0
    for_s: float = MAXIMUM_S
    keep_alive: bool = False
    http: HttpRequest = field(default_factory=HttpRequest)
    accepting: bool = True

    @property
    def datagram(self) -> bytes:
        """What is sent over UDP: on the port of DNS a question, otherwise what the built-in responder answers with its name."""
        return QUESTION if self.port == 53 else b"hostname"


@dataclass(slots=True)
class LoadRecord:
    """What a generator did: entry i of each array is request i, in the order of sending.

    sent_s: seconds after the beginning. late_s: how long after it was due it left. latency_s: of answered ones, else 0.
    seconds: how long was sent. retried: requests whose kept connection the other end had closed, sent again on a new one.
    """

    sent_s: "array[float]" = field(default_factory=lambda: array("d"))
    late_s: "array[float]" = field(default_factory=lambda: array("f"))
    latency_s: "array[float]" = field(default_factory=lambda: array("f"))
    fates: bytearray = field(default_factory=bytearray)
    backends: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    retried: int = 0
    seconds: float = 0.0
    problems: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Outage:
    """`at_ms` after the beginning of the load; `lost` requests were sent in it."""

    at_ms: float
    length_ms: float
    lost: int

    def json(self) -> dict[str, Any]:
        return {"at_ms": self.at_ms, "length_ms": self.length_ms, "lost": self.lost}


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a user tolerates. None: nothing is said about it, and the oracle's word counts."""

    lost: int | None = None
    outage_ms: float | None = None


def outages(record: LoadRecord) -> tuple[Outage, ...]:
    """In order of time. A request that could not be sent neither makes nor ends one."""
    sent = [(at, fate) for at, fate in zip(record.sent_s, record.fates, strict=True) if fate != Fate.UNSENT]
    found: list[Outage] = []
    position = 0
    for good, run in groupby(sent, lambda one: one[1] == Fate.ANSWERED):
        members = list(run)
        position += len(members)
        if not good:
            end = sent[position][0] if position < len(sent) else max(record.seconds, members[-1][0])
            begin = members[0][0]
            found.append(Outage(round(begin * 1e3, 1), round((end - begin) * 1e3, 1), len(members)))
    return tuple(found)


def percentiles(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """The smallest value that this share of the values does not exceed; zeros for none."""
    ordered = sorted(values)
    return [ordered[max(0, -int(-share * len(ordered) // 1) - 1)] if ordered else 0.0 for share in shares]


def seen(record: LoadRecord, rate: float) -> dict[str, Any]:
    """The record in the words of a result document, without names and verdict."""
    count = {fate: record.fates.count(fate) for fate in Fate}
    sent = len(record.fates) - count[Fate.UNSENT]
    late = sum(late > LATE_S for late in record.late_s) + count[Fate.UNSENT]
    latency = [value for value, fate in zip(record.latency_s, record.fates, strict=True) if fate == Fate.ANSWERED]
    p50, p90, p99, most = (round(value * 1e3, 2) for value in percentiles(latency, (0.5, 0.9, 0.99, 1.0)))
    gaps = sorted(outages(record), key=lambda one: -one.length_ms)
    return {
        "rate": {
            "asked": rate,
            "kept": round(sent / record.seconds, 1) if record.seconds else 0.0,
            "on_time": round(1 - late / len(record.fates), 4) if record.fates else 0.0,
            "stall_ms": round(max(record.late_s, default=0.0) * 1e3, 1),
        },
        "seconds": round(record.seconds, 3),
        "sent": sent,
        "answered": count[Fate.ANSWERED],
        "lost": sent - count[Fate.ANSWERED],
        "refused": count[Fate.REFUSED],
        "timed_out": count[Fate.TIMED_OUT],
        "reset": count[Fate.RESET],
        "wrong_status": count[Fate.WRONG_STATUS],
        "unsent": count[Fate.UNSENT],
        "retried": record.retried,
        "statuses": {str(status): number for status, number in sorted(record.statuses.items())},
        "latency_ms": {"p50": p50, "p90": p90, "p99": p99, "max": most},
        "outage_ms": gaps[0].length_ms if gaps else 0.0,
        "outages": [one.json() for one in sorted(gaps[:SHOWN_OUTAGES], key=lambda one: one.at_ms)],
        "problems": dict(record.problems),
    }


def judged(
    result: Mapping[str, Any],
    expected: tuple[str, str],
    allowed: Allowed,
    strangers: Mapping[str, int] = NOTHING,
) -> tuple[Judgement, list[str]]:
    """The verdict on `seen`. `expected`: what the oracle said of the flow at the beginning and at the end.

    strangers: backends that answered and may not have, where that can be told.
    """
    doubts = _doubts(result, allowed)
    wrong = [f"{name} answered {number}, and is no endpoint" for name, number in strangers.items()]
    if allowed.lost is not None and result["lost"] > allowed.lost:
        wrong.append(f"{_lost(result)}, {allowed.lost} allowed")
    if allowed.outage_ms is not None and _outage_ms(result, allowed.outage_ms) > allowed.outage_ms:
        wrong.append(f"an outage of {result['outage_ms']:g} ms, {allowed.outage_ms:g} ms allowed")
    if allowed == Allowed():
        match expected:
            case ("delivered", "delivered"):
                wrong += [_lost(result)] if result["lost"] else []
            case ("rejected", "rejected"):
                wrong += _not_all(result, "refused")
            case ("dropped", "dropped"):
                wrong += _not_all(result, "timed_out")
            case (before, after):
                doubts.append(
                    f"Kubernetes says {before} of this flow at the beginning and {after} at the end: say what may be lost"
                )
    if wrong:
        return Judgement.FAIL, wrong + doubts
    return (Judgement.INCONCLUSIVE, doubts) if doubts else (Judgement.PASS, [])


def _doubts(result: Mapping[str, Any], allowed: Allowed) -> list[str]:
    rate, found = result["rate"], []
    if not result["sent"]:
        found.append("nothing was sent")
    elif rate["on_time"] < ON_TIME:
        found.append(
            f"the generator fell behind its rate: {rate['on_time']:.0%} of the requests left on time ({rate['kept']:g} of "
            f"{rate['asked']:g} a second, once {rate['stall_ms']:g} ms late); ask for less, or on an idler machine"
        )
    if result["unsent"]:
        said = "; ".join(f"{text} ({number})" for text, number in result["problems"].items())
        found.append(f"{result['unsent']} requests could not be sent from here: {said}")
    if allowed.outage_ms is not None and rate["stall_ms"] > allowed.outage_ms:
        found.append(f"the generator stood still for {rate['stall_ms']:g} ms: an outage of that length would not have been seen")
    return found


def _outage_ms(result: Mapping[str, Any], allowed_ms: float) -> float:
    """The longest outage, less what the generator itself stood still where that alone is too long: nothing could succeed then."""
    stall_ms: float = result["rate"]["stall_ms"]
    return float(result["outage_ms"]) - (stall_ms if stall_ms > allowed_ms else 0.0)


def _lost(result: Mapping[str, Any]) -> str:
    kinds = ("refused", "timed_out", "reset", "wrong_status")
    parts = ", ".join(f"{result[kind]} {kind.replace('_', ' ')}" for kind in kinds if result[kind])
    return f"{result['lost']} of {result['sent']} requests were lost ({parts}), the longest outage {result['outage_ms']:g} ms"


def _not_all(result: Mapping[str, Any], kind: str) -> list[str]:
    if result[kind] == result["sent"]:
        return []
    return [f"{result[kind]} of {result['sent']} requests were {kind.replace('_', ' ')}, expected all"]
