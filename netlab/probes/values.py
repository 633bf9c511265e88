"""What a probe is asked and what a client saw. Values only; model.Observation is the answer of every probe."""

from collections.abc import Mapping
from dataclasses import dataclass

from netlab.model import NOTHING, Address, Flow, Observation


@dataclass(frozen=True, slots=True)
class Watched:
    """A namespace that is watched. `receiver`: flows may end there (pods, nodes, hosts); otherwise it gives evidence only.

    `addresses` are those that live there; the watcher proves itself with a packet to the first. `label` is for sentences.
    `passing`: ports of a proxy process; what arrives there is only on its way.
    """

    netns: str
    label: str = ""
    addresses: tuple[Address, ...] = ()
    receiver: bool = True
    passing: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        return self.label or self.netns


FIRST_PORT, PORTS = 10_000, 20_000
"""Source ports: below the kernel's own choice (32768 and up) and below NodePorts (30000 and up)."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A real HTTP/1.1 request per flow. `host` is the Host header, '' for destination:port."""

    path: str = "/"
    host: str = ""
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ProbeRequest:
    """`count` flows of one kind from the namespace `netns`.

    names: (address, port) of receivers -> how results name them; port 0 stands for every port of the address.
    control: a flow of the same sender that must arrive; without it the control is that every watcher saw its own test packet and
    that the sender's packets were seen to leave.
    relayed: TCP connections may pass proxy processes, so that packets cannot be followed but what is said on them can.
    first_port: where its source ports begin (lab/ranges.py); 0: wherever the prober is.
    """

    netns: str
    flow: Flow
    count: int = 1
    timeout_s: float = 1.0
    watched: tuple[Watched, ...] = ()
    names: Mapping[tuple[Address, int], str] = NOTHING
    http: HttpRequest | None = None
    control: Flow | None = None
    relayed: bool = False
    first_port: int = 0


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """`problem` '' and a status, or what went wrong. Header names in lower case. `backend` as the receiving side showed."""

    status: int = 0
    headers: Mapping[str, str] = NOTHING
    body: str = ""
    problem: str = ""
    backend: str = ""


@dataclass(frozen=True, slots=True)
class HttpResult:
    """One response a flow, in the order in which the flows were started."""

    observation: Observation
    responses: tuple[HttpResponse, ...]


@dataclass(frozen=True, slots=True)
class Opened:
    """A TCP connection that is held open. `id` 0: it was not established, `observation` says what became of it."""

    id: int
    backend: str
    observation: Observation
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Used:
    """`alive`: the peer answered on the held connection; `same`: as it did the first time."""

    alive: bool
    same: bool
    answer: str = ""
    problem: str = ""


def name_of(names: Mapping[tuple[Address, int], str], address: Address, port: int) -> str:
    """How a receiver is named in results: as given, or `ip:port`."""
    found = names.get((address, port)) or names.get((address, 0))
    return found or place(address, port)


def place(address: Address, port: int) -> str:
    """`ip:port`, IPv6 in brackets; the address alone where there is no port."""
    return str(address) if not port else f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
