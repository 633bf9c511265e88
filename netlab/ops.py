"""Operations: what a plan consists of. An Op says what must exist in the kernel, never how to get there.

Every Op is a value whose `identity` names the thing it describes; two plans are compared by identity and value. Namespaces are
named by what lives in them: `node/node-170`, `pod/default/client`, `host/client`, `lan/lan` (a LAN's switch), `router/router`.
Over 400 lines: the vocabulary between planners and kernel, in one place, most of it docstrings.
"""

from dataclasses import dataclass
from typing import Literal

from netlab.ingresses import Table
from netlab.model import Address, Impairment, Network, Protocol, Ref
from netlab.ruleset import Ruleset as RulesetValue

Identity = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Netns:
    """A network namespace, its loopback up."""

    name: str

    @property
    def identity(self) -> Identity:
        return ("netns", self.name)


@dataclass(frozen=True, slots=True)
class Bridge:
    """A Linux bridge: no STP, no forward delay, no multicast snooping; up."""

    netns: str
    device: str
    mac: str
    mtu_bytes: int = 1500

    @property
    def identity(self) -> Identity:
        return ("link", self.netns, self.device)


@dataclass(frozen=True, slots=True)
class Veth:
    """A veth pair. `master` is the bridge that this end is a port of; `up` False is a fault in force (this end set down).

    A port's bridge has a static forwarding entry for the other end's MAC, so that no frame for it is ever flooded: a copy to each
    of a thousand ports fills the kernel's queue of 1,000 packets a processor (net.core.netdev_max_backlog), and what then arrives
    is lost, in whatever namespace.
    """

    netns: str
    device: str
    mac: str
    peer_netns: str
    peer_device: str
    peer_mac: str
    master: str = ""
    peer_master: str = ""
    mtu_bytes: int = 1500
    altname: str = ""
    up: bool = True
    peer_up: bool = True

    @property
    def identity(self) -> Identity:
        return ("link", self.netns, self.device)


@dataclass(frozen=True, slots=True)
class Dummy:
    """A device that only holds addresses, and stays down as kube-proxy leaves it: their local routes need no more.

    Of kind dummy; where the kernel has none, a bridge without ports, which is as good a place for addresses.
    """

    netns: str
    device: str

    @property
    def identity(self) -> Identity:
        return ("link", self.netns, self.device)


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN device, up, that learns nothing and floods nothing: which machine a frame goes to, Forwarding says.

    `local` is the source of the packets that carry the frames, `port` their UDP port.
    """

    netns: str
    device: str
    mac: str
    vni: int
    local: Address
    port: int
    mtu_bytes: int

    @property
    def identity(self) -> Identity:
        return ("link", self.netns, self.device)


@dataclass(frozen=True, slots=True)
class Qdisc:
    """What a device does to what it sends; a device without one sends everything at once. `value` is never empty."""

    netns: str
    device: str
    value: Impairment

    @property
    def identity(self) -> Identity:
        return ("qdisc", self.netns, self.device)


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """An address on a device. `prefix_route` False: the kernel adds no connected route (IFA_F_NOPREFIXROUTE)."""

    netns: str
    device: str
    address: Address
    prefixlen: int
    prefix_route: bool = True

    @property
    def identity(self) -> Identity:
        return ("address", self.netns, self.device, f"{self.address}/{self.prefixlen}")


@dataclass(frozen=True, slots=True)
class Route:
    """A route of the main table. A blackhole has neither gateway nor device and drops silently."""

    netns: str
    destination: Network
    gateway: Address | None = None
    device: str = ""
    source: Address | None = None
    type: Literal["unicast", "blackhole"] = "unicast"
    onlink: bool = False
    owner: Ref | None = None

    @property
    def identity(self) -> Identity:
        return ("route", self.netns, str(self.destination))


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A permanent neighbour entry."""

    netns: str
    device: str
    address: Address
    mac: str

    @property
    def identity(self) -> Identity:
        return ("neighbour", self.netns, self.device, str(self.address))


@dataclass(frozen=True, slots=True)
class Forwarding:
    """A permanent entry in the forwarding database of a VXLAN device: frames for `mac` are carried to the machine `remote`."""

    netns: str
    device: str
    mac: str
    remote: Address

    @property
    def identity(self) -> Identity:
        return ("forwarding", self.netns, self.device, self.mac)


@dataclass(frozen=True, slots=True)
class Learned:
    """A route of the main table that a routing daemon is expected to have learned. Nobody makes it: it is waited for.

    `hops`: (gateway, device), more than one where the ways are equally good. `protocol` as `ip route` names it.
    """

    netns: str
    destination: Network
    hops: tuple[tuple[Address, str], ...]
    protocol: str = "bird"

    @property
    def identity(self) -> Identity:
        return ("learned", self.netns, str(self.destination))


@dataclass(frozen=True, slots=True)
class Announcement:
    """A machine answers for an address that is not its own, on one LAN: ARP or neighbour discovery, with the device's MAC.

    `source`: the machine's own address there, of the same family.
    """

    netns: str
    device: str
    address: Address
    mac: str
    source: Address

    @property
    def identity(self) -> Identity:
        return ("announcement", str(self.address))


@dataclass(frozen=True, slots=True)
class Sysctl:
    """`key` with slashes, under /proc/sys: `net/ipv4/ip_forward`. `optional`: a kernel without it is as good as set."""

    netns: str
    key: str
    value: str
    optional: bool = False

    @property
    def identity(self) -> Identity:
        return ("sysctl", self.netns, self.key)


@dataclass(frozen=True, slots=True)
class RealServer:
    """Where a virtual server may send a connection."""

    address: Address
    port: int
    weight: int = 1


@dataclass(frozen=True, slots=True)
class VirtualServer:
    """One address and port at which IPVS takes connections and forwards them by NAT.

    persistence_s: how long a client keeps its real server; None: it does not. Real servers in a stable order, none twice. One
    that leaves the op is not taken from its connections: its weight becomes 0, and it goes when they have ended (kernel/ipvs.py).
    """

    netns: str
    address: Address
    protocol: Protocol
    port: int
    scheduler: str
    real_servers: tuple[RealServer, ...] = ()
    persistence_s: int | None = None
    owner: Ref | None = None

    @property
    def identity(self) -> Identity:
        return ("virtual-server", self.netns, self.protocol, str(self.address), str(self.port))


@dataclass(frozen=True, slots=True)
class Ruleset:
    """All packet-filter rules of one namespace in one dialect."""

    netns: str
    value: RulesetValue

    @property
    def identity(self) -> Identity:
        return ("ruleset", self.netns, self.value.dialect)


@dataclass(frozen=True, slots=True)
class Health:
    """What a health check of the Service proxy tells: of a Service (healthCheckNodePort), or without one of the proxy itself."""

    service: tuple[str, str] | None = None
    local_endpoints: int = 0
    eligible: bool = True


@dataclass(frozen=True, slots=True)
class Listener:
    """The built-in responder listens here. `persona` is the image's base name (`kubia`, `nginx`, `agnhost`, ...).

    `health`: it answers health checks instead. A change of what they say leaves the socket open. `run`: the container's restarts;
    with another number it is opened anew, and what was connected is cut off.
    """

    netns: str
    pod: str
    protocol: Protocol
    port: int
    persona: str
    addresses: tuple[Address, ...] = ()
    health: Health | None = None
    run: int = 0

    @property
    def identity(self) -> Identity:
        return ("listener", self.netns, self.pod, self.protocol, str(self.port))


@dataclass(frozen=True, slots=True)
class Process:
    """A container with a command of its own: a host program run in the pod's namespaces.

    `uid` and `run` tell one run of it from the next: a container that is started again has the next number. `ending`: it has been
    told to end (SIGTERM). It is killed when its op goes.
    """

    netns: str
    pod: Ref
    container: str
    command: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    uid: str = ""
    run: int = 0
    ending: bool = False

    @property
    def identity(self) -> Identity:
        return ("process", str(self.pod), self.container)


@dataclass(frozen=True, slots=True)
class Daemon:
    """A program of a machine's own (a routing daemon, a proxy), started again whenever it ends; it dies with the lab.

    It runs in a directory of its own, in which `files` (name, text) are: `command` names them without a path. Told of changed
    files by `reload`. `ready`: a Unix socket that it makes there and that takes connections once it works; '' for none.
    """

    netns: str
    name: str
    command: tuple[str, ...]
    files: tuple[tuple[str, str], ...] = ()
    ready: str = ""
    reload: Literal["SIGHUP", "restart"] = "SIGHUP"

    @property
    def identity(self) -> Identity:
        return ("daemon", self.netns, self.name)


@dataclass(frozen=True, slots=True)
class File:
    """A file of the lab's own tmpfs: a pod's /etc/hosts and the like. `path` is relative: `pod/default/client/hosts`."""

    path: str
    text: str

    @property
    def identity(self) -> Identity:
        return ("file", self.path)


@dataclass(frozen=True, slots=True)
class RelayPort:
    """One Service port that a node's proxy process serves at its own port `port`, turning round `endpoints` in their order.

    `affinity_s` is None where a client does not keep its endpoint. `version` of IP: each family is served by itself.
    """

    name: str
    protocol: Protocol
    port: int
    endpoints: tuple[tuple[Address, int], ...]
    affinity_s: int | None = None
    version: Literal[4, 6] = 4

    @property
    def key(self) -> tuple[Protocol, int, int]:
        """What it occupies: protocol, port, IP version."""
        return (self.protocol, self.port, self.version)


@dataclass(frozen=True, slots=True)
class Relay:
    """A node's proxy process (mode userspace) and all that it serves. `udp_idle_s`: when a silent UDP client is forgotten."""

    netns: str
    ports: tuple[RelayPort, ...]
    udp_idle_s: float = 0.25

    @property
    def identity(self) -> Identity:
        return ("relay", self.netns)


@dataclass(frozen=True, slots=True)
class IngressProxy:
    """A controller pod's proxy: a real program in its namespace that carries out the table."""

    netns: str
    pod: str
    proxy: Literal["haproxy", "nginx", "traefik"]
    table: Table
    ipv6: bool = False

    @property
    def identity(self) -> Identity:
        return ("ingress", self.pod)


Op = (
    Netns
    | Bridge
    | Veth
    | Vxlan
    | Qdisc
    | Dummy
    | DeviceAddress
    | Route
    | Neighbour
    | Forwarding
    | Learned
    | Announcement
    | Sysctl
    | VirtualServer
    | Ruleset
    | Listener
    | Process
    | File
    | Relay
    | Daemon
    | IngressProxy
)

ORDER: tuple[type, ...] = (
    Netns, File, Sysctl, Bridge, Veth, Vxlan, Dummy, Qdisc, DeviceAddress, Route, Neighbour, Forwarding, Daemon, Learned, Relay,
    VirtualServer, Ruleset, Announcement, Listener, Process, IngressProxy,
)  # fmt: skip
"""The order in which kinds of Op are made; removal goes the other way round."""
