"""Documents to Kubernetes objects: kinds and apiVersions, Lists, what has no effect here, and what belongs together in one load.

Decides which reader takes a document and what is accepted with a warning. An owner that was not loaded with its pod
is forgotten: a dump holds pods without their ReplicaSets, and nothing could replace them; they are bare pods then.
Refuses to know the objects' fields.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netlab.errors import InputError
from netlab.manifest import fields, kinds
from netlab.manifest.check import BAD
from netlab.manifest.documents import LIMIT_DEPTH, LIMIT_NODES, Document, read_documents
from netlab.manifest.formats import data_key, json_type
from netlab.manifest.ingresses import read_class, read_ingress
from netlab.manifest.meta import EMPTY, Json, raw, read_meta
from netlab.manifest.nodes import read_node
from netlab.manifest.pods import read_pod
from netlab.manifest.problems import Place, Report, did_you_mean, shorten
from netlab.manifest.services import read_service
from netlab.manifest.slices import read_endpoints, read_slice
from netlab.manifest.source import Source
from netlab.manifest.workloads import read_workload
from netlab.model import Endpoints, EndpointSlice, Key, KubernetesObject, Node, Other, Pod, Ref, Service, Workload

_LATER = {
    "NetworkPolicy": "not enforced yet: all traffic is allowed",
    "CronJob": "not acted on: it makes no Jobs",
}
_OLD = {
    "extensions/v1beta1": ("Deployment", "DaemonSet", "ReplicaSet", "Ingress", "NetworkPolicy"),
    "apps/v1beta1": ("Deployment", "StatefulSet"),
    "apps/v1beta2": ("Deployment", "DaemonSet", "ReplicaSet", "StatefulSet"),
    "networking.k8s.io/v1beta1": ("Ingress", "IngressClass"),
    "discovery.k8s.io/v1beta1": ("EndpointSlice",),
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Objects in the order of the input, and warnings for the user, each one line."""

    objects: tuple[KubernetesObject, ...]
    warnings: tuple[str, ...] = ()


def read_objects(sources: Sequence[Source]) -> Loaded:
    """All objects of all sources. Raises: InputError with every mistake of every source."""
    report = Report()
    documents: list[Document] = []
    report.files = [source.shown for source in sources]
    for source in sources:
        try:
            documents.extend(read_documents(source))
        except InputError as error:
            report.problems.extend(error.problems)
    return _load(documents, report, together=True)


def documents(sources: Sequence[Source]) -> tuple[Mapping[str, Any], ...]:
    """The objects of all sources as plain JSON data, Lists taken apart, nothing checked but the YAML. Raises: InputError."""
    report = Report()
    read = [document for source in sources for document in read_documents(source)]
    found = [data for document in read for data, _ in _flatten(document.data, document, report)]
    report.finish()
    return tuple(found)


def object_from_json(document: Mapping[str, Any], name: str = "request") -> Loaded:
    """The object (or the objects of the List) in plain JSON data, checked as a file would be.

    A single object keeps owner and management as it says: what it belongs to may be in the lab already.
    """
    report = Report()
    place = Document(name, document)
    error = _too_much(document)
    if error:
        report.problem(place, error)
        report.finish()
    return _load([place], report, together=str(raw(document, "kind")).endswith("List"))


def _too_much(document: Any) -> str:
    """Why plain data is no JSON that a file could have held, '' if it is fine. Walks level by level: depth costs no stack."""
    level: list[Any] = [document]
    seen = 0
    for _ in range(LIMIT_DEPTH + 1):
        following: list[Any] = []
        for value in level:
            if type(value) is dict:
                if not all(type(key) is str for key in value):
                    return "a key is no string"
                following.extend(value.values())
            elif type(value) is list:
                following.extend(value)
            elif not (value is None or type(value) in (str, int, bool)) and (type(value) is not float or value - value != 0):
                return f"{shorten(repr(value))} is no JSON value"
        seen += len(following)
        if seen > LIMIT_NODES:
            return f"more than {LIMIT_NODES} values"
        if not following:
            return ""
        level = following
    return f"nested deeper than {LIMIT_DEPTH} levels"


def _load(documents: Sequence[Document], report: Report, together: bool) -> Loaded:
    found: list[KubernetesObject] = []
    seen: dict[tuple[str, Key], KubernetesObject] = {}
    for document in documents:
        for data, place in _flatten(document.data, document, report):
            loaded = _read(data, place, report)
            if loaded is None:
                continue
            found.append(loaded)
            identity = (_kind(loaded), loaded.meta.key)
            if loaded.meta.name and seen.setdefault(identity, loaded).manifest != loaded.manifest:
                report.note(f"{identity[0]} {loaded.meta.name} is there more than once; the last one counts", place)
    warnings = report.finish()
    return Loaded(tuple(_tie(found) if together else found), warnings)


def _flatten(data: Any, place: Place, report: Report) -> Iterator[tuple[Any, Place]]:
    """The object itself, or the items of a List (or PodList, whose items need not repeat their kind)."""
    kind = data.get("kind") if isinstance(data, dict) else None
    if not isinstance(kind, str) or not kind.endswith("List") or "items" not in data:
        yield data, place
        return
    item_kind, entries = kind.removesuffix("List"), data["items"]
    if entries is not None and not isinstance(entries, list):
        report.problem((place, "items"), f"must be a list, not {json_type(entries)}")
        return
    for index, item in enumerate(entries or ()):
        if item_kind and isinstance(item, dict):
            item = {"apiVersion": data.get("apiVersion"), "kind": item_kind, **item}
        yield from _flatten(item, ((place, "items"), index), report)


def _read(data: Any, place: Place, report: Report) -> KubernetesObject | None:
    if not isinstance(data, dict):
        report.problem(place, f"a Kubernetes object is wanted, not {json_type(data)}")
        return None
    kind = _kind_of(data, place, report)
    if kind is None:
        return None
    known = kind in _READ and not _is_custom(str(data.get("apiVersion")))
    checked = fields.checks()[kind if known else "Other"](data, place, report)
    if checked is BAD:
        return None
    if not known:
        return _read_other(kind, checked, data, place, report)
    if kind in _WORKLOADS:
        return read_workload(kind, checked, data, place, report)  # type: ignore[arg-type]  # _WORKLOADS holds the WorkloadKinds
    return _READERS[kind](checked, data, place, report)


_WORKLOADS = ("ReplicationController", "ReplicaSet", "Deployment", "DaemonSet", "StatefulSet", "Job")
_READ = (*_WORKLOADS, "Pod", "Node", "Service", "EndpointSlice", "Endpoints", "Ingress", "IngressClass")
_READERS: Mapping[str, Callable[[Json, Json, Place, Report], KubernetesObject]] = {
    "Pod": read_pod,
    "Node": read_node,
    "Service": read_service,
    "EndpointSlice": read_slice,
    "Endpoints": read_endpoints,
    "Ingress": read_ingress,
    "IngressClass": read_class,
}


def _kind_of(data: Json, place: Place, report: Report) -> str | None:
    """The kind that is meant, None if there is no telling. What is wrong with kind and apiVersion is reported here."""
    kind, version = _word(data, "kind", place, report), _word(data, "apiVersion", place, report)
    info = kinds.by_kind().get(kind)
    if kind in ("Topology", "Scenario") and version in ("", "netlab/v1"):
        how = "give it as the first argument of `netlab up`" if kind == "Topology" else "`netlab run` runs it"
        report.problem((place, "kind"), f"a netlab {kind} is no Kubernetes object; {how}")
        return None
    if not kind or (_is_custom(version) and (info is None or info.api_version != version)):
        return kind or None
    if info is None or info.group == "netlab":
        meant = did_you_mean(kind, (known for known, entry in kinds.by_kind().items() if entry.api_version != "netlab/v1"))
        report.problem(
            (place, "kind"), f'"{shorten(kind)}" is no kind that is known' + (f"; did you mean {meant}?" if meant else "")
        )
        return meant or None
    if not version:
        if "apiVersion" not in data and not _meant(data, "apiVersion"):
            report.problem((place, "apiVersion"), f"required, but missing; {kind} has {info.api_version}")
        return kind
    _check_version(kind, version, info, place, report)
    return kind


def _word(data: Json, key: str, place: Place, report: Report) -> str:
    """The value of `kind` or `apiVersion`, also where the key is misspelled (`check` reports that); '' if there is none."""
    found = key if data.get(key) is not None else _meant(data, key)
    value = data.get(found) if found else None
    if value is None or value == "":
        if key == "kind":
            report.problem((place, key), "required, but missing")
        return ""
    if not isinstance(value, str):
        report.problem((place, found), f"must be a string, not {json_type(value)}")
        return ""
    return value


def _meant(data: Json, key: str) -> str:
    close = did_you_mean(key, (word for word in data if isinstance(word, str)))
    return close if close not in ("kind", "apiVersion") else ""


def _check_version(kind: str, version: str, info: kinds.KindInfo, place: Place, report: Report) -> None:
    if version == info.api_version or (kind not in _READ and info.group and version.startswith(f"{info.group}/v")):
        return
    if kind in _OLD.get(version, ()):
        report.note(f"{version} is an old form, read as {info.api_version}", (place, "apiVersion"))
    else:
        report.problem((place, "apiVersion"), f'"{shorten(version)}" has no {kind}; did you mean {info.api_version}?')


def _is_custom(version: str) -> bool:
    """A group that is not Kubernetes' own: it has a dot, as custom ones must, and is no misspelled group of ours."""
    group = version.rpartition("/")[0]
    if "." not in group or "/" in group:
        return False
    known = kinds.groups()
    return group not in known and not did_you_mean(group, (name for name in known if "." in name and _near(name, group)))


def _near(name: str, group: str) -> bool:
    """Only a letter or two apart, like networking.k8.io; gateway.networking.k8s.io is a name of its own."""
    return abs(len(name) - len(group)) <= 2 and name[:3] == group[:3] and name[-3:] == group[-3:]


def _read_other(kind: str, data: Json, manifest: Json, place: Place, report: Report) -> Other:
    info = kinds.by_kind().get(kind)
    version = str(data.get("apiVersion") or "")
    custom = _is_custom(version)
    namespaced = bool((data.get("metadata") or EMPTY).get("namespace")) if custom or info is None else info.namespaced
    if kind in _LATER and not custom:
        report.note(f"{kind}: {_LATER[kind]}", (place, "kind"))
    elif (kind != "Namespace" and data.get("type") != "kubernetes.io/tls") or custom:
        instead = _METALLB if version.startswith("metallb.io/") else ""
        report.note(f"{kind}: accepted; it has no effect on the network here{instead}", (place, "kind"))
    if kind in ("ConfigMap", "Secret") and not custom:
        _check_keys(data, place, report)
    return Other(kind, version, read_meta(data, place, report, kind, namespaced), manifest)


_METALLB = ": the topology's `cluster: {loadBalancer: {pool: [FIRST-LAST], announce: l2}}` (or bgp) gives and announces addresses"


def _check_keys(data: Json, place: Place, report: Report) -> None:
    """Keys become names of files in pods."""
    for field in ("data", "stringData", "binaryData"):
        for key in data.get(field) or ():
            if error := data_key(key):
                report.problem(((place, field), key), error)


def _kind(loaded: KubernetesObject) -> str:
    return loaded.kind if isinstance(loaded, Workload | Other) else type(loaded).__name__


def _tie(found: Sequence[KubernetesObject]) -> Iterator[KubernetesObject]:
    """Takes back what only holds together with objects that were not loaded: owners, and slices of the cluster's controller.

    Endpoints that follow from a Service's selector and the pods that were loaded are left out: the lab makes its own.
    """
    selecting = {entry.meta.key for entry in found if isinstance(entry, Service) and entry.selector}
    here = {entry.ref for entry in found if isinstance(entry, Workload)}
    pods = {entry.meta.key for entry in found if isinstance(entry, Pod)}
    for entry in found:
        if entry.meta.owner is not None and entry.meta.owner not in here and not isinstance(entry, Node):
            entry = replace(entry, meta=replace(entry.meta, owner=None))
        if isinstance(entry, EndpointSlice) and entry.managed and not all(_is_here(end.target, pods) for end in entry.endpoints):
            entry = replace(entry, managed=False)
        if isinstance(entry, Endpoints) and entry.meta.key in selecting and _follows(entry, pods):
            continue
        yield entry


def _follows(entry: Endpoints, pods: set[Key]) -> bool:
    return all(_is_here(end.target, pods) for ends, _ in entry.subsets for end in ends)


def _is_here(target: Ref | None, pods: set[Key]) -> bool:
    return target is not None and target.kind == "pod" and Key(target.namespace, target.name) in pods
