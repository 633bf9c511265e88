"""A probe's result as a picture: how many flows each backend got, and the band in which that number should lie. Pure.

The band is where a fair choice leaves a backend's count but for one time in a million over all backends of the plot (as the
judge's test has it): exact binomial quantiles. Where endpoints take turns it is the quotient, rounded down and up.
"""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

ALPHA = 1e-6
ROW, TOP, LEFT, BAR, RIGHT = 22, 6, 250, 520, 90
LABEL = 34


def band(sent: int, share: float, alpha: float = ALPHA) -> tuple[int, int]:
    """The counts between which a binomial count of `sent` trials lies, but with probability `alpha`."""
    if not 0 < share < 1 or sent <= 0:
        return (0, 0) if share <= 0 else (sent, sent)
    return _quantile(sent, share, alpha / 2), sent - _quantile(sent, 1 - share, alpha / 2)


def _quantile(sent: int, share: float, tail: float) -> int:
    """The least count whose probability, with all below it, exceeds `tail`."""
    total = 0.0
    for count in range(sent + 1):
        logarithm = math.lgamma(sent + 1) - math.lgamma(count + 1) - math.lgamma(sent - count + 1)
        total += math.exp(logarithm + count * math.log(share) + (sent - count) * math.log1p(-share))
        if total > tail:
            return count
    return sent


def expected_band(result: Mapping[str, Any]) -> tuple[int, int] | None:
    """The band of each backend of a probe's result; None where no spread is expected (one backend, affinity)."""
    backends = result["expected"].get("backends") or ()
    sent = sum(result["backends"].values())
    if len(backends) < 2 or not sent:
        return None
    if result["expected"].get("spread") == "turns":
        return sent // len(backends), -(-sent // len(backends))
    if result["distribution"] is None:
        return None
    return band(sent, 1 / len(backends), ALPHA / len(backends))


def backends(result: Mapping[str, Any]) -> str:
    """An SVG: a row a backend, its count as a bar, the band behind it, a dashed line where an even share lies. '' for none."""
    expected: Sequence[str] = result["expected"].get("backends") or ()
    counts = {name: result["backends"].get(name, 0) for name in dict.fromkeys((*expected, *result["backends"]))}
    if not counts or not any(counts.values()):
        return ""
    between = expected_band(result)
    most = max(*counts.values(), between[1] if between else 0, 1)
    scale = BAR / most
    parts = []
    for number, (name, count) in enumerate(counts.items()):
        y = TOP + number * ROW
        stranger = name not in expected
        outside = stranger or (between is not None and not between[0] <= count <= between[1])
        if between and not stranger:
            width = max((between[1] - between[0]) * scale, 2)
            parts.append(
                f'<rect class="band" x="{LEFT + between[0] * scale:.1f}" y="{y}" width="{width:.1f}" height="{ROW - 4}"/>'
            )
        kind = "out" if outside else "bar"
        parts.append(f'<rect class="{kind}" x="{LEFT}" y="{y + 5}" width="{count * scale:.1f}" height="{ROW - 14}" rx="2"/>')
        short = name if len(name) <= LABEL else "…" + name[1 - LABEL :]
        parts.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(short)}<title>{escape(name)}</title></text>')
        note = " not expected" if stranger else " outside" if outside else ""
        parts.append(f'<text x="{LEFT + BAR + 8}" y="{y + 13}">{count}{note}</text>')
    height = TOP + len(counts) * ROW + 18
    if between:
        mean = LEFT + sum(counts.values()) / len(expected) * scale
        parts.append(f'<path class="mean" d="M{mean:.1f} {TOP}V{height - 18}"/>')
        words = f"expected between {between[0]} and {between[1]}" if between[0] != between[1] else f"expected {between[0]} each"
        parts.append(f'<text class="soft" x="{LEFT}" y="{height - 4}">{words}; {_test(result)}</text>')
    width = LEFT + BAR + RIGHT
    return (
        f'<svg class="plot" role="img" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'
        f"<title>flows by backend</title>{''.join(parts)}</svg>"
    )


def _test(result: Mapping[str, Any]) -> str:
    test = result["distribution"]
    if test is None:
        return "endpoints take turns"
    return f"chi-square p = {test['p']:.2g}, unfair below {test['alpha']:g}"
