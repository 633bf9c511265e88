"""Ingress objects as values, and the table of HTTP routes that a proxy carries out.

Decides what an Ingress says (its class, rules, TLS), which pods are Ingress controllers (by their image) and which Ingresses one
of them serves. Refuses to know how routes are matched (the oracle: netlab.expect.http; the proxies: netlab.ingress) and how a
Service is found. The objects were checked when they were loaded, in the form of networking.k8s.io/v1.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from netlab.images import ProxyName, ingress_controller
from netlab.memory import kept_for_each, last_kept
from netlab.model import Address, Cluster, Container, IngressConfig, Key, Node, Other, Pod, Ref

API = "networking.k8s.io/v1"
HTTP_PORT, HTTPS_PORT, ADMIN_PORT = 80, 443, 8080
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
DEFAULT_ANNOTATION = "ingressclass.kubernetes.io/is-default-class"
CONTROLLERS: Mapping[ProxyName, tuple[str, ...]] = {
    "haproxy": ("haproxy.org/ingress-controller", "haproxy-ingress.github.io/controller"),
    "nginx": ("k8s.io/ingress-nginx", "nginx.org/ingress-controller"),
    "traefik": ("traefik.io/ingress-controller",),
}
"""What spec.controller of an IngressClass says for each."""


# ---------------------------------------------------------------- objects


@dataclass(frozen=True, slots=True)
class Backend:
    """A Service of the Ingress' own namespace and its port, by number or by name. `resource` ("Kind/name"): not a Service."""

    service: str = ""
    port: int | str = 0
    resource: str = ""


@dataclass(frozen=True, slots=True)
class PathRule:
    path: str
    type: Literal["Exact", "Prefix", "ImplementationSpecific"]
    backend: Backend


@dataclass(frozen=True, slots=True)
class HostRule:
    """`host` '' is any; `*.example.com` one label before it. Lower case."""

    host: str
    paths: tuple[PathRule, ...]


@dataclass(frozen=True, slots=True)
class Tls:
    hosts: tuple[str, ...]
    secret: str


@dataclass(frozen=True, slots=True)
class Ingress:
    """`class_name` '' where neither the field nor the old annotation names one."""

    key: Key
    created: float
    class_name: str
    default: Backend | None
    rules: tuple[HostRule, ...]
    tls: tuple[Tls, ...]

    @property
    def hosts(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(rule.host for rule in self.rules if rule.host))


def ingresses(cluster: Cluster) -> tuple[Ingress, ...]:
    """All of them, the oldest first: that is the order in which they win conflicts."""
    return _ingresses(cluster.others)


@last_kept
def _ingresses(others: Mapping[tuple[str, Key], Other]) -> tuple[Ingress, ...]:
    found = _read_each((other for (kind, _), other in others.items() if kind == "Ingress" and _is_ours(other)), None)
    return tuple(sorted(found, key=lambda one: (one.created, one.key)))


def _is_ours(other: Other) -> bool:
    """A custom resource may be called Ingress, too. Old forms were turned into v1 when they were read."""
    return other.api_version == API


@kept_for_each
def _read_each(other: Other, rest: None) -> Ingress:
    return read(other)


def read(other: Other) -> Ingress:
    """The value of an Ingress object."""
    spec: Mapping[str, Any] = other.manifest.get("spec") or {}
    default = spec.get("defaultBackend")
    return Ingress(
        other.meta.key,
        other.meta.created,
        other.meta.annotations.get(CLASS_ANNOTATION) or spec.get("ingressClassName") or "",
        _backend(default) if default else None,
        tuple(_rule(rule) for rule in spec.get("rules") or ()),
        tuple(Tls(tuple(one.get("hosts") or ()), one.get("secretName") or "") for one in spec.get("tls") or ()),
    )


def _rule(rule: Mapping[str, Any]) -> HostRule:
    paths = (rule.get("http") or {}).get("paths") or ()
    return HostRule(
        (rule.get("host") or "").lower(),
        tuple(PathRule(one.get("path") or "/", one["pathType"], _backend(one.get("backend") or {})) for one in paths),
    )


def _backend(given: Mapping[str, Any]) -> Backend:
    if resource := given.get("resource"):
        return Backend(resource=f"{resource.get('kind')}/{resource.get('name')}")
    service = given.get("service") or {}
    port = service.get("port") or {}
    return Backend(service.get("name") or "", port.get("number") or port.get("name") or 0)


# ---------------------------------------------------------------- controllers


@dataclass(frozen=True, slots=True)
class Controller:
    """A pod that is an Ingress controller. `flavour`: whose classes it serves; `proxy`: the program that carries it out."""

    pod: Ref
    netns: str
    node: str
    flavour: ProxyName
    proxy: ProxyName


def flavour_of(container: Container) -> ProxyName | None:
    """Which Ingress controller the container is, if any."""
    return ingress_controller(container.image)


def controllers(cluster: Cluster) -> tuple[Controller, ...]:
    """The running ones. An image `traefik` is run by the lab's default proxy, unless that is traefik."""
    return _controllers(cluster.pods, cluster.nodes, cluster.topology.cluster.ingress)


@last_kept
def _controllers(pods: Mapping[Key, Pod], nodes: Mapping[str, Node], default: IngressConfig | None) -> tuple[Controller, ...]:
    flavours = zip(pods.values(), _flavour_of_each(pods.values(), None), strict=True)
    found = []
    for pod, flavour in ((pod, flavour) for pod, flavour in flavours if flavour is not None):
        if pod.phase == "Running" and pod.node in nodes and pod.addresses:
            wanted = flavour if flavour != "traefik" else default.proxy if default is not None else "haproxy"
            netns = f"node/{pod.node}" if pod.spec.host_network else str(pod.ref)
            found.append(Controller(pod.ref, netns, pod.node, flavour, wanted))
    return tuple(found)


@kept_for_each
def _flavour_of_each(pod: Pod, rest: None) -> ProxyName | None:
    return next((found for container in pod.spec.containers if (found := flavour_of(container)) is not None), None)


def serves(cluster: Cluster, ingress: Ingress, flavour: ProxyName) -> bool:
    """Whether a controller of this flavour takes the Ingress: by its class, by the default class, or because there is none."""
    classes, default = _classes(cluster.others)
    name = ingress.class_name or default
    if not name:
        return True
    if name in classes:
        return any(classes[name] == own or classes[name].startswith(f"{own}/") for own in CONTROLLERS[flavour])
    return name == flavour


@last_kept
def _classes(others: Mapping[tuple[str, Key], Other]) -> tuple[Mapping[str, str], str]:
    """(name -> spec.controller of every IngressClass, the default one's name or '')

    Of several defaults the newest, of these the first by name.
    Source: Kubernetes plugin/pkg/admission/network/defaultingressclass.
    """
    found = [one for (kind, _), one in others.items() if kind == "IngressClass" and _is_ours(one)]
    marked = sorted((one.meta.name, _age(one)) for one in found if one.meta.annotations.get(DEFAULT_ANNOTATION) == "true")
    default, _ = max(marked, key=lambda one: one[1], default=("", None))
    return {one.meta.name: str((one.manifest.get("spec") or {}).get("controller") or "") for one in found}, default


def _age(one: Other) -> tuple[float, str]:
    """When it was made, on the lab's clock; what came from a dump together, as the dump says. More is newer."""
    return one.meta.created, str((one.manifest.get("metadata") or {}).get("creationTimestamp") or "")


def default_class(others: Mapping[tuple[str, Key], Other]) -> str:
    """The name of the default IngressClass, '' where there is none."""
    return _classes(others)[1]


def served_by(cluster: Cluster, ingress: Ingress) -> tuple[Controller, ...]:
    """The running controllers that take the Ingress."""
    return tuple(one for one in controllers(cluster) if serves(cluster, ingress, one.flavour))


def addresses(cluster: Cluster, ingress: Ingress) -> tuple[Address, ...]:
    """Where the Ingress is served: the first address of each controller's node, or of its pod where that has its own network."""
    found: dict[Address, None] = {}
    for one in served_by(cluster, ingress):
        pod = cluster.pods[Key(one.pod.namespace, one.pod.name)]
        own = cluster.nodes[one.node].addresses if pod.spec.host_network else pod.addresses
        found |= dict.fromkeys(own[:1])
    return tuple(sorted(found, key=lambda address: (address.version, int(address))))


def served_hosts(cluster: Cluster) -> Mapping[str, Address]:
    """Host of an Ingress (no wildcards) -> the first address where it is served. This is what a user writes into /etc/hosts."""
    found: dict[str, Address] = {}
    for one in ingresses(cluster):
        for address in addresses(cluster, one)[:1]:
            found |= {host: address for host in one.hosts if not host.startswith("*.") and host not in found}
    return found


def host_matches(pattern: str, host: str) -> bool:
    """A precise name, or `*.` for exactly one label: `*.foo.com` is bar.foo.com, but neither foo.com nor a.b.foo.com."""
    if not pattern.startswith("*."):
        return pattern == host
    label, _, rest = host.partition(".")
    return bool(label) and rest == pattern[2:]


# ---------------------------------------------------------------- what a proxy is told


@dataclass(frozen=True, slots=True)
class Upstream:
    """Where requests are sent: `NAMESPACE/SERVICE/PORT`. No endpoints: 503. `balanced`: others stand behind the address."""

    name: str
    endpoints: tuple[tuple[Address, int], ...] = ()
    balanced: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """`path` of a prefix has no slash at its end, '' is every path of the host. exact: the path and nothing else."""

    host: str
    path: str
    exact: bool
    upstream: str


@dataclass(frozen=True, slots=True)
class Certificate:
    """PEM of certificate chain and key, from the Secret `name`; shown to clients that ask for one of `hosts`."""

    name: str
    hosts: tuple[str, ...]
    pem: str


@dataclass(frozen=True, slots=True)
class Table:
    """All routes of one proxy, no two for the same (host, path, exact). `default`: an upstream, '' answers 404."""

    routes: tuple[Route, ...] = ()
    upstreams: tuple[Upstream, ...] = ()
    default: str = ""
    certificates: tuple[Certificate, ...] = ()
