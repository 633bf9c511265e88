"""`matrix --proxy all` and `run --proxy all`: the modes side by side, for people."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from netlab.cli import output
from netlab.differences import Comparison, Pair, compare
from netlab.errors import InputError, MachineError

if TYPE_CHECKING:
    from netlab.client import Lab

MARKS = {"delivered": "ok", "rejected": "rej", "dropped": "drop"}


def matrix(running: "Lab", senders: Sequence[str] | None, to: Sequence[str] | None) -> Comparison:
    """The same pairs in the running lab and in a twin of it for every other mode and layout; the twins are taken down."""
    from netlab.proxy import variants

    own = running.cluster().topology.cluster.proxy.variant
    results = {own: [one.json() for one in running.matrix(senders, to)]}
    for mode in (mode for mode in variants() if mode != own):
        try:
            twin = running.twin(mode)
        except MachineError as error:
            output.message(f"{mode} is left out: {error}")
            continue
        with twin:
            results[mode] = [one.json() for one in twin.matrix(senders, to)]
    if len(results) < 2:
        raise MachineError(f"this machine can run no mode but {own}: there is nothing to compare; see `netlab doctor`")
    if not results[own]:
        raise InputError("no pair of sender and destination fits: `netlab get po,svc -A` shows what there is")
    return compare(results)


def text(comparison: Comparison, colour: bool) -> str:
    """A row a pair, a column a mode; below, every disagreement and what explains it."""
    from netlab.cli.tables import align

    cells = [
        [pair.sender, pair.to, *(cell(pair.results.get(mode)) for mode in comparison.modes), note(pair)]
        for pair in comparison.pairs
    ]
    rows = align([["FROM", "TO", *map(str.upper, comparison.modes), ""], *cells])
    return "".join(line.rstrip() + "\n" for line in rows.splitlines()) + "\n" + summary(comparison, colour)


def summary(comparison: Comparison, colour: bool) -> str:
    """How many pairs agree, and every disagreement with its reason."""
    odd = comparison.disagreements
    alike = len(comparison.pairs) - len(odd)
    lines = [f"{len(comparison.pairs)} pairs in {', '.join(comparison.modes)}: {alike} alike, {len(odd)} not"]
    known: dict[tuple[int, str], list[Pair]] = {}
    for pair in odd:
        for reason in pair.explained:
            known.setdefault(reason, []).append(pair)
    for (row, sentence), pairs in sorted(known.items()):
        lines.append(f"  known difference (row {row}): {sentence}")
        lines += [f"    {pair.sender} -> {pair.to}: {outcomes(pair)}" for pair in pairs]
    for pair in odd:
        for one, other in pair.unexplained:
            bad = output.paint("UNEXPLAINED", "red", colour)
            lines.append(f"  {bad} {pair.sender} -> {pair.to}: {one} and {other} disagree: {outcomes(pair)}")
    for pair in comparison.pairs:
        for mode, result in pair.results.items():
            if result["verdict"] != "pass":
                why = "; ".join(result["why"])
                lines.append(f"  {result['verdict'].upper()} {pair.sender} -> {pair.to} [{mode}]: {why}")
    return "".join(line + "\n" for line in lines)


def note(pair: Pair) -> str:
    if pair.unexplained:
        return "UNEXPLAINED"
    return f"row {', '.join(str(row) for row, _ in pair.explained)}" if pair.explained else ""


def outcomes(pair: Pair) -> str:
    return ", ".join(f"{mode} {cell(result)}" for mode, result in pair.results.items())


def cell(result: Mapping[str, Any] | None) -> str:
    """What the client saw, in a word, `!` where it was not expected; how many backends there are, and `m` for masqueraded."""
    if result is None:
        return "-"
    seen = "+".join(MARKS.get(word, word) for word, number in result["outcomes"].items() if number) or "-"
    backends = result["expected"].get("backends") or ()
    if backends and seen == "ok":
        seen += f" {len(backends)}{' masqueraded' if result['expected'].get('masqueraded') else ''}"
    return seen + {"pass": "", "fail": "!", "inconclusive": "?"}[result["verdict"]]
