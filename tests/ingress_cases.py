"""Conformance rows for Ingress: rules, a request, and who must answer. The Prefix rows are those of the API's own documentation.

`want`: the Service's name, or a status. A rule is (host, path type, path, Service); a case without a host in its rules and
request gets one of its own, so that all cases of a set can be served at once.
"""

from dataclasses import dataclass
from typing import Any

Rule = tuple[str, str, str, str]
SERVICES = ("one", "two", "three")


@dataclass(frozen=True)
class Case:
    name: str
    rules: tuple[Rule, ...]
    path: str
    want: str | int
    host: str = ""


def _prefix(*paths: str) -> tuple[Rule, ...]:
    return tuple(("", "Prefix", path, service) for path, service in zip(paths, SERVICES, strict=False))


def _exact(path: str) -> tuple[Rule, ...]:
    return (("", "Exact", path, "one"),)


CASES = (
    Case("prefix / is everything", _prefix("/"), "/any/thing", "one"),
    Case("exact, the same", _exact("/foo"), "/foo", "one"),
    Case("exact, another", _exact("/foo"), "/bar", 404),
    Case("exact, a slash more", _exact("/foo"), "/foo/", 404),
    Case("exact, a slash less", _exact("/foo/"), "/foo", 404),
    Case("exact, a query", _exact("/foo"), "/foo?a=/b", "one"),
    Case("exact, longer", _exact("/foo"), "/foo/bar", 404),
    Case("exact, another case", _exact("/foo"), "/Foo", 404),
    Case("prefix, the same", _prefix("/foo"), "/foo", "one"),
    Case("prefix, a slash more", _prefix("/foo"), "/foo/", "one"),
    Case("prefix with a slash, without", _prefix("/foo/"), "/foo", "one"),
    Case("prefix with a slash, with", _prefix("/foo/"), "/foo/", "one"),
    Case("prefix, no whole element", _prefix("/aaa/bb"), "/aaa/bbb", 404),
    Case("prefix, two elements", _prefix("/aaa/bbb"), "/aaa/bbb", "one"),
    Case("prefix, the slash at its end is ignored", _prefix("/aaa/bbb/"), "/aaa/bbb", "one"),
    Case("prefix, the slash at the end fits", _prefix("/aaa/bbb"), "/aaa/bbb/", "one"),
    Case("prefix, a sub-path", _prefix("/aaa/bbb"), "/aaa/bbb/ccc", "one"),
    Case("prefix, not of a string", _prefix("/aaa/bbb"), "/aaa/bbbxyz", 404),
    Case("prefix, the query is no path", _prefix("/aaa"), "/bbb?/aaa", 404),
    Case("prefix, another case", _prefix("/aaa"), "/AAA", 404),
    Case("prefix, the longer of two", _prefix("/", "/aaa"), "/aaa/ccc", "two"),
    Case("prefix, the longest of three", _prefix("/", "/aaa", "/aaa/bbb"), "/aaa/bbb", "three"),
    Case("prefix, the shortest of three", _prefix("/", "/aaa", "/aaa/bbb"), "/ccc", "one"),
    Case("prefix, the middle one of three", _prefix("/", "/aaa", "/aaa/bbb"), "/aaa/bbbb", "two"),
    Case("prefix, none", _prefix("/aaa"), "/ccc", 404),
    Case("exact before prefix", (*_prefix("/foo"), ("", "Exact", "/foo", "two")), "/foo", "two"),
    Case("prefix beside exact", (*_prefix("/foo"), ("", "Exact", "/foo", "two")), "/foo/bar", "one"),
    Case("prefix with a slash beside exact", (*_prefix("/foo"), ("", "Exact", "/foo", "two")), "/foo/", "one"),
    Case("implementation specific, as prefix", (("", "ImplementationSpecific", "/foo", "one"),), "/foo/bar", "one"),
    Case("a host", (("h1.example.com", "Prefix", "/", "one"),), "/", "one", "h1.example.com"),
    Case("a host in capitals", (("h2.example.com", "Prefix", "/", "one"),), "/", "one", "H2.EXAMPLE.com"),
    Case("a host with a port", (("h3.example.com", "Prefix", "/", "one"),), "/", "one", "h3.example.com:80"),
    Case("another host", (("h4.example.com", "Prefix", "/", "one"),), "/", 404, "nobody.example.com"),
    Case("a wildcard, one label", (("*.w1.com", "Prefix", "/", "one"),), "/", "one", "bar.w1.com"),
    Case("a wildcard, two labels", (("*.w2.com", "Prefix", "/", "one"),), "/", 404, "baz.bar.w2.com"),
    Case("a wildcard, no label", (("*.w3.com", "Prefix", "/", "one"),), "/", 404, "w3.com"),
    Case("a wildcard in capitals", (("*.w4.com", "Prefix", "/", "one"),), "/", "one", "BAR.W4.com"),
    Case(
        "precise before wildcard",
        (("*.w5.com", "Prefix", "/", "one"), ("a.w5.com", "Prefix", "/", "two")),
        "/",
        "two",
        "a.w5.com",
    ),
    Case(
        "precise first, though the wildcard's path is longer",
        (("*.w6.com", "Prefix", "/a/b", "one"), ("a.w6.com", "Prefix", "/a", "two")),
        "/a/b",
        "two",
        "a.w6.com",
    ),
    Case(
        "the wildcard where the precise host has no path",
        (("*.w7.com", "Prefix", "/x", "one"), ("a.w7.com", "Prefix", "/a", "two")),
        "/x/y",
        "one",
        "a.w7.com",
    ),
    Case(
        "the wildcard where the precise host has an exact path only",
        (("*.w8.com", "Prefix", "/a", "one"), ("a.w8.com", "Exact", "/a", "two")),
        "/a/b",
        "one",
        "a.w8.com",
    ),
    Case("no such Service", (("", "Prefix", "/", "absent"),), "/", 503),
    Case("no such Service, beside one", (("", "Prefix", "/", "one"), ("", "Prefix", "/gone", "absent")), "/gone/x", 503),
)
"""Served without a default backend."""

DEFAULT_CASES = (
    Case("any host", (("", "Prefix", "/everywhere", "one"),), "/everywhere", "one", "whoever.example.org"),
    Case(
        "a precise host before any host",
        (("d1.example.com", "Prefix", "/everywhere", "two"),),
        "/everywhere",
        "two",
        "d1.example.com",
    ),
    Case(
        "any host where the precise one has no path",
        (("d2.example.com", "Prefix", "/a", "two"),),
        "/everywhere",
        "one",
        "d2.example.com",
    ),
    Case("the default backend for a path", (("d3.example.com", "Prefix", "/a", "two"),), "/b", "three", "d3.example.com"),
    Case("the default backend for a host", (("d4.example.com", "Prefix", "/a", "two"),), "/a", "three", "nobody.example.com"),
    Case("not the default backend", (("d5.example.com", "Prefix", "/a", "two"),), "/a", "two", "d5.example.com"),
)
"""Served with a rule for any host and a default backend, Service three."""


def host_of(cases: tuple[Case, ...], number: int) -> str:
    return cases[number].host or f"case{number}.example.net"


def ingress(cases: tuple[Case, ...], number: int) -> dict[str, Any]:
    """The Ingress of one case. Only "any host" has rules without a host."""
    case = cases[number]
    rules = []
    for host, kind, path, service in case.rules:
        backend = {"service": {"name": service, "port": {"number": 80}}}
        paths = [{"path": path, "pathType": kind, "backend": backend}]
        own = host or ("" if case.name == "any host" else host_of(cases, number))
        rules.append({**({"host": own} if own else {}), "http": {"paths": paths}})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": f"{'default' if cases is DEFAULT_CASES else 'case'}-{number}"},
        "spec": {"rules": rules},
    }


FALLBACK: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {"name": "fallback"},
    "spec": {"defaultBackend": {"service": {"name": "three", "port": {"name": "http"}}}},
}


def backends() -> list[dict[str, Any]]:
    """Three Services with a pod each that tells its name."""
    found: list[dict[str, Any]] = []
    for name in SERVICES:
        container = {"name": "c", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}
        pod = {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"containers": [container]}}
        service = {
            "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }
        found += [{"apiVersion": "v1", "kind": "Pod", **pod}, {"apiVersion": "v1", "kind": "Service", **service}]
    return found


def all_objects(cases: tuple[Case, ...]) -> list[dict[str, Any]]:
    found = [ingress(cases, number) for number in range(len(cases))]
    return found + ([FALLBACK] if cases is DEFAULT_CASES else [])
