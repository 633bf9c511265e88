"""What people type for a sender or a destination, and what it stands for in a cluster.

Decides: the grammar (`pod/client`, `deploy/web@2`, `svc/web:http`, `10.96.0.80:80`, `web.shop:80`, `http://web/healthz`), which
pod of a workload is meant (by name order, the first unless told), which address and port a destination has, and which source
address a machine would choose. Refuses to know: packets, plans and the kernel.

A namespace of the lab is named as the thing that lives in it, so `netns_of` of an ordinary pod, node or host is `str(ref)`.
One file of over 400 lines, because grammar, lookup and the messages of both are read and changed together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from ipaddress import ip_address
from typing import NoReturn, TypeVar

from netlab import overlay
from netlab.errors import InputError
from netlab.ingresses import served_hosts
from netlab.model import Address, Cluster, Key, Pod, Protocol, Ref, Service, ServicePort
from netlab.numerals import natural

Found = TypeVar("Found")

WORKLOADS = {
    "deploy": "Deployment", "deployment": "Deployment", "deployments": "Deployment",
    "rc": "ReplicationController", "replicationcontroller": "ReplicationController",
    "replicationcontrollers": "ReplicationController",
    "rs": "ReplicaSet", "replicaset": "ReplicaSet", "replicasets": "ReplicaSet",
    "sts": "StatefulSet", "statefulset": "StatefulSet", "statefulsets": "StatefulSet", "job": "Job", "jobs": "Job",
    "ds": "DaemonSet", "daemonset": "DaemonSet", "daemonsets": "DaemonSet",
}  # fmt: skip
KINDS = {
    "pod": "pod", "po": "pod", "pods": "pod", "node": "node", "no": "node", "nodes": "node", "host": "host", "hosts": "host",
    "router": "router",
    "svc": "svc", "service": "svc", "services": "svc", **dict.fromkeys(WORKLOADS, "workload"),
}  # fmt: skip
FORMS = (
    "pod/NAME, node/NAME, host/NAME, deploy/NAME, rc/NAME, rs/NAME, ds/NAME, sts/NAME, job/NAME, svc/NAME[:PORT], IP[:PORT], "
    "NAME[:PORT] or http://..."
)
DOMAIN = ".svc.cluster.local"


@dataclass(frozen=True, slots=True)
class ObjectTarget:
    """`KIND/[NAMESPACE/]NAME[@INDEX][:PORT]`. `kind`: pod, node, host, svc or a workload's kind; `port` '' if absent."""

    kind: str
    namespace: str
    name: str
    index: int = 1
    port: str = ""


@dataclass(frozen=True, slots=True)
class AddressTarget:
    """`IP[:PORT]`; `port` is 0 if not given."""

    address: Address
    port: int = 0


@dataclass(frozen=True, slots=True)
class NameTarget:
    """`NAME[:PORT]`, for the cluster's DNS."""

    name: str
    port: str = ""


@dataclass(frozen=True, slots=True)
class UrlTarget:
    """`http://HOST[:PORT]/PATH`: `inner` is the host as a target."""

    inner: AddressTarget | NameTarget
    path: str
    host: str


Target = ObjectTarget | AddressTarget | NameTarget | UrlTarget


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a probe is sent. `port` is 0 for ICMP; `label` is how results name it: `10.96.0.80:80/tcp`.

    `url_host` and `path` are set for `http://...` only: what goes into the Host header and the request line.
    """

    address: Address
    port: int
    protocol: Protocol
    label: str
    url_host: str = ""
    path: str = ""


# ---------------------------------------------------------------- reading


def parse(text: str, namespace: str = "default") -> Target:
    """The target that the text stands for, without looking at any cluster. Raises: InputError."""
    scheme, separator, rest = text.partition("://")
    if separator:
        return _url(text, scheme, rest)
    if "/" in text:
        return _object(text, namespace)
    return _host_port(text, text)


def _url(text: str, scheme: str, rest: str) -> UrlTarget:
    if scheme != "http":
        why = (
            f"; TLS hides from the packets which request it was, and who answered: netlab exec FROM -- curl -s --cacert CA.crt "
            f"{text} checks the certificate and asks, a probe of HOST:443 judges the connection"
            if scheme == "https"
            else ""
        )
        raise InputError(f"{text}: only http:// is spoken here, not {scheme}://{why}")
    host, slash, path = rest.partition("/")
    inner = _host_port(host, text)
    match inner:
        case AddressTarget(address, port):
            return UrlTarget(AddressTarget(address, port or 80), slash + path or "/", host)
        case NameTarget(name, port_text):
            return UrlTarget(NameTarget(name, port_text or "80"), slash + path or "/", host)


def _object(text: str, namespace: str) -> ObjectTarget:
    kind_text, *parts = text.split("/")
    kind = KINDS.get(kind_text.lower())
    if kind is None:
        raise InputError(f"{text}: unknown kind {kind_text!r}{_meant(kind_text, KINDS)}; a target is {FORMS}")
    namespaced = kind not in ("node", "host", "router")
    if not 1 <= len(parts) <= (2 if namespaced else 1) or not all(parts):
        raise InputError(f"{text}: expected {kind_text}/NAME{f' or {kind_text}/NAMESPACE/NAME' if namespaced else ''}")
    name, _, port = parts[-1].partition(":")
    name, at, index_text = name.partition("@")
    index = natural(index_text) if at else 1
    if not index or (at and kind != "workload"):
        raise InputError(f"{text}: @N picks the N-th pod of a workload, counted from 1, as in rc/kubia@2")
    space = "" if not namespaced else parts[0] if len(parts) == 2 else namespace
    return ObjectTarget(WORKLOADS.get(kind_text.lower(), kind), space, name, index, port)


def _host_port(host: str, text: str) -> AddressTarget | NameTarget:
    """`1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]:80`, `name`, `name:80`."""
    if not host:
        raise InputError(f"{text or 'empty target'}: a target is {FORMS}")
    bare, port = host, ""
    if host.startswith("["):
        bare, _, port = host[1:].partition("]")
        port = port.removeprefix(":")
    elif host.count(":") == 1:
        bare, _, port = host.partition(":")
    try:
        address = ip_address(bare)
    except ValueError:
        if not all(part and part.replace("-", "a").replace("_", "a").isalnum() for part in bare.removesuffix(".").split(".")):
            raise InputError(f"{text}: neither an address nor a name; a target is {FORMS}") from None
        if all(part.isdecimal() for part in bare.split(".")):
            raise InputError(f"{text}: {bare} is no valid address") from None
        return NameTarget(bare, port)
    return AddressTarget(address, _port_number(port, text) if port else 0)


def _port_number(port: str, text: str) -> int:
    number = natural(port)
    if number is None or not 1 <= number <= 65535:
        raise InputError(f"{text}: {port!r} is no port number (1-65535)")
    return number


# ---------------------------------------------------------------- senders


def resolve_sender(cluster: Cluster, text: str, namespace: str = "default") -> Ref:
    """The pod, node or host that the text names. Raises: InputError."""
    target = parse(text, namespace)
    match target:
        case ObjectTarget(kind="svc"):
            raise InputError(f"{text}: a Service cannot send; a sender is a pod, node or host")
        case ObjectTarget():
            return _machine(cluster, target, text)
        case AddressTarget() | NameTarget() | UrlTarget():
            raise InputError(f"{text}: a sender is pod/NAME, node/NAME, host/NAME, deploy/NAME, rc/NAME, rs/NAME or ds/NAME")


def _machine(cluster: Cluster, target: ObjectTarget, text: str) -> Ref:
    match target.kind:
        case "pod":
            _find(text, "pod", target, cluster.pods)
            return Ref("pod", target.namespace, target.name)
        case "node":
            if target.name not in cluster.nodes:
                _unknown(text, "node", target.name, cluster.nodes)
            return Ref("node", "", target.name)
        case "host":
            hosts = [host.name for host in cluster.topology.hosts]
            if target.name not in hosts:
                _unknown(text, "host", target.name, hosts)
            return Ref("host", "", target.name)
        case "router":
            if not any(lan.routers for lan in cluster.topology.networks):
                raise InputError(f"{text}: no network of this lab has a router")
            if target.name != "router":
                _unknown(text, "router", target.name, ["router"])
            return Ref("router", "", "router")
        case kind:
            return _workload_pod(cluster, kind, target, text)


def pods_of(cluster: Cluster, kind: str, key: Key) -> tuple[Pod, ...]:
    """The pods that a workload keeps, directly or (a Deployment) through its ReplicaSets, in order of name."""
    namespace, name = key
    spellings = {word for word, meant in WORKLOADS.items() if meant == kind}

    def owned(owner: Ref | None, by: set[tuple[str, str]]) -> bool:
        return owner is not None and owner.namespace in ("", namespace) and (owner.kind.lower(), owner.name) in by

    owners = {(spelling, name) for spelling in spellings}
    if kind == "Deployment":
        sets = [key.name for (owned_kind, key), workload in cluster.workloads.items()
                if owned_kind == "ReplicaSet" and key.namespace == namespace and owned(workload.meta.owner, owners)]  # fmt: skip
        owners = {(spelling, replica_set) for spelling in ("replicaset", "rs") for replica_set in sets}
    found = (pod for key, pod in cluster.pods.items() if key.namespace == namespace and owned(pod.meta.owner, owners))
    return tuple(sorted(found, key=lambda pod: pod.meta.name))


def _workload_pod(cluster: Cluster, kind: str, target: ObjectTarget, text: str) -> Ref:
    key = Key(target.namespace, target.name)
    _find(
        text, kind, target, {known: workload for (known_kind, known), workload in cluster.workloads.items() if known_kind == kind}
    )
    pods = pods_of(cluster, kind, key)
    alive = [pod for pod in pods if not pod.terminating and pod.phase in ("Pending", "Running")] or list(pods)
    if not alive:
        raise InputError(f"{text}: {kind} {target.name} has no pods (scale it up first)")
    if target.index > len(alive):
        raise InputError(
            f"{text}: {kind} {target.name} has {len(alive)} pod{'s' if len(alive) > 1 else ''}, no {target.index}th one"
        )
    return alive[target.index - 1].ref


# ---------------------------------------------------------------- destinations


def resolve_destination(
    cluster: Cluster, text: str, namespace: str = "default", protocol: Protocol | None = None, sender: Ref | None = None
) -> Destination:
    """The address, port and protocol that are meant. `protocol` None: what the port declares, else TCP (ICMP without a port).

    `sender` a pod: short names are looked up in its namespace, as its resolver would. Raises: InputError.
    """
    space = sender.namespace if sender is not None and sender.namespace else namespace
    target = parse(text, namespace)
    match target:
        case ObjectTarget(kind="svc"):
            service = _find(text, "service", target, cluster.services)
            return _service_destination(cluster, service, target.port, protocol, text)
        case ObjectTarget():
            return _machine_destination(cluster, _machine(cluster, target, text), target.port, protocol, text)
        case AddressTarget(address, port):
            return _destination(address, port, protocol, text)
        case NameTarget(name, port_text):
            return _service_destination(cluster, _by_name(cluster, name, space, text), port_text, protocol, text)
        case UrlTarget(inner, path, host):
            if isinstance(inner, AddressTarget):
                found = _destination(inner.address, inner.port, Protocol.TCP, text)
            elif (served := served_hosts(cluster).get(inner.name.lower())) is not None and (
                space,
                inner.name,
            ) not in cluster.services:
                found = _destination(served, _port_number(inner.port, text), Protocol.TCP, text)
            else:
                found = _service_destination(cluster, _by_name(cluster, inner.name, space, text), inner.port, Protocol.TCP, text)
            return Destination(found.address, found.port, found.protocol, found.label, host, path)


def label(address: Address, port: int, protocol: Protocol) -> str:
    """How results name a destination: `10.96.0.80:80/tcp`, `[fd00::1]:80/tcp`, `10.244.1.3/icmp`."""
    host = f"[{address}]" if address.version == 6 and port else str(address)
    return f"{host}:{port}/{protocol.lower()}" if port else f"{host}/{protocol.lower()}"


def _destination(address: Address, port: int, protocol: Protocol | None, text: str) -> Destination:
    chosen = protocol or (Protocol.TCP if port else Protocol.ICMP)
    if chosen is Protocol.ICMP:
        port = 0
    elif not port:
        raise InputError(f"{text}: {chosen} needs a port, as in {label(address, 80, chosen).partition('/')[0]}")
    return Destination(address, port, chosen, label(address, port, chosen))


def _machine_destination(cluster: Cluster, ref: Ref, port: str, protocol: Protocol | None, text: str) -> Destination:
    addresses = addresses_of(cluster, ref)
    if not addresses:
        raise InputError(f"{text}: {ref} has no address yet")
    declared = []
    if ref.kind == "pod":
        pod = cluster.pods[Key(ref.namespace, ref.name)]
        declared = [port for container in pod.spec.containers for port in container.ports]
    if port and not port.isdecimal():
        for candidate in declared:
            if candidate.name == port and protocol in (None, candidate.protocol):
                return _destination(addresses[0], candidate.port, candidate.protocol, text)
        raise InputError(f"{text}: {ref} has no port named {port!r}{_meant(port, [p.name for p in declared if p.name])}")
    number = _port_number(port, text) if port else 0
    for candidate in declared:
        if protocol in (None, candidate.protocol) and number in (0, candidate.port):
            return _destination(addresses[0], candidate.port, candidate.protocol, text)
    return _destination(addresses[0], number, protocol, text)


def _service_destination(cluster: Cluster, service: Service, port: str, protocol: Protocol | None, text: str) -> Destination:
    if service.headless or service.external_name or not service.cluster_ips:
        return _endpoint_destination(cluster, service, port, protocol, text)
    address = service.cluster_ips[0]
    if protocol is Protocol.ICMP:
        return _destination(address, 0, protocol, text)
    if port.isdecimal():
        number = _port_number(port, text)
        declared = next((p for p in service.ports if p.port == number and protocol in (None, p.protocol)), None)
        return _destination(address, number, protocol or (declared.protocol if declared else Protocol.TCP), text)
    found = _service_port(service, port, protocol, text)
    return _destination(address, found.port, found.protocol, text)


def _service_port(service: Service, port: str, protocol: Protocol | None, text: str) -> ServicePort:
    """The port of that name, or the first one when no name is given."""
    fitting = [p for p in service.ports if protocol in (None, p.protocol)]
    for candidate in fitting:
        if port in ("", candidate.name):
            return candidate
    if port:
        names = [p.name for p in fitting if p.name]
        raise InputError(f"{text}: Service {service.meta.name} has no port named {port!r}{_meant(port, names)}")
    raise InputError(
        f"{text}: Service {service.meta.name} has no {protocol or ''} port; name one, as in svc/{service.meta.name}:80"
    )


def _endpoint_destination(cluster: Cluster, service: Service, port: str, protocol: Protocol | None, text: str) -> Destination:
    """A headless Service's name stands for its endpoints; the first ready one is taken."""
    if service.external_name:
        alias = service.external_name.removesuffix(".")
        if alias.endswith(DOMAIN):
            meant = _by_name(cluster, alias, service.meta.namespace, text)
            if not meant.external_name:  # an alias of an alias may lead back here
                return _service_destination(cluster, meant, port, protocol, text)
        raise InputError(f"{text}: an ExternalName Service stands for {service.external_name}, which is outside the lab")
    for endpoint_slice in sorted(cluster.slices.values(), key=lambda one: one.meta.key):
        if endpoint_slice.service != service.meta.key:
            continue
        for endpoint in endpoint_slice.endpoints:
            if endpoint.ready is False or not endpoint.addresses:
                continue
            fitting = [p for p in endpoint_slice.ports if p.port and protocol in (None, p.protocol)]
            named = [p for p in fitting if port in ("", p.name or "", str(p.port))]
            number = _port_number(port, text) if port.isdecimal() else (named[0].port or 0) if named else 0
            return _destination(endpoint.addresses[0], number, protocol or (named[0].protocol if named else None), text)
    raise InputError(f"{text}: Service {service.meta.name} has no clusterIP and no ready endpoints")


def _by_name(cluster: Cluster, name: str, namespace: str, text: str) -> Service:
    """The Service found with the pod's search list: `web`, `web.shop`, `web.shop.svc`, `web.shop.svc.cluster.local`."""
    short = name.removesuffix(".").lower()
    for tail in (DOMAIN, ".svc"):
        short = short.removesuffix(tail)
    service_name, _, space = short.partition(".")
    key = Key(space or namespace, service_name)
    if key not in cluster.services:
        spoken = [f"{other.name}.{other.namespace}" for other in cluster.services]
        same = [f"{other.name}.{other.namespace}" for other in cluster.services if other.name == key.name]
        known = same or [*spoken, *(other.name for other in cluster.services if other.namespace == namespace)]
        full = [f"{one}{DOMAIN}" for one in spoken] if name.endswith(DOMAIN) else []
        meant = f"; did you mean {same[0]}?" if same else _meant(name, full or known)
        raise InputError(f"{text}: the cluster's DNS has no name {name!r} (seen from namespace {namespace}){meant}")
    return cluster.services[key]


# ---------------------------------------------------------------- where things are


def addresses_of(cluster: Cluster, ref: Ref) -> tuple[Address, ...]:
    """The addresses of a pod, node or host; those of its node for a hostNetwork pod."""
    match ref.kind:
        case "pod":
            pod = cluster.pods[Key(ref.namespace, ref.name)]
            if pod.spec.host_network and pod.node in cluster.nodes:
                return cluster.nodes[pod.node].addresses
            return pod.addresses
        case "node":
            return cluster.nodes[ref.name].addresses
        case "router":
            return tuple(address for lan in cluster.topology.networks for address in lan.routers)
        case _:
            return next(host.addresses for host in cluster.topology.hosts if host.name == ref.name)


def netns_of(cluster: Cluster, ref: Ref) -> str:
    """The network namespace in which a pod, node or host lives; a hostNetwork pod lives in its node's. Raises: InputError."""
    if ref.kind != "pod":
        return str(ref)
    pod = cluster.pods.get(Key(ref.namespace, ref.name))
    if pod is None:
        _unknown(str(ref), "pod", ref.name, (key.name for key in cluster.pods if key.namespace == ref.namespace))
    if not pod.node or pod.phase in ("Succeeded", "Failed"):
        state = "is not placed on a node yet" if not pod.node else f"has ended ({pod.phase})"
        raise InputError(f"{ref} {state}{': ' + pod.message if pod.message else ''}")
    return f"node/{pod.node}" if pod.spec.host_network else str(ref)


def shared_netns(cluster: Cluster, ref: Ref) -> str:
    """The node's network namespace that a hostNetwork pod lives in; '' for everybody who has one of his own."""
    pod = cluster.pods.get(Key(ref.namespace, ref.name)) if ref.kind == "pod" else None
    return f"node/{pod.node}" if pod is not None and pod.spec.host_network and pod.node else ""


def source_address(cluster: Cluster, sender: Ref, destination: Address) -> Address:
    """The source address that the sender's routing picks for a destination. Raises: InputError if it has none of the family."""
    own = tuple(address for address in addresses_of(cluster, sender) if address.version == destination.version)
    if destination.is_loopback:
        return ip_address("127.0.0.1" if destination.version == 4 else "::1")
    if not own:
        raise InputError(f"{sender} has no IPv{destination.version} address to reach {destination} from")
    pod = cluster.pods.get(Key(sender.namespace, sender.name)) if sender.kind == "pod" else None
    if destination in own or (pod is not None and not pod.spec.host_network):
        return destination if destination in own else own[0]
    node = pod.node if pod is not None else sender.name if sender.kind == "node" else ""
    if node:
        for network in cluster.nodes[node].pod_cidrs:
            if destination in network and cluster.topology.cluster.fabric == "bridge":
                return network[1]
        found = _overlay_source(cluster, node, destination)
        if found is not None:
            return found
    return _lan_source(cluster, node, sender, destination, own)


def _overlay_source(cluster: Cluster, node: str, destination: Address) -> Address | None:
    """The node's address in the overlay, where that is the way to the destination; None without one."""
    if not any(destination in cidr for name, other in cluster.nodes.items() if name != node for cidr in other.pod_cidrs):
        return None
    own = overlay.addresses(cluster, cluster.nodes[node])
    return next((address for address in own if address.version == destination.version), None)


def _lan_source(cluster: Cluster, node: str, sender: Ref, destination: Address, own: tuple[Address, ...]) -> Address:
    """The own address in the LAN through which the next hop is reached: on the link, by static route, by default."""
    lans = [lan for lan in cluster.topology.networks if any(address in lan for address in own)]

    def in_lan_of(hop: Address) -> Address | None:
        return next((address for lan in lans for cidr in lan.cidrs if hop in cidr for address in own if address in cidr), None)

    hops = [destination] if in_lan_of(destination) else []
    if node:
        others = [other for other in cluster.nodes.values() if other.meta.name != node]
        hops += [a for other in others if any(destination in cidr for cidr in other.pod_cidrs) for a in other.addresses]
        machines = [other.addresses for other in others] + [host.addresses for host in cluster.topology.hosts]
        hops += [address for addresses in machines if destination in addresses for address in addresses]
    elif sender.kind == "host":
        host = next(host for host in cluster.topology.hosts if host.name == sender.name)
        routes = sorted(host.routes, key=lambda route: -route[0].prefixlen)
        hops += [via for network, via in routes if destination in network]
    hops += [router for lan in lans for router in lan.routers]
    return next((found for hop in hops if (found := in_lan_of(hop)) is not None), own[0])


# ---------------------------------------------------------------- mistakes


def _find(text: str, kind: str, target: ObjectTarget, known: Mapping[Key, Found]) -> Found:
    """What is kept under the target's key; else an error that names what was probably meant."""
    key = Key(target.namespace, target.name)
    if key in known:
        return known[key]
    elsewhere = [other for other in known if other.name == target.name]
    if elsewhere:
        spelled = f"{text.partition('/')[0]}/{elsewhere[0].namespace}/{elsewhere[0].name}"
        raise InputError(f"{text}: no {kind} {target.name!r} in namespace {target.namespace}; did you mean {spelled}?")
    return _unknown(text, kind, target.name, (other.name for other in known if other.namespace == target.namespace))


def _unknown(text: str, kind: str, name: str, known: Iterable[str]) -> NoReturn:
    names = sorted(known)
    there = (
        "" if _meant(name, names) else f"; there is {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else ""
    )
    raise InputError(f"{text}: no {kind} {name!r}{_meant(name, names) or there}")


def _meant(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
