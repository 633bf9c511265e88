"""Impaired links: the fields of `links:` in a topology, and the values of `netlab fault delay|loss|rate|...`.

Decides what a value may be and which combinations make no sense. Refuses to know which device a link ends at.
"""

from typing import Any

from netlab.errors import InputError
from netlab.manifest import formats
from netlab.manifest.meta import Json
from netlab.manifest.problems import Place, Report
from netlab.model import Impairment, LinkSpec

KINDS = ("rate", "delay", "jitter", "loss", "duplicate", "reorder", "corrupt")
DIRECTIONS = ("both", "out", "in")
_LEAST_BPS = 1000
_CHECKS = {"rate": formats.rate, "delay": formats.duration, "jitter": formats.duration}
_WANTED = {"rate": "a rate like 100mbit", "delay": "a time like 10ms", "jitter": "a time like 2ms"}


def links(data: Json, place: Place, report: Report) -> tuple[LinkSpec, ...]:
    """The links of a topology, in its order."""
    found = []
    for name, entry in (data.get("links") or {}).items():
        end, _, lan = name.partition("/")
        at = ((place, "links"), name)
        found.append(LinkSpec(end, lan, _one_way(entry, "out", at, report), _one_way(entry, "in", at, report)))
    return tuple(found)


def _one_way(entry: Json, way: str, place: Place, report: Report) -> Impairment:
    """What both ways share, then what is said of this one."""
    own = entry.get(way) or {}
    found = Impairment(
        **{attribute: value for kind in KINDS for attribute, value in _given(kind, own.get(kind) or entry.get(kind))}
    )
    if error := problem(found):
        key = next((kind for kind in ("reorder", "jitter", "rate") if kind in error), way)
        report.problem(((place, way), key) if key in own else (place, key), error)
    return found


def _given(kind: str, value: Any) -> list[tuple[str, Any]]:
    return [(_attribute(kind), _parsed(kind, value))] if value not in (None, "") else []


def _attribute(kind: str) -> str:
    return {"rate": "rate_bps", "delay": "delay_s", "jitter": "jitter_s"}.get(kind, kind)


def _parsed(kind: str, value: Any) -> int | float:
    if kind == "rate":
        return formats.bits(value)
    return formats.seconds(value) if kind in ("delay", "jitter") else formats.share(value)


def problem(value: Impairment) -> str:
    """'' when the parts go together."""
    if value.reorder and not value.delay_s:
        return "reorder needs a delay: packets that are sent at once overtake those that wait"
    if value.jitter_s and not value.delay_s:
        return "jitter needs a delay that it varies"
    if value.rate_bps is not None and value.rate_bps < _LEAST_BPS:
        return f"a rate of at least {_LEAST_BPS // 1000}kbit is wanted"
    return ""


def value_problem(kind: str, value: Any) -> str:
    """What is wrong with the value of one impairment, '' when nothing is."""
    nothing = kind in ("delay", "jitter") and value == "0"  # a shell's 0 is a string
    if nothing or not _CHECKS.get(kind, formats.percent)(value):
        return ""
    hint = f"; did you mean {value}%?" if kind not in _CHECKS and not formats.percent(f"{value}%") else ""
    return f"{kind} takes {_WANTED.get(kind, 'a share like 1% or 0.5%')}, not {value!r}{hint}"


def changed(was: Impairment, kind: str, value: Any, jitter: Any = None) -> Impairment:
    """The impairment with one part of another value. Raises: InputError."""
    given = [(kind, value), *([("jitter", jitter)] if jitter is not None else [])]
    for name, one in given:
        if error := value_problem(name, one):
            raise InputError(error)
    found = was.with_(**{_attribute(name): _parsed(name, one) for name, one in given})
    if kind == "delay" and jitter is None:
        found = found.with_(jitter_s=0.0)
    if error := problem(found):
        raise InputError(
            error + (f"; `netlab fault delay` gives it one (now: {was})" if was else "; `netlab fault delay` gives it one")
        )
    return found
