"""What must not be in a topology: addresses twice, networks that overlap, gateways out of reach.

Decides what is an error. Refuses to know how the topology came about: the same checks serve files and topologies made
from a dump.
"""

from collections.abc import Iterator
from ipaddress import ip_network, summarize_address_range
from itertools import pairwise

from netlab.manifest.formats import ip, machine_name, strict_network
from netlab.manifest.problems import Place, Report, did_you_mean, written
from netlab.model import Address, HostSpec, Network, NodeSpec, Protocol, Topology
from netlab.numerals import natural

_RESERVED = ("router", "localhost")


def check_topology(topology: Topology, place: Place, report: Report) -> None:
    """Reports everything that is wrong with a complete topology."""
    for check in (_names, _networks, _addresses, _pod_cidrs, _routes, _links, _load_balancer, _nats):
        check(topology, place, report)


def _ends(topology: Topology) -> Iterator[tuple[str, NodeSpec | HostSpec]]:
    yield from (("nodes", node) for node in topology.nodes)
    yield from (("hosts", host) for host in topology.hosts)


def _names(topology: Topology, place: Place, report: Report) -> None:
    nodes = {node.name for node in topology.nodes}
    for section, end in _ends(topology):
        at = ((place, section), end.name)
        if error := machine_name(end.name):
            report.problem(at, error, key=True)
        elif end.name in _RESERVED:
            report.problem(at, f"the name {end.name} is taken by netlab itself", key=True)
        elif section == "hosts" and end.name in nodes:
            report.problem(at, f"there is a node of the same name, {end.name}", key=True)
    for lan in topology.networks:
        if error := machine_name(lan.name):
            report.problem(((place, "networks"), lan.name), error, key=True)


def _networks(topology: Topology, place: Place, report: Report) -> None:
    cluster = (place, "cluster")
    named: list[tuple[str, Network, Place]] = []
    named += [("podCIDR", network, (cluster, "podCIDR")) for network in topology.cluster.pod_cidrs]
    named += [("serviceCIDR", network, (cluster, "serviceCIDR")) for network in topology.cluster.service_cidrs]
    named += [
        (f"network {lan.name}", cidr, (((place, "networks"), lan.name), "cidr"))
        for lan in topology.networks
        for cidr in lan.cidrs
    ]
    for index, (name, network, at) in enumerate(named):
        for other_name, other, other_at in named[:index]:
            if network.overlaps(other):
                shown = at if written(at) is not None or written(other_at) is None else other_at
                report.problem(shown, f"{name} {network} overlaps {other_name} {other}")
    for lan in topology.networks:
        at = (((place, "networks"), lan.name), "cidr")
        for cidr, address in ((lan.cidr, lan.router), (lan.second_cidr, lan.second_router)):
            if cidr is not None and cidr.num_addresses < 4:
                report.problem(at, f"{cidr} is too small for a network: at most /{cidr.max_prefixlen - 2}")
            if cidr is not None and address is not None and not _is_host(address, cidr):
                report.problem((((place, "networks"), lan.name), "router"), f"{address} is no address for a machine in {cidr}")


def _is_host(address: Address, cidr: Network) -> bool:
    if address not in cidr:
        return False
    return cidr.num_addresses < 4 or (address != cidr.network_address and address != cidr.broadcast_address)


def _addresses(topology: Topology, place: Place, report: Report) -> None:
    owners: dict[Address, str] = {}
    for lan in topology.networks:
        for router in lan.routers:
            if owners.setdefault(router, f"the router of {lan.name}") != f"the router of {lan.name}":
                report.problem((((place, "networks"), lan.name), "router"), f"{router} is also {owners[router]}")
    inner = (*topology.cluster.pod_cidrs, *topology.cluster.service_cidrs)
    for section, end in _ends(topology):
        at = (((place, section), end.name), "addresses")
        for address in end.addresses:
            if address in owners:
                report.problem(at, f"{address} is also the address of {owners[address]}")
            owners.setdefault(address, end.name)
            own = next((cidr for lan in topology.networks for cidr in lan.cidrs if address in cidr), None)
            if own is not None and not _is_host(address, own):
                report.problem(at, f"{address} is the network's own or broadcast address in {own}")
            if own is None and any(address in network for network in inner):
                report.problem(at, f"{address} lies in the cluster's podCIDR or serviceCIDR")
        if not end.addresses:
            continue  # reported where none could be given
        if section == "nodes" and not _in_lan(end.addresses[0], topology):
            report.problem(at, f"the first address of a node, {end.addresses[0]}, must lie in one of the networks")
        elif not any(_in_lan(address, topology) for address in end.addresses):
            report.problem(at, "at least one address must lie in one of the networks")


def _in_lan(address: Address, topology: Topology) -> bool:
    return any(address in lan for lan in topology.networks)


def _pod_cidrs(topology: Topology, place: Place, report: Report) -> None:
    seen: list[tuple[int, int, str, Network]] = []
    for node in topology.nodes:
        at = (((place, "nodes"), node.name), "podCIDR")
        for own in node.pod_cidrs:
            inside = [network for network in topology.cluster.pod_cidrs if network.version == own.version]
            first, last = int(own.network_address), int(own.broadcast_address)
            if inside and not any(int(net.network_address) <= first and last <= int(net.broadcast_address) for net in inside):
                report.problem(at, f"{own} lies outside the cluster's podCIDR {', '.join(map(str, inside))}")
            seen.append((first, last, node.name, own))
    seen.sort(key=lambda entry: (entry[3].version, entry[0], entry[1]))
    for (_, last, name, own), (first, _, later, other) in pairwise(seen):
        if first <= last and own.version == other.version:
            report.problem((((place, "nodes"), later), "podCIDR"), f"{other} overlaps {own} of {name}")


def _routes(topology: Topology, place: Place, report: Report) -> None:
    for host in topology.hosts:
        for destination, text in _written_routes(place, host.name):
            at = ((((place, "hosts"), host.name), "routes"), destination)
            if error := strict_network(destination):
                report.problem(at, error, key=True)
            elif not ip(text) and ip_network(destination.strip()).version != (6 if ":" in text else 4):
                report.problem(at, f"the gateway {text} is of another family than {destination}")
        for network, gateway in host.routes:
            at = ((((place, "hosts"), host.name), "routes"), str(network))
            lan = next((lan for lan in topology.networks if gateway in lan), None)
            if gateway in host.addresses:
                report.problem(at, f"the gateway {gateway} is {host.name} itself")
            elif lan is None or not any(address in lan for address in host.addresses):
                report.problem(at, f"the gateway {gateway} is out of reach: {host.name} has no address in a network with it")


def _written_routes(place: Place, host: str) -> Iterator[tuple[str, str]]:
    routes = written((((place, "hosts"), host), "routes"))
    for key, value in routes.items() if isinstance(routes, dict) else ():
        if isinstance(value, str):
            yield key, value


def _load_balancer(topology: Topology, place: Place, report: Report) -> None:
    config = topology.cluster.load_balancer
    if config is None:
        return None
    at = ((place, "cluster"), "loadBalancer")
    if config.announce == "bgp" and topology.cluster.routing != "bgp":
        report.problem((at, "announce"), "bgp needs `routing: bgp`; l2 works with every routing")
    proxy = topology.cluster.proxy
    if config.announce == "l2" and proxy.mode == "ipvs" and not proxy.strict_arp:
        report.problem(
            ((place, "cluster"), "proxy"),
            "mode ipvs has load balancers' addresses on every node, and all would answer ARP for them: strictARP: true",
        )
    for first, last in config.pool:
        shown = f"{first}-{last}"
        for network in summarize_address_range(first, last):
            for name, other in (("podCIDR", topology.cluster.pod_cidrs), ("serviceCIDR", topology.cluster.service_cidrs)):
                if any(network.version == one.version and network.overlaps(one) for one in other):
                    return report.problem((at, "pool"), f"{shown} overlaps {name}")
            if config.announce == "bgp" and any(
                network.version == c.version and network.overlaps(c) for lan in topology.networks for c in lan.cidrs
            ):
                return report.problem(
                    (at, "pool"), f"{shown} lies in a network: its machines would not ask the router for it (use announce: l2)"
                )
        for _, end in _ends(topology):
            if taken := next((address for address in end.addresses if address in config), None):
                return report.problem((at, "pool"), f"{taken} is also the address of {end.name}")
        for lan in topology.networks:
            if taken := next((address for address in lan.routers if address in config), None):
                return report.problem((at, "pool"), f"{taken} is also the router of {lan.name}")
    return None


def _nats(topology: Topology, place: Place, report: Report) -> None:
    for lan in topology.networks:
        if lan.nat is None:
            continue
        at = (((place, "networks"), lan.name), "nat")
        if not lan.routers:
            report.problem(at, f"{lan.name} has no router that could translate (`router: none`)")
        written_forwards = written((at, "forwards"))
        for key in written_forwards if isinstance(written_forwards, dict) else ():
            if forwarded(str(key)) is None:
                report.problem(((at, "forwards"), key), f"{key} is no port: 8080, 8080/tcp or 53/udp is wanted", key=True)
        for forward in lan.nat.forwards:
            if forward.address not in lan:
                report.problem((at, "forwards"), f"{forward.address} does not lie in {lan.name}")


def forwarded(key: str) -> tuple[int, Protocol] | None:
    """The port that a key of `nat.forwards` names: `8080`, `8080/tcp`, `53/udp`; None for what names none."""
    text, _, protocol = key.partition("/")
    number, word = natural(text), (protocol or "tcp").upper()
    if number is None or not 1 <= number <= 65535 or word not in ("TCP", "UDP"):
        return None
    return number, Protocol(word)


def _links(topology: Topology, place: Place, report: Report) -> None:
    ends = {end.name: end for _, end in _ends(topology)}
    lans = {lan.name: lan for lan in topology.networks}
    for link in topology.links:
        name = f"{link.end}/{link.lan}" if link.lan else link.end
        at = ((place, "links"), name)
        if link.end not in ends and link.end != "router":
            meant = did_you_mean(link.end, ends)
            report.problem(at, f'there is no node or host "{link.end}"' + (f"; did you mean {meant}?" if meant else ""), key=True)
        elif link.lan not in lans:
            meant = did_you_mean(link.lan, lans)
            hint = f"; did you mean {meant}?" if meant else "; END/NETWORK is wanted"
            report.problem(at, f'there is no network "{link.lan}"{hint}', key=True)
        elif link.end in ends and not any(address in lans[link.lan] for address in ends[link.end].addresses):
            report.problem(at, f"{link.end} has no address in {link.lan}", key=True)
