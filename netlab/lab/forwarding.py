"""What `port-forward` asks of the lab: which pod is meant, and which of its ports."""

from collections.abc import Mapping
from typing import Any

from netlab.endpoints import endpoints_of
from netlab.errors import InputError
from netlab.lab.holder import Lab
from netlab.model import Cluster, Key, Pod, Ref, Service, ServicePort
from netlab.numerals import natural
from netlab.targets import ObjectTarget, netns_of, parse, resolve_sender


def forward(lab: Lab, body: Mapping[str, Any]) -> dict[str, Any]:
    """{"target", "namespace", "ports": ["8080:80", ":http", ...]} -> the pod, its namespace's descriptor, [local, remote] pairs.

    A local port of 0 is any free one. Raises InputError in kubectl's words.
    """
    cluster, text, namespace = lab.cluster, str(body["target"]), str(body.get("namespace", "default"))
    target = parse(text, namespace)
    service: Service | None = None
    if isinstance(target, ObjectTarget) and target.kind == "svc":
        service = cluster.services.get(Key(target.namespace, target.name))
        if service is None:
            raise InputError(f'services "{target.name}" not found')
        pod = _behind(cluster, service)
    else:
        ref = resolve_sender(cluster, text, namespace)
        if ref.kind != "pod":
            raise InputError(f"{text}: pods, Services and workloads have ports to forward, not a {ref.kind}")
        pod = cluster.pods[Key(ref.namespace, ref.name)]
    if pod.phase != "Running":
        raise InputError(f"unable to forward port because pod is not running. Current status={pod.phase}")
    ports = [_port(str(one), pod, service) for one in body["ports"]]
    fd = lab.kernel.fds[netns_of(cluster, pod.ref)]
    return {"namespace": pod.meta.namespace, "name": pod.meta.name, "uid": pod.meta.uid, "fd": fd, "ports": ports}


def _behind(cluster: Cluster, service: Service) -> Pod:
    """A pod of the Service: a ready one, before one that is not."""
    targets: list[Ref] = []
    for port in service.ports:
        for family in service.ip_families or ("IPv4",):
            found = sorted(endpoints_of(cluster, service, port, family, headless=True), key=lambda one: (not one.ready, str(one)))
            targets += [one.target for one in found if one.target is not None and one.target.kind == "pod"]
    pods = [cluster.pods[key] for ref in targets if (key := Key(ref.namespace, ref.name)) in cluster.pods]
    if not pods:
        raise InputError(f"cannot attach to service/{service.meta.name}: it has no pods behind it")
    return pods[0]


def _port(text: str, pod: Pod, service: Service | None) -> tuple[int, int]:
    """(local, remote) of LOCAL:REMOTE, :REMOTE or PORT. REMOTE may be a name; of a Service it is the Service's port."""
    local, colon, remote = text.rpartition(":")
    number, target = _of_service(remote, pod, service) if service is not None else (_of_pod(remote, pod),) * 2
    if colon and not local:
        return 0, target
    here = natural(local) if colon else number
    if here is None or here > 65535:
        raise InputError(f"{text}: error parsing local port {local!r}: invalid port")
    return here, target


def _number(text: str) -> int | None:
    number = natural(text)
    if number is not None and not 1 <= number <= 65535:
        raise InputError(f"remote port must be between 1 and 65535, not {text}")
    return number


def _of_pod(text: str, pod: Pod) -> int:
    number = _number(text)
    named = {port.name: port.port for container in pod.all_containers for port in container.ports if port.name}
    if number is None and text not in named:
        raise InputError(f"pod/{pod.meta.name} does not have a named port {text!r}; it has {', '.join(named) or 'none'}")
    return number if number is not None else named[text]


def _of_service(text: str, pod: Pod, service: Service) -> tuple[int, int]:
    number = _number(text)
    for port in service.ports:
        if number == port.port or (number is None and port.name == text):
            return port.port, _target(port, pod)
    names = ", ".join(f"{port.name} ({port.port})" if port.name else str(port.port) for port in service.ports)
    raise InputError(f"Service {service.meta.name} does not have a service port {text}; it has {names or 'none'}")


def _target(port: ServicePort, pod: Pod) -> int:
    target = port.target_port or port.port
    return _of_pod(target, pod) if isinstance(target, str) else target
