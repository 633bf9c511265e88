"""Which objects, and in which order: kubectl's --field-selector, --sort-by and -L, over Kubernetes JSON. Pure.

A field selector takes the fields that the API server takes for a kind, and no others. A sort path is a JSONPath of names and
numbers, as kubectl relaxes it: with or without braces, dollar and leading dot.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from netlab.cli.tables import Json, meta, spec, status
from netlab.errors import InputError

Reader = Callable[[Json], str]
INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _involved(name: str) -> Reader:
    """A field of the object that an Event is about."""
    return lambda item: str((item.get("involvedObject") or {}).get(name) or "")


EVERY: dict[str, Reader] = {
    "metadata.name": lambda item: str(meta(item).get("name", "")),
    "metadata.namespace": lambda item: str(meta(item).get("namespace", "")),
}
FIELDS: dict[str, dict[str, Reader]] = {
    "pods": {
        "spec.nodeName": lambda item: str(spec(item).get("nodeName") or ""),
        "spec.restartPolicy": lambda item: str(spec(item).get("restartPolicy") or "Always"),
        "spec.hostNetwork": lambda item: str(bool(spec(item).get("hostNetwork"))).lower(),
        "status.phase": lambda item: str(status(item).get("phase") or ""),
        "status.podIP": lambda item: str(status(item).get("podIP") or ""),
    },
    "nodes": {"spec.unschedulable": lambda item: str(bool(spec(item).get("unschedulable"))).lower()},
    "services": {
        "spec.clusterIP": lambda item: str(spec(item).get("clusterIP") or ""),
        "spec.type": lambda item: str(spec(item).get("type") or "ClusterIP"),
    },
    "replicationcontrollers": {"status.replicas": lambda item: str(status(item).get("replicas") or 0)},
    "replicasets": {"status.replicas": lambda item: str(status(item).get("replicas") or 0)},
    "namespaces": {"status.phase": lambda item: str(status(item).get("phase") or "")},
    "events": {
        **{f"involvedObject.{name}": _involved(name) for name in INVOLVED},
        "reason": lambda item: str(item.get("reason") or ""),
        "reportingComponent": lambda item: str(item.get("reportingComponent") or ""),
        "source": lambda item: str((item.get("source") or {}).get("component") or item.get("reportingComponent") or ""),
        "type": lambda item: str(item.get("type") or ""),
    },
    "secrets": {"type": lambda item: str(item.get("type") or "Opaque")},
    "jobs": {"status.successful": lambda item: str(status(item).get("succeeded") or 0)},
}


def by_fields(kind: str, text: str) -> Callable[[Json], bool]:
    """Whether an object of this (plural) kind fits `metadata.name=a,status.phase!=Running`. Raises InputError."""
    known = EVERY | FIELDS.get(kind, {})
    wanted: list[tuple[Reader, bool, str]] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        found = re.fullmatch(r"([^=!]+?)\s*(==|=|!=)\s*(.*)", part)
        if found is None:
            raise InputError(f"--field-selector {part}: expected FIELD=VALUE or FIELD!=VALUE")
        field, operator, value = found.groups()
        if field not in known:
            raise InputError(f'--field-selector: field label not supported for {kind}: "{field}"; there is {", ".join(known)}')
        wanted.append((known[field], operator != "!=", value))
    return lambda item: all((read(item) == value) == equal for read, equal, value in wanted)


def sorted_by(items: Sequence[Json], path: str) -> list[Any]:
    """The objects in the order of the value at the path; those without one come first. Raises InputError."""
    steps = _steps(path)
    keys = [_at(item, steps) for item in items]
    if items and all(key is None for key in keys):
        raise InputError(f"--sort-by {path}: no object has such a field")
    order = sorted(range(len(items)), key=lambda at: _rank(keys[at]))
    return [items[at] for at in order]


def _steps(path: str) -> list[str | int]:
    bare = path.strip().removeprefix("{").removesuffix("}").removeprefix("$").removeprefix(".")
    parts = re.findall(r"\[(\d+)\]|\[['\"]([^'\"]+)['\"]\]|((?:\\\.|[^.\[\]])+)", bare)
    rest = re.sub(r"\[(\d+)\]|\[['\"]([^'\"]+)['\"]\]|((?:\\\.|[^.\[\]])+)|\.", "", bare)
    if not parts or rest:
        raise InputError(
            f"--sort-by {path}: expected a path of names and numbers, such as .metadata.name or .status.podIPs[0].ip"
        )
    return [int(number) if number else quoted or plain.replace("\\.", ".") for number, quoted, plain in parts]


def _at(item: Any, steps: Sequence[str | int]) -> Any:
    for step in steps:
        match item, step:
            case dict(), str():
                item = item.get(step)
            case list(), int():
                item = item[step] if step < len(item) else None
            case _:
                return None
    return item


def _rank(value: Any) -> tuple[int, float, str]:
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, 0.0, str(value)


def label_columns(words: Iterable[str]) -> tuple[str, ...]:
    """The label keys of `-L app,tier -L zone`."""
    return tuple(key.strip() for word in words for key in word.split(",") if key.strip())
