"""The Ingress controller that a topology asks for: an IngressClass, the default one, and a DaemonSet on the nodes' own network.

A manifest that brings a controller of its own is left alone. They are ordinary objects from then on.
"""

from collections.abc import Sequence

from netlab import ingresses
from netlab.images import ProxyName
from netlab.ingresses import ADMIN_PORT, CONTROLLERS, HTTP_PORT, HTTPS_PORT
from netlab.model import (
    Cluster,
    Container,
    ContainerPort,
    KubernetesObject,
    Meta,
    Other,
    PodSpec,
    PodTemplate,
    Protocol,
    Selector,
    Toleration,
    Workload,
)

NAMESPACE = "ingress-controller"
IMAGES = {"haproxy": "haproxytech/haproxy-ingress", "nginx": "nginx-ingress-controller", "traefik": "traefik"}


def missing(cluster: Cluster) -> Sequence[KubernetesObject]:
    """What the topology asks for and the settled cluster lacks."""
    config = cluster.topology.cluster.ingress
    if config is None or not cluster.nodes:
        return ()
    specs = [pod.spec for pod in cluster.pods.values()] + [one.template.spec for one in cluster.workloads.values()]
    if any(ingresses.flavour_of(container) for spec in specs for container in spec.containers):
        return ()
    named = any(kind == "IngressClass" and key.name == config.proxy for kind, key in cluster.others)
    return (_daemon_set(config.proxy),) if named else (_class(config.proxy), _daemon_set(config.proxy))


def _class(proxy: ProxyName) -> Other:
    meta = Meta(proxy, annotations={ingresses.DEFAULT_ANNOTATION: "true"})
    metadata = {"name": proxy, "annotations": dict(meta.annotations)}
    manifest = {"metadata": metadata, "spec": {"controller": CONTROLLERS[proxy][0]}}
    return Other("IngressClass", ingresses.API, meta, manifest)


def _daemon_set(proxy: ProxyName) -> Workload:
    name = f"{proxy}-ingress"
    labels = {"app": name}
    named = (("http", HTTP_PORT), ("https", HTTPS_PORT), ("admin", ADMIN_PORT))
    ports = tuple(ContainerPort(number, word, Protocol.TCP) for word, number in named)
    shown = [{"containerPort": number, "name": word, "protocol": "TCP"} for word, number in named]
    template = {
        "metadata": {"labels": labels},
        "spec": {
            "hostNetwork": True,
            "containers": [{"name": proxy, "image": IMAGES[proxy], "ports": shown}],
            "tolerations": [{"operator": "Exists"}],
        },
    }
    containers = (Container(proxy, IMAGES[proxy], ports=ports),)
    spec = PodSpec(containers, host_network=True, tolerations=(Toleration(operator="Exists"),))
    manifest = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": labels},
        "spec": {"selector": {"matchLabels": labels}, "template": template},
    }
    return Workload(
        kind="DaemonSet",
        meta=Meta(name, NAMESPACE, labels=labels),
        replicas=0,
        selector=Selector(labels),
        template=PodTemplate(spec, labels, manifest=template),
        manifest=manifest,
    )
