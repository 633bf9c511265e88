"""wait: until a named condition holds, with a deadline.

endpoints: a Service has `count` ready endpoints (any, without count) · ready: a pod, or `count` pods of a workload (or all of
them) are ready · affinity: a Service has forgotten its clients · settled: the lab has nothing left to do.
"""

from collections.abc import Callable, Mapping
from typing import Any

from netlab.errors import InputError
from netlab.manifest.formats import seconds
from netlab.manifest.selectors import parse_selector
from netlab.scenario.named import Named, named
from netlab.scenario.values import Context, Lab, StepResult, judged

Arguments = Mapping[str, Any]
TIMEOUT_S = 10.0
POLL_S = 0.02
MARGIN_S = 1.0
"""Affinity is kept in whole seconds: one more, and it is surely over."""


def title(arguments: Arguments) -> str:
    of = f" of {arguments['of']}" if "of" in arguments else ""
    count = f" = {arguments['count']}" if "count" in arguments else ""
    return f"{arguments['for']}{of}{count}"


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    namespace = arguments.get("namespace", context.namespace)
    count = arguments.get("count")
    match arguments["for"]:
        case "affinity":
            return _affinity(lab, named(arguments["of"], namespace), context)
        case "endpoints":
            service = named(arguments["of"], namespace)
            return _until(lambda: _endpoints(lab, service, count), arguments, context)
        case "ready":
            thing = named(arguments["of"], namespace)
            return _until(lambda: _ready(lab, thing, count), arguments, context)
        case "settled":
            lab.request("GET", "/netlab/v1/info")
            return judged((), "settled")
        case other:
            raise InputError(f"wait: for {other!r} is unknown: endpoints, ready, affinity or settled")


def _until(condition: Callable[[], tuple[bool, str]], arguments: Arguments, context: Context) -> StepResult:
    timeout_s = seconds(arguments["timeout"]) if "timeout" in arguments else TIMEOUT_S
    end = context.clock() + timeout_s
    while True:
        holds, seen = condition()
        if holds:
            return judged((), seen)
        if context.clock() >= end:
            return judged((f"after {timeout_s:g} s there are {seen}",), seen)
        context.sleep(POLL_S)


def _endpoints(lab: Lab, service: Named, count: int | None) -> tuple[bool, str]:
    number = len(lab.endpoints(f"svc/{service.name}", namespace=service.namespace))
    return number > 0 if count is None else number == count, f"{number} endpoints"


def _ready(lab: Lab, thing: Named, count: int | None) -> tuple[bool, str]:
    pods = _pods(lab, thing)
    ready = sum(1 for pod in pods if _is_ready(pod))
    wanted = len(pods) if count is None else count
    return ready == wanted and ready > 0, f"{ready} of {len(pods)} pods ready"


def _pods(lab: Lab, thing: Named) -> list[dict[str, Any]]:
    if thing.kind.kind == "Pod":
        return lab.get("pods", thing.name, thing.namespace)
    selector = lab.get(thing.kind.plural, thing.name, thing.namespace)[0]["spec"].get("selector") or {}
    labels = selector.get("matchLabels", selector if "matchExpressions" not in selector else {})
    text = ",".join(f"{key}={value}" for key, value in labels.items())
    parse_selector(text)
    return lab.get("pods", None, thing.namespace, text)


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)


def _affinity(lab: Lab, service: Named, context: Context) -> StepResult:
    spec = lab.get("services", service.name, service.namespace)[0]["spec"]
    config = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    if spec.get("sessionAffinity") != "ClientIP":
        return judged((f"svc/{service.name} has no sessionAffinity: ClientIP to wait for",), "no affinity")
    timeout_s = float(config.get("timeoutSeconds", 10800))
    context.sleep(timeout_s + MARGIN_S)
    return judged((), f"no client came for {timeout_s + MARGIN_S:g} s")
