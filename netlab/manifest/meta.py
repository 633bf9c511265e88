"""ObjectMeta to Meta, and what all readers of objects share: names, labels, owners, selectors, endpoints' targets.

Readers get data that `check` has been over: every value has the right type or is absent (lists may hold BAD in place
of what was wrong). They report what only shows when fields are seen together. What they return is used only if
nothing was wrong anywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from netlab.manifest.check import BAD
from netlab.manifest.formats import label_name, object_name, service_name
from netlab.manifest.problems import Place, Report, written
from netlab.model import FrozenDict, Labels, Meta, Ref, Selector

Json = Mapping[str, Any]
EMPTY: FrozenDict = FrozenDict()

_NAME_RULES: Mapping[str, Callable[[Any], str]] = {"Service": service_name, "Namespace": label_name}
_OWNER_KINDS = {"Service": "svc"}
_OPEN_NAMES = ("rbac.authorization.k8s.io",)


def items(values: Any) -> Iterator[tuple[int, Any]]:
    """Index and value of a list's usable items; nothing for an absent list."""
    return ((index, value) for index, value in enumerate(values or ()) if value is not BAD and value is not None)


def raw(manifest: Any, *path: str | int) -> Any:
    """What the manifest says there, before `check`; None where it says nothing."""
    for step in path:
        try:
            manifest = manifest[step]
        except (KeyError, IndexError, TypeError):
            return None
    return manifest


def labels(values: Any) -> Labels:
    return FrozenDict(values) if values else EMPTY


def read_meta(data: Json, place: Place, report: Report, kind: str, namespaced: bool) -> Meta:
    """The Meta of an object; the namespace is "default" where a namespaced object names none."""
    meta = data.get("metadata") or EMPTY
    at = (place, "metadata")
    name = meta.get("name") or ""
    if meta.get("name") is None and data.get("metadata") is not None and written((at, "name")) is None:
        hint = "; generateName is not acted on, give it a name" if meta.get("generateName") else ""
        report.problem((at, "name"), f"required, but missing{hint}")
    elif meta.get("name") is not None and not _open_name(data) and (error := _NAME_RULES.get(kind, object_name)(name)):
        report.problem((at, "name"), error)
    namespace = meta.get("namespace") or ""
    if namespace and (error := label_name(namespace)):
        report.problem((at, "namespace"), error)
    if not namespaced:
        namespace = ""
    return Meta(
        name=name,
        namespace=namespace or ("default" if namespaced else ""),
        labels=labels(meta.get("labels")),
        annotations=labels(meta.get("annotations")),
        uid=meta.get("uid") or "",
        owner=_owner(meta, namespace or "default"),
        deleted=0.0 if meta.get("deletionTimestamp") else None,
        generation=meta.get("generation") or 1,
    )


def note_annotations(data: Json, place: Place, report: Report, prefixes: tuple[str, ...], instead: str) -> None:
    """One warning for annotations that a controller of a real cluster would act on and that do nothing here."""
    for key in (data.get("metadata") or EMPTY).get("annotations") or ():
        if key.partition("/")[0] in prefixes:
            report.note(f"annotation {key}: not acted on{instead}", (((place, "metadata"), "annotations"), key))


def _open_name(data: Json) -> bool:
    """RBAC names may be anything: `system:node`."""
    return str(data.get("apiVersion") or "").partition("/")[0] in _OPEN_NAMES


def _owner(meta: Json, namespace: str) -> Ref | None:
    for _, reference in items(meta.get("ownerReferences")):
        if reference.get("controller") and reference.get("kind") and reference.get("name"):
            return Ref(_OWNER_KINDS.get(reference["kind"], reference["kind"].lower()), namespace, reference["name"])
    return None


def read_selector(data: Json | None, place: Place, report: Report) -> Selector:
    """A LabelSelector."""
    data = data or EMPTY
    expressions = []
    for index, entry in items(data.get("matchExpressions")):
        operator, values = entry.get("operator", ""), tuple(value for _, value in items(entry.get("values")))
        at = ((place, "matchExpressions"), index)
        if operator in ("In", "NotIn") and not values:
            report.problem((at, "values"), f"must not be empty when operator is {operator}")
        if operator in ("Exists", "DoesNotExist") and values:
            report.problem((at, "values"), f"must be left out when operator is {operator}")
        expressions.append((entry.get("key", ""), operator, values))
    return Selector(labels(data.get("matchLabels")), tuple(expressions))
