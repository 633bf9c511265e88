"""The cluster as values: everything that netlab knows, frozen. A change yields a new Cluster.

Attributes are the snake_case of the Kubernetes API's keys. Each object keeps the `manifest` it was read from (plain JSON
types, treated as immutable), so that `get -o yaml` gives back what was put in, with what netlab decided laid over it.
Defaults of the Kubernetes API are already applied: there is no "not yet known" except where a field says so
(a Pod's node and addresses before it is placed). Over 400 lines: the vocabulary of the whole program, in one place.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, Literal, NamedTuple, get_args

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Manifest = Mapping[str, Any]
Labels = Mapping[str, str]


class FrozenDict(dict[Any, Any]):
    """A mapping that is a value: hashable, picklable, not to be changed (mappingproxy is neither, in Python 3.11)."""

    __slots__ = ()

    def __hash__(self) -> int:  # type: ignore[override]  # dict says None: a frozen one may be a field's default
        return hash(tuple(sorted(map(str, self))))


NOTHING: FrozenDict = FrozenDict()


class Protocol(StrEnum):
    """Transport protocols, spelled as Kubernetes does; ICMP only for probes."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"
    ICMP = "ICMP"


class Key(NamedTuple):
    """Where a namespaced object is kept. Cluster-scoped objects (Node, Namespace) have namespace ''."""

    namespace: str
    name: str


class Ref(NamedTuple):
    """Names one object; `str()` is what users type and read: `pod/default/client`, `node/node-170`, `host/client`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.namespace}/{self.name}" if self.namespace else f"{self.kind}/{self.name}"


@dataclass(frozen=True, slots=True)
class Meta:
    """The part of ObjectMeta that netlab acts on. `created` and `deleted` are seconds on the lab's clock (0 = at start)."""

    name: str
    namespace: str = ""
    labels: Labels = NOTHING
    annotations: Labels = NOTHING
    uid: str = ""
    owner: Ref | None = None
    created: float = 0.0
    deleted: float | None = None
    generation: int = 1

    @property
    def key(self) -> Key:
        return Key(self.namespace, self.name)


# ---------------------------------------------------------------- topology (netlab/v1)


Layout = Literal["chains", "maps"]
"""How mode nftables lays out its table: as kube-proxy does, or a Service as some elements of maps."""
Scheduler = Literal["rr", "wrr", "lc", "wlc", "sh", "dh", "sed", "nq"]
"""How IPVS chooses a real server: ipvsadm(8)."""


def variant(mode: str, layout: Layout) -> str:
    """The name of a mode with its layout, which only one that is not kube-proxy's own adds."""
    return mode if layout == "chains" else f"{mode}-{layout}"


def mode_of(name: str) -> str:
    """The mode alone, of the name of a mode with its layout."""
    return name.partition("-")[0]


def exact(name: str, together: Iterable[str]) -> str:
    """What a name means among those with which it is run: beside `nftables-maps`, `nftables` is `nftables-chains`."""
    return f"{name}-chains" if f"{name}-maps" in together else name


def variant_of(document: Mapping[str, Any]) -> str:
    """The name of the mode and layout that a result tells (`ProxyConfig.told`)."""
    return variant(document["proxy"], document.get("layout", "chains"))


@dataclass(frozen=True, slots=True)
class ProxyConfig:
    """How the Service proxy of every node works (cluster.proxy). Names are kube-proxy's.

    node_port_addresses: None = the mode's own default (iptables: every local address; nftables: the primary address).
    conntrack_tcp_be_liberal: with it kube-proxy leaves out the `ctstate INVALID -j DROP` rule; on by default, because static
    routes through one node make replies take another way, and conntrack there then calls the third packet invalid.
    scheduler, strict_arp, sync_period_s: of mode ipvs; how virtual servers choose, whether nodes answer ARP only for addresses of
    the asked interface, and how often what someone else changed is mended (0: never).
    """

    mode: str = "iptables"
    backend: Literal["nft", "legacy"] = "nft"
    layout: Layout = "chains"
    masquerade_all: bool = False
    detect_local: Literal["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix", "none"] = "ClusterCIDR"
    bridge_interface: str = "cni0"
    interface_name_prefix: str = "veth"
    node_port_addresses: tuple[Network, ...] | Literal["primary"] | None = None
    localhost_node_ports: bool = True
    conntrack_tcp_be_liberal: bool = True
    scheduler: Scheduler = "rr"
    strict_arp: bool = False
    sync_period_s: float = 30.0

    @property
    def variant(self) -> str:
        """The mode, with its layout where that is not kube-proxy's own: `nftables-maps`."""
        return variant(self.mode, self.layout if self.mode == "nftables" else "chains")

    def as_variant(self, name: str) -> "ProxyConfig":
        """The same settings with the mode, and the layout where the name has one: `nftables` leaves what the topology says."""
        layouts: dict[str, Layout] = {"chains": "chains", "maps": "maps"}
        return replace(self, mode=mode_of(name), layout=layouts.get(name.partition("-")[2], self.layout))

    @property
    def told(self) -> dict[str, str]:
        """What results say of it: `proxy`, its mode, and `layout` where that is not kube-proxy's own."""
        return {"proxy": self.mode, **({"layout": self.layout} if self.variant != self.mode else {})}


@dataclass(frozen=True, slots=True)
class LoadBalancerConfig:
    """cluster.loadBalancer: where addresses of Services of type LoadBalancer come from, and how others hear of them.

    pool: ranges (first, last) in the order in which they are used. announce: `l2`, one node answers for an address on its LAN;
    `bgp`, every node that serves it announces it to the router.
    """

    pool: tuple[tuple[Address, Address], ...]
    announce: Literal["l2", "bgp"] = "l2"

    def __contains__(self, address: object) -> bool:
        return isinstance(address, IPv4Address | IPv6Address) and any(
            first.version == address.version and int(first) <= int(address) <= int(last) for first, last in self.pool
        )


@dataclass(frozen=True, slots=True)
class IngressConfig:
    """cluster.ingress. `upstream`: a request goes straight to a pod (endpoints), or to the Service's cluster IP."""

    proxy: Literal["haproxy", "nginx", "traefik"] = "haproxy"
    upstream: Literal["endpoints", "service"] = "endpoints"


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """cluster: of a topology. CIDRs hold one network per family, the first is the primary family."""

    pod_cidrs: tuple[Network, ...] = (IPv4Network("10.244.0.0/16"),)
    service_cidrs: tuple[Network, ...] = (IPv4Network("10.96.0.0/12"),)
    proxy: ProxyConfig = ProxyConfig()
    fabric: str = "bridge"
    routing: str = "static"
    neighbours: Literal["permanent", "learned"] = "permanent"
    load_balancer: LoadBalancerConfig | None = None
    """None: Services of type LoadBalancer get no address, as in a cluster where nobody cares for them."""
    node_monitor_grace_s: float = 2.0
    """How long nobody hears from a node until it counts as NotReady (kube-controller-manager's --node-monitor-grace-period, 50
    s).
    """
    unreachable_toleration_s: float = 3.0
    """How long a pod stays bound to a NotReady node where it does not say so itself (the API server's default is 300 s)."""
    backoff_s: tuple[float, float] = (1.0, 60.0)
    """crashLoopBackOff: how long the second restart of a container waits, and the most that any of them does."""
    dns: bool = False
    """Whether the cluster has its own DNS (Service kube-dns and the pods behind it): a topology file says yes unless told."""
    ingress: "IngressConfig | None" = None
    """The Ingress controller that runs on every node, None for none but what manifests bring."""
    cidrs_given: bool = False
    """True when the topology file said the CIDRs itself, so that a dump must not override them."""


@dataclass(frozen=True, slots=True)
class NatForward:
    """What comes to `port` of the router from outside goes to `address`:`target_port` of the network behind it."""

    port: int
    protocol: Protocol
    address: Address
    target_port: int


@dataclass(frozen=True, slots=True)
class Nat:
    """networks.NAME.nat: the router stands before the network as a virtual-machine host does before its guests.

    What leaves the network gets the router's address; what comes from elsewhere gets in by `forwards` only, or (`routed`) also
    when it is sent to an address of the network itself. hide_clients: what gets in has the router's address there as source.
    """

    forwards: tuple[NatForward, ...] = ()
    routed: bool = False
    hide_clients: bool = False


@dataclass(frozen=True, slots=True)
class Lan:
    """networks.NAME: one layer-2 network. `router` is its router's address, None when it has none.

    The second pair is that of the other family in a dual-stack network. `address in lan` asks both.
    """

    name: str
    cidr: Network
    router: Address | None = None
    second_cidr: Network | None = None
    second_router: Address | None = None
    nat: Nat | None = None

    @property
    def cidrs(self) -> tuple[Network, ...]:
        return (self.cidr,) if self.second_cidr is None else (self.cidr, self.second_cidr)

    @property
    def routers(self) -> tuple[Address, ...]:
        return tuple(address for address in (self.router, self.second_router) if address is not None)

    def __contains__(self, address: object) -> bool:
        return any(address in cidr for cidr in self.cidrs)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """nodes.NAME of a topology. `control_plane` nodes get no ordinary pods."""

    name: str
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...] = ()
    labels: Labels = NOTHING
    control_plane: bool = False
    taints: "tuple[Taint, ...]" = ()


@dataclass(frozen=True, slots=True)
class HostSpec:
    """hosts.NAME: a machine outside the cluster. `routes` maps a destination to its gateway."""

    name: str
    addresses: tuple[Address, ...]
    routes: tuple[tuple[Network, Address], ...] = ()


@dataclass(frozen=True, slots=True)
class Impairment:
    """What becomes of the packets that leave a device: never what comes in. Shares are of 1; a rate of None is unlimited."""

    rate_bps: int | None = None
    delay_s: float = 0.0
    jitter_s: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0

    def __bool__(self) -> bool:
        return self.rate_bps is not None or self.needs_netem()

    def __str__(self) -> str:
        """In the words of a topology file: `rate 100mbit delay 10ms loss 1%`; empty when there is none."""
        words = [f"rate {_rate(self.rate_bps)}"] if self.rate_bps is not None else []
        times = (("delay", self.delay_s), ("jitter", self.jitter_s))
        words += [f"{name} {value * 1000:.9g}ms" for name, value in times if value]
        shares = (("loss", self.loss), ("duplicate", self.duplicate), ("reorder", self.reorder), ("corrupt", self.corrupt))
        return " ".join([*words, *(f"{name} {value * 100:.6g}%" for name, value in shares if value)])

    def needs_netem(self) -> bool:
        """Whether it takes more than a token bucket."""
        return any((self.delay_s, self.jitter_s, self.loss, self.duplicate, self.reorder, self.corrupt))

    def with_(self, **changes: Any) -> "Impairment":
        """A copy with these fields replaced."""
        return replace(self, **changes)


def _rate(bits: int) -> str:
    unit, name = next(
        ((unit, name) for unit, name in ((10**9, "gbit"), (10**6, "mbit"), (10**3, "kbit")) if bits >= unit), (1, "bit")
    )
    return f"{bits / unit:.9g}{name}"


@dataclass(frozen=True, slots=True)
class LinkSpec:
    """links."HOST/LAN": impairment of one attachment to a LAN, of what the machine sends (`out`) and of what it gets (`in`)."""

    end: str
    lan: str
    out: Impairment = Impairment()
    into: Impairment = Impairment()


@dataclass(frozen=True, slots=True)
class Topology:
    """One topology file, with every default filled in. Order of nodes, hosts and networks is the file's."""

    name: str = "default"
    cluster: ClusterConfig = ClusterConfig()
    networks: tuple[Lan, ...] = ()
    nodes: tuple[NodeSpec, ...] = ()
    hosts: tuple[HostSpec, ...] = ()
    links: tuple[LinkSpec, ...] = ()


# ---------------------------------------------------------------- Kubernetes objects


TaintEffect = Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
TAINT_EFFECTS: tuple[TaintEffect, ...] = get_args(TaintEffect)


@dataclass(frozen=True, slots=True)
class Taint:
    """Keeps pods that do not tolerate it off a node. `added`: when, on the lab's clock (NoExecute counts from then)."""

    key: str
    effect: TaintEffect
    value: str = ""
    added: float = field(default=0.0, compare=False)

    def __str__(self) -> str:
        return f"{self.key}{'=' if self.value else ''}{self.value}:{self.effect}"


@dataclass(frozen=True, slots=True)
class Toleration:
    """`key` '' with Exists tolerates every taint, `effect` '' every effect. `seconds` None: for ever (NoExecute only)."""

    key: str = ""
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str = ""
    effect: TaintEffect | Literal[""] = ""
    seconds: float | None = None

    def tolerates(self, taint: Taint) -> bool:
        if self.effect not in ("", taint.effect) or self.key not in ("", taint.key):
            return False
        return self.operator == "Exists" or (self.key != "" and self.value == taint.value)


@dataclass(frozen=True, slots=True)
class Node:
    """A cluster member. The first address is its InternalIP.

    `taints` are those that were given; `controllers.taints` adds what follows from the node's state. `ready_changed`: when
    `ready` last changed, on the lab's clock.
    """

    meta: Meta
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Network, ...]
    ready: bool = True
    control_plane: bool = False
    manifest: Manifest = NOTHING
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    ready_changed: float = 0.0

    @property
    def zone(self) -> str:
        return self.meta.labels.get("topology.kubernetes.io/zone", "")


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """`host_port` 0: the port is reached at the pod's own address only. `host_ip` None: at every address of the node."""

    port: int
    name: str = ""
    protocol: Protocol = Protocol.TCP
    host_port: int = 0
    host_ip: Address | None = None


@dataclass(frozen=True, slots=True)
class Probe:
    """A readiness, liveness or startup probe: httpGet, tcpSocket or exec; exactly one of them is given.

    `host` '' is the pod's own address. `grace_s` None: a liveness kill has the pod's grace period.
    """

    http_path: str | None = None
    port: int | str | None = None
    tcp: bool = False
    command: tuple[str, ...] = ()
    initial_delay_s: float = 0.0
    period_s: float = 10.0
    timeout_s: float = 1.0
    success_threshold: int = 1
    failure_threshold: int = 3
    host: str = ""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    headers: tuple[tuple[str, str], ...] = ()
    grace_s: float | None = None


@dataclass(frozen=True, slots=True)
class EnvSource:
    """Where a variable's value comes from: a field of the pod, or a key of a ConfigMap or Secret (`name`)."""

    kind: Literal["field", "configmap", "secret"]
    key: str
    name: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class EnvFrom:
    """Every key of a ConfigMap or Secret becomes a variable, with `prefix` before its name."""

    kind: Literal["configmap", "secret"]
    name: str
    prefix: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """A directory that containers of a pod may share. `host`: a directory of this machine, `path`, as it is.

    `sources`: (kind, name of the ConfigMap or Secret, ((key, path), ...) or () for all of them, optional); kind `field` has
    (path, fieldPath) pairs instead.
    """

    name: str
    kind: Literal["empty", "host", "objects"] = "empty"
    path: str = ""
    sources: tuple[tuple[Literal["configmap", "secret", "field"], str, tuple[tuple[str, str], ...], bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a container sees a volume."""

    volume: str
    path: str
    sub_path: str = ""
    read_only: bool = False


@dataclass(frozen=True, slots=True)
class Container:
    """`command` (command + args) empty: the built-in responder answers for it.

    `pre_stop` runs before SIGTERM: a Probe without a period, or a number of seconds to sleep. `sidecar`: an init container
    with restartPolicy Always, which goes on running beside the others.
    """

    name: str
    image: str = ""
    command: tuple[str, ...] = ()
    ports: tuple[ContainerPort, ...] = ()
    env: tuple[tuple[str, str | EnvSource], ...] = ()
    readiness: Probe | None = None
    liveness: Probe | None = None
    startup: Probe | None = None
    pre_stop: Probe | float | None = None
    sidecar: bool = False
    env_from: tuple[EnvFrom, ...] = ()
    mounts: tuple[Mount, ...] = ()
    working_dir: str = ""


CONTROL_PLANE_TAINTS = tuple(Taint(f"node-role.kubernetes.io/{role}", "NoSchedule") for role in ("control-plane", "master"))


@dataclass(frozen=True, slots=True)
class PodSpec:
    """`init`: containers that run one after the other before the others start."""

    containers: tuple[Container, ...]
    node_name: str = ""
    hostname: str = ""
    subdomain: str = ""
    host_network: bool = False
    restart_policy: Literal["Always", "OnFailure", "Never"] = "Always"
    termination_grace_s: float = 30.0
    node_selector: Labels = NOTHING
    node_affinity: tuple["Selector", ...] = ()
    """Required terms, of which one must hold. A field (`metadata.name`) stands among a term's expressions."""
    tolerations: tuple[Toleration, ...] = ()
    share_process_namespace: bool = False
    service_links: bool = True
    """enableServiceLinks: its containers are told the Services of their namespace in variables."""
    init: tuple[Container, ...] = ()
    volumes: tuple[Volume, ...] = ()


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container's program ended: exit code (128 + N when signal N did it), and from when to when it ran."""

    code: int
    started: float
    at: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ContainerStatus:
    """One container at this moment. All times are seconds on the lab's clock.

    state: `waiting` to be started (at `due`, where that is not None; `reason` says why it waits), `running` since `started_at`,
    or `ended` for good. `started`: its startup probe has succeeded (or it has none). `healthy` False: a restarted program has
    yet to stay until `due`. `stopping`: since when it is being stopped; `hooked`: its preStop hook has run, SIGTERM was sent;
    `deadline`: when SIGKILL follows. `backoff_s`: how long the next restart waits. `last`: how it ended last.
    """

    name: str
    state: Literal["waiting", "running", "ended"] = "waiting"
    reason: str = ""
    message: str = ""
    started_at: float = 0.0
    due: float | None = None
    ready: bool = False
    started: bool = False
    healthy: bool = True
    restarts: int = 0
    backoff_s: float = 0.0
    stopping: float | None = None
    hooked: bool = False
    deadline: float = 0.0
    last: Ended | None = None


@dataclass(frozen=True, slots=True)
class Pod:
    """`node` '' and `addresses` () until the scheduler placed it. `ready` is what its readiness probes said last.

    `terminating` is deletionTimestamp set; a terminating pod that still answers is `serving`. `statuses`: its init containers,
    then the others; () for a pod that netlab did not start (one of a dump), whose phase and readiness are as given.
    """

    meta: Meta
    spec: PodSpec
    node: str = ""
    addresses: tuple[Address, ...] = ()
    phase: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    ready: bool = False
    serving: bool = False
    restarts: int = 0
    message: str = ""
    manifest: Manifest = NOTHING
    ready_since: float | None = None
    """Since when it has been ready without a break, on the lab's clock; None while it is not."""
    statuses: tuple[ContainerStatus, ...] = ()
    grace_s: float | None = None
    """Of a terminating pod: how long it may take (deletionGracePeriodSeconds)."""

    @property
    def terminating(self) -> bool:
        return self.meta.deleted is not None

    @property
    def ref(self) -> Ref:
        return Ref("pod", self.meta.namespace, self.meta.name)

    @property
    def all_containers(self) -> tuple[Container, ...]:
        """In the order of `statuses`."""
        return (*self.spec.init, *self.spec.containers)

    def running(self) -> tuple[tuple[Container, ContainerStatus], ...]:
        """The containers that run now."""
        if not self.statuses:
            return tuple((one, ContainerStatus(one.name, "running")) for one in self.spec.containers if self.phase == "Running")
        both = zip(self.all_containers, self.statuses, strict=True)
        return tuple((container, status) for container, status in both if status.state == "running")


@dataclass(frozen=True, slots=True)
class Selector:
    """matchLabels and matchExpressions (key, operator In|NotIn|Exists|DoesNotExist, of nodes also Gt|Lt, values)."""

    labels: Labels = NOTHING
    expressions: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def matches(self, labels: Labels) -> bool:
        for key, wanted in self.labels.items():
            if labels.get(key) != wanted:
                return False
        for key, operator, values in self.expressions:
            value = labels.get(key)
            match operator:
                case "In":
                    held = value in values
                case "NotIn":
                    held = value not in values
                case "Exists":
                    held = value is not None
                case "Gt" | "Lt":
                    held = _compared(value, operator, values)
                case _:
                    held = value is None
            if not held:
                return False
        return True


def _compared(value: str | None, operator: str, values: tuple[str, ...]) -> bool:
    try:
        return (int(value or "") - int(values[0])) * (1 if operator == "Gt" else -1) > 0
    except (ValueError, IndexError):
        return False


@dataclass(frozen=True, slots=True)
class PodTemplate:
    spec: PodSpec
    labels: Labels = NOTHING
    annotations: Labels = NOTHING
    manifest: Manifest = NOTHING
    """The template as given: {metadata: ..., spec: ...}; a pod made from it shows this spec."""


WorkloadKind = Literal["ReplicationController", "ReplicaSet", "Deployment", "DaemonSet", "StatefulSet", "Job"]
IntOrPercent = int | str
"""A number, or a share of the replicas such as "25%"."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a workload replaces its pods when its template changes. Fields that a kind has not keep their defaults.

    `partition`: a StatefulSet's pods with a lower ordinal keep the old template. `deadline_s`: a Deployment that made no
    progress for so long is said to have failed. `history`: how many old revisions are kept.
    """

    type: Literal["RollingUpdate", "Recreate", "OnDelete"] = "RollingUpdate"
    max_surge: IntOrPercent = 0
    max_unavailable: IntOrPercent = 1
    partition: int = 0
    min_ready_s: float = 0.0
    deadline_s: float = 600.0
    history: int = 10
    paused: bool = False


@dataclass(frozen=True, slots=True)
class Revision:
    """One template that a DaemonSet or StatefulSet has had (a ControllerRevision). `hash` is its pods' label."""

    number: int
    hash: str
    template: PodTemplate
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """What a Deployment had reached when it last moved, and when that was."""

    updated: int = 0
    old: int = 0
    ready: int = 0
    available: int = 0
    at: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class Stateful:
    """What only a StatefulSet has. `start`: its first ordinal; `current`: the hash of the revision before the update."""

    service_name: str = ""
    pod_management: Literal["OrderedReady", "Parallel"] = "OrderedReady"
    start: int = 0
    current: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """What only a Job has: what was asked for, and what has come of it.

    completions None: done when one pod has succeeded and no other is left. `succeeded` and `failed` hold the uids of pods that
    ended (with an Indexed Job's index, else -1), so that each counts once, even after it is deleted. `over`: when, and how.
    """

    completions: int | None = 1
    parallelism: int = 1
    backoff_limit: int = 6
    indexed: bool = False
    suspended: bool = False
    deadline_s: float | None = None
    ttl_s: float | None = None
    started: float | None = None
    succeeded: tuple[tuple[str, int], ...] = ()
    failed: tuple[tuple[str, int], ...] = ()
    last_failure: float = 0.0
    over: float | None = None
    verdict: Literal["", "Complete", "BackoffLimitExceeded", "DeadlineExceeded"] = ""


@dataclass(frozen=True, slots=True)
class Workload:
    """Anything that keeps pods in being. `replicas` of a DaemonSet is the number of nodes that shall have a pod; a Job has none.

    `revisions` (DaemonSet, StatefulSet): oldest first, the last one is the template's. `progress`: a Deployment's.
    """

    kind: WorkloadKind
    meta: Meta
    replicas: int
    selector: Selector
    template: PodTemplate
    manifest: Manifest = NOTHING
    rollout: Rollout = Rollout()
    revisions: tuple[Revision, ...] = ()
    progress: Progress | None = None
    stateful: Stateful | None = None
    batch: Batch | None = None

    @property
    def ref(self) -> Ref:
        return Ref(self.kind.lower(), self.meta.namespace, self.meta.name)


class ServiceType(StrEnum):
    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """`node_port` is None when the Service has none (or before one was allocated)."""

    port: int
    name: str = ""
    protocol: Protocol = Protocol.TCP
    target_port: int | str = 0
    node_port: int | None = None


@dataclass(frozen=True, slots=True)
class LoadBalancerIngress:
    """status.loadBalancer.ingress[]: `ip_mode` None means VIP."""

    ip: Address | None = None
    hostname: str = ""
    ip_mode: Literal["VIP", "Proxy"] | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """`cluster_ips` is () before allocation and for ExternalName, ("None",) is `headless`."""

    meta: Meta
    type: ServiceType = ServiceType.CLUSTER_IP
    cluster_ips: tuple[Address, ...] = ()
    headless: bool = False
    ports: tuple[ServicePort, ...] = ()
    selector: Labels = NOTHING
    session_affinity: Literal["None", "ClientIP"] = "None"
    affinity_timeout_s: int = 10800
    external_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    internal_traffic_policy: Literal["Cluster", "Local"] = "Cluster"
    external_ips: tuple[Address, ...] = ()
    external_name: str = ""
    load_balancer: tuple[LoadBalancerIngress, ...] = ()
    load_balancer_ip: Address | None = None
    load_balancer_class: str = ""
    announced_by: tuple[str, ...] = ()
    """The nodes that announce the load balancer's addresses, decided by a controller; () while nobody does."""
    pending: str = ""
    """Why it has no address from the pool, though it should; '' when it has, or needs none."""
    source_ranges: tuple[Network, ...] = ()
    allocate_node_ports: bool = True
    health_check_node_port: int | None = None
    publish_not_ready_addresses: bool = False
    traffic_distribution: str = ""
    ip_families: tuple[Literal["IPv4", "IPv6"], ...] = ()
    ip_family_policy: str = "SingleStack"
    manifest: Manifest = NOTHING

    @property
    def ref(self) -> Ref:
        return Ref("svc", self.meta.namespace, self.meta.name)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One entry of EndpointSlice.endpoints. None is "absent": ready and serving then count as true, terminating as false."""

    addresses: tuple[Address, ...]
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None
    node_name: str | None = None
    zone: str | None = None
    hostname: str | None = None
    target: Ref | None = None
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlicePort:
    """`name` and `port` None are "absent": kube-proxy then ignores the port."""

    name: str | None
    port: int | None
    protocol: Protocol = Protocol.TCP


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """`managed` slices are made and changed by netlab's own controller; the others are the user's and are kept as given."""

    meta: Meta
    service: Key
    address_type: Literal["IPv4", "IPv6", "FQDN"] = "IPv4"
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()
    managed: bool = False
    manifest: Manifest = NOTHING


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The old v1 Endpoints, given by hand; mirrored into EndpointSlices by a controller."""

    meta: Meta
    subsets: tuple[tuple[tuple[Endpoint, ...], tuple[SlicePort, ...]], ...] = ()
    manifest: Manifest = NOTHING


@dataclass(frozen=True, slots=True)
class Other:
    """An object that changes nothing here (Namespace, ConfigMap, RBAC, NetworkPolicy so far): kept and shown."""

    kind: str
    api_version: str
    meta: Meta
    manifest: Manifest = NOTHING


KubernetesObject = Node | Pod | Workload | Service | EndpointSlice | Endpoints | Other


@dataclass(frozen=True, slots=True)
class Outage:
    """A node that is out of reach: since when, whether its programs died, and the cluster as its proxy last heard of it.

    A killed node's pods answer nobody; a partitioned one goes on among its own pods, by what it last knew.
    """

    since: float
    killed: bool
    known: "Cluster"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Everything that is known of one lab. Mappings are treated as immutable: `with_...` copies."""

    topology: Topology
    nodes: Mapping[str, Node] = NOTHING
    pods: Mapping[Key, Pod] = NOTHING
    workloads: Mapping[tuple[str, Key], Workload] = NOTHING
    """Keyed by (kind, key): a Deployment and a ReplicaSet may share a name."""
    services: Mapping[Key, Service] = NOTHING
    slices: Mapping[Key, EndpointSlice] = NOTHING
    endpoints: Mapping[Key, Endpoints] = NOTHING
    ending: Mapping[Key, Pod] = NOTHING
    """Pods that are gone, whose connections are still being finished: they have their address, and listen on nothing."""
    others: Mapping[tuple[str, Key], Other] = NOTHING
    links_down: frozenset[tuple[str, str]] = frozenset()
    """Faults in force: (netns, device) pairs whose link is set down."""
    apart: frozenset[tuple[str, str]] = frozenset()
    """Faults in force: pairs of machines (their namespaces, sorted) that do not reach each other on any LAN."""
    impaired: Mapping[tuple[str, str], Impairment] = NOTHING
    """Faults in force: what (netns, device) does to what it sends, in the place of what the topology says."""
    last_addresses: Mapping[tuple[str, str], Address] = NOTHING
    """(node, family) -> the pod address that was given out last: the next pod gets the one after it."""
    outages: Mapping[str, Outage] = NOTHING
    """Faults in force: nodes that are out of reach, by name. Their links are among `links_down`."""
    clock: float = 0.0
    serial: int = 0
    """Counts the objects that the controllers made: generated names and uids come from it, so that none is used twice."""

    def with_(self, **changes: Any) -> "Cluster":
        """A copy with these fields replaced."""
        return replace(self, **changes)

    def as_known_to(self, node: str) -> "Cluster":
        """The cluster as this node's proxy knows it: what it last heard where it is out of reach."""
        outage = self.outages.get(node)
        return self if outage is None else outage.known


# ---------------------------------------------------------------- flows and verdicts


@dataclass(frozen=True, slots=True)
class Flow:
    """One kind of packet: who sends what to where. `sender` is a Ref of kind pod, node or host.

    `source` is the source address of the packet as it leaves the sender. `port` is 0 for ICMP.
    """

    sender: Ref
    source: Address
    destination: Address
    port: int
    protocol: Protocol = Protocol.TCP
    source_port: int = 0


class OutcomeKind(StrEnum):
    """What becomes of a flow. NOT_HANDLED: no rule matches, the packet meets ordinary routing with its address unchanged."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    DROPPED = "dropped"
    NOT_HANDLED = "not-handled"


@dataclass(frozen=True, slots=True, order=True)
class Backend:
    """Where a packet may land: address and port after all rewriting, and whether its source is rewritten on the way.

    Only the oracle fills the last two, and they do not count when backends are compared. `fate`: what the client sees of a flow
    that was sent here (REJECTED: nobody listens; DROPPED: no such address, or the answer cannot find its way back; None: not
    known, the pod runs a program of its own). `sources`: the addresses that the receiver may see; () where that is not known.
    """

    address: Address
    port: int
    masqueraded: bool = False
    fate: OutcomeKind | None = field(default=OutcomeKind.DELIVERED, compare=False)
    sources: tuple[Address, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `expect` and `trace` return. `backends` in order of address, each equally likely; `affinity`: a client keeps its own.

    `kind` is the best that may happen. REJECTED and DROPPED have no backends where a rule or the router is the end of it; they
    have some where the packet does reach (or is sent to) a backend and its `fate` is the reason.

    spread: how flows fall on the backends. `random`: each independently. `turns`: one after the other, so that the counts of a
    client that is alone differ by one at most. `any`: nothing is promised. The tracer leaves it alone.

    also: what may become of a flow besides, for which none of `backends` stands: a proxy process gave up on others. The tracer
    leaves it alone, too.
    """

    kind: OutcomeKind
    backends: tuple[Backend, ...] = ()
    affinity: bool = False
    why: str = ""
    spread: Literal["random", "turns", "any"] = "random"
    also: tuple[OutcomeKind, ...] = ()


class Judgement(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True)
class Observation:
    """What a probe saw, and nothing that it did not see.

    backends: the receiver as named in results (`pod/default/x`, or `ip:port` where it is no pod of the lab) -> number of flows
    that arrived there. sources: the source address as the receiver saw it -> number of flows. per_source and per_address break
    arrivals down: (receiver address, receiver port, source address seen) -> number.
    evidence: sentences about where flows were last seen. blind: why an observer could not see (a sniffer that failed); a
    verdict that needs it is then inconclusive. control: whether the positive control of a negative result arrived
    (None: none was run).
    """

    sent: int
    delivered: int = 0
    rejected: int = 0
    dropped: int = 0
    backends: Mapping[str, int] = NOTHING
    sources: Mapping[str, int] = NOTHING
    arrivals: Mapping[tuple[Address, int, Address], int] = NOTHING
    evidence: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    control: bool | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`judge`'s answer. `p` is the chi-square test's p-value, None where the spread was not judged."""

    judgement: Judgement
    why: tuple[str, ...] = ()
    p: float | None = None
    alpha: float = 1e-6
