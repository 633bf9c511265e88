"""What the bodies of netlab's own verbs may hold: every field's name and kind, checked once, before anything is done.

Refuses to know what a value means: that a pod exists or a rate is sensible is said where it is used. Fields that are not listed
are left alone, as Kubernetes' API does, so that a newer client can talk to an older lab.
"""

from collections.abc import Callable, Mapping
from typing import Any

from netlab.errors import ApiError
from netlab.kernel.agent import Reply

Body = Mapping[str, Any]
"""What a verb was asked with."""
Later = Reply
"""How a verb answers that takes its time."""

MOST = 1e9
"""Of any number, either way: beyond it the system calls behind some of them fail."""


def _text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _input(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MOST <= value <= MOST  # NaN is in no range


def _whole(value: Any) -> bool:
    return _number(value) and value == int(value)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _taints(value: Any) -> bool:
    """Rows of key, value and effect; what is null counts as not given."""
    return _objects(value) and all(
        _text(one.get("key")) and all(one.get(name) is None or _text(one[name]) for name in ("value", "effect")) for one in value
    )


def _words(value: Any) -> bool:
    return isinstance(value, dict)


def _amount(value: Any) -> bool:
    return _text(value) or _number(value)


def _undo(value: Any) -> bool:
    """What `fault` answered: rows of namespace, device and impairment."""
    return isinstance(value, list) and all(
        isinstance(row, list) and len(row) == 3 and all(map(_text, row[:2])) and (row[2] is None or isinstance(row[2], dict))
        for row in value
    )


Check = Callable[[Any], bool]
_SAID: Mapping[Check, str] = {
    _text: "a string without a zero byte",
    _input: "a string",
    _number: "a number",
    _whole: "a whole number",
    _truth: "true or false",
    _texts: "a list of strings",
    _objects: "a list of objects",
    _taints: "a list of objects that have a key, and may have value and effect, all strings",
    _words: "an object",
    _amount: "a string or a number",
    _undo: "what `fault` answered",
}
_FLOW: Mapping[str, Check] = {
    "from!": _text, "to!": _text, "count": _whole, "protocol": _text, "source": _text, "source_port": _whole,
    "timeout_s": _number, "namespace": _text,
}  # fmt: skip
_NAMED: Mapping[str, Check] = {"kind!": _text, "name!": _text, "namespace": _text}
_IN: Mapping[str, Check] = {"target!": _text, "namespace": _text, "container": _text}

FIELDS: Mapping[str, Mapping[str, Check]] = {
    "apply": {"objects!": _objects},
    "scale": {**_NAMED, "replicas!": _whole},
    "rollout": {**_NAMED, "action!": _text, "revision": _whole},
    "rollout-status": {**_NAMED, "seen": _text},
    "cordon": {"node!": _text, "unschedulable!": _truth},
    "taint": {"node!": _text, "add": _taints, "remove": _taints, "overwrite": _truth},
    "place": _IN,
    "port-forward": {"target!": _text, "namespace": _text, "ports!": _texts},
    "fault": {
        "kind!": _text, "target": _text, "namespace": _text, "device": _text, "direction": _text, "value": _amount,
        "jitter": _amount, "undo": _undo,
    },
    "endpoints": {"service!": _text, "namespace": _text},
    "problems": {"ingress!": _text, "namespace": _text},
    "probe": _FLOW,
    "connect": _FLOW,
    "explain": {**_FLOW, "live_s": _number, "check": _truth},
    "load": {**_FLOW, "rate!": _number, "for_s": _number, "keep_alive": _truth, "expect": _words},
    "matrix": {"from": _texts, "to": _texts, "namespace": _text, "timeout_s": _number},
    "use-connection": {"connection!": _whole, "timeout_s": _number},
    "close-connection": {"connection!": _whole},
    "end-load": {"load!": _whole, "stop": _truth},
    "exec": {**_IN, "command!": _texts, "stdin": _input, "timeout_s": _number},
    "logs": {
        "pod!": _text, "namespace": _text, "container": _text, "previous": _truth, "offset": _whole, "run": _whole,
        "wait_s": _number,
    },
    "wait-gone": {"namespace!": _text, "name!": _text, "uid!": _text},
    "observe": {"target!": _text, "namespace": _text, "what!": _text},
    "verify": {"repair": _truth},
    "flush-conntrack": {"target": _text},
    **{verb: {} for verb in ("info", "processes", "ingresses", "daemons", "namespaces", "down")},
}  # fmt: skip
"""Verb -> field -> kind of value; `!` marks what must be there. What is null counts as not given."""


def checked(verb: str, body: Any) -> dict[str, Any]:
    """The fields that are given. Raises ApiError, which names every field that is missing or of another kind."""
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise ApiError(400, "BadRequest", f"{verb}: the body must be one JSON object")
    given = {name: value for name, value in body.items() if value is not None}
    problems = []
    for field, holds in FIELDS.get(verb, {}).items():
        name = field.removesuffix("!")
        if name not in given:
            problems += [f"{name} is missing: {_SAID[holds]}"] if field.endswith("!") else []
        elif not holds(given[name]):
            problems.append(f"{name} must be {_SAID[holds]}, not {_shown(given[name])}")
    if problems:
        raise ApiError(400, "BadRequest", f"{verb}: {'; '.join(problems)}")
    return given


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
