"""probe: send flows, and judge them by the oracle and, where the step has `expect`, by that too."""

from collections.abc import Mapping
from typing import Any

from netlab.demands import own_addresses, unmet
from netlab.manifest.formats import seconds
from netlab.model import Judgement
from netlab.scenario.values import Context, Lab, ProbeResult, StepResult, worst

Arguments = Mapping[str, Any]


def title(arguments: Arguments) -> str:
    return f"{arguments['from']} -> {arguments['to']}"


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    options: dict[str, Any] = {"namespace": arguments.get("namespace", context.namespace)}
    if "timeout" in arguments:
        options["timeout_s"] = seconds(arguments["timeout"])
    options |= {name: arguments[key] for key, name in OPTIONS.items() if key in arguments}
    expect = arguments.get("expect") or {}
    cluster = lab.cluster() if "masqueraded" in expect else None  # who has which address before it is sent
    result = lab.probe(arguments["from"], arguments["to"], count=arguments.get("count", 1), **options)
    addresses = own_addresses(cluster, result.sender, arguments.get("source")) if cluster is not None else ()
    own = unmet(result, expect, addresses)
    oracle, why = _oracle(result, expect.get("verdict", "pass"))
    verdict = worst([oracle, Judgement.FAIL if own else Judgement.PASS])
    return StepResult(verdict, (*own, *why), summary(result), result.json())


OPTIONS = {"protocol": "protocol", "source": "source", "sourcePort": "source_port"}


def _oracle(result: ProbeResult, wanted: str) -> tuple[Judgement, tuple[str, ...]]:
    """The probe's own verdict; a step that wants it to be something else passes exactly when it is that."""
    if wanted == "pass":
        return Judgement(result.verdict), tuple(result.why) if result.verdict != "pass" else ()
    if result.verdict == wanted:
        return Judgement.PASS, ()
    return Judgement.FAIL, (f"the verdict is {result.verdict}, expected {wanted}", *result.why)


def summary(result: ProbeResult) -> str:
    """`60 delivered to 3 backends`"""
    parts = [f"{number} {outcome}" for outcome, number in result.outcomes.items() if number]
    text = ", ".join(parts) or f"{result.sent} sent"
    backends = len(result.backends)
    return text + (f" to {backends} backend{'s' if backends != 1 else ''}" if backends else "")
