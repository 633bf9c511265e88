"""verify: read the kernel back; without `expect` nothing may differ from the plan. With `repair` nothing may be left."""

from collections.abc import Mapping
from typing import Any

from netlab.scenario.values import Context, Lab, StepResult, judged

Arguments = Mapping[str, Any]


def title(arguments: Arguments) -> str:
    return "repair" if arguments.get("repair") else ""


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    report = lab.verify(repair=bool(arguments.get("repair")))
    wanted = (arguments.get("expect") or {}).get("drift")
    drift = list(report.drift)
    summary = f"{len(drift)} differences" + (f", {report.repaired} repaired" if report.repaired else "")
    details = {"drift": drift, "repaired": report.repaired, "left": list(report.left)}
    if wanted is not None and len(drift) != wanted:
        return judged((f"{len(drift)} differences, expected {wanted}", *drift), summary, details)
    if arguments.get("repair"):
        return judged([f"not mended: {line}" for line in report.left], summary, details)
    if wanted is None:
        return judged(drift, summary, details)
    return judged((), summary, details)
