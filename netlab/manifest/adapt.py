"""The topology that fits a load of objects: a dump of a live cluster brings its own nodes, addresses and CIDRs.

Decides: a topology file's CIDRs are never overridden, what it leaves to defaults is taken from the objects. Nodes of
the objects (or, where a dump has pods but no nodes, the nodes that its pods name with a hostIP) replace the default
topology's and are added to a given one. Whatever CIDR does not contain what the objects use is inferred: pods from
podCIDRs, Services from the `kubernetes` Service, which always has the first address, and from all clusterIPs. Refuses
to know what the objects do.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from itertools import islice

from netlab.errors import InputError, Problem
from netlab.manifest.documents import Document
from netlab.manifest.meta import EMPTY
from netlab.manifest.problems import Report
from netlab.manifest.topology import default_topology, node_labels, with_pod_cidrs
from netlab.manifest.topology_checks import check_topology
from netlab.model import (
    Address,
    HostSpec,
    KubernetesObject,
    Lan,
    Network,
    Node,
    NodeSpec,
    Pod,
    Service,
    Topology,
)

_KNOWN_PODS = ("10.244.0.0/16", "10.42.0.0/16", "10.233.64.0/18", "10.128.0.0/14", "10.217.0.0/22", "10.200.0.0/16")
_KNOWN_SERVICES = (
    "10.96.0.0/12", "10.43.0.0/16", "10.254.0.0/16", "10.233.0.0/18", "10.152.183.0/24", "10.32.0.0/24", "34.118.224.0/20",
    "172.20.0.0/16", "172.30.0.0/16", "10.100.0.0/16", "10.0.0.0/16",
)  # fmt: skip
_WIDEST_LAN = 8
_LAN_PREFIX = 24


@dataclass(frozen=True, slots=True)
class _Used:
    """What the objects use."""

    nodes: tuple[NodeSpec, ...]
    pod_cidrs: tuple[Network, ...]
    pods: tuple[Address, ...]
    services: tuple[Address, ...]
    first_service: Address | None


def adapt_topology(topology: Topology | None, objects: Sequence[KubernetesObject]) -> Topology:
    """The topology for these objects; None stands for the default one.

    Raises: InputError where objects and a topology file contradict each other.
    """
    used = _used(objects)
    given = topology if topology is not None else default_topology()
    nodes = _from_dump(used.nodes) if topology is None else _merged(given.nodes, used.nodes)
    from_dump = topology is None and bool(used.nodes)
    if not used.nodes:
        nodes = given.nodes
    if given.cluster.cidrs_given:
        _refuse_strangers(given, used)
        pod_cidrs, service_cidrs = given.cluster.pod_cidrs, given.cluster.service_cidrs
    else:
        addresses = tuple(address for node in nodes for address in node.addresses)
        service_cidrs = _service_cidrs(given.cluster.service_cidrs, used)
        pod_cidrs = _pod_cidrs(given.cluster.pod_cidrs, used, (*service_cidrs,), addresses)
    if pod_cidrs != given.cluster.pod_cidrs:
        nodes = tuple(_without_foreign(node, pod_cidrs) for node in nodes)
    cluster = replace(given.cluster, pod_cidrs=pod_cidrs, service_cidrs=service_cidrs)
    strays = tuple(dict.fromkeys(ip_network(address) for address in used.pods if _stranger(address, pod_cidrs)))
    if from_dump and strays:
        # Pods with addresses of the nodes' own network (EKS): kube-proxy has no cluster CIDR there, and nobody is a stranger.
        cluster = replace(cluster, proxy=replace(cluster.proxy, detect_local="none"))
    networks = (
        _lans(nodes, (*pod_cidrs, *service_cidrs))
        if from_dump
        else _with_lans(given.networks, nodes, (*pod_cidrs, *service_cidrs))
    )
    nodes = with_pod_cidrs(pod_cidrs, nodes)
    moved = dict(zip((*given.cluster.pod_cidrs, *given.cluster.service_cidrs), (*pod_cidrs, *service_cidrs), strict=False))
    hosts = _client(networks, nodes, (*service_cidrs, *pod_cidrs, *strays)) if from_dump else _rerouted(given.hosts, moved)
    adapted = replace(
        given, name="dump" if from_dump else given.name, cluster=cluster, networks=networks, nodes=nodes, hosts=hosts
    )
    return adapted if adapted == given else _checked(adapted)


def _used(objects: Sequence[KubernetesObject]) -> _Used:
    nodes: dict[str, NodeSpec] = {}
    named: dict[str, NodeSpec] = {}
    pods: list[Address] = []
    services: list[Address] = []
    first: Address | None = None
    for entry in objects:
        if isinstance(entry, Node):
            nodes[entry.meta.name] = NodeSpec(
                entry.meta.name, entry.addresses, entry.pod_cidrs, entry.meta.labels, entry.control_plane
            )
        elif isinstance(entry, Pod):
            address = _host_address(entry)
            if entry.node and address is not None:
                named.setdefault(entry.node, NodeSpec(entry.node, (address,), (), node_labels(entry.node, EMPTY, False)))
            if not entry.spec.host_network and entry.phase in ("Pending", "Running"):
                pods.extend(entry.addresses)
        elif isinstance(entry, Service):
            services.extend(entry.cluster_ips)
            if entry.meta.key == ("default", "kubernetes") and entry.cluster_ips:
                first = entry.cluster_ips[0]
    specs = {**nodes, **{name: spec for name, spec in named.items() if name not in nodes}}
    return _Used(
        tuple(_addressed(spec, named) for spec in specs.values()),
        tuple(cidr for spec in specs.values() for cidr in spec.pod_cidrs),
        tuple(pods),
        tuple(services),
        first,
    )


def _addressed(spec: NodeSpec, named: dict[str, NodeSpec]) -> NodeSpec:
    """A Node without addresses takes the hostIP of its pods."""
    known = named.get(spec.name)
    return replace(spec, addresses=known.addresses) if not spec.addresses and known else spec


def _host_address(pod: Pod) -> Address | None:
    status = pod.manifest.get("status")
    text = status.get("hostIP") if isinstance(status, dict) else None
    return ip_address(text) if text else None


def _from_dump(nodes: tuple[NodeSpec, ...]) -> tuple[NodeSpec, ...]:
    """Nodes written by hand may have no address: they get one of the default network."""
    without = [node.name for node in nodes if not node.addresses]
    taken = {address for node in nodes for address in node.addresses}
    hosts: Iterable[Address] = islice(ip_network("192.168.0.0/24").hosts(), 1, None)
    free = (address for address in hosts if address not in taken)
    given = dict(zip(without, free, strict=False))
    if len(given) < len(without):
        raise InputError(f"{len(without)} Nodes without an InternalIP are more than 192.168.0.0/24 has room for; give a topology")
    return tuple(replace(node, addresses=node.addresses or (given[node.name],)) for node in nodes)


def _merged(given: Sequence[NodeSpec], added: Sequence[NodeSpec]) -> tuple[NodeSpec, ...]:
    """The file's nodes with what the objects say of them, then the objects' own."""
    by_name = {node.name: node for node in added}
    merged = []
    for node in given:
        other = by_name.pop(node.name, None)
        if other is not None:
            node = replace(
                node,
                addresses=other.addresses or node.addresses,
                pod_cidrs=other.pod_cidrs or node.pod_cidrs,
                labels=type(EMPTY)({**node.labels, **other.labels}),
                control_plane=node.control_plane or other.control_plane,
            )
        merged.append(node)
    homeless = [node.name for node in by_name.values() if not node.addresses]
    if homeless:
        raise InputError(f"the topology has no node {homeless[0]}, and the Node object has no InternalIP; add one of them")
    return (*merged, *by_name.values())


def _refuse_strangers(topology: Topology, used: _Used) -> None:
    cluster = topology.cluster
    problems = []
    for name, networks, addresses in (
        ("serviceCIDR", cluster.service_cidrs, used.services),
        ("podCIDR", cluster.pod_cidrs, tuple(cidr.network_address for cidr in used.pod_cidrs)),
    ):
        strangers = [address for address in addresses if _stranger(address, networks)]
        if strangers:
            shown = ", ".join(map(str, networks))
            problems.append(
                Problem(
                    f"{strangers[0]} of the objects lies outside {shown}; leave both CIDRs out: they are inferred then",
                    f"cluster.{name}",
                    f"topology {topology.name}",
                )
            )
    if problems:
        raise InputError(tuple(problems))


def _stranger(address: Address, networks: Sequence[Network]) -> bool:
    same = [network for network in networks if network.version == address.version]
    return bool(same) and not any(address in network for network in same)


def _families(default: Sequence[Network], addresses: Iterable[Address]) -> dict[int, list[Address]]:
    """The addresses by family, the primary family first."""
    found: dict[int, list[Address]] = {network.version: [] for network in default}
    for address in addresses:
        found.setdefault(address.version, []).append(address)
    return found


def _service_cidrs(default: Sequence[Network], used: _Used) -> tuple[Network, ...]:
    found = []
    for version, addresses in _families(default, used.services).items():
        kept = next((network for network in default if network.version == version), None)
        first = used.first_service if used.first_service is not None and used.first_service.version == version else None
        if kept is not None and all(address in kept for address in addresses) and first in (None, kept.network_address + 1):
            found.append(kept)
        elif version == 6 or (kept is None and not addresses):
            found.append(_around(addresses, 112))
        else:
            found.append(_services_v4(addresses, first))
    return tuple(found)


def _services_v4(addresses: Sequence[Address], first: Address | None) -> Network:
    """A well-known CIDR that fits; else the widest from /16 on that begins just below the `kubernetes` Service."""
    for text in _KNOWN_SERVICES:
        known = ip_network(text)
        if all(address in known for address in addresses) and first in (None, known.network_address + 1):
            return known
    base = first - 1 if first is not None else min(addresses)
    for prefix in range(16, 31):
        candidate = ip_network(f"{base}/{prefix}", strict=False)
        begins = first is None or candidate.network_address == base
        if begins and all(address in candidate for address in addresses):
            return candidate
    return _around(addresses, 16)


def _around(addresses: Sequence[Address], longest: int) -> Network:
    """The smallest network that holds all the addresses, no smaller than a prefix of `longest`."""
    low, high = int(min(addresses)), int(max(addresses))
    width = addresses[0].max_prefixlen
    prefix = min(longest, width - (low ^ high).bit_length())
    return ip_network(f"{addresses[0]}/{prefix}", strict=False)


def _pod_cidrs(
    default: Sequence[Network], used: _Used, services: Sequence[Network], nodes: Sequence[Address]
) -> tuple[Network, ...]:
    """One network a family around podCIDRs and pods; around podCIDRs alone where pods lie among the nodes (clouds)."""
    edges = [edge for cidr in used.pod_cidrs for edge in (cidr.network_address, cidr.broadcast_address)]
    found = []
    for version, addresses in _families(default, (*edges, *used.pods)).items():
        kept = [network for network in default if network.version == version]
        own = [edge for edge in edges if edge.version == version]
        busy = [network for network in services if network.version == version]
        for wanted in (addresses, own):
            clear = [net for net in _candidates(kept, wanted, version) if _is_clear(net, busy, nodes)]
            if clear:
                break
        else:
            clear = [_around(own, own[0].max_prefixlen)] if own else kept
        found += clear[:1]
    return tuple(found)


def _candidates(kept: Sequence[Network], addresses: Sequence[Address], version: int) -> list[Network]:
    """Networks that hold all the addresses, the likeliest first."""
    usual = [*kept, *(ip_network(text) for text in _KNOWN_PODS if version == 4)]
    around = [_around(addresses, prefix) for prefix in ((16, 24) if version == 4 else (56, 64)) if addresses]
    return [network for network in (*usual, *around) if all(address in network for address in addresses)]


def _is_clear(network: Network, services: Sequence[Network], nodes: Sequence[Address]) -> bool:
    return not any(network.overlaps(other) for other in services) and not any(node in network for node in nodes)


def _without_foreign(node: NodeSpec, cidrs: Sequence[Network]) -> NodeSpec:
    """Forgets podCIDRs that were the old default's; those of a dump lie inside the new CIDR."""
    kept = tuple(own for own in node.pod_cidrs if any(own.network_address in network for network in cidrs))
    return replace(node, pod_cidrs=kept)


def _lans(nodes: Sequence[NodeSpec], inner: Sequence[Network]) -> tuple[Lan, ...]:
    """One network around all nodes if it is no wider than a /8 and free of pods and Services, else one around each group."""
    primary = [node.addresses[0] for node in nodes]
    version = primary[0].version
    same = [address for address in primary if address.version == version]
    single = _around(same, _LAN_PREFIX if version == 4 else 64)
    wide_enough = _WIDEST_LAN if version == 4 else 48
    if single.prefixlen >= wide_enough and not any(single.overlaps(network) for network in inner):
        cidrs = [single]
    else:
        cidrs = list(dict.fromkeys(_narrow(address, inner) for address in same))
    everyone = {address for node in nodes for address in node.addresses}
    lans = tuple(_lan("lan" if len(cidrs) == 1 else f"lan-{index}", cidr, everyone) for index, cidr in enumerate(cidrs, 1))
    other = [address for address in everyone if address.version != version]
    if len(lans) > 1 or not other:
        return lans
    second = _around(other, 64 if version == 4 else _LAN_PREFIX)
    if second.prefixlen < (48 if version == 4 else _WIDEST_LAN) or any(second.overlaps(network) for network in inner):
        return lans
    return (replace(lans[0], second_cidr=second, second_router=_lan("", second, everyone).router),)


def _narrow(address: Address, inner: Sequence[Network]) -> Network:
    for prefix in range(_LAN_PREFIX if address.version == 4 else 64, address.max_prefixlen - 1):
        candidate = ip_network(f"{address}/{prefix}", strict=False)
        usable = address not in (candidate.network_address, candidate.broadcast_address)
        if usable and not any(candidate.overlaps(network) for network in inner):
            return candidate
    raise InputError(f"the node address {address} lies among the addresses of pods or Services; give a topology")


def _lan(name: str, cidr: Network, taken: set[Address]) -> Lan:
    return Lan(name, cidr, next((address for address in cidr.hosts() if address not in taken), None))


def _with_lans(given: tuple[Lan, ...], nodes: Sequence[NodeSpec], inner: Sequence[Network]) -> tuple[Lan, ...]:
    """The file's networks, and one more for each node outside of them."""
    lans = list(given)
    everyone = {address for node in nodes for address in node.addresses}
    for node in nodes:
        if not any(node.addresses[0] in lan for lan in lans):
            cidr = _narrow(node.addresses[0], (*inner, *(cidr for lan in lans for cidr in lan.cidrs)))
            lans.append(_lan(f"lan-{len(lans) + 1}", cidr, everyone))
    return tuple(lans)


def _client(lans: Sequence[Lan], nodes: Sequence[NodeSpec], destinations: Sequence[Network]) -> tuple[HostSpec, ...]:
    """The outside host of the default topology, beside the dump's first control plane node: .100 if it is free."""
    first = next((node for node in nodes if node.control_plane), nodes[0])
    gateway = first.addresses[0]
    lan = next(lan for lan in lans if gateway in lan)
    taken = {address for node in nodes for address in node.addresses} | {router for other in lans for router in other.routers}
    own = [(cidr, _free_host(cidr, taken)) for cidr in lan.cidrs]
    addresses = tuple(address for cidr, address in own if address is not None)
    if not addresses or any(node.name == "client" for node in nodes):
        return ()
    gateways = {address.version: address for address in reversed(first.addresses) if address in lan}
    routes = tuple((network, gateways[network.version]) for network in destinations if network.version in gateways)
    return (HostSpec("client", addresses, routes),)


def _free_host(cidr: Network, taken: set[Address]) -> Address | None:
    wanted = cidr.network_address + (100 if cidr.version == 4 else 0x100)
    free = [wanted] if wanted in cidr and wanted not in taken and wanted != cidr.broadcast_address else []
    return next((candidate for candidate in (*free, *_some_hosts(cidr)) if candidate not in taken), None)


def _some_hosts(network: Network) -> list[Address]:
    return list(islice(network.hosts(), 4096))


def _rerouted(hosts: Sequence[HostSpec], moved: dict[Network, Network]) -> tuple[HostSpec, ...]:
    """Static routes to a CIDR that was inferred anew lead to the new one."""
    return tuple(
        replace(host, routes=tuple((moved.get(network, network), via) for network, via in host.routes)) for host in hosts
    )


def _checked(topology: Topology) -> Topology:
    report = Report()
    check_topology(topology, Document(f"topology {topology.name} (from the objects)", {}), report)
    report.finish()
    return topology
