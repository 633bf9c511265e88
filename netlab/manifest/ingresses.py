"""Ingress and IngressClass: checked, old forms turned into that of networking.k8s.io/v1, and kept as they are shown.

Decides what the API server would refuse. Refuses to know how routes are matched.
"""

import re
from collections.abc import Iterator
from typing import Any

from netlab.ingresses import API
from netlab.manifest.check import BAD
from netlab.manifest.meta import EMPTY, Json, note_annotations, read_meta
from netlab.manifest.problems import Place, Report, shorten
from netlab.model import Other
from netlab.numerals import natural

_LABEL = r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
_CONTROLLERS = (
    "nginx.ingress.kubernetes.io", "nginx.org", "ingress.kubernetes.io", "haproxy.org", "haproxy-ingress.github.io",
    "traefik.ingress.kubernetes.io",
)  # fmt: skip
"""Prefixes of annotations by which real controllers are told more than an Ingress says."""
_ADDRESS = re.compile(r"[0-9.]+")


def read_ingress(data: Json, manifest: Json, place: Place, report: Report) -> Other:
    """An Ingress in the form of v1, whatever form it was given in."""
    old = str(manifest.get("apiVersion")).endswith("beta1")
    spec = data.get("spec") or {}
    at = (place, "spec")
    shown = {key: value for key, value in spec.items() if key not in ("backend", "defaultBackend", "rules")}
    default = spec.get("defaultBackend") or spec.get("backend")
    if spec.get("backend") and not old:
        report.problem((at, "backend"), "this is the form of v1beta1; in v1 it is called defaultBackend", key=True)
    if default:
        name = "defaultBackend" if spec.get("defaultBackend") else "backend"
        shown["defaultBackend"] = _backend(default, (at, name), old, report)
    if spec.get("rules"):
        shown["rules"] = [_rule(rule, ((at, "rules"), index), old, report) for index, rule in enumerate(spec["rules"])]
    if not default and not spec.get("rules"):
        report.problem(at, "either defaultBackend or rules must be specified")
    for index, tls in enumerate(spec.get("tls") or ()):
        for number, host in enumerate(tls.get("hosts") or ()):
            _host(host, ((((at, "tls"), index), "hosts"), number), report)
    meta = read_meta(data, place, report, "Ingress", True)
    note_annotations(data, place, report, _CONTROLLERS, ": hosts, paths, default backend, TLS and class of an Ingress are")
    return Other("Ingress", API, meta, {**manifest, "apiVersion": API, "spec": shown})


def read_class(data: Json, manifest: Json, place: Place, report: Report) -> Other:
    """An IngressClass; its controller says who serves it."""
    spec = data.get("spec") or EMPTY
    if not spec.get("controller"):
        report.problem(((place, "spec"), "controller"), "required, but missing; it names the controller, as k8s.io/ingress-nginx")
    return Other("IngressClass", API, read_meta(data, place, report, "IngressClass", False), {**manifest, "apiVersion": API})


def _rule(rule: Any, place: Place, old: bool, report: Report) -> Any:
    if rule is BAD or not isinstance(rule, dict):
        return {}
    if rule.get("host"):
        _host(rule["host"], (place, "host"), report)
    paths = (rule.get("http") or {}).get("paths")
    if not paths:
        return rule
    at = ((place, "http"), "paths")
    return {**rule, "http": {"paths": [_path(one, (at, index), old, report) for index, one in enumerate(paths)]}}


def _host(host: str, place: Place, report: Report) -> None:
    if _ADDRESS.fullmatch(host) or ":" in host:
        report.problem(place, f'"{shorten(host)}" must be a DNS name, not an IP address')
    elif not _HOST.fullmatch(host):
        report.problem(
            place,
            f'"{shorten(host)}" is no host: a DNS name in lower case, as foo.example.com, or *. and a name for one label more',
        )


def _path(path: Any, place: Place, old: bool, report: Report) -> Any:
    if not isinstance(path, dict):
        return {}
    kind = path.get("pathType") or ("ImplementationSpecific" if old else None)
    if kind is None:
        report.problem((place, "pathType"), "required, but missing: Exact, Prefix or ImplementationSpecific")
        kind = "Prefix"
    text = path.get("path") or ""
    for error in _path_errors(text, kind, old):
        report.problem((place, "path"), error)
    return {
        "path": text or "/",
        "pathType": kind,
        "backend": _backend(path.get("backend") or {}, (place, "backend"), old, report),
    }


def _path_errors(text: str, kind: str, old: bool) -> Iterator[str]:
    if text and not text.startswith("/"):
        yield f'"{shorten(text)}" must be an absolute path'
    elif not text and kind != "ImplementationSpecific":
        yield f"a path is wanted with pathType {kind}"
    elif kind in ("Exact", "Prefix"):
        for part in ("//", "/./", "/../", "%2f", "%2F"):
            if part in text:
                yield f"must not contain '{part}'"
    if re.search(r"""[\s"';{}\x00-\x1f\x7f]""", text):
        yield f'"{shorten(text)}" holds a character that no path of a URL has'


def _backend(backend: Json, place: Place, old: bool, report: Report) -> Json:
    if backend is BAD:
        return {}
    given_old = "serviceName" in backend or "servicePort" in backend
    if given_old and not old:
        report.problem(
            place, "serviceName and servicePort are the form of v1beta1; in v1: service: {name: ..., port: {number: ...}}"
        )
    if given_old:
        port = backend.get("servicePort")
        if not backend.get("serviceName") or port is None:
            report.problem(place, "serviceName and servicePort are wanted")
        named = {"name": port} if isinstance(port, str) and natural(port) is None else {"number": int(port or 0)}
        return {"service": {"name": backend.get("serviceName") or "", "port": named}}
    service, resource = backend.get("service"), backend.get("resource")
    if bool(service) == bool(resource):
        report.problem(
            place, "one of service and resource is wanted" if not service else "service and resource exclude each other"
        )
    elif service and bool((service.get("port") or {}).get("name")) == bool((service.get("port") or {}).get("number")):
        report.problem((place, "service"), "port: {number: N} or port: {name: ...} is wanted, one of them")
    return backend
