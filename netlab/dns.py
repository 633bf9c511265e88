"""The names of a cluster: every record that the Kubernetes DNS specification 1.1.0 asks for, as one value.

Decides which records there are and what they say. Refuses to know packets and sockets (agents/dns.py) and who is told about
changes (lab/). Names are lower case, without the final dot.

Records are kept by the object that they come from (a Service, a Namespace, the zone itself), and the records of an unchanged
object are taken over as they are: a change of one Service among thousands is found by comparing identities.
Source: kubernetes/dns docs/specification.md; where it leaves a choice, what CoreDNS does (the numbers of a headless Service's SRV
records are the endpoints' own, an endpoint without a hostname is called by its address with dashes).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from netlab.memory import last_kept
from netlab.model import NOTHING, Address, Cluster, Endpoint, EndpointSlice, Key, Labels, Service, ServiceType

DOMAIN = "cluster.local"
REVERSE = ("in-addr.arpa", "ip6.arpa")
VERSION = "1.1.0"
SERVER = f"ns.dns.{DOMAIN}"
SERVICE = Key("kube-system", "kube-dns")
APP = "k8s-app"
PERSONA = "cluster-dns"
"""The persona of a Listener that the DNS server opens."""

Type = Literal["", "A", "AAAA", "CNAME", "NS", "PTR", "SRV", "TXT"]


class Record(NamedTuple):
    """One resource record. Type "": the name exists and has no records, as a namespace does. `port` is SRV's alone."""

    name: str
    type: Type
    value: str = ""
    port: int = 0


Records = tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Zone:
    """Records by origin: a Service's key, Key(namespace, "") and Key("", "") for the zone itself. Made from `cluster`."""

    origins: Mapping[Key, Records] = NOTHING
    cluster: Cluster | None = field(default=None, compare=False)


def zone(cluster: Cluster, before: Zone | None = None) -> Zone:
    """The names of the cluster. What did not change since `before` is taken over from there."""
    old = before if before is not None else Zone()
    dirty = _changed(cluster, old.cluster)
    slices: dict[Key, list[EndpointSlice]] = {key: [] for key in dirty}
    for one in cluster.slices.values() if dirty else ():
        if one.service in dirty:
            slices[one.service].append(one)
    origins = {key: records for key, records in old.origins.items() if key not in dirty and key.name}
    for key in dirty & cluster.services.keys():
        origins[key] = tuple(dict.fromkeys(_service(cluster.services[key], slices[key])))
    for key, records in _unowned(cluster):
        known = old.origins.get(key)
        origins[key] = known if known == records else records
    return Zone(origins, cluster)


def changes(old: Zone, new: Zone) -> dict[Key, Records]:
    """The origins whose records differ, with the new ones; () for those that are gone."""
    found: dict[Key, Records] = dict.fromkeys(old.origins.keys() - new.origins.keys(), ())
    for key, records in new.origins.items():
        was = old.origins.get(key)
        if was is not records and was != records:
            found[key] = records
    return found


def without_new_endpoints(old: Zone, new: Zone) -> Zone:
    """What can be told before new pods answer: of headless Services' endpoints those that go, not those that come."""
    if new.cluster is None or old.cluster is None:
        return old
    services = new.cluster.services
    late = {
        key
        for key in changes(old, new)
        if key in services and services[key].headless and not {*new.origins[key]} <= {*old.origins.get(key, ())}
    }
    origins = {key: records for key, records in new.origins.items() if key not in late}
    origins.update((key, old.origins[key]) for key in late & old.origins.keys())
    return Zone(origins, old.cluster if late else new.cluster)


def _changed(cluster: Cluster, old: Cluster | None) -> set[Key]:
    """The Services that are not the same objects as before, or whose slices are not."""
    if old is None:
        return set(cluster.services)
    found: set[Key] = set()
    for now, then in ((cluster.services, old.services), (old.services, cluster.services)):
        found.update(key for key, service in now.items() if then.get(key) is not service)
    for some, others in ((cluster.slices, old.slices), (old.slices, cluster.slices)):
        found.update(one.service for key, one in some.items() if others.get(key) is not one)
    return found


def _unowned(cluster: Cluster) -> Iterator[tuple[Key, Records]]:
    """What comes from no Service: the zone's own records, and that namespaces exist."""
    yield Key("", ""), tuple(_own(cluster))
    for kind, key in cluster.others:
        if kind == "Namespace":
            yield Key(key.name, ""), tuple(Record(f"{key.name}.{part}.{DOMAIN}", "") for part in ("svc", "pod"))


def is_server(namespace: str, labels: Labels) -> bool:
    """Whether this is one of the cluster's DNS pods, or their Service: they belong to the lab, not to what is tried in it."""
    return namespace == SERVICE.namespace and labels.get(APP) == SERVICE.name


def pods_in_words(cluster: Cluster) -> str:
    """How many pods there are: `3 pods and 2 of the DNS`, which are the lab's own."""
    own = sum(is_server(pod.meta.namespace, pod.meta.labels) for pod in cluster.pods.values())
    many = len(cluster.pods) - own
    return f"{many} pod{'' if many == 1 else 's'}" + (f" and {own} of the DNS" if own else "")


def service_of(cluster: Cluster) -> Service | None:
    """The Service that pods ask for names: kube-dns, whatever the cluster of a dump calls it."""
    found = cluster.services.get(SERVICE)
    return found or next((one for one in _servers(cluster.services) if one.cluster_ips), None)


@last_kept
def _servers(services: Mapping[Key, Service]) -> tuple[Service, ...]:
    return tuple(one for one in services.values() if is_server(one.meta.namespace, one.meta.labels))


def address_name(address: Address) -> str:
    """What an endpoint without a hostname is called: its address with dashes."""
    return str(address).replace(".", "-").replace(":", "-")


def _own(cluster: Cluster) -> Iterator[Record]:
    yield Record(f"dns-version.{DOMAIN}", "TXT", VERSION)
    yield Record(f"svc.{DOMAIN}", "")
    yield Record(f"pod.{DOMAIN}", "")
    for apex in (DOMAIN, *REVERSE):
        yield Record(apex, "NS", SERVER)
    service = service_of(cluster)
    yield from (_address(SERVER, address) for address in (service.cluster_ips if service is not None else ()))


def _service(service: Service, slices: Sequence[EndpointSlice]) -> Iterator[Record]:
    name = f"{service.meta.name}.{service.meta.namespace}.svc.{DOMAIN}"
    if service.type is ServiceType.EXTERNAL_NAME:
        if service.external_name:
            yield Record(name, "CNAME", service.external_name.lower().rstrip("."))
        return
    for address in service.cluster_ips:
        yield _address(name, address)
        yield Record(address.reverse_pointer, "PTR", name)
    if service.cluster_ips:
        for port in service.ports:
            if port.name:
                yield Record(f"_{port.name}._{port.protocol.lower()}.{name}", "SRV", name, port.port)
    elif service.headless:
        yield from _headless(service, slices, name)


def _headless(service: Service, slices: Sequence[EndpointSlice], name: str) -> Iterator[Record]:
    for one in slices:
        if one.address_type == "FQDN":
            continue
        for endpoint in one.endpoints:
            if endpoint.ready is not False or service.publish_not_ready_addresses:
                yield from _endpoint(one, endpoint, name)


def _endpoint(one: EndpointSlice, endpoint: Endpoint, name: str) -> Iterator[Record]:
    for address in endpoint.addresses:
        own = f"{(endpoint.hostname or address_name(address)).lower()}.{name}"
        yield _address(name, address)
        yield _address(own, address)
        yield Record(address.reverse_pointer, "PTR", own)
        for port in one.ports:
            if port.name and port.port:
                yield Record(f"_{port.name}._{port.protocol.lower()}.{name}", "SRV", own, port.port)


def _address(name: str, address: Address) -> Record:
    return Record(name, "A" if address.version == 4 else "AAAA", str(address))
