"""Scenario files to Scenario values.

Decides which steps there are and what each takes. Refuses to know what they do, and where their files lie: paths stay
as written, relative to the scenario's own file.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from netlab.manifest import impairments, own_fields
from netlab.manifest.check import BAD
from netlab.manifest.documents import Document, read_documents
from netlab.manifest.formats import json_type, modes
from netlab.manifest.meta import Json
from netlab.manifest.problems import Place, Report, did_you_mean, shorten
from netlab.manifest.source import Source
from netlab.manifest.topology import own_kind
from netlab.model import FrozenDict

_IMPAIRMENTS = tuple(kind for kind in impairments.KINDS if kind != "jitter")
_LASTING = ("kill-pod", "link-up", "flush-conntrack", "heal", "clear")
_FAULTS = (
    "kill-pod", "link-down", "link-up", "flush-conntrack", "kill-node", "partition", "heal", *_IMPAIRMENTS, "clear",
)  # fmt: skip
_PATH_LIST = ("apply",)
_TARGET = ("delete", "rollout")


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `arguments` has the file's keys, checked; `line` is where the step begins. `name` is the user's, or ''.

    proxy: the proxy modes in which the step is taken, () for every one; in others it is left out.
    """

    kind: str
    arguments: Mapping[str, Any]
    line: int = 0
    name: str = ""
    proxy: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario. `topology` is '' for the default one; `proxy` () for the topology's own; `file` is the name of the source."""

    name: str
    topology: str = ""
    manifests: tuple[str, ...] = ()
    proxy: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    description: str = ""
    fabric: str = ""
    namespace: str = "default"
    file: str = ""


def read_scenario(source: Source) -> Scenario:
    """The scenario in a file. Raises: InputError with every mistake in it."""
    report = Report()
    documents = read_documents(source)
    for extra in documents[1:]:
        report.problem(extra, "a scenario is one document")
    document = documents[0] if documents else Document(source.shown, {})
    data: Json = {}
    if not isinstance(document.data, dict):
        report.problem(document, f"a scenario is wanted, not {json_type(document.data)}")
    elif own_kind(document.data, "Scenario", document, report):
        checked = own_fields.checks()["Scenario"](document.data, document, report)
        data = checked if checked is not BAD else {}
    steps = tuple(_steps(data.get("steps") or (), (document, "steps"), report))
    if any(step.proxy for step in _with_inner(steps)) and not data.get("proxy"):
        report.problem(document, "its steps are for some proxy modes only: say with `proxy:` in which modes it runs")
    report.finish()
    proxy = data.get("proxy") or ()
    return Scenario(
        name=data["name"],
        topology=data.get("topology") or "",
        manifests=tuple(data.get("manifests") or ()),
        proxy=(proxy,) if isinstance(proxy, str) else tuple(proxy),
        steps=steps,
        description=data.get("description") or "",
        fabric=data.get("fabric") or "",
        namespace=data.get("namespace") or "default",
        file=source.name,
    )


def probe_expectation(words: Mapping[str, Any]) -> dict[str, Any]:
    """The `expect` of a probe that is asked for in Python, checked as a scenario's is. Raises: InputError."""
    report = Report()
    place = (Document("probe", {"expect": dict(words)}), "expect")
    checked = own_fields.checks()["ProbeExpect"](dict(words), place, report)
    if "verdict" in words:
        report.problem((place, "verdict"), "is for scenarios: here the result has a verdict to compare", key=True)
    report.finish()
    return dict(checked)


@cache
def step_kinds() -> tuple[str, ...]:
    """The kinds of steps, in the order of the tables."""
    return tuple(name.removeprefix("Step.") for name in own_fields.TABLES if name.startswith("Step."))


def _with_inner(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps, each followed by those that are taken under it."""
    for step in steps:
        yield step
        yield from _with_inner(step.arguments.get("while") or ())


def _steps(entries: Any, steps: Place, report: Report) -> list[Step]:
    if entries is BAD:
        return []
    found = []
    for index, entry in enumerate(entries):
        place = (steps, index)
        step = _step(entry, place, report)
        if step is not None:
            found.append(step)
    return found


def _step(entry: Any, place: Place, report: Report) -> Step | None:
    if isinstance(entry, str) and entry in ("matrix", "verify"):
        entry = {entry: {}}
    if not isinstance(entry, dict):
        report.problem(place, f"a step is wanted, like `probe: {{from: ..., to: ...}}`, not {json_type(entry)}")
        return None
    kinds = [key for key in entry if key not in ("name", "proxy")]
    for key in kinds:
        if key not in step_kinds():
            meant = did_you_mean(key, step_kinds())
            hint = f"; did you mean {meant}?" if meant else f"; there are {', '.join(step_kinds())}"
            report.problem((place, key), f"there is no step {shorten(key)}{hint}", key=True)
    known = [key for key in kinds if key in step_kinds()]
    if len(kinds) != 1:
        report.problem(place, f"a step has one kind, not {len(kinds)}")
    if not known:
        return None
    name = entry.get("name") or ""
    if not isinstance(name, str):
        report.problem((place, "name"), f"must be a string, not {json_type(name)}")
    proxy = entry.get("proxy", ())
    if "proxy" in entry and (error := modes(proxy)):
        report.problem((place, "proxy"), error)
        proxy = ()
    only = (proxy,) if isinstance(proxy, str) else tuple(proxy)
    kind = known[0]
    arguments = _arguments(kind, entry[kind], (place, kind), report)
    return Step(kind, FrozenDict(arguments), report.where(place)[1], str(name), () if "all" in only else only)


def _arguments(kind: str, value: Any, place: Place, report: Report) -> dict[str, Any]:
    if kind in _PATH_LIST and isinstance(value, str | list):
        value = {"manifests": [value] if isinstance(value, str) else value}
    elif kind in _TARGET and isinstance(value, str):
        value = {"target": value}
    checked = own_fields.checks()[f"Step.{kind}"]({} if value is None else value, place, report)
    if checked is BAD:
        return {}
    if kind == "load":
        return _load(checked, place, report)
    if kind == "fault":
        _check_fault(checked, place, report)
    if (
        kind == "delete"
        and bool(checked.get("target")) == bool(checked.get("manifests"))
        and isinstance(value, dict)
        and checked == value
    ):
        report.problem(place, "either target or manifests is wanted")
    if (
        kind == "wait"
        and checked.get("for") not in (None, "settled")
        and not checked.get("of")
        and isinstance(value, dict)
        and value.get("of") is None
    ):
        report.problem((place, "of"), f"required to wait for {checked['for']}")
    return dict(checked)


def _load(load: Json, place: Place, report: Report) -> dict[str, Any]:
    """A load with the steps that are taken under it read as steps."""
    if not load.get("for") and not load.get("while"):
        report.problem(place, "how long? `while:` takes steps, or `for:` a time like 3s")
    return {**load, "while": tuple(_steps(load["while"], (place, "while"), report))} if load.get("while") else dict(load)


def _check_fault(fault: Json, place: Place, report: Report) -> None:
    given = [key for key in fault if key in _FAULTS]
    if len(given) != 1:
        report.problem(place, f"one fault is wanted ({', '.join(_FAULTS)}), not {len(given)}")
    for kind in given:
        if kind in _LASTING and fault.get("for") is not None:
            report.problem((place, "for"), f"{kind} takes none: nothing undoes it", key=True)
        if kind not in _IMPAIRMENTS:
            for name in ("value", "jitter", "direction"):
                if fault.get(name) is not None and (kind, name) != ("clear", "direction"):
                    report.problem((place, name), f"{kind} takes none: it is for {', '.join(_IMPAIRMENTS)}", key=True)
        if kind in _IMPAIRMENTS and not isinstance(fault[kind], str):
            report.problem((place, kind), f"takes a link, like `{kind}: client/lan`, with `value:` beside it")
        if kind in _IMPAIRMENTS and fault.get("value") is None:
            report.problem(place, f"{kind} needs a value, like `{{{kind}: {fault[kind]}, value: ...}}`")
        elif kind in _IMPAIRMENTS and (error := impairments.value_problem(kind, fault["value"])):
            report.problem((place, "value"), error)
