"""A lab as a picture's content: LANs, router, hosts, nodes, bridges, pods, Services with endpoints and policies. Pure.

Decides what belongs together, what is collapsed, and which colour a Service has. Refuses to know a format; graph_svg.py,
graph_html.py and graph_words.py draw it. Colours are Okabe and Ito's eight, which stay apart for the colour-blind; a Service has
a letter beside its colour, so that nothing rests on colour alone.
"""

from dataclasses import dataclass

from netlab import overlay
from netlab.dns import pods_in_words
from netlab.endpoints import endpoints_of
from netlab.fabric import impairments
from netlab.model import Address, Cluster, Key, Node, Pod, Ref, Service
from netlab.routing import bgp

COLLAPSE = 16
"""Pods of one node above which they are shown by owner."""
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A900", "#7F7F7F")
"""Okabe and Ito, the yellow darkened and black replaced by grey, so that both schemes' backgrounds carry them."""


@dataclass(frozen=True, slots=True)
class PodBox:
    """A pod, or `count` pods of one owner. `services`: numbers of those that it is an endpoint of."""

    name: str
    netns: str
    address: str
    ready: bool
    services: tuple[int, ...] = ()
    count: int = 1
    ready_count: int = 1


@dataclass(frozen=True, slots=True)
class Machine:
    """A node or a host; `bridge` and `pods` are a node's."""

    name: str
    netns: str
    addresses: tuple[str, ...]
    lans: tuple[str, ...]
    notes: tuple[str, ...] = ()
    bridge: str = ""
    pods: tuple[PodBox, ...] = ()
    pod_count: int = 0


@dataclass(frozen=True, slots=True)
class LanBar:
    name: str
    netns: str
    cidrs: tuple[str, ...]
    routers: tuple[str, ...] = ()

    @property
    def cidr(self) -> str:
        """Of every family."""
        return ", ".join(self.cidrs)

    @property
    def router(self) -> str:
        return ", ".join(self.routers)


@dataclass(frozen=True, slots=True)
class ServiceRow:
    """`letter` and `colour` mark its endpoints. `ready` of `endpoints`: pods, one of both families once."""

    number: int
    name: str
    type: str
    addresses: tuple[str, ...]
    ports: tuple[str, ...]
    policies: tuple[str, ...]
    ready: int
    endpoints: int
    nodes: tuple[str, ...]

    @property
    def letter(self) -> str:
        return letter(self.number)

    @property
    def colour(self) -> str:
        return PALETTE[self.number % len(PALETTE)]


@dataclass(frozen=True, slots=True)
class Graph:
    title: str
    lans: tuple[LanBar, ...]
    hosts: tuple[Machine, ...]
    nodes: tuple[Machine, ...]
    services: tuple[ServiceRow, ...]
    down: tuple[str, ...] = ()
    impaired: tuple[str, ...] = ()
    router: tuple[str, ...] = ()
    """What there is to say of the router."""


def graph(cluster: Cluster, collapse: int = COLLAPSE, always: frozenset[str] = frozenset()) -> Graph:
    """The picture's content, in the topology's order. `always`: namespaces of pods that are never collapsed."""
    services = [one for one in cluster.services.values() if one.meta.key != ("default", "kubernetes")]
    serving: dict[Address, list[int]] = {}
    rows = []
    for number, service in enumerate(services):
        row, addresses = _service(cluster, service, number)
        rows.append(row)
        for address in addresses:
            serving.setdefault(address, []).append(number)
    config = cluster.topology.cluster
    lans = tuple(
        LanBar(lan.name, f"lan/{lan.name}", tuple(map(str, lan.cidrs)), tuple(map(str, lan.routers)))
        for lan in cluster.topology.networks
    )
    hosts = tuple(
        Machine(
            host.name, f"host/{host.name}", tuple(map(str, host.addresses)), _lans(cluster, host.addresses),
            tuple(f"{to} via {gateway}" for to, gateway in host.routes),
        )
        for host in cluster.topology.hosts
    )  # fmt: skip
    nodes = []
    for node in cluster.nodes.values():
        here = sorted((pod for pod in cluster.pods.values() if pod.node == node.meta.name), key=lambda pod: pod.addresses)
        bridge = (
            f"cni0 {', '.join(map(str, node.pod_cidrs))}"
            if config.fabric == "bridge"
            else f"pods {', '.join(map(str, node.pod_cidrs))}"
        )
        bridge = "; ".join((bridge, *_routing(cluster, node)))
        notes = ("control plane",) if node.control_plane else ()
        nodes.append(
            Machine(
                node.meta.name, f"node/{node.meta.name}", tuple(map(str, node.addresses)), _lans(cluster, node.addresses), notes,
                bridge, _boxes(here, serving, collapse, always), len(here),
            )
        )  # fmt: skip
    title = f"{cluster.topology.name}: {len(nodes)} nodes, {pods_in_words(cluster)}, proxy {config.proxy.variant}"
    title += f", routing {config.routing}" if config.routing != "static" else ""
    down = tuple(f"{device} of {netns}" for netns, device in sorted(cluster.links_down))
    return Graph(title, lans, hosts, tuple(nodes), tuple(rows), down, impairments.told(cluster), _of_router(cluster))


def _routing(cluster: Cluster, node: Node) -> tuple[str, ...]:
    """How the node learns ways, where that is not by static routes."""
    found = [f"{overlay.DEVICE} {address}" for address in overlay.addresses(cluster, node)]
    if cluster.topology.cluster.routing == "bgp":
        found.append(f"bird, AS {bgp.FIRST_NODE_AS + list(cluster.nodes).index(node.meta.name)}")
    return tuple(found)


def _of_router(cluster: Cluster) -> tuple[str, ...]:
    found = ["blackhole default"]
    if cluster.topology.cluster.routing == "bgp":
        found.append(f"bird, AS {bgp.ROUTER_AS}")
    for lan in cluster.topology.networks:
        if lan.nat is not None:
            found.append(f"translates for {lan.name}")
            found += (f"{one.port}/{one.protocol.lower()} to {one.address}:{one.target_port}" for one in lan.nat.forwards)
    return tuple(found)


def letter(number: int) -> str:
    """A, B, ... Z, A1, B1, ..."""
    return chr(ord("A") + number % 26) + (str(number // 26) if number >= 26 else "")


def _lans(cluster: Cluster, addresses: tuple[Address, ...]) -> tuple[str, ...]:
    return tuple(lan.name for lan in cluster.topology.networks if any(address in lan for address in addresses))


def _service(cluster: Cluster, service: Service, number: int) -> tuple[ServiceRow, set[Address]]:
    known: dict[Address, bool] = {}
    owners = {address: pod for pod in cluster.pods.values() for address in pod.addresses}
    targets: dict[Key | Address, bool] = {}  # a pod of both families is one
    for port in service.ports:
        both = (one for family in service.ip_families or ("IPv4",) for one in endpoints_of(cluster, service, port, family))
        for endpoint in both:
            known[endpoint.address] = known.get(endpoint.address, False) or endpoint.ready
            target = owners[endpoint.address].meta.key if endpoint.address in owners else endpoint.address
            targets[target] = targets.get(target, False) or endpoint.ready
    used = {owners[one].node for one, ready in known.items() if ready and one in owners}
    nodes = tuple(name for name in cluster.nodes if name in used)
    ports = tuple(
        f"{port.port}/{port.protocol.lower()}" + (f" on nodes {port.node_port}" if port.node_port else "")
        for port in service.ports
    )
    addresses = (*map(str, service.cluster_ips), *map(str, service.external_ips),
                 *(str(one.ip) for one in service.load_balancer if one.ip is not None))  # fmt: skip
    row = ServiceRow(
        number, label(service.ref), service.type.value, addresses or ("headless" if service.headless else "-",), ports,
        policies(service), sum(targets.values()), len(targets), nodes,
    )  # fmt: skip
    return row, set(known)


def policies(service: Service) -> tuple[str, ...]:
    """What is not the default of a Service's policies, and always the external one where it has an outside."""
    found = []
    if service.type.value in ("NodePort", "LoadBalancer") or service.external_ips:
        found.append(f"externalTrafficPolicy: {service.external_traffic_policy}")
    if service.internal_traffic_policy != "Cluster":
        found.append(f"internalTrafficPolicy: {service.internal_traffic_policy}")
    if service.session_affinity != "None":
        found.append(f"sessionAffinity: {service.session_affinity} {service.affinity_timeout_s} s")
    if service.announced_by:
        found.append(f"announced by {', '.join(service.announced_by)}")
    if service.traffic_distribution:
        found.append(f"trafficDistribution: {service.traffic_distribution}")
    return tuple(found)


def label(ref: Ref) -> str:
    return ref.name if ref.namespace in ("default", "") else f"{ref.namespace}/{ref.name}"


def _boxes(pods: list[Pod], serving: dict[Address, list[int]], collapse: int, always: frozenset[str]) -> tuple[PodBox, ...]:
    if len(pods) <= collapse:
        return tuple(_box(pod, serving) for pod in pods)
    groups: dict[str, list[Pod]] = {}
    for pod in pods:
        owner = pod.meta.owner
        alone = owner is None or str(pod.ref) in always
        key = str(pod.ref) if alone or owner is None else label(Ref("", pod.meta.namespace, owner.name))
        groups.setdefault(key, []).append(pod)
    boxes = []
    for name, members in groups.items():
        if len(members) == 1:
            boxes.append(_box(members[0], serving))
            continue
        numbers = sorted({number for pod in members for address in pod.addresses for number in serving.get(address, ())})
        ready = sum(pod.ready for pod in members)
        span = f"{members[0].addresses[0]} .. {members[-1].addresses[0]}" if all(pod.addresses for pod in members) else ""
        boxes.append(PodBox(name, "", span, ready == len(members), tuple(numbers), len(members), ready))
    return tuple(boxes)


def _box(pod: Pod, serving: dict[Address, list[int]]) -> PodBox:
    numbers = sorted({number for address in pod.addresses for number in serving.get(address, ())})
    address = "host network" if pod.spec.host_network else ", ".join(map(str, pod.addresses)) or pod.phase
    return PodBox(label(pod.ref), str(pod.ref), address, pod.ready, tuple(numbers), 1, int(pod.ready))
