"""What stands in for a container's image: a program of this machine, the lab's DNS server, or the built-in responder.

Refuses to know what a stand-in answers, and in which pod it runs.
"""

from collections.abc import Iterator, Mapping
from typing import Literal

from netlab.model import Container

ProxyName = Literal["haproxy", "nginx", "traefik"]
_INGRESS: Mapping[str, ProxyName] = {
    "haproxy-ingress": "haproxy",
    "nginx-ingress-controller": "nginx",
    "nginx-ingress": "nginx",
    "traefik": "traefik",
}
_DNS = ("k8s-dns-kube-dns", "k8s-dns-dnsmasq", "kube-dns", "kubedns")


def persona(image: str) -> str:
    """The image's base name, without registry, tag and digest: `docker.io/luksa/kubia:v2` is `kubia`."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def is_dns(base: str) -> bool:
    """Whether the lab's own DNS server stands in for images of this base name: coredns, a mirror of it, kube-dns."""
    return "coredns" in base.split("-") or base.startswith(_DNS)


def ingress_controller(image: str) -> ProxyName | None:
    """Which Ingress controller the image is, if any: by its base name, whatever registry and tag stand around it."""
    path = image.partition("@")[0]
    base = path.rpartition("/")[2].partition(":")[0]
    if base == "controller" and "ingress-nginx/" in path:
        return "nginx"
    if base == "kubernetes-ingress":
        return "haproxy" if "haproxy" in path else "nginx"
    return _INGRESS.get(base)


def runs_program(container: Container) -> bool:
    """Whether the container's command is run; otherwise a stand-in answers."""
    return bool(container.command) and not is_dns(persona(container.image)) and not ingress_controller(container.image)


def probed_ports(container: Container) -> Iterator[int]:
    """Ports that the container's own probes ask at: an image that is probed listens there, declared or not."""
    named = {port.name: port.port for port in container.ports}
    for probe in (container.readiness, container.liveness, container.startup):
        if probe is not None and probe.port is not None and not probe.host:
            number = named.get(probe.port) if isinstance(probe.port, str) else probe.port
            if number:
                yield number
