"""fault: break something on purpose. With `for`, the step lasts that long and mends a link or a node at its end."""

from collections.abc import Mapping
from typing import Any

from netlab.manifest.formats import seconds
from netlab.scenario.values import Context, Lab, StepResult, judged

Arguments = Mapping[str, Any]
OTHERS = ("for", "namespace")


def title(arguments: Arguments) -> str:
    return ", ".join(f"{key} {value}" for key, value in arguments.items() if key not in OTHERS)


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    kind, target = next((key, value) for key, value in arguments.items() if key not in OTHERS)
    options: dict[str, Any] = {"namespace": arguments.get("namespace", context.namespace)}
    where = target if isinstance(target, str) and target not in ("", "all") else None
    if kind in ("link-down", "link-up") and where is not None:
        where, _, device = where.partition(":")
        if device:
            options["device"] = device
    lab.fault(kind, where, **options)
    if kind == "link-down" and "for" in arguments:
        context.sleep(seconds(arguments["for"]))
        lab.fault("link-up", where, **options)
        return judged((), f"down for {arguments['for']}")
    if kind in ("kill-node", "partition") and "for" in arguments:
        context.sleep(seconds(arguments["for"]))
        lab.fault("heal", where, **options)
        return judged((), f"out of reach for {arguments['for']}")
    return judged((), "done")
