"""rollout: kubectl's rollout verbs. `status` (what is done without `action`) waits for its end, with a deadline."""

from collections.abc import Mapping
from typing import Any

from netlab.errors import ApiError
from netlab.manifest.formats import seconds
from netlab.scenario.named import named
from netlab.scenario.values import Context, Lab, StepResult, judged

Arguments = Mapping[str, Any]
TIMEOUT_S = 30.0


def title(arguments: Arguments) -> str:
    return f"{arguments.get('action', 'status')} {arguments['target']}"


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    namespace = arguments.get("namespace", context.namespace)
    thing = named(arguments["target"], namespace)
    target, action = f"{thing.kind.plural}/{thing.name}", arguments.get("action", "status")
    rollout = lab.rollout
    if action == "status":
        timeout_s = seconds(arguments["timeout"]) if "timeout" in arguments else TIMEOUT_S
        return _status(rollout, target, timeout_s, thing.namespace)
    if action == "undo":
        return judged((), str(rollout.undo(target, arguments.get("revision", 0), thing.namespace)))
    getattr(rollout, action)(target, thing.namespace)
    return judged((), "done")


def _status(rollout: Any, target: str, timeout_s: float, namespace: str) -> StepResult:
    try:
        return judged((), rollout.status(target, timeout_s, namespace))
    except TimeoutError as error:
        return judged((f"after {timeout_s:g} s: {error}",), "not done")
    except ApiError as error:
        return judged((str(error),), "failed")
