"""label: set labels of an object; a label with the value null is taken away."""

from collections.abc import Mapping
from typing import Any

from netlab.scenario.named import named
from netlab.scenario.values import Context, Lab, StepResult, judged

Arguments = Mapping[str, Any]


def title(arguments: Arguments) -> str:
    changes = (f"{key}={value}" if value is not None else f"{key}-" for key, value in arguments["labels"].items())
    return f"{arguments['target']} {' '.join(changes)}"


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    thing = named(arguments["target"], arguments.get("namespace", context.namespace))
    patch = {"metadata": {"labels": dict(arguments["labels"])}}
    lab.request("PATCH", thing.path, patch, {"Content-Type": "application/merge-patch+json"})
    return judged((), "labeled")
