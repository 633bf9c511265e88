"""Label selectors as they are typed after `-l`: `app=web,tier!=db,env in (a,b),!canary`. Refuses to know what is selected."""

import re

from netlab.errors import InputError
from netlab.manifest.formats import label_key, label_value
from netlab.manifest.meta import labels
from netlab.model import Selector

_SET = re.compile(r"(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)")
_EQUAL = re.compile(r"(?P<key>[^=!\s]+)\s*(?P<operator>==|=|!=)\s*(?P<value>[^=!]*)")
_EXISTS = re.compile(r"(?P<no>!?)\s*(?P<key>[^=!\s()]+)")
_PART = re.compile(r"(?:[^,(]|\([^()]*\))+")


def parse_selector(text: str) -> Selector:
    """The Selector that `text` spells; an empty text selects everything. Raises: InputError."""
    equal: dict[str, str] = {}
    expressions: list[tuple[str, str, tuple[str, ...]]] = []
    for part in (found.strip() for found in _PART.findall(text)):
        key, operator, values = _parse(part, text)
        error = label_key(key) or next((error for value in values if (error := label_value(value))), "")
        if error:
            raise InputError(f"selector {text[:80]}: {error}")
        if operator == "=" and equal.get(key, values[0]) == values[0]:
            equal[key] = values[0]
        else:
            expressions.append((key, "In" if operator == "=" else operator, values))
    return Selector(labels(equal), tuple(expressions))


def _parse(part: str, text: str) -> tuple[str, str, tuple[str, ...]]:
    if found := _SET.fullmatch(part):
        values = tuple(value.strip() for value in found["values"].split(","))
        return found["key"], "In" if found["operator"] == "in" else "NotIn", values
    if found := _EQUAL.fullmatch(part):
        return found["key"], "NotIn" if found["operator"] == "!=" else "=", (found["value"].strip(),)
    if found := _EXISTS.fullmatch(part):
        return found["key"], "DoesNotExist" if found["no"] else "Exists", ()
    raise InputError(f'selector {text[:80]}: "{part[:60]}" is not understood; like app=web, app!=web, app in (a,b), app or !app')
