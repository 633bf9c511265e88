"""fault: break something on purpose. With `for`, the step lasts that long and mends a link or a node at its end."""

from collections.abc import Mapping
from typing import Any

from netlab.manifest.formats import seconds
from netlab.scenario.values import Context, Lab, StepResult, judged

Arguments = Mapping[str, Any]
OTHERS = ("for", "namespace", "value", "jitter", "direction")


def title(arguments: Arguments) -> str:
    words = [f"{key} {value}" for key, value in arguments.items() if key not in OTHERS]
    return " ".join([*words, *(str(arguments[key]) for key in ("value", "direction") if key in arguments)])


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    kind, target = next((key, value) for key, value in arguments.items() if key not in OTHERS)
    options: dict[str, Any] = {"namespace": arguments.get("namespace", context.namespace)}
    options |= {key: arguments[key] for key in ("value", "jitter", "direction") if key in arguments}
    where = target if isinstance(target, str) and target not in ("", "all") else None
    done = lab.fault(kind, where, **options)
    undo = done.get("undo") if isinstance(done, Mapping) else None
    if "for" in arguments and (kind == "link-down" or undo):
        context.sleep(seconds(arguments["for"]))
        if kind == "link-down":
            lab.fault("link-up", where, **options)
        else:
            lab.fault("restore", undo=undo)
        return judged((), f"{'down' if kind == 'link-down' else 'impaired'} for {arguments['for']}")
    if kind in ("kill-node", "partition") and "for" in arguments:
        context.sleep(seconds(arguments["for"]))
        lab.fault("heal", where, **options)
        return judged((), f"out of reach for {arguments['for']}")
    return judged((), "done")
