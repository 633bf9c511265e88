"""What a cluster has without being asked: its DNS, as kubeadm installs it.

Decides the Service kube-dns, the Deployment behind it, and where its pods run: on the control plane where there is one. A
manifest or a dump that brings its own is left alone. They are ordinary objects from then on: they may be scaled and deleted.
"""

from collections.abc import Sequence

from netlab import dns, ipam
from netlab.model import (
    Cluster,
    Container,
    ContainerPort,
    Key,
    KubernetesObject,
    Meta,
    Pod,
    PodSpec,
    PodTemplate,
    Protocol,
    Selector,
    Service,
    ServicePort,
    Toleration,
    Workload,
)

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
REPLICAS = 2
PORTS = (("dns", 53, Protocol.UDP), ("dns-tcp", 53, Protocol.TCP), ("metrics", 9153, Protocol.TCP))
LABELS = {dns.APP: dns.SERVICE.name}


def missing(cluster: Cluster) -> Sequence[KubernetesObject]:
    """What the topology asks for and the settled cluster lacks: DNS Service and Deployment, or none of them."""
    config = cluster.topology.cluster
    if not config.dns or not cluster.nodes or not config.service_cidrs:
        return ()
    family: ipam.Family = "IPv4" if config.service_cidrs[0].version == 4 else "IPv6"
    address = ipam.service_address(config, 10, family)
    found = dns.service_of(cluster)
    if found is not None:
        served = any(one.endpoints for one in cluster.slices.values() if one.service == found.meta.key)
        own = found.selector == LABELS and not served and not _brought(cluster)
        return (_deployment(cluster),) if own else ()
    network = config.service_cidrs[0]
    taken = {one for service in cluster.services.values() for one in service.cluster_ips}
    if network.num_addresses < 12 or address in taken:
        return ()
    service = Service(
        meta=Meta(dns.SERVICE.name, dns.SERVICE.namespace, labels=LABELS),
        cluster_ips=(address,),
        ports=tuple(ServicePort(port, name, protocol, port) for name, port, protocol in PORTS),
        selector=LABELS,
        ip_families=(family,),
        manifest=_service_manifest(str(address)),
    )
    return (service,) if _brought(cluster) else (service, _deployment(cluster))


def _brought(cluster: Cluster) -> bool:
    """Whether a DNS pod, or what makes one, was given."""
    given: list[Pod | Workload] = [*cluster.pods.values(), *cluster.workloads.values()]
    return any(
        dns.is_server(one.meta.namespace, one.meta.labels if isinstance(one, Pod) else one.template.labels) for one in given
    )


def _service_manifest(address: str) -> dict[str, object]:
    ports = [{"name": name, "port": port, "protocol": str(protocol), "targetPort": port} for name, port, protocol in PORTS]
    metadata = {"name": dns.SERVICE.name, "namespace": dns.SERVICE.namespace, "labels": LABELS}
    spec = {"type": "ClusterIP", "clusterIP": address, "selector": LABELS, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _deployment(cluster: Cluster) -> Workload:
    controlled = any(node.control_plane and node.meta.labels.get(CONTROL_PLANE) == "" for node in cluster.nodes.values())
    where = {CONTROL_PLANE: ""} if controlled else {}
    ports = tuple(ContainerPort(port, name, protocol) for name, port, protocol in PORTS)
    shown = [{"containerPort": port, "name": name, "protocol": str(protocol)} for name, port, protocol in PORTS]
    toleration = {"key": CONTROL_PLANE, "effect": "NoSchedule"}
    tolerations = (Toleration(CONTROL_PLANE, effect="NoSchedule"),)
    template = {
        "metadata": {"labels": LABELS},
        "spec": {
            "containers": [{"name": "coredns", "image": "coredns/coredns", "ports": shown}],
            **({"nodeSelector": where} if where else {}),
            "tolerations": [toleration],
            "dnsPolicy": "Default",
        },
    }
    key = Key(dns.SERVICE.namespace, "coredns")
    return Workload(
        kind="Deployment",
        meta=Meta(key.name, key.namespace, labels=LABELS),
        replicas=REPLICAS,
        selector=Selector(LABELS),
        template=PodTemplate(
            PodSpec((Container("coredns", "coredns/coredns", ports=ports),), node_selector=where, tolerations=tolerations),
            LABELS,
            manifest=template,
        ),
        manifest={
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": key.name, "namespace": key.namespace, "labels": LABELS},
            "spec": {"replicas": REPLICAS, "selector": {"matchLabels": LABELS}, "template": template},
        },
    )
