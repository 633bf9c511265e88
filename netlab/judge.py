"""The verdict: what was expected, what the plan's rules say, and what was seen, compared. Pure.

It decides PASS, FAIL or INCONCLUSIVE and says why. It refuses to know where the three came from. Its one rule: nothing passes
by absence. FAIL needs proof, and proof holds whatever else could not be seen; where proof is missing and evidence is too, the
answer is INCONCLUSIVE. A backend that nobody looked at, a sniffer that was blind, a refusal without a positive control, counts
that do not add up: none of them is a PASS.

The spread over backends is judged by a chi-square test of fit at alpha = 1e-6 (one fair run in a million is called unfair: a
suite of a thousand probes a day errs once in three years), and only with five flows or more for each backend, where the
chi-square distribution is near enough. With fewer flows the rest is judged and `p` stays None: that alone is no reason to doubt.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from netlab.model import NOTHING, Address, Backend, Judgement, Observation, Outcome, OutcomeKind, Verdict

ALPHA = 1e-6
ENOUGH = 5
"""Flows that each backend must be expected to get before the spread is judged."""

DELIVERED, REJECTED, DROPPED, NOT_HANDLED = OutcomeKind
Names = Mapping[tuple[Address, int], str]


def judge(
    expected: Outcome,
    traced: Outcome | None,
    seen: Observation,
    *,
    source: Address,
    names: Names = NOTHING,
) -> Verdict:
    """What to think of a probe. `source` is the address that the flows were sent from; all of them have the same.

    `names`: how `seen.backends` calls the receiver at (address, port); `ip:port` where it is not in it. `why` is empty on a
    pass, but for what was seen of flows that were to be lost. `traced` None: the rules were not walked.
    """
    failures = [*_planner(expected, traced, names)]
    doubts = [*_accounts(seen)]
    if seen.sent > 0:
        failures += [*_fates(expected, seen), *_strangers(expected, seen, names), *_sources(expected, seen, source, names)]
        doubts += [*seen.blind, *_unseen(expected, seen), *_control(expected, seen)]
    p = _p_of_spread(expected, seen, names) if seen.sent > 0 else None
    failures += _spread(expected, seen, names, p)
    if failures:
        return Verdict(Judgement.FAIL, (*failures, *doubts, *seen.evidence), p, ALPHA)
    if doubts:
        return Verdict(Judgement.INCONCLUSIVE, (*doubts, *seen.evidence), p, ALPHA)
    lost = _plain(expected.kind) is not DELIVERED
    return Verdict(Judgement.PASS, tuple(seen.evidence) if lost else (), p, ALPHA)


def disagreement(expected: Outcome, traced: Outcome, names: Names = NOTHING) -> str:
    """'' when the rules say what Kubernetes says, else the difference. The tracer need not know who listens or answers."""
    kinds = f"Kubernetes says {_plain(expected.kind)}, the rules say {_plain(traced.kind)}"
    if not expected.backends:
        return "" if _plain(traced.kind) in _possible(expected) else kinds
    if expected.backends == traced.backends and expected.affinity == traced.affinity and _plain(traced.kind) is DELIVERED:
        return ""
    wanted, got = set(expected.backends), set(traced.backends)
    certain = {backend for backend in wanted if backend.fate is DELIVERED}
    if not got and not certain:
        return "" if _plain(traced.kind) is _plain(expected.kind) else kinds
    if certain and _plain(traced.kind) is not DELIVERED:
        return kinds
    # A backend that does not answer may be left out by a tracer that follows the packet to its end.
    if not certain <= got or not got <= wanted:
        return f"Kubernetes says {_listed(wanted, names)}, the rules say {_listed(got, names) or _plain(traced.kind)}"
    if expected.affinity != traced.affinity:
        return f"session affinity: Kubernetes says {expected.affinity}, the rules say {traced.affinity}"
    return ""


def chi_square_p(counts: tuple[int, ...], weights: tuple[float, ...] | None = None) -> float:
    """The probability of counts at least as uneven as these, if each flow falls on bin i with a chance of its weight.

    `weights` are relative, None for an even spread. 1.0 with fewer than two bins.
    """
    shares = weights if weights is not None else (1.0,) * len(counts)
    if len(counts) < 2:
        return 1.0
    total, whole = sum(counts), sum(shares)
    means = [total * share / whole for share in shares]
    statistic = sum((count - mean) ** 2 / mean for count, mean in zip(counts, means, strict=True) if mean > 0)
    return upper_gamma((len(counts) - 1) / 2, statistic / 2)


def upper_gamma(a: float, x: float) -> float:
    """The regularised upper incomplete gamma function Q(a, x), for a > 0 and x >= 0.

    Theory: below a + 1 the series of the lower function converges fast, above it the continued fraction of the upper one
    (evaluated by Lentz's method). Source: Abramowitz & Stegun 6.5.29, 6.5.31.
    """
    if x <= 0:
        return 1.0
    scale = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        n = a
        while abs(term) > abs(total) * 1e-16:
            n += 1
            term *= x / n
            total += term
        return max(0.0, 1.0 - total * scale)
    tiny = 1e-300
    b = x + 1 - a
    c, d = 1 / tiny, 1 / b
    fraction = d
    for i in range(1, 10_000):
        numerator = -i * (i - a)
        b += 2
        d = numerator * d + b
        c = b + numerator / c
        d = 1 / (d if abs(d) > tiny else tiny)
        c = c if abs(c) > tiny else tiny
        step = c * d
        fraction *= step
        if abs(step - 1) < 1e-15:
            break
    return scale * fraction


# ---------------------------------------------------------------- proof of failure


def _planner(expected: Outcome, traced: Outcome | None, names: Names) -> Iterator[str]:
    difference = disagreement(expected, traced, names) if traced is not None else ""
    if difference:
        yield f"planner bug: {difference}"


def _fates(expected: Outcome, seen: Observation) -> Iterator[str]:
    """What the client saw, against what may happen to a flow."""
    possible = _possible(expected)
    for kind, count in ((DELIVERED, seen.delivered), (REJECTED, seen.rejected), (DROPPED, seen.dropped)):
        if count > 0 and kind not in possible:
            wanted = " or ".join(sorted(possible))
            yield f"{count} of {seen.sent} flows {_were(count)} {kind}, expected: {wanted}{_because(expected)}"
    if len(possible) > 1 and None not in {backend.fate for backend in expected.backends}:
        yield from _mixture(expected, seen)
    if expected.also and _plain(expected.kind) is DELIVERED and not seen.delivered and seen.sent >= 2 * len(expected.backends):
        yield f"none of {seen.sent} flows was delivered, expected: some{_because(expected)}"


def _mixture(expected: Outcome, seen: Observation) -> Iterator[str]:
    """Where backends have different fates: each flow must have the fate of the backend that it reached."""
    if seen.blind or not seen.arrivals:
        return
    for kind, count in ((DELIVERED, seen.delivered), (REJECTED, seen.rejected)):
        places = {(backend.address, backend.port) for backend in expected.backends if backend.fate is kind}
        arrived = sum(n for (address, port, _), n in seen.arrivals.items() if (address, port) in places)
        if arrived > count:
            yield f"{arrived} flows reached a backend by which they are {kind}, but only {count} {_were(count)}"


def _strangers(expected: Outcome, seen: Observation, names: Names) -> Iterator[str]:
    """Arrivals where nothing should arrive."""
    places = {(backend.address, backend.port): _name(backend.address, backend.port, names) for backend in expected.backends}
    known = set(places.values())
    foreign: dict[str, int] = {}
    for (address, port, _), count in seen.arrivals.items():
        if count > 0 and (address, port) not in places:
            label = _name(address, port, names)
            foreign[label] = foreign.get(label, 0) + count
    for label, count in seen.backends.items():
        if count > 0 and label not in known:
            foreign.setdefault(label, count)
    if not foreign:
        return
    wanted = f"only {', '.join(sorted(known))}" if known else _plain(expected.kind)
    for label, count in sorted(foreign.items()):
        yield f"{count} {_flows(count)} reached {label}, expected: {wanted}"


def _sources(expected: Outcome, seen: Observation, source: Address, names: Names) -> Iterator[str]:
    """The source that each receiver saw, against whether it should have been rewritten, and to what."""
    by_place = {(backend.address, backend.port): backend for backend in expected.backends}
    arrivals = seen.arrivals.items()
    for (address, port, from_address), count in sorted(arrivals, key=_as_words) if len(arrivals) > 1 else arrivals:
        backend = by_place.get((address, port))
        if backend is not None and count > 0:
            problem = _source_problem((backend,), from_address, source)
            if problem:
                yield f"{count} {_flows(count)} reached {_name(address, port, names)} {problem}"
    if seen.arrivals or not expected.backends:
        return
    for text, count in sorted(seen.sources.items()):
        problem = _source_problem(expected.backends, text, source)
        if problem and count > 0:
            yield f"{count} {_flows(count)} arrived {problem}"


def _as_words(arrival: tuple[tuple[Address, int, Address], int]) -> tuple[str, ...]:
    return tuple(map(str, arrival[0]))


def _source_problem(backends: tuple[Backend, ...], seen: Address | str, source: Address) -> str:
    """'' when one of the backends may see this source."""
    for backend in backends:
        if backend.sources:
            right = seen in backend.sources or str(seen) in map(str, backend.sources)
        else:
            right = (str(seen) != str(source)) == backend.masqueraded
        if right:
            return ""
    if str(seen) == str(source):
        return f"with the client's own address {seen}, expected: masqueraded"
    wanted = sorted({str(address) for backend in backends if backend.masqueraded for address in backend.sources})
    if any(backend.masqueraded for backend in backends):
        return f"from {seen}, expected: masqueraded as {' or '.join(wanted)}"
    return f"masqueraded as {seen}, expected: the source kept ({source})"


def _p_of_spread(expected: Outcome, seen: Observation, names: Names) -> float | None:
    """The p-value of the spread over the backends; None where it is not judged.

    Flows that reach no observable backend (DROPPED on the way, say) are one bin, with the weight of all such backends.
    """
    backends = expected.backends
    if expected.spread != "random" or expected.affinity or len(backends) < 2 or seen.blind or seen.sent < ENOUGH * len(backends):
        return None
    counts = [_arrived_at(backend, seen, names) for backend in backends if backend.fate is not DROPPED]
    weights = [1.0] * len(counts)
    lost = len(backends) - len(counts)
    if lost:
        counts.append(max(0, seen.sent - sum(counts)))
        weights.append(float(lost))
    if sum(counts) < ENOUGH * len(backends):
        return None
    return chi_square_p(tuple(counts), tuple(weights))


def _spread(expected: Outcome, seen: Observation, names: Names, p: float | None) -> Iterator[str]:
    turns = expected.spread == "turns" and not expected.affinity and bool(expected.backends)
    if p is None and not turns and not expected.affinity:
        return
    counts = {_name(b.address, b.port, names): _arrived_at(b, seen, names) for b in expected.backends}
    listed = ", ".join(f"{name} {count}" for name, count in counts.items())
    complete = not seen.blind and sum(counts.values()) == seen.sent
    if p is not None and p < ALPHA:
        yield f"the spread is not even (chi-square, p = {p:.1e} < {ALPHA:.0e}): {listed}"
    if turns and complete and max(counts.values()) - min(counts.values()) > 1:
        yield f"the backends did not take turns: {listed}"
    if expected.affinity and sum(count > 0 for count in counts.values()) > 1:
        yield f"session affinity: one client reached more than one backend: {listed}"


# ---------------------------------------------------------------- missing evidence


def _accounts(seen: Observation) -> Iterator[str]:
    """Counts that cannot be true."""
    if seen.sent <= 0:
        yield "nothing was sent"
        return
    answered = seen.delivered + seen.rejected + seen.dropped
    if answered != seen.sent:
        yield f"{seen.sent} {_flows(seen.sent)} were sent, but {answered} are accounted for"
    tables: dict[str, Mapping[Any, int]] = {"arrivals": seen.arrivals, "backends": seen.backends, "sources": seen.sources}
    counts = [seen.delivered, seen.rejected, seen.dropped, *(n for table in tables.values() for n in table.values())]
    if min(counts) < 0:
        yield "a count is negative"
    totals = {what: sum(table.values()) for what, table in tables.items()}
    for what, total in totals.items():
        if total > seen.sent:
            yield f"{total} arrivals were counted ({what}) of {seen.sent} {_flows(seen.sent)} sent"
    if len({total for total in totals.values() if total}) > 1:
        yield "the observers contradict each other: " + ", ".join(f"{total} by {what}" for what, total in totals.items())


def _unseen(expected: Outcome, seen: Observation) -> Iterator[str]:
    """Answers that nobody was seen to give, and receivers whose source address was not seen."""
    arrived = max(sum(seen.arrivals.values()), sum(seen.backends.values()))
    if seen.delivered > arrived:
        yield f"the client got {seen.delivered} answers, but only {arrived} arrivals were seen"
    if arrived and expected.backends and not seen.arrivals and not seen.sources:
        yield "no receiver's view of the source address was recorded"


def _control(expected: Outcome, seen: Observation) -> Iterator[str]:
    if _plain(expected.kind) is DELIVERED or seen.control is True:
        return
    if seen.control is None:
        yield f"{_plain(expected.kind)} as expected would prove nothing: no positive control was run"
    else:
        yield "the positive control did not arrive either"


# ---------------------------------------------------------------- words


def _plain(kind: OutcomeKind) -> OutcomeKind:
    """What a client sees: a packet that nobody handles is lost."""
    return DROPPED if kind is NOT_HANDLED else kind


def _possible(expected: Outcome) -> set[OutcomeKind]:
    """The fates that a flow may have."""
    found = set(map(_plain, expected.also))
    if not expected.backends:
        return {_plain(expected.kind), *found}
    for backend in expected.backends:
        found |= {DELIVERED, REJECTED} if backend.fate is None else {_plain(backend.fate)}
    return found


def _arrived_at(backend: Backend, seen: Observation, names: Names) -> int:
    if seen.arrivals:
        return sum(n for (address, port, _), n in seen.arrivals.items() if (address, port) == (backend.address, backend.port))
    return seen.backends.get(_name(backend.address, backend.port, names), 0)


def _name(address: Address, port: int, names: Names) -> str:
    known = names.get((address, port))
    return known if known is not None else f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"


def _listed(backends: set[Backend], names: Names) -> str:
    flags = ((_name(b.address, b.port, names), b.masqueraded) for b in sorted(backends))
    return ", ".join(f"{name} ({'masqueraded' if masqueraded else 'source kept'})" for name, masqueraded in flags)


def _because(expected: Outcome) -> str:
    return f" ({expected.why})" if expected.why else ""


def _flows(count: int) -> str:
    return "flow" if count == 1 else "flows"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
