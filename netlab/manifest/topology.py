"""Topology files to Topology values, with every default.

Decides what a file leaves out: networks, names and addresses of nodes, their podCIDRs, the outside host. What must not be is in
`topology_checks`. Refuses to know what is built from a topology.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import islice
from typing import Any, Literal

from netlab.errors import InputError
from netlab.manifest import impairments, own_fields
from netlab.manifest.check import BAD
from netlab.manifest.documents import Document, read_documents
from netlab.manifest.formats import json_type, seconds, split_forward
from netlab.manifest.meta import Json, items, labels
from netlab.manifest.problems import Place, Report, did_you_mean, shorten
from netlab.manifest.source import Source
from netlab.manifest.topology_checks import check_topology, forwarded
from netlab.model import (
    Address,
    ClusterConfig,
    HostSpec,
    IngressConfig,
    Labels,
    Lan,
    LoadBalancerConfig,
    Nat,
    NatForward,
    Network,
    NodeSpec,
    ProxyConfig,
    Taint,
    Topology,
)

CONTROL_PLANE_LABEL = "node-role.kubernetes.io/control-plane"
_DEFAULT_LANS = {
    4: Lan("lan", ip_network("192.168.0.0/24"), ip_address("192.168.0.1")),
    6: Lan("lan", ip_network("fd00:192:168::/64"), ip_address("fd00:192:168::1")),
}
_DEFAULT_NODES = {name: ip_address(f"192.168.0.{name[5:]}") for name in ("node-169", "node-170", "node-171")}
_CLIENT = ip_address("192.168.0.100")
_DEFAULT_CIDRS_V6 = {"podCIDR": ip_network("fd00:10:244::/56"), "serviceCIDR": ip_network("fd00:10:96::/112")}
MOST_NODES = 2000
_NODE_PREFIX = {4: 24, 6: 64}
_LONGEST_PREFIX = {4: 29, 6: 124}


def default_topology() -> Topology:
    """The topology of `netlab up` without one: what an empty file means."""
    return read_topology(Source("default topology", b""))


def read_topology(source: Source) -> Topology:
    """The topology in a file. Raises: InputError with every mistake in it."""
    report = Report()
    documents = read_documents(source)
    for extra in documents[1:]:
        report.problem(extra, "a topology is one document; Kubernetes objects go into files of their own, given with -f")
    document = documents[0] if documents else Document(source.shown, {})
    data = _checked(document, report)
    topology = _topology(data, document, report)
    report.finish()
    return topology


def _checked(document: Document, report: Report) -> Json:
    data = document.data
    if not isinstance(data, dict):
        report.problem(document, f"a topology is wanted, not {json_type(data)}")
        return {}
    if not own_kind(data, "Topology", document, report):
        return {}
    given = dict(data)
    key = next((word for word in data if word == "nodes" or did_you_mean(word, ["nodes"])), "nodes")
    number = given.get(key)
    if isinstance(number, int) and not isinstance(number, bool):
        if 1 <= number <= MOST_NODES:
            given[key] = {f"node-{index}": {} for index in range(1, number + 1)}
        else:
            report.problem((document, key), f"must be between 1 and {MOST_NODES}, not {shorten(str(number))}")
            del given[key]
    elif number is not None and not isinstance(number, dict):
        report.problem((document, key), f"must be a number or a mapping of names, not {json_type(number)}")
        del given[key]
    checked = own_fields.checks()["Topology"](given, document, report)
    return checked if checked is not BAD else {}


def own_kind(data: Json, kind: str, place: Place, report: Report) -> bool:
    """Whether this is one of netlab's own files; kind and apiVersion may be left out."""
    given = data.get("kind")
    if given is not None and given != kind:
        meant = f"; did you mean {kind}?" if isinstance(given, str) and did_you_mean(given, [kind]) else ""
        other = "; Kubernetes objects are given with -f" if not meant and isinstance(given, str) else ""
        report.problem((place, "kind"), f"a {kind} is wanted, not {json_type(given).replace('the string ', '')}{meant}{other}")
        return bool(meant)
    version = data.get("apiVersion")
    if version is not None and version != "netlab/v1":
        report.problem((place, "apiVersion"), f"must be netlab/v1, not {json_type(version)}")
    return True


def _topology(data: Json, place: Place, report: Report) -> Topology:
    cluster = _cluster(data.get("cluster") or {}, (place, "cluster"), report)
    lans = _lans(data, [network.version for network in cluster.pod_cidrs])
    bare = not data.get("nodes")
    nodes, hosts = _nodes(data, lans), _hosts(data)
    if bare and not data.get("hosts"):
        hosts = (_client(cluster, lans, nodes),)
    nodes, hosts = _addressed(nodes, hosts, lans, place, report)
    nodes = _both_families(nodes, hosts, lans, cluster.pod_cidrs)
    lans = tuple(lan if _without_router(data, lan) else _with_routers(lan, nodes, hosts) for lan in lans)
    try:
        nodes = with_pod_cidrs(cluster.pod_cidrs, nodes)
    except InputError as error:
        report.problem(((place, "cluster"), "podCIDR"), str(error))
    topology = Topology(data.get("name") or "default", cluster, lans, nodes, hosts, impairments.links(data, place, report))
    check_topology(topology, place, report)
    return topology


def _cluster(data: Json, place: Place, report: Report) -> ClusterConfig:
    defaults = ClusterConfig()
    given = {key: _networks(data.get(key)) for key in ("podCIDR", "serviceCIDR") if data.get(key) is not None}
    versions = next((tuple(network.version for network in networks) for networks in given.values()), (4,))
    return ClusterConfig(
        pod_cidrs=given.get("podCIDR") or _default_cidrs("podCIDR", defaults.pod_cidrs, versions),
        service_cidrs=given.get("serviceCIDR") or _default_cidrs("serviceCIDR", defaults.service_cidrs, versions),
        proxy=_proxy(data.get("proxy") or {}),
        fabric=data.get("fabric") or defaults.fabric,
        routing=data.get("routing") or defaults.routing,
        neighbours=data.get("neighbours") or defaults.neighbours,
        load_balancer=_load_balancer(data),
        backoff_s=_backoff(data.get("crashLoopBackOff") or {}, (place, "crashLoopBackOff"), report),
        node_monitor_grace_s=_seconds(data, "nodeMonitorGracePeriod", defaults.node_monitor_grace_s),
        unreachable_toleration_s=_seconds(data, "unreachableToleration", defaults.unreachable_toleration_s),
        # With CIDRs of its own, a topology's tenth service address may be meant for something else: then it says so itself.
        dns=bool(data["dns"]) if data.get("dns") is not None else not given,
        ingress=_ingress(data.get("ingress")),
        cidrs_given=bool(given),
    )


def _load_balancer(data: Json) -> LoadBalancerConfig | None:
    given = data.get("loadBalancer") or {}
    if not given.get("pool"):
        return None
    pool = given["pool"] if isinstance(given["pool"], list) else [given["pool"]]
    usual: Literal["l2", "bgp"] = "bgp" if data.get("routing") == "bgp" else "l2"
    return LoadBalancerConfig(tuple(map(_range, pool)), given.get("announce") or usual)


def _range(text: str) -> tuple[Address, Address]:
    first, dash, last = text.partition("-")
    if dash:
        return ip_address(first.strip()), ip_address(last.strip())
    network = ip_network(text.strip())
    return network.network_address, network.broadcast_address


def _backoff(data: Json, place: Place, report: Report) -> tuple[float, float]:
    first, most = ClusterConfig().backoff_s
    initial = seconds(data["initial"]) if data.get("initial") is not None else first
    longest = seconds(data["max"]) if data.get("max") is not None else max(most, initial)
    if longest < initial:
        report.problem((place, "max"), f"must not be less than initial ({initial:g}s)")
    return initial, longest


def _seconds(data: Json, key: str, default: float) -> float:
    return default if data.get(key) is None else seconds(data[key])


def _ingress(given: Any) -> IngressConfig | None:
    if given is None:
        return None
    return IngressConfig(**given) if isinstance(given, dict) else IngressConfig(given)


def _default_cidrs(key: str, plain: tuple[Network, ...], versions: Sequence[int]) -> tuple[Network, ...]:
    """The CIDRs that are not given, of the families that the other ones have."""
    return tuple(network for version in versions for network in (plain if version == 4 else (_DEFAULT_CIDRS_V6[key],)))


def _networks(value: Any) -> tuple[Network, ...]:
    texts = value.split(",") if isinstance(value, str) else value or ()
    return tuple(ip_network(text.strip()) for text in texts)


def _proxy(data: Json) -> ProxyConfig:
    names = {
        "mode": "mode", "backend": "backend", "layout": "layout", "masqueradeAll": "masquerade_all",
        "detectLocal": "detect_local",
        "bridgeInterface": "bridge_interface", "interfaceNamePrefix": "interface_name_prefix",
        "localhostNodePorts": "localhost_node_ports", "conntrackTCPBeLiberal": "conntrack_tcp_be_liberal",
        "scheduler": "scheduler", "strictARP": "strict_arp",
    }  # fmt: skip
    changes = {attribute: data[key] for key, attribute in names.items() if data.get(key) is not None}
    if data.get("syncPeriod") is not None:
        changes["sync_period_s"] = seconds(data["syncPeriod"])
    ports = data.get("nodePortAddresses")
    if ports in ("primary", ["primary"]):
        changes["node_port_addresses"] = "primary"
    elif ports:
        changes["node_port_addresses"] = tuple(
            ip_network(text.strip()) for text in ([ports] if isinstance(ports, str) else ports)
        )
    return replace(ProxyConfig(), **changes)


def _lans(data: Json, versions: Sequence[int]) -> tuple[Lan, ...]:
    """The networks of the file; without any, one of the families that pods have."""
    given = data.get("networks")
    if not given:
        first, *others = (_DEFAULT_LANS[version] for version in versions)
        return (replace(first, second_cidr=others[0].cidr, second_router=others[0].router) if others else first,)
    return tuple(_lan(name, entry) for name, entry in given.items() if entry.get("cidr"))


def _lan(name: str, entry: Json) -> Lan:
    cidrs, value = _networks(entry["cidr"]), entry.get("router") or ()
    given = [value] if isinstance(value, str) else value
    known = {address.version: address for address in (ip_address(text) for text in given if text != "none")}
    # An address of a family that the network has not is the first one's: the check names it.
    stray = [address for version, address in known.items() if version not in {cidr.version for cidr in cidrs}]
    routers = [known.get(cidr.version, stray.pop() if stray else None) for cidr in cidrs]
    nat = None if entry.get("nat") is None else _nat(entry["nat"])
    second_cidr, second_router = (cidrs[1], routers[1]) if len(cidrs) > 1 else (None, None)
    return Lan(name, cidrs[0], routers[0], second_cidr, second_router, nat)


def _nat(data: Json) -> Nat:
    forwards = []
    for key, target in (data.get("forwards") or {}).items():
        found = forwarded(str(key))
        if found is None:
            continue  # check_topology names it
        address, port = split_forward(target)
        forwards.append(NatForward(*found, ip_address(address), port or found[0]))
    return Nat(tuple(forwards), bool(data.get("routed")), bool(data.get("hideClients")))


def _without_router(data: Json, lan: Lan) -> bool:
    return ((data.get("networks") or {}).get(lan.name) or {}).get("router") == "none"


def _with_routers(lan: Lan, nodes: Sequence[NodeSpec], hosts: Sequence[HostSpec]) -> Lan:
    """A LAN has a router unless it says `router: none`; at the first address that nobody has."""
    ends: tuple[NodeSpec | HostSpec, ...] = (*nodes, *hosts)
    used = {address for end in ends for address in end.addresses}
    first, *second = (next((address for address in _candidates(cidr) if address not in used), None) for cidr in lan.cidrs)
    return replace(lan, router=lan.router or first, second_router=lan.second_router or (second[0] if second else None))


def _nodes(data: Json, lans: Sequence[Lan]) -> tuple[NodeSpec, ...]:
    given: Mapping[str, Json] = data.get("nodes") or {
        name: {
            "addresses": [str(own) for lan in lans[:1] for cidr in lan.cidrs for own in _twins(address, cidr)],
            "controlPlane": name == "node-169",
        }
        for name, address in _DEFAULT_NODES.items()
    }
    return tuple(
        NodeSpec(
            name=name,
            addresses=_given_addresses(entry),
            pod_cidrs=_networks(entry.get("podCIDR")),
            labels=node_labels(name, entry.get("labels") or {}, bool(entry.get("controlPlane"))),
            control_plane=bool(entry.get("controlPlane")),
            taints=tuple(  # what is missing here has been told of
                Taint(one.get("key") or "", one.get("effect") or "NoSchedule", one.get("value") or "")
                for _, one in items(entry.get("taints"))
            ),
        )
        for name, entry in given.items()
    )


def _twins(address: Address, cidr: Network) -> list[Address]:
    """The address if it lies in the network; in IPv6 the one that ends with the same digits: 192.168.0.169 and ::169."""
    if cidr.version == address.version:
        return [address] if address in cidr else []
    if address.version == 6:
        return []  # what its digits would be in IPv4 nobody can say
    twin = cidr.network_address + int(str(address).rpartition(".")[2], 16)
    return [twin] if cidr.version == 6 and twin in cidr else []


def _both_families(
    nodes: Sequence[NodeSpec], hosts: Sequence[HostSpec], lans: Sequence[Lan], pods: Sequence[Network]
) -> tuple[NodeSpec, ...]:
    """Nodes of dual-stack clusters have an address of each family in their first network that has both."""
    if len(pods) < 2:
        return tuple(nodes)
    ends: tuple[NodeSpec | HostSpec, ...] = (*nodes, *hosts)
    used = {address for end in ends for address in end.addresses} | {router for lan in lans for router in lan.routers}
    found = []
    for node in nodes:
        lan = next((lan for lan in lans if len(lan.cidrs) == 2 and any(address in lan for address in node.addresses)), None)
        for cidr in lan.cidrs if lan else ():
            if not any(address.version == cidr.version for address in node.addresses):
                wished = (twin for address in node.addresses for twin in _twins(address, cidr))
                free = next((address for address in (*wished, *islice(_candidates(cidr), 2**17)) if address not in used), None)
                if free is not None:
                    used.add(free)
                    node = replace(node, addresses=(*node.addresses, free))
        found.append(node)
    return tuple(found)


def node_labels(name: str, given: Labels, control_plane: bool) -> Labels:
    """What a kubelet labels its node with, then what is given."""
    role = {CONTROL_PLANE_LABEL: ""} if control_plane else {}
    return labels({"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", **role, **given})


def _given_addresses(entry: Json) -> tuple[Address, ...]:
    given = entry.get("addresses") or ()
    return tuple(ip_address(text) for text in ([given] if isinstance(given, str) else given))


def _hosts(data: Json) -> tuple[HostSpec, ...]:
    found = []
    for name, entry in (data.get("hosts") or {}).items():
        routes = []
        for destination, gateway in (entry.get("routes") or {}).items():
            try:
                routes.append((ip_network(destination.strip()), ip_address(gateway)))
            except ValueError:
                continue  # check_topology names it
        found.append(HostSpec(name, _given_addresses(entry), tuple(routes)))
    return tuple(found)


def _client(cluster: ClusterConfig, lans: Sequence[Lan], nodes: Sequence[NodeSpec]) -> HostSpec:
    """The outside host of the field's articles: it reaches pods and Services by static routes through the first node."""
    here = tuple(own for lan in lans[:1] for cidr in lan.cidrs for own in _twins(_CLIENT, cidr))
    gateways = {address.version: address for address in reversed(nodes[0].addresses)}
    destinations = (*cluster.service_cidrs, *cluster.pod_cidrs)
    if cluster.routing == "bgp":
        return HostSpec("client", here)  # the router knows the way
    routes = tuple((network, gateways[network.version]) for network in destinations if network.version in gateways)
    return HostSpec("client", here, routes)


def _candidates(network: Network) -> Iterator[Address]:
    return iter(network.hosts())


def _addressed(
    nodes: Sequence[NodeSpec], hosts: Sequence[HostSpec], lans: Sequence[Lan], place: Place, report: Report
) -> tuple[tuple[NodeSpec, ...], tuple[HostSpec, ...]]:
    """Gives an address of the first network to whoever has none."""
    ends: tuple[NodeSpec | HostSpec, ...] = (*nodes, *hosts)
    used = {address for end in ends for address in end.addresses} | {router for lan in lans for router in lan.routers}
    free: Iterator[Address] = iter(())
    if lans:
        hosts_of_lan = list(_candidates(lans[0].cidr)) if lans[0].cidr.num_addresses <= 2**17 else _candidates(lans[0].cidr)
        first = next(iter(hosts_of_lan), None) if lans[0].router is None else None
        free = (address for address in hosts_of_lan if address not in used and address != first)
    missing = [end for end in ends if not end.addresses]
    given = {id(end): (address,) for end, address in zip(missing, free, strict=False)}
    if lans and len(given) < len(missing):
        at = ((place, "networks"), lans[0].name) if lans[0].cidr != _DEFAULT_LANS[4].cidr else (place, "nodes")
        report.problem(at, f"{lans[0].cidr} has no room for {len(missing)} more addresses")
    return (
        tuple(replace(node, addresses=node.addresses or given.get(id(node), ())) for node in nodes),
        tuple(replace(host, addresses=host.addresses or given.get(id(host), ())) for host in hosts),
    )


def with_pod_cidrs(cluster_cidrs: Sequence[Network], nodes: Sequence[NodeSpec]) -> tuple[NodeSpec, ...]:
    """The nodes, each with a podCIDR of every family of the cluster: /24 (or /64) in order, smaller where they would not fit.

    Raises: InputError where there is no room.
    """
    for network in cluster_cidrs:
        without = [node for node in nodes if not any(own.version == network.version for own in node.pod_cidrs)]
        taken = [own for node in nodes for own in node.pod_cidrs if own.overlaps(network)]
        given = dict(zip((node.name for node in without), _subnets(network, taken, len(nodes)), strict=False))
        if len(given) < len(without):
            raise InputError(f"{network} has no room for a podCIDR for each of {len(nodes)} nodes")
        nodes = [replace(node, pod_cidrs=(*node.pod_cidrs, given[node.name])) if node.name in given else node for node in nodes]
    return tuple(nodes)


def _subnets(network: Network, taken: Sequence[Network], count: int) -> Iterator[Network]:
    version = network.version
    prefix = max(_NODE_PREFIX[version], network.prefixlen + (count - 1).bit_length())
    if prefix > _NODE_PREFIX[version] and taken:
        prefix += 1
    if prefix > _LONGEST_PREFIX[version]:
        return iter(())
    subnets: Iterator[Network] = network.subnets(new_prefix=prefix)
    return (subnet for subnet in subnets if not any(subnet.overlaps(other) for other in taken))
