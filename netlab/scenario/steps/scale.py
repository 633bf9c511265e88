"""scale: set the number of replicas of a workload."""

from collections.abc import Mapping
from typing import Any

from netlab.scenario.named import named
from netlab.scenario.values import Context, Lab, StepResult, judged

Arguments = Mapping[str, Any]


def title(arguments: Arguments) -> str:
    return f"{arguments['target']} to {arguments['replicas']}"


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    thing = named(arguments["target"], arguments.get("namespace", context.namespace))
    lab.scale(thing.kind.kind, thing.name, arguments["replicas"], thing.namespace)
    return judged((), "settled")
