"""JSON Schemas of topology and scenario files, made from the tables that check them, so that the two cannot differ.

Decides how a table's word becomes a schema. Refuses to know the fields.
"""

from typing import Any, Literal

from netlab.manifest import own_fields
from netlab.manifest.check import split
from netlab.manifest.formats import FORMATS
from netlab.manifest.scenario import step_kinds

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema(kind: Literal["topology", "scenario"]) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a topology or scenario file."""
    name = kind.capitalize()
    made = _table(name)
    made["properties"]["apiVersion"] = {"const": "netlab/v1"}
    made["properties"]["kind"] = {"const": name}
    if kind == "topology":
        made["properties"]["nodes"] = {"anyOf": [{"type": "integer", "minimum": 1}, made["properties"]["nodes"]]}
    else:
        made["properties"]["steps"] = {"type": "array", "items": _step()}
    return {"$schema": _DRAFT, "title": f"netlab {kind}", **made}


def _step() -> dict[str, Any]:
    steps = {kind: {"anyOf": [_table(f"Step.{kind}"), *_short(kind)]} for kind in step_kinds()}
    return {
        "anyOf": [
            {
                "type": "object",
                "properties": {"name": {"type": "string"}, "proxy": dict(FORMATS["modes"][1]), **steps},
                "additionalProperties": False,
                "minProperties": 1,
                "maxProperties": 3,
            },
            {"enum": ["matrix", "verify"]},
        ]
    }


def _short(kind: str) -> list[dict[str, Any]]:
    match kind:
        case "apply":
            return [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]
        case "delete":
            return [{"type": "string"}]
        case "matrix" | "verify":
            return [{"type": "null"}]
        case _:
            return []


def _table(name: str) -> dict[str, Any]:
    properties, required = {}, []
    for word in own_fields.TABLES[name].split():
        field, kind, needed, _ = split(word)
        properties[field] = _type(kind)
        if needed:
            required.append(field)
    made: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**made, "required": required} if required else made


def _type(kind: str) -> dict[str, Any]:
    if kind[0] == "[":
        return {"type": "array", "items": _type(kind[1:-1])}
    if kind[0] == "{":
        inner = _type(kind[1:-1])
        return {"type": "object", "additionalProperties": {"anyOf": [inner, {"type": "null"}]} if kind[1].isupper() else inner}
    if kind in ("labels", "annotations"):
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if "|" in kind:
        return {"enum": kind.split("|")}
    return _table(kind) if kind[0].isupper() else dict(FORMATS[kind][1])
