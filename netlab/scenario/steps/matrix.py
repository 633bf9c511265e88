"""matrix: one flow from every sender to every destination, each judged by the oracle (or by what the step says of all)."""

from collections.abc import Mapping, Sequence
from typing import Any

from netlab.errors import InputError
from netlab.model import Judgement
from netlab.scenario.values import Context, Lab, ProbeResult, StepResult, worst

Arguments = Mapping[str, Any]


def title(arguments: Arguments) -> str:
    return f"{arguments.get('from', 'all')} -> {arguments.get('to', 'all')}"


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    namespace = arguments.get("namespace", context.namespace)
    senders = targets(lab, arguments.get("from"), ("pods",))
    to = targets(lab, arguments.get("to"), ("pods", "services"))
    results = lab.matrix(senders, to, namespace=namespace)
    expect = arguments.get("expect") or {}
    verdicts, why = [], []
    for result in results:
        verdict, reasons = _judged(result, expect)
        verdicts.append(verdict)
        why += [f"{result.sender} -> {result.to}: {reason}" for reason in reasons]
    if not results:
        return StepResult(Judgement.INCONCLUSIVE, ("no pair of sender and destination fits",), "0 pairs")
    good = sum(verdict is Judgement.PASS for verdict in verdicts)
    details = {"results": [result.json() for result in results]}
    return StepResult(worst(verdicts), tuple(why), f"{good} of {len(results)} pairs as expected", details)


def _judged(result: ProbeResult, expect: Mapping[str, Any]) -> tuple[Judgement, list[str]]:
    wanted = expect.get("verdict", "pass")
    verdict, reasons = Judgement(result.verdict), list(result.why)
    if wanted != "pass":
        verdict = Judgement.PASS if result.verdict == wanted else Judgement.FAIL
        reasons = [f"the verdict is {result.verdict}, expected {wanted}", *reasons]
    outcome = expect.get("outcome")
    if outcome is not None and result.outcomes.get(outcome, 0) != result.sent:
        return Judgement.FAIL, [f"not {outcome}, as expected of all", *reasons]
    return verdict, [] if verdict is Judgement.PASS else reasons or [str(verdict)]


def targets(lab: Lab, given: Any, kinds: Sequence[str]) -> list[str] | None:
    """Targets of a list, of words with commas, or of a label selector; None for everything."""
    if given is None:
        return None
    if not isinstance(given, str):
        return [str(one) for one in given]
    if "/" in given or given.replace(".", "").replace(":", "").replace(",", "").isdigit():
        return [one.strip() for one in given.split(",")]
    found = [(kind, one["metadata"]) for kind in kinds for one in lab.get(kind, None, None, given)]
    if not found:
        raise InputError(f"nothing has the labels {given!r}; targets are written pod/NAME, node/NAME, host/NAME, svc/NAME")
    return [f"{'pod' if kind == 'pods' else 'svc'}/{meta['namespace']}/{meta['name']}" for kind, meta in found]
