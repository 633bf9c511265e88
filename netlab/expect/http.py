"""The oracle for HTTP routes: what an Ingress says must become of a request. It knows no proxy and no table of routes.

As networking.k8s.io/v1 documents it: a precise host before a wildcard before none; within a host the longest path, and of two
that are equally long Exact before Prefix; a Prefix is compared element by element, a slash at the end counts for nothing. The
first host that has a path for the request decides. Nothing fits: the default backend, or 404. A backend that is not there: 503.
"""

from dataclasses import dataclass

from netlab import ingresses
from netlab.endpoints import endpoints_of
from netlab.ingresses import Backend, Controller, Ingress, PathRule
from netlab.model import Address, Cluster, Key, Service, ServicePort, ServiceType


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """`status` 404 or 503 where no backend can answer, 0 where one does: any of `endpoints`. `ingress` None: no rule fits."""

    status: int
    ingress: Key | None = None
    service: str = ""
    endpoints: tuple[tuple[Address, int], ...] = ()
    why: str = ""


def controller_at(cluster: Cluster, address: Address, port: int) -> Controller | None:
    """The Ingress controller that answers HTTP at an address, None where there is none."""
    for one in ingresses.controllers(cluster) if port == ingresses.HTTP_PORT else ():
        pod = cluster.pods[Key(one.pod.namespace, one.pod.name)]
        if address in (cluster.nodes[one.node].addresses if pod.spec.host_network else pod.addresses):
            return one
    return None


def expect_http(cluster: Cluster, controller: Controller, host: str, path: str) -> HttpAnswer:
    """What becomes of a request for `host` (with or without port) and `path` (with or without query)."""
    name = (host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and host.count(":") == 1 else host).lower()
    served = [one for one in ingresses.ingresses(cluster) if ingresses.serves(cluster, one, controller.flavour)]
    bare = path.partition("?")[0].partition("#")[0] or "/"
    for rank in (0, 1, 2):
        found = [
            (one, rule, given)
            for one in served
            for given in one.rules
            if _rank(given.host) == rank and (not given.host or host_matches(given.host, name))
            for rule in given.paths
            if path_matches(rule, bare)
        ]
        if found:
            one, rule, _ = max(found, key=lambda each: (_length(each[1]), each[1].type == "Exact"))  # of equals, the oldest
            return _answer(cluster, one, rule.backend)
    for one in served:
        if one.default is not None:
            return _answer(cluster, one, one.default)
    return HttpAnswer(404, why="no rule fits, and there is no default backend")


def host_matches(pattern: str, host: str) -> bool:
    """Whether a rule's host is the request's: equal, or `*` in the place of its first label and of nothing more."""
    wanted, given = pattern.split("."), host.split(".")
    return wanted == given or (wanted[0] == "*" and len(wanted) == len(given) and wanted[1:] == given[1:] and bool(given[0]))


def _rank(host: str) -> int:
    return 2 if not host else 1 if host.startswith("*.") else 0


def _elements(path: str) -> list[str]:
    return path.strip("/").split("/") if path.strip("/") else []


def _length(rule: PathRule) -> int:
    return len(rule.path if rule.type == "Exact" else rule.path.rstrip("/"))


def path_matches(rule: PathRule, path: str) -> bool:
    """Whether a path fits one rule. ImplementationSpecific: as Prefix, here."""
    if rule.type == "Exact":
        return path == rule.path
    wanted = _elements(rule.path)
    return _elements(path)[: len(wanted)] == wanted


def _answer(cluster: Cluster, one: Ingress, backend: Backend) -> HttpAnswer:
    if backend.resource:
        return HttpAnswer(503, one.key, why=f"resource backends are not supported ({backend.resource})")
    service = cluster.services.get(Key(one.key.namespace, backend.service))
    if service is None:
        return HttpAnswer(503, one.key, why=f"there is no Service {backend.service} in namespace {one.key.namespace}")
    if service.type is ServiceType.EXTERNAL_NAME:
        return _of_alias(cluster, one, service, backend)
    port: ServicePort | None = next((port for port in service.ports if backend.port in (port.port, port.name)), None)
    label = f"svc/{service.meta.namespace}/{service.meta.name}:{backend.port}"
    if port is None:
        return HttpAnswer(503, one.key, label, why=f"Service {backend.service} has no port {backend.port}")
    return _served(cluster, one, service, port, label)


def _of_alias(cluster: Cluster, one: Ingress, alias: Service, backend: Backend) -> HttpAnswer:
    """ExternalName: a request goes where the cluster's DNS leads, to that port; nowhere for names outside the cluster."""
    parts = alias.external_name.lower().rstrip(".").split(".")
    inside = len(parts) == 5 and parts[2:] == ["svc", "cluster", "local"]
    target = cluster.services.get(Key(parts[1], parts[0])) if inside else None
    wanted = next((port.port for port in alias.ports if port.name == backend.port), backend.port)
    ports = [port for port in target.ports if port.port == wanted] if target is not None else []
    if target is None or target.type is ServiceType.EXTERNAL_NAME or not ports:
        return HttpAnswer(
            503, one.key, why=f"Service {backend.service} is an alias of {alias.external_name}, which nobody answers"
        )
    label = f"svc/{target.meta.namespace}/{target.meta.name}:{wanted}"
    return _served(cluster, one, target, ports[0], label)


def _served(cluster: Cluster, one: Ingress, service: Service, port: ServicePort, label: str) -> HttpAnswer:
    families = service.ip_families or ("IPv4",)
    ready = tuple(
        (end.address, end.port)
        for family in families
        for end in endpoints_of(cluster, service, port, family, headless=True)
        if end.ready
    )
    if not ready:
        return HttpAnswer(503, one.key, label, why=f"Service {service.meta.name} has no ready endpoints")
    return HttpAnswer(0, one.key, label, ready)
