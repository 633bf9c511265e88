"""load: requests at a constant rate while other steps are taken (`while`) or for a time (`for`); the lost ones are counted.

The load runs LEAD_S before the first of the other steps and as long after the last one, so that what a step breaks is seen on
both sides of it. Without `expect` the oracle's word counts: where it says delivered, nothing may be lost.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from netlab.manifest.formats import seconds
from netlab.model import Judgement
from netlab.scenario.values import Context, Lab, StepResult, StepRun, worst

Arguments = Mapping[str, Any]
LEAD_S = 0.3


def title(arguments: Arguments) -> str:
    return f"{arguments['from']} -> {arguments['to']} at {arguments['rate']}/s"


OPTIONS = {"protocol": "protocol", "source": "source", "keepAlive": "keep_alive"}


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    options: dict[str, Any] = {"namespace": arguments.get("namespace", context.namespace)}
    if "timeout" in arguments:
        options["timeout_s"] = seconds(arguments["timeout"])
    options |= {name: arguments[key] for key, name in OPTIONS.items() if key in arguments}
    steps = arguments.get("while") or ()
    if not steps:
        options["for_s"] = seconds(arguments["for"])
    ran: Sequence[StepRun] = ()
    with lab.load(arguments["from"], arguments["to"], arguments["rate"], expect=allowed(arguments), **options) as load:
        if steps:
            context.sleep(LEAD_S)
            begun = context.clock()
            ran = context.take(lab, steps)
            longer = seconds(arguments["for"]) - (context.clock() - begun) if "for" in arguments else 0.0
            context.sleep(max(LEAD_S, longer))
        result = load.result(stop=bool(steps))
    if any(one.result.details.get("lab") == "gone" for one in ran):
        return ran[-1].result
    verdict = worst([Judgement(result.verdict), *(one.result.verdict for one in ran)])
    inner = [f"{one.title}: {why}" for one in ran if one.result.verdict is not Judgement.PASS for why in one.result.why]
    return StepResult(
        verdict, (*result.why, *inner), summary(result.json()), {**result.json(), "steps": [shown(one) for one in ran]}
    )


def allowed(arguments: Arguments) -> dict[str, Any]:
    """`expect` in the API's words."""
    wanted = arguments.get("expect") or {}
    found: dict[str, Any] = {"lost": wanted["lost"]} if "lost" in wanted else {}
    return found | ({"outage_ms": seconds(wanted["outage"]["max"]) * 1e3} if "outage" in wanted else {})


def summary(result: Mapping[str, Any]) -> str:
    """`600 sent, 2 lost (2 refused), outage 12.5 ms, p99 3.1 ms`"""
    kinds = ("refused", "timed_out", "reset", "wrong_status")
    parts = ", ".join(f"{result[kind]} {kind.replace('_', ' ')}" for kind in kinds if result[kind])
    lost = f"{result['lost']} lost ({parts}), outage {result['outage_ms']:g} ms" if result["lost"] else "none lost"
    return f"{result['sent']} sent, {lost}, p99 {result['latency_ms']['p99']:g} ms"


def shown(ran: StepRun) -> dict[str, Any]:
    return {
        "kind": ran.step.kind,
        "title": ran.title,
        "verdict": str(ran.result.verdict),
        "seconds": round(ran.seconds, 3),
        "summary": ran.result.summary,
        "why": list(ran.result.why),
        "details": dict(ran.result.details),
    }
