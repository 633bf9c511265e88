"""The routes of all Ingresses that one controller serves, merged into one table, and what is wrong with them.

Decides: the oldest Ingress wins a conflict; a backend that is not there (another namespace cannot be named, as in Kubernetes)
keeps its route and answers 503; ImplementationSpecific means Prefix here. Refuses to know the proxies.
"""

import base64
import binascii
from collections.abc import Iterator
from dataclasses import dataclass, field

from netlab import ingresses
from netlab.dns import DOMAIN
from netlab.endpoints import endpoints_of
from netlab.images import ProxyName
from netlab.ingresses import Backend, Certificate, Ingress, Route, Table, Upstream
from netlab.model import Address, Cluster, Key, Other, Service, ServicePort, ServiceType

MISSING = "missing"
"""The upstream of backends that are not there."""


@dataclass(slots=True)
class _Draft:
    """A table while Ingresses are put into it. `problems`: (Ingress, sentence)."""

    cluster: Cluster
    routes: dict[tuple[str, str, bool], tuple[Route, Key]] = field(default_factory=dict)
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    default: tuple[str, Key] | None = None
    certificates: dict[str, Certificate] = field(default_factory=dict)
    problems: list[tuple[Key, str]] = field(default_factory=list)


def table(cluster: Cluster, flavour: ProxyName) -> Table:
    """What a controller of this flavour carries out."""
    draft = _draft(cluster, flavour)
    routes = sorted((route for route, _ in draft.routes.values()), key=lambda one: (one.host, one.path, not one.exact))
    return Table(
        tuple(routes),
        tuple(sorted(draft.upstreams.values(), key=lambda one: one.name)),
        draft.default[0] if draft.default else "",
        tuple(sorted(draft.certificates.values(), key=lambda one: one.name)),
    )


def problems(cluster: Cluster) -> tuple[tuple[Key, str], ...]:
    """(Ingress, sentence) for everything that will not work as it is written: also Ingresses that nobody serves."""
    flavours = tuple(dict.fromkeys(one.flavour for one in ingresses.controllers(cluster)))
    found = [problem for flavour in flavours for problem in _draft(cluster, flavour).problems]
    for one in ingresses.ingresses(cluster):
        if not ingresses.served_by(cluster, one):
            of = f"its class {one.class_name!r} has no controller here" if flavours else "no Ingress controller runs here"
            found.append((one.key, f"{of}: `cluster: {{ingress: haproxy}}` in the topology starts one; so does its DaemonSet"))
    return tuple(dict.fromkeys(found))


def _draft(cluster: Cluster, flavour: ProxyName) -> _Draft:
    draft = _Draft(cluster)
    for one in ingresses.ingresses(cluster):
        if ingresses.serves(cluster, one, flavour):
            _put(draft, one)
    return draft


def _put(draft: _Draft, one: Ingress) -> None:
    for rule in one.rules:
        for path in rule.paths:
            exact = path.type == "Exact"
            text = path.path if exact else path.path.rstrip("/")
            where = f"{rule.host or 'any host'}{path.path}"
            upstream = _upstream(draft, one, path.backend, where)
            known = draft.routes.setdefault((rule.host, text, exact), (Route(rule.host, text, exact, upstream), one.key))
            if known[1] != one.key:
                draft.problems.append((one.key, f"{where}: ingress {'/'.join(known[1])} is older and has it: ignored here"))
    if one.default is not None:
        upstream = _upstream(draft, one, one.default, "default backend")
        if draft.default is None:
            draft.default = (upstream, one.key)
        elif draft.default[1] != one.key:
            draft.problems.append(
                (one.key, f"default backend: ingress {'/'.join(draft.default[1])} is older and has one: ignored here")
            )
    for tls in one.tls:
        _certificate(draft, one, tls)


def _upstream(draft: _Draft, one: Ingress, backend: Backend, where: str) -> str:
    """The name of the upstream, made when it is first wanted."""
    service, port, problem = resolved(draft.cluster, one.key.namespace, backend)
    if service is None or port is None:
        draft.problems.append((one.key, f"{where}: {problem}: 503"))
        draft.upstreams.setdefault(MISSING, Upstream(MISSING))
        return MISSING
    name = f"{service.meta.namespace}/{service.meta.name}/{port.name or port.port}"
    if name not in draft.upstreams:
        draft.upstreams[name] = Upstream(name, tuple(_endpoints(draft.cluster, service, port)), _balanced(draft.cluster, service))
    if not draft.upstreams[name].endpoints:
        draft.problems.append((one.key, f"{where}: Service {service.meta.name} has no ready endpoints: 503"))
    return name


def resolved(cluster: Cluster, namespace: str, backend: Backend) -> tuple[Service | None, ServicePort | None, str]:
    """The Service and port that are meant, or why there are none."""
    if backend.resource:
        return None, None, f"resource backends are not supported ({backend.resource})"
    service = cluster.services.get(Key(namespace, backend.service))
    if service is None:
        elsewhere = sorted(key.namespace for key in cluster.services if key.name == backend.service)
        hint = f" (there is one in {', '.join(elsewhere)}: a backend is of the Ingress' own namespace)" if elsewhere else ""
        return None, None, f"there is no Service {backend.service} in namespace {namespace}{hint}"
    if service.type is ServiceType.EXTERNAL_NAME:
        return _aliased(cluster, service, backend)
    for port in service.ports:
        if backend.port in (port.port, port.name):
            return service, port, ""
    known = ", ".join(f"{port.port} ({port.name})" if port.name else str(port.port) for port in service.ports)
    return service, None, f"Service {backend.service} has no port {backend.port}, it has {known or 'none'}"


def _aliased(cluster: Cluster, alias: Service, backend: Backend) -> tuple[Service | None, ServicePort | None, str]:
    """The Service of the cluster that an ExternalName stands for, as a proxy that asks the lab's DNS finds it."""
    number = next((port.port for port in alias.ports if backend.port == port.name), backend.port)
    name = alias.external_name.lower().rstrip(".")
    word, _, rest = name.partition(".")
    namespace, _, domain = rest.partition(".")
    what = f"Service {backend.service} is an alias (ExternalName) of {name or 'nothing'}"
    if domain != f"svc.{DOMAIN}":
        return None, None, f"{what}, a name that the lab's DNS does not know: it forwards nothing to the outside"
    target = cluster.services.get(Key(namespace, word))
    if target is None or target.type is ServiceType.EXTERNAL_NAME:
        return None, None, f"{what}, which is {'an alias itself' if target is not None else 'no Service of the lab'}"
    port = next((port for port in target.ports if port.port == number), None)
    return target, port, "" if port is not None else f"{what}, which has no port {number}"


def _balanced(cluster: Cluster, service: Service) -> bool:
    """Whether requests are sent to the Service's own address."""
    config = cluster.topology.cluster.ingress
    return config is not None and config.upstream == "service" and bool(service.cluster_ips)


def _endpoints(cluster: Cluster, service: Service, port: ServicePort) -> Iterator[tuple[Address, int]]:
    if _balanced(cluster, service):
        yield service.cluster_ips[0], port.port
        return
    for family in service.ip_families or ("IPv4",):
        for endpoint in endpoints_of(cluster, service, port, family, headless=True):
            if endpoint.ready:
                yield endpoint.address, endpoint.port


def _certificate(draft: _Draft, one: Ingress, tls: ingresses.Tls) -> None:
    where = f"TLS of {', '.join(tls.hosts) or 'any host'}"
    secret = draft.cluster.others.get(("Secret", Key(one.key.namespace, tls.secret)))
    pem = pem_of(secret) if secret is not None else ""
    if not pem:
        why = "has no tls.crt and tls.key" if secret is not None else f"is not in namespace {one.key.namespace}"
        draft.problems.append((one.key, f"{where}: Secret {tls.secret or '(none named)'} {why}: no certificate for it"))
        return
    name = f"{one.key.namespace}/{tls.secret}"
    known = draft.certificates.get(name)
    hosts = tuple(dict.fromkeys((*(known.hosts if known else ()), *(host.lower() for host in tls.hosts or one.hosts))))
    draft.certificates[name] = Certificate(name, hosts, pem)


def pem_of(secret: Other) -> str:
    """Certificate chain and key of a TLS Secret, '' if one of them is missing or no PEM."""
    parts = [_value(secret, key) for key in ("tls.crt", "tls.key")]
    return (
        "".join(part if part.endswith("\n") else part + "\n" for part in parts) if all("-----BEGIN" in p for p in parts) else ""
    )


def _value(secret: Other, key: str) -> str:
    plain = (secret.manifest.get("stringData") or {}).get(key)
    if plain is not None:
        return str(plain)
    try:
        return base64.b64decode(str((secret.manifest.get("data") or {}).get(key) or ""), validate=False).decode(
            "ascii", "replace"
        )
    except binascii.Error:
        return ""
