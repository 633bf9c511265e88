"""apply: create or change the objects of manifest files."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from netlab.scenario.values import Context, Lab, StepResult, judged

Arguments = Mapping[str, Any]


def title(arguments: Arguments) -> str:
    return ", ".join(arguments["manifests"])


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    done = lab.apply_files(*(context.directory / path for path in arguments["manifests"]))
    actions = Counter(one["action"] for one in done)
    return judged((), ", ".join(f"{number} {action}" for action, number in actions.items()), {"objects": list(done)})
