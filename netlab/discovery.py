"""What a pod is told about Services: its /etc files and its environment.

Decides: the text of hosts, hostname, resolv.conf and nsswitch.conf, and the variables {NAME}_SERVICE_HOST
and their docker-link kin. Refuses to know: who mounts the files and who starts the program.

Names themselves are DNS' business: netlab/dns.py. Where a lab has no DNS, the hosts files list its Services instead.
"""

from collections.abc import Iterator, Mapping
from itertools import chain

from netlab import dns, ingresses
from netlab.memory import kept_for_each, last_kept
from netlab.model import Address, Cluster, Key, Pod, Service
from netlab.ops import File

SERVICES_LISTED = 300
_HOSTS = """\
# Kubernetes-managed hosts file.
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
"""
_NSSWITCH = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nservices: files\nprotocols: files\n"


def plan(cluster: Cluster) -> tuple[File, ...]:
    """The files of every pod that is placed: `pod/NS/NAME/hosts` and so on; for outside hosts the names of Ingresses."""
    servers = name_servers(cluster)
    spaces = {key.namespace for key in cluster.pods}
    services = {namespace: "" if servers else _service_lines(cluster, namespace) for namespace in spaces}
    resolvers = {namespace: _resolv_conf(servers, namespace) for namespace in spaces}
    placed = (pod for pod in cluster.pods.values() if pod.node in cluster.nodes and pod.addresses)
    return tuple(chain(_ingress_hosts(cluster), *_files(placed, (services, resolvers))))


def _ingress_hosts(cluster: Cluster) -> Iterator[File]:
    hosts = "".join(f"{address}\t{name}\n" for name, address in ingresses.served_hosts(cluster).items())
    if hosts:
        text = _HOSTS.replace(
            "Kubernetes-managed hosts file.", "The hosts of the lab's Ingresses, as a user would write them here."
        )
        yield from (File(f"host/{host.name}/hosts", text + hosts) for host in cluster.topology.hosts)


@kept_for_each
def _files(pod: Pod, texts: tuple[Mapping[str, str], Mapping[str, str]]) -> tuple[File, ...]:
    """A pod's files; `texts`: the lines about Services and resolv.conf by namespace."""
    services, resolvers = texts
    directory, namespace = str(pod.ref), pod.meta.namespace
    return (
        File(f"{directory}/hosts", _HOSTS + _own_lines(pod) + services[namespace]),
        File(f"{directory}/hostname", hostname(pod) + "\n"),
        File(f"{directory}/resolv.conf", resolvers[namespace]),
        File(f"{directory}/nsswitch.conf", _NSSWITCH),
    )


def hostname(pod: Pod) -> str:
    """What `hostname` prints in the pod: spec.hostname, else its name; the node's name with hostNetwork."""
    if pod.spec.host_network:
        return pod.node
    return (pod.spec.hostname or pod.meta.name)[:63].rstrip("-.")


def _own_lines(pod: Pod) -> str:
    name = hostname(pod)
    full = f"{name}.{pod.spec.subdomain}.{pod.meta.namespace}.svc.{dns.DOMAIN}\t{name}" if pod.spec.subdomain else name
    return "".join(f"{address}\t{full}\n" for address in pod.addresses)


def _service_lines(cluster: Cluster, namespace: str) -> str:
    """The namespace's own Services first, then the others, no more than SERVICES_LISTED."""
    usable = [service for service in cluster.services.values() if service.cluster_ips and not service.headless]
    usable.sort(key=lambda service: (service.meta.namespace != namespace, service.meta.key))
    lines = ["# Services of the lab, which has no DNS (cluster: {dns: true} gives it one).\n"] if usable else []
    for service in usable[:SERVICES_LISTED]:
        own = service.meta.namespace == namespace
        in_namespace = f"{service.meta.name}.{service.meta.namespace}"
        names = [service.meta.name] * own + [in_namespace, f"{in_namespace}.svc", f"{in_namespace}.svc.{dns.DOMAIN}"]
        lines += [f"{address}\t{' '.join(names)}\n" for address in service.cluster_ips]
    if len(usable) > SERVICES_LISTED:
        lines.append(f"# {len(usable) - SERVICES_LISTED} more Services are not listed.\n")
    return "".join(lines)


def name_servers(cluster: Cluster) -> tuple[Address, ...]:
    """Whom a pod asks for names: the Service kube-dns, or a Service with port 53 at the tenth address; () where there is none.

    A kubelet names the tenth address in any case, and every look-up then waits in vain; without a server it fails at once.
    """
    service = dns.service_of(cluster)
    if service is not None and service.cluster_ips:
        return service.cluster_ips
    config = cluster.topology.cluster
    tenth = {network[10] for network in config.service_cidrs if network.num_addresses > 10}
    return tuple(address for one in _on_port_53(cluster.services) for address in one.cluster_ips if address in tenth)


@last_kept
def _on_port_53(services: Mapping[Key, Service]) -> tuple[Service, ...]:
    return tuple(one for one in services.values() if any(port.port == 53 for port in one.ports))


def _resolv_conf(servers: tuple[Address, ...], namespace: str) -> str:
    search = f"search {namespace}.svc.{dns.DOMAIN} svc.{dns.DOMAIN} {dns.DOMAIN}\n"
    return search + "".join(f"nameserver {server}\n" for server in servers) + "options ndots:5\n"


# ---------------------------------------------------------------- environment


def environment(cluster: Cluster, pod: Pod) -> Mapping[str, str]:
    """The variables that a container of the pod starts with, besides its own `env`: HOSTNAME and the Services older than the pod.

    As in Kubernetes, Services of the pod's namespace and `kubernetes`; headless ones are not told.
    """
    variables = {"HOSTNAME": hostname(pod)}
    for service in sorted(cluster.services.values(), key=lambda service: service.meta.key):
        master = service.meta.key == ("default", "kubernetes")
        older = service.meta.created <= pod.meta.created and pod.spec.service_links
        if (master or (service.meta.namespace == pod.meta.namespace and older)) and service.cluster_ips and not service.headless:
            variables.update(_service_variables(service))
    return variables


def _service_variables(service: Service) -> Iterator[tuple[str, str]]:
    if not service.ports:
        return
    prefix, host = _upper(service.meta.name), str(service.cluster_ips[0])
    yield f"{prefix}_SERVICE_HOST", host
    yield f"{prefix}_SERVICE_PORT", str(service.ports[0].port)
    yield from ((f"{prefix}_SERVICE_PORT_{_upper(port.name)}", str(port.port)) for port in service.ports if port.name)
    bracketed = f"[{host}]" if ":" in host else host
    for index, port in enumerate(service.ports):
        protocol = port.protocol.lower()
        url = f"{protocol}://{bracketed}:{port.port}"
        link = f"{prefix}_PORT_{port.port}_{port.protocol}"
        if index == 0:
            yield f"{prefix}_PORT", url
        yield from ((link, url), (f"{link}_PROTO", protocol), (f"{link}_PORT", str(port.port)), (f"{link}_ADDR", host))


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")
