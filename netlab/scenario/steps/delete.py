"""delete: one object (`deploy/web@2`: a workload's second pod), or those of manifest files. Pods end in their own time."""

from collections.abc import Mapping
from typing import Any

from netlab import manifest
from netlab.scenario.named import Named, named
from netlab.scenario.values import Context, Lab, StepResult, judged
from netlab.targets import resolve_sender

Arguments = Mapping[str, Any]


def title(arguments: Arguments) -> str:
    return str(arguments.get("target") or ", ".join(arguments["manifests"]))


def run(lab: Lab, arguments: Arguments, context: Context) -> StepResult:
    namespace = arguments.get("namespace", context.namespace)
    target = arguments.get("target")
    if target and "@" in target:
        pod = resolve_sender(lab.cluster(), target, namespace)
        target, namespace = f"pod/{pod.name}", pod.namespace
    things = [named(target, namespace)] if target else _in_files(arguments, context, namespace)
    for thing in things:
        lab.delete(thing.kind.plural, thing.name, thing.namespace or "default", arguments.get("cascade", "background"))
    return judged((), f"{len(things)} deleted")


def _in_files(arguments: Arguments, context: Context, namespace: str) -> list[Named]:
    paths = [str(context.directory / path) for path in arguments["manifests"]]
    found = manifest.documents(manifest.read_paths(paths, lambda: b""))
    return [named(f"{one['kind']}/{one['metadata']['name']}", one["metadata"].get("namespace") or namespace) for one in found]
