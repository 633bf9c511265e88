"""Probe results of several modes side by side: do they agree, and if not, does a known difference explain it. Plain JSON in.

A result that passed was seen as expected, so results agree when their expectations do; one that did not pass is a failure of
its own, and what was seen of it is compared besides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from netlab.model import mode_of

Result = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Pair:
    """One flow in every mode. `explained`: rows and texts for disagreements; `unexplained`: the two modes of one without."""

    sender: str
    to: str
    results: Mapping[str, Result]
    explained: tuple[tuple[int, str], ...] = ()
    unexplained: tuple[tuple[str, str], ...] = ()

    @property
    def agrees(self) -> bool:
        return not (self.explained or self.unexplained)

    @property
    def failed(self) -> bool:
        return bool(self.unexplained) or any(result["verdict"] == "fail" for result in self.results.values())

    @property
    def inconclusive(self) -> bool:
        return any(result["verdict"] == "inconclusive" for result in self.results.values())


@dataclass(frozen=True, slots=True)
class Comparison:
    modes: tuple[str, ...]
    pairs: tuple[Pair, ...]

    @property
    def disagreements(self) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs if not pair.agrees)

    @property
    def exit_code(self) -> int:
        """0 when every disagreement is a known one and every verdict a pass, 1 when not, 4 when evidence is missing."""
        if any(pair.failed for pair in self.pairs):
            return 1
        return 4 if any(pair.inconclusive for pair in self.pairs) else 0

    def json(self) -> dict[str, Any]:
        """Every disagreement with its explanation, and every result by mode."""
        return {
            "modes": list(self.modes),
            "pairs": len(self.pairs),
            "disagreements": [_json(pair) for pair in self.disagreements],
            "results": {mode: [pair.results[mode] for pair in self.pairs if mode in pair.results] for mode in self.modes},
            "exitCode": self.exit_code,
        }


def compare(results: Mapping[str, Sequence[Result]]) -> Comparison:
    """The results of the same probes in the same order, by mode; as far as each goes (a run may break off)."""
    modes = tuple(results)
    length = max(map(len, results.values()), default=0)
    pairs = []
    for at in range(length):
        row = {mode: results[mode][at] for mode in modes if at < len(results[mode])}
        pairs.append(_pair(row))
    return Comparison(modes, tuple(pairs))


def _pair(row: Mapping[str, Result]) -> Pair:
    first = next(iter(row.values()))
    explained: dict[int, str] = {}
    unexplained: list[tuple[str, str]] = []
    for one, other in combinations(row, 2):
        if _meaning(row[one]) == _meaning(row[other]):
            continue
        rows = [*row[one].get("differences", ()), *row[other].get("differences", ())]
        fitting = {d["row"]: d["text"] for d in rows if (mode_of(one) in d["apart"]) != (mode_of(other) in d["apart"])}
        explained |= fitting
        if not fitting:
            unexplained.append((one, other))
    return Pair(first["from"], first["to"], row, tuple(sorted(explained.items())), tuple(unexplained))


def _meaning(result: Result) -> tuple[Any, ...]:
    expected = result["expected"]
    masqueraded = expected.get("masqueraded")
    meant = (
        expected["outcome"],
        frozenset(expected["backends"]),
        frozenset(masqueraded.items()) if isinstance(masqueraded, Mapping) else masqueraded,
    )
    if result["verdict"] == "pass":
        return meant
    return (*meant, frozenset(word for word, number in result["outcomes"].items() if number))


def _json(pair: Pair) -> dict[str, Any]:
    return {
        "from": pair.sender,
        "to": pair.to,
        "outcomes": {mode: result["outcomes"] for mode, result in pair.results.items()},
        "known": [{"row": row, "text": text} for row, text in pair.explained],
        "unexplained": [list(modes) for modes in pair.unexplained],
    }
