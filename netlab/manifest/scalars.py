"""What a plain YAML scalar means, as kubectl and the API server read it.

They read YAML 1.1 with the rules of go-yaml v2, which are not PyYAML's: `yes`, `on` and `y` are booleans, `0777` is
octal, `0o777` too, but `1:30` is a string (no base 60) and `2024-01-01` stays one. Refuses to know where the scalar
stands.
"""

import re

Scalar = str | int | float | bool | None

_FIRST = frozenset("+-.0123456789~nNtTfFyYoO")
_WORDS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True),
    **dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False),
}
_INTEGER = re.compile(r"[-+]?(?:0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[1-9][0-9]*|0)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LONGEST_NUMBER = 64


class NotFinite(ValueError):
    """`.inf` and `.nan` have no JSON form, so Kubernetes refuses them."""


def resolve(text: str) -> Scalar:
    """The value of a plain (unquoted, untagged) scalar. Raises: NotFinite."""
    if text and text[0] not in _FIRST:
        return text
    if text in _WORDS:
        return _WORDS[text]
    return text if len(text) > _LONGEST_NUMBER else number(text)


def number(text: str) -> str | int | float:
    """`text` as a number, or as it stands where it is none."""
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(digits):
        value = int(_python_octal(digits), 0)
        return value if -(2**63) <= value < 2**64 else float(value)
    if _FLOAT.fullmatch(digits):
        value_f = float(digits)
        if value_f in (float("inf"), float("-inf")):
            raise NotFinite(text)
        return value_f
    if _NOT_FINITE.fullmatch(text):
        raise NotFinite(text)
    return text


def _python_octal(digits: str) -> str:
    sign, body = (digits[0], digits[1:]) if digits[0] in "+-" else ("", digits)
    if len(body) > 1 and body[0] == "0" and body[1] in "01234567":
        body = "0o" + body[1:]
    return sign + body


def key_text(value: Scalar) -> str | None:
    """A mapping key as JSON has it: `1:` is "1", `on:` is "true"; None where there is no such form."""
    match value:
        case None:
            return None
        case bool():
            return "true" if value else "false"
        case float():
            return format(value, "g")
        case _:
            return str(value)
