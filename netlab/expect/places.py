"""The lab's places and how each forwards by its routes alone: pods, nodes, hosts and the router, and the links between them.

Theory: a pod sends everything to its node. A node knows its pods, the other nodes' pods through an address in a LAN that both
are in, every address of no LAN likewise, and leaves the rest to the router. The router knows LANs and addresses of no LAN, and
drops the rest in silence. Hosts have their own routes, and the router. With `routing: vxlan` nodes reach each other's pods
through an overlay, whose packets take the nodes' ordinary ways. With `routing: bgp` the router knows podCIDRs, and the service
CIDRs by every node at once, as long as nothing between node and router is down. It refuses to know Services.

A link that is down loses the packet where the far end of it was set down, for the near end still has its routes. A device that
was itself set down has none: the kernel flushes them, another route is taken, or the sender is told that there is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from netlab import ipam, overlay
from netlab.expect import ipvs
from netlab.expect.claims import bridge_addresses
from netlab.expect.policy import is_local
from netlab.memory import last_kept
from netlab.model import Address, Cluster, Key, Node, OutcomeKind, Pod, Protocol, Ref

REJECTED, DROPPED = OutcomeKind.REJECTED, OutcomeKind.DROPPED
ROUTER = Ref("router", "", "router")
MOST_CARRIERS = 64
"""Machines that a packet of the overlay may pass."""


@dataclass(frozen=True, slots=True)
class Lab:
    """The cluster with what the walk looks up. `owners`: who has an address on a LAN or, outside of all LANs, at all.

    virtual: by node, the addresses that it has for the sake of mode ipvs. hops, listening, named: what was looked up so far.
    """

    cluster: Cluster
    owners: dict[Address, Ref]
    pods: dict[Address, Pod]
    attachments: dict[Ref, tuple[ipam.Attachment, ...]]
    balanced: dict[Address, tuple[str, ...]]
    """Load balancers' addresses out of the pool: the nodes that announce each."""
    virtual: dict[str, frozenset[Address]]
    hops: "dict[tuple[Ref, Address | None], Hop | Lost | Arrived]" = field(default_factory=dict)
    listening: dict[tuple[Ref, int, Protocol], tuple[OutcomeKind | None, str]] = field(default_factory=dict)
    named: dict[Ref, Pod] = field(default_factory=dict)

    def node(self, place: Ref) -> Node:
        return self.cluster.nodes[place.name]

    def pod(self, place: Ref) -> Pod:
        found = self.named.get(place)
        if found is None:
            key = Key(place.namespace, place.name)
            found = self.named[place] = self.cluster.pods[key] if key in self.cluster.pods else self.cluster.ending[key]
        return found


@dataclass(frozen=True, slots=True)
class Hop:
    """The next place, the interface by which it is entered, and the source address that the packet would be given here."""

    to: Ref
    device: str
    source: Address | None = None


@dataclass(frozen=True, slots=True)
class Lost:
    """The packet ends on its way. REJECTED: the sender is told (no route)."""

    fate: OutcomeKind
    why: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """The address is this place's own."""


@last_kept
def lab_of(cluster: Cluster) -> Lab:
    topology = cluster.topology
    owners: dict[Address, Ref] = {}
    attachments: dict[Ref, tuple[ipam.Attachment, ...]] = {ROUTER: ipam.router_attachments(topology)}
    for lan in topology.networks:
        owners.update(dict.fromkeys(lan.routers, ROUTER))
    machines = [(Ref("host", "", host.name), host.addresses) for host in topology.hosts]
    machines += [(Ref("node", "", name), node.addresses) for name, node in cluster.nodes.items()]
    for place, addresses in machines:
        attachments[place] = ipam.attachments(topology, addresses)
        owners.update(dict.fromkeys(addresses, place))
    pods = {
        address: pod
        for pod in (*cluster.ending.values(), *cluster.pods.values())
        if pod.node in cluster.nodes and not pod.spec.host_network and pod.phase not in ("Succeeded", "Failed")
        for address in pod.addresses
    }
    pool = topology.cluster.load_balancer
    balanced = {
        one.ip: service.announced_by
        for service in cluster.services.values()
        for one in service.load_balancer
        if pool is not None and one.ip is not None and one.ip in pool
    }
    served = topology.cluster.proxy.mode == "ipvs"
    virtual = {name: ipvs.service_addresses(cluster, node) for name, node in cluster.nodes.items()} if served else {}
    return Lab(cluster, owners, pods, attachments, balanced, virtual)


def place_of(lab: Lab, sender: Ref) -> Ref:
    """Where the sender's packets start: a hostNetwork pod is its node. Raises: KeyError."""
    if sender.kind != "pod":
        if sender not in lab.attachments:
            raise KeyError(str(sender))
        return sender
    pod = lab.pod(sender)
    if pod.node not in lab.cluster.nodes or not pod.addresses:
        raise KeyError(f"{sender} has no address yet")
    return Ref("node", "", pod.node) if pod.spec.host_network else sender


def next_places(lab: Lab, place: Ref, destination: Address) -> tuple[Hop | Lost | Arrived, ...]:
    """Where `place` sends packets for `destination`, by its routes alone: several where ways are equally good.

    Only a router that has learned a Service network from several nodes has more than one; a flow's hash chooses.
    """
    if place == ROUTER and lab.owners.get(destination) != place:
        ways = tuple(_learned(lab, destination))
        if ways:
            return ways
    return (next_place(lab, place, destination),)


def next_place(lab: Lab, place: Ref, destination: Address) -> Hop | Lost | Arrived:
    """Where `place` sends a packet for `destination`, by its routes alone; the first of several ways."""
    if place.kind == "pod" and (destination in lab.pod(place).addresses or destination.is_loopback):
        return Arrived()
    where = (place, destination if place.kind != "pod" else None)
    hop = lab.hops.get(where)
    if hop is None:
        hop = lab.hops[where] = _next_place(lab, place, destination)
    return hop


def _next_place(lab: Lab, place: Ref, destination: Address) -> Hop | Lost | Arrived:
    match place.kind:
        case "pod":  # the same for all that is not its own
            pod = lab.pod(place)
            if _is_down(lab, str(place), ipam.POD_DEVICE):
                return _no_route(place)
            return _lost_or(lab, pod, Hop(Ref("node", "", pod.node), _device_of(lab, pod)))
        case "node":
            return _next_of_node(lab, place, destination)
        case "host":
            return _next_of_host(lab, place, destination)
        case _:
            if lab.owners.get(destination) == place:
                return Arrived()
            learned = next(_learned(lab, destination), None)
            if learned is not None:
                return learned
            return _on_lan(lab, place, destination) or _in_pool(lab, destination) or Lost(DROPPED, "dropped at the router")


def _next_of_node(lab: Lab, place: Ref, destination: Address) -> Hop | Lost | Arrived:
    node = lab.node(place)
    if is_local(lab.cluster, node, destination) or destination in lab.virtual.get(place.name, ()):
        return Arrived()
    pod = lab.pods.get(destination)
    if pod is not None and pod.node == node.meta.name and not _is_down(lab, str(place), _device_of(lab, pod)):
        return _lost_or(lab, pod, Hop(pod.ref, ipam.POD_DEVICE, _gateway(lab, pod, destination)))
    if any(destination in cidr for cidr in node.pod_cidrs) and lab.cluster.topology.cluster.fabric == "bridge":
        return Lost(DROPPED, f"no pod has {destination}")
    behind = pod.node if pod is not None else _node_of_cidr(lab, destination)
    if behind not in (None, place.name) and (hop := _to_node(lab, place, behind, destination)) is not None:
        return hop
    return _on_lan(lab, place, destination) or _to_router(lab, place, destination)


def _to_node(lab: Lab, place: Ref, name: str, destination: Address) -> Hop | Lost | None:
    """The way to what is behind another node: by the LAN, or through the overlay where there is one."""
    to = Ref("node", "", name)
    if is_bgp(lab.cluster):
        return _by_bgp(lab, place, to, destination)
    if not overlay.is_used(lab.cluster):
        return _to_machine(lab, place, to, destination)
    own = overlay.addresses(lab.cluster, lab.node(place))
    source = next((address for address in own if address.version == destination.version), None)
    end = overlay.underlay(lab.cluster, lab.node(to))
    if source is None or end is None:
        return None
    for _ in range(MOST_CARRIERS):
        hop = next_place(lab, place, end)
        match hop:
            case Arrived():
                return Hop(to, overlay.DEVICE, source)
            case Lost(_, why):
                # The packet that carries it is lost, and nobody tells the sender of what is inside.
                return Lost(DROPPED, f"the overlay does not reach {end}: {why}")
            case Hop(there, _):
                place = there
    return Lost(DROPPED, f"the overlay does not reach {end}: its packets go round in circles")


def _by_bgp(lab: Lab, place: Ref, to: Ref, destination: Address) -> Hop | Lost | None:
    """Nodes whose sessions stand know each other's podCIDRs: straight where both talk to the router in one LAN, or through it."""
    own, theirs = _peering(lab, place.name, destination.version), _peering(lab, to.name, destination.version)
    if own is None or theirs is None:
        return None
    if own.lan == theirs.lan:
        return _across(lab, place, own, to, destination)
    return _across(lab, place, own, ROUTER, destination)


def _learned(lab: Lab, destination: Address) -> Iterator[Hop | Lost]:
    """The router's ways to pods and Services: the nodes that announce them and whose sessions stand."""
    if not is_bgp(lab.cluster):
        return
    pod = lab.pods.get(destination)
    behind = pod.node if pod is not None else _node_of_cidr(lab, destination)
    service = any(destination in cidr for cidr in lab.cluster.topology.cluster.service_cidrs)
    names = lab.cluster.nodes if service else () if behind is None else (behind,)
    for name in names or (() if is_l2(lab.cluster) else lab.balanced.get(destination, ())):
        peering = _peering(lab, name, destination.version)
        if peering is not None:
            at_router = next(one for one in lab.attachments[ROUTER] if one.lan == peering.lan)
            yield _across(lab, ROUTER, at_router, Ref("node", "", name), destination)


def is_bgp(cluster: Cluster) -> bool:
    return cluster.topology.cluster.routing == "bgp"


def _peering(lab: Lab, name: str, version: int) -> ipam.Attachment | None:
    """The node's leg in the LAN over which it talks to the router; None without one, and while a link between them is down."""
    node = Ref("node", "", name)
    for own in lab.attachments[node]:
        there = next((one for one in lab.attachments[ROUTER] if one.lan == own.lan), None)
        if there is None or not all(any(a.version == version for a in one.addresses) for one in (own, there)):
            continue
        ends = ((str(node), own.device), (str(ROUTER), there.device))
        ports = tuple((f"lan/{own.lan}", ipam.lan_port(str(end))) for end in (node, ROUTER))
        return None if any(_is_down(lab, *end) for end in (*ends, *ports)) else own
    return None


def _next_of_host(lab: Lab, place: Ref, destination: Address) -> Hop | Lost | Arrived:
    if destination.is_loopback or lab.owners.get(destination) == place:
        return Arrived()
    host = next(host for host in lab.cluster.topology.hosts if host.name == place.name)
    links = (a.network_of(destination) for a in lab.attachments[place])
    connected = max((network.prefixlen for network in links if network is not None), default=-1)
    for network, gateway in sorted(host.routes, key=lambda route: -route[0].prefixlen):
        if destination in network and network.prefixlen > connected and (hop := _on_lan(lab, place, gateway)) is not None:
            return hop
    return _on_lan(lab, place, destination) or _to_router(lab, place, destination)


def _gateway(lab: Lab, pod: Pod, address: Address) -> Address | None:
    """The bridge address of the pod's node that this address of the pod has as gateway; None where the pod hangs by a route."""
    node = lab.cluster.nodes[pod.node]
    bridge = bridge_addresses(lab.cluster, node)
    if not all(any(own in cidr for cidr in node.pod_cidrs) and own not in bridge for own in pod.addresses):
        return None
    return next((own for own, cidr in zip(bridge, node.pod_cidrs, strict=False) if address in cidr), None)


def _node_of_cidr(lab: Lab, address: Address) -> str | None:
    return next((name for name, node in lab.cluster.nodes.items() if any(address in cidr for cidr in node.pod_cidrs)), None)


def _on_lan(lab: Lab, place: Ref, destination: Address) -> Hop | Lost | None:
    """The hop to an address of a LAN that `place` is on, or to the owner of an address of no LAN; None when there is none."""
    owner = lab.owners.get(destination)
    for own in lab.attachments[place]:
        if own.network_of(destination) and not _is_down(lab, str(place), own.device):
            if owner is None and is_l2(lab.cluster) and destination in lab.balanced:
                return _to_announcer(lab, place, own, destination)
            if owner is None:
                return Lost(DROPPED, f"nobody has {destination} in {own.lan}")
            return _across(lab, place, own, owner, destination)
    # Addresses of no LAN: the router and the nodes have routes to them, hosts leave it to the router.
    if owner is not None and place.kind != "host" and not any(destination in lan for lan in lab.cluster.topology.networks):
        return _to_machine(lab, place, _by_way_of(lab, place, owner), destination)
    return None


def _in_pool(lab: Lab, destination: Address) -> Hop | Lost | None:
    """What the router does with an address of a pool that lies in no network: it asks for it where nodes answer."""
    pool = lab.cluster.topology.cluster.load_balancer
    if pool is None or not is_l2(lab.cluster) or destination not in pool:
        return None
    lan = ipam.announcing_lan(lab.cluster.topology, destination)
    own = next((one for one in lab.attachments[ROUTER] if lan is not None and one.lan == lan.name), None)
    return None if own is None else _to_announcer(lab, ROUTER, own, destination)


def _to_announcer(lab: Lab, place: Ref, own: ipam.Attachment, destination: Address) -> Hop | Lost:
    """The node that answers for a load balancer's address on this LAN; it does not ask itself."""
    for name in lab.balanced.get(destination, ()):
        node = Ref("node", "", name)
        if node != place:
            return _across(lab, place, own, node, destination)
    return Lost(DROPPED, f"nobody answers for {destination} in {own.lan}")


def is_l2(cluster: Cluster) -> bool:
    pool = cluster.topology.cluster.load_balancer
    return pool is not None and pool.announce == "l2"


def _by_way_of(lab: Lab, place: Ref, owner: Ref) -> Ref:
    """A host that has one node as the gateway of all its routes is answered through that node; others directly."""
    host = next((host for host in lab.cluster.topology.hosts if owner == Ref("host", "", host.name)), None)
    if host is None or place.kind != "node":
        return owner
    gateways = {lab.owners.get(gateway) for _, gateway in host.routes}
    gateway = gateways.pop() if len(gateways) == 1 else None
    return gateway if gateway is not None and gateway.kind == "node" and gateway != place else owner


def _to_machine(lab: Lab, place: Ref, owner: Ref, destination: Address) -> Hop | Lost | None:
    """The hop to a machine on a LAN in which both have an address of the destination's family."""
    theirs = {(one.lan, address.version) for one in lab.attachments[owner] for address in one.addresses}
    own = next(
        (
            one
            for one in lab.attachments[place]
            if (one.lan, destination.version) in theirs
            and any(address.version == destination.version for address in one.addresses)
        ),
        None,
    )
    return None if own is None or _is_down(lab, str(place), own.device) else _across(lab, place, own, owner, destination)


def _to_router(lab: Lab, place: Ref, destination: Address) -> Hop | Lost:
    return _to_machine(lab, place, ROUTER, destination) or _no_route(place)


def _no_route(place: Ref) -> Lost:
    return Lost(REJECTED, f"{place} has no route")


def _across(lab: Lab, place: Ref, own: ipam.Attachment, owner: Ref, destination: Address) -> Hop | Lost:
    theirs = next((attachment for attachment in lab.attachments[owner] if attachment.lan == own.lan), None)
    if theirs is None:
        return Lost(DROPPED, f"{owner} is not on {own.lan}")
    for end, device in ((place, own.device), (owner, theirs.device)):
        if _is_down(lab, str(end), device) or _is_down(lab, f"lan/{own.lan}", ipam.lan_port(str(end))):
            return Lost(DROPPED, f"the link of {end} to {own.lan} is down")
    if tuple(sorted((str(place), str(owner)))) in lab.cluster.apart:
        return Lost(DROPPED, f"{place} and {owner} are parted")
    return Hop(owner, theirs.device, next((one for one in own.addresses if one.version == destination.version), None))


def _device_of(lab: Lab, pod: Pod) -> str:
    """The device through which the pod's node routes to it."""
    return ipam.host_device(str(pod.ref)) if _gateway(lab, pod, pod.addresses[0]) is None else ipam.NODE_BRIDGE


def _lost_or(lab: Lab, pod: Pod, hop: Hop) -> Hop | Lost:
    ends = ((str(pod.ref), ipam.POD_DEVICE), (f"node/{pod.node}", ipam.host_device(str(pod.ref))))
    return Lost(DROPPED, f"the link of {pod.ref} is down") if any(_is_down(lab, *end) for end in ends) else hop


def _is_down(lab: Lab, netns: str, device: str) -> bool:
    return (netns, device) in lab.cluster.links_down
