"""Checks plain data against tables of fields and says everything that is wrong with it.

Theory of operation: a table is text, `name:type` words per type (see `Grammar`). It is compiled once into nested
closures. A check takes a value and its place, reports mistakes, and returns the value without what was wrong (BAD if
nothing is left), so that later checks see only values of the right type and one mistake is not reported twice. A
misspelled key is taken for the one that was meant.

Grammar: `name:type`, the type string when left out; `!` after it: required; `?` or `?default`: a warning says that
netlab does not act on it, unless it has that value; `[T]` a list, `{T}` a mapping by string, `A|B` one of these
words, `|A|B` the same or '', which says nothing, Capitalised: another table. A table that begins with `*` accepts fields
that it does not list.
"""

from collections.abc import Callable, Mapping
from typing import Any

from netlab.manifest.formats import FORMATS, json_type, label_key
from netlab.manifest.problems import Place, Report, did_you_mean, shorten

Check = Callable[[Any, Place, Report], Any]
BAD: Any = type("Bad", (), {"__slots__": (), "__repr__": lambda self: "BAD", "__bool__": lambda self: False})()


def compile_tables(tables: Mapping[str, str]) -> dict[str, Check]:
    """A check for each table."""
    compiled: dict[str, Check] = {}
    for name, text in tables.items():
        compiled[name] = _table(text, compiled, tables)
    return compiled


def split(word: str) -> tuple[str, str, bool, str | None]:
    """A table's word: field name, type, whether it is required, and the value that needs no warning (None: never warn)."""
    word, mark, default = word.partition("?")
    name, _, kind = word.partition(":")
    required = word.endswith("!")
    return name.rstrip("!"), kind.rstrip("!") or "string", required, default if mark else None


def _type(kind: str, compiled: dict[str, Check]) -> Check:
    if kind[0] == "[":
        return _list(_type(kind[1:-1], compiled))
    if kind == "labels":
        return _map(_type("labelValue", compiled), True)
    if kind == "annotations":
        return _map(_type("string", compiled), True)
    if kind[0] == "{":
        return _map(_type(kind[1:-1], compiled), False, empty={} if kind[1].isupper() else None)
    if "|" in kind:
        return _enum(tuple(kind.split("|")))
    if kind[0].isupper():
        return lambda value, place, report: compiled[kind](value, place, report)
    return _scalar(kind)


def _scalar(kind: str) -> Check:
    test = FORMATS[kind][0]
    whole = kind in ("int", "count", "positive", "port", "nodePort", "portOrName", "targetPort", "intOrPercent")

    def check(value: Any, place: Place, report: Report) -> Any:
        error = test(value)
        if error:
            report.problem(place, error)
            return BAD
        return int(value) if whole and type(value) is float else value

    return check


def _enum(words: tuple[str, ...]) -> Check:
    allowed, words = frozenset(words), tuple(filter(None, words))

    def check(value: Any, place: Place, report: Report) -> Any:
        if type(value) is str and value in allowed:
            return value
        if type(value) is str:
            meant = "" if report.full else did_you_mean(value, words)
            hint = f"; did you mean {meant}?" if meant else ""
            report.problem(place, f'"{shorten(value)}" is not one of {", ".join(words)}{hint}')
            return meant or BAD
        report.problem(place, f"must be one of {', '.join(words)}, not {json_type(value)}")
        return BAD

    return check


def _list(item_check: Check) -> Check:
    def check(value: Any, place: Place, report: Report) -> Any:
        if type(value) is not list:
            hint = "; begin each item with a dash" if isinstance(value, dict) else ""
            report.problem(place, f"must be a list, not {json_type(value)}{hint}")
            return BAD
        checked = [item_check(item, (place, index), report) for index, item in enumerate(value)]
        return value if all(new is old for new, old in zip(checked, value, strict=True)) else checked

    return check


def _map(item_check: Check, label_keys: bool, empty: Any = "") -> Check:
    """`empty` is what null stands for."""

    def check(value: Any, place: Place, report: Report) -> Any:
        if type(value) is not dict:
            report.problem(place, f"must be a mapping, not {json_type(value)}")
            return BAD
        changed = False
        checked = {}
        for key, item in value.items():
            if label_keys and (error := label_key(key)):
                report.problem((place, key), error, key=True)
                changed = True
                continue
            if item is None:
                item, changed = empty, True
            checked[key] = item_check(item, (place, key), report)
            changed = changed or checked[key] is not item
        return {key: item for key, item in checked.items() if item is not BAD} if changed else value

    return check


def _table(text: str, compiled: dict[str, Check], tables: Mapping[str, str]) -> Check:
    words = text.split()
    is_open = words[:1] == ["*"]
    parts = [split(word) for word in words[is_open:]]
    fields = {name: _type(kind, compiled) for name, kind, _, _ in parts}
    required = tuple(name for name, _, needed, _ in parts if needed)
    quiet = {name: default for name, _, _, default in parts if default is not None}

    def check(value: Any, place: Place, report: Report) -> Any:
        if type(value) is not dict:
            report.problem(place, f"must be a mapping, not {json_type(value)}")
            return BAD
        fixed: dict[str, Any] | None = None
        for key, item in value.items():
            field_check = fields.get(key)
            if field_check is None:
                if not is_open:
                    if fixed is None:
                        fixed = dict(value)
                    _unknown(key, item, value, fixed, place, report)
            elif item is not None:
                checked = field_check(item, (place, key), report)
                if checked is not item:
                    if fixed is None:
                        fixed = dict(value)
                    fixed[key] = checked
                if quiet and key in quiet and item != [] and item != {} and _text(item) != quiet[key]:
                    report.unacted((place, key))
        seen = value if fixed is None else fixed
        for name in required:
            if seen.get(name) is None:
                report.problem((place, name), "required, but missing")
        return seen if fixed is None else {key: item for key, item in fixed.items() if item is not BAD}

    def _unknown(key: str, item: Any, value: dict[str, Any], fixed: dict[str, Any], place: Place, report: Report) -> None:
        del fixed[key]
        meant = "" if report.full else did_you_mean(key, fields)
        if meant:
            report.problem((place, key), f"unknown field; did you mean {meant}?", key=True)
            if meant not in value:
                fixed[meant] = BAD if item is None else fields[meant](item, (place, key), report)
        else:
            report.problem((place, key), _elsewhere(key, tables, parts), key=True)

    return check


def _text(item: Any) -> str:
    return ("true" if item else "false") if isinstance(item, bool) else str(item) if isinstance(item, str | int | float) else "?"


def _elsewhere(key: str, tables: Mapping[str, str], parts: list[tuple[str, str, bool, str | None]]) -> str:
    """`unknown field`, and where it belongs if a field one level down has that name."""
    if any(name == "matchLabels" for name, _, _, _ in parts):
        return "unknown field; labels belong under matchLabels here"
    for name, kind, _, _ in parts:
        inner = kind.strip("[]{}")
        if inner in tables and any(split(word)[0] == key for word in tables[inner].split()):
            return f"unknown field here; it belongs in {name}{'[]' if kind[0] == '[' else ''}"
    return f"unknown field; known are {', '.join(part[0] for part in parts)}" if len(parts) <= 14 else "unknown field"
