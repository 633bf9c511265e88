"""A lab on paper: the API over a cluster and its plan, without a kernel. A change is planned, and nothing is done.

What goes to an agent is never answered: until then a request has been read, which is what is fuzzed.
"""

import socket
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from netlab import controllers, plan
from netlab.errors import NetlabError
from netlab.kernel.context import Place
from netlab.lab import http
from netlab.lab.api import Api
from netlab.lab.journal import Journal
from netlab.lab.ranges import SourcePorts
from netlab.manifest import Source, default_topology, read_objects
from netlab.model import Cluster, Ref

MANIFESTS = Path(__file__).parents[2] / "manifests"


class _Silent:
    """Takes every call, and every callback, and does nothing."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: 0

    def now(self) -> float:
        return 0.0


class _Empty(_Silent):
    """Answers every question with an empty mapping."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *_, **__: {}


@cache
def _built() -> tuple[Cluster, plan.Plan]:
    text = b"\n---\n".join((MANIFESTS / name).read_bytes() for name in ("kubia.yaml", "nginx-nodeport.yaml"))
    cluster = controllers.initial(default_topology(), read_objects([Source("x.yaml", text)]).objects)
    return cluster, plan.build(cluster)


class Lab:
    """What the API asks of netlab.lab.holder.Lab."""

    def __init__(self) -> None:
        self.cluster, self.plan = _built()
        self.started = 0.0
        self.files = Path("/nowhere")
        self.loads: dict[int, Any] = {}
        self.journal = Journal()
        self.ports = SourcePorts()
        self.loop = self.agents = self.sandboxes = _Silent()
        self.relays = self.speaking = self.ingresses = self.daemons = self.processes = _Empty()
        self.kernel = self

    @property
    def fds(self) -> Mapping[str, int]:
        names = {name: None for op in self.plan.ops.values() if (name := getattr(op, "netns", ""))}
        return {name: number for number, name in enumerate(names)}

    @property
    def now(self) -> Cluster:
        return self.cluster.with_(clock=1.0)

    def change(self, cluster: Cluster, grace_s: float | None = None) -> None:
        self.plan, self.cluster = plan.build(cluster), cluster

    def when_settled(self, call: Callable[[NetlabError | None], None]) -> None:
        call(None)

    def when(self, holds: Callable[[Cluster], bool], call: Callable[[], None]) -> None:
        if holds(self.cluster):
            call()

    def netns_path(self, netns: str) -> str:
        return f"/nowhere/{self.fds[netns]}"

    def place(self, target: Ref, container: str | None = None, starting: bool = False) -> Place:
        return Place("/nowhere", "", target.name)

    def info(self) -> dict[str, Any]:
        return {"name": "paper"}

    def log(self, line: str) -> None:
        self.journal.lab(line)


class Loop:
    """The holder's loop, turned by hand: the connections that were accepted."""

    def __init__(self) -> None:
        self.readable: dict[int, Callable[[], Any]] = {}

    def watch(self, file: Any, readable: Callable[[], Any]) -> None:
        self.readable[file.fileno()] = readable

    def when_readable(self, file: Any, ready: Callable[[], Any]) -> None:
        self.readable[file.fileno()] = ready

    def when_writable(self, file: Any, ready: Callable[[], Any]) -> None:
        self.readable.pop(file.fileno(), None)

    def forget(self, file: Any) -> None:
        self.readable.pop(file.fileno(), None)


def ask(request: http.Request) -> None:
    """Have the API answer. Raises whatever it would have put into the lab's log as a bug of netlab."""
    api = Api.__new__(Api)
    api._lab = Lab()  # type: ignore[assignment]  # all that is asked of one
    api.answer(request, lambda _: None)


def connect(data: bytes, handler: http.Handler) -> None:
    """Bytes of a client to the server's end of a connection, which is then hung up."""
    loop = Loop()
    here, there = socket.socketpair()
    with here:
        here.setblocking(False)
        connection = http._Connection(loop, there, handler)  # type: ignore[arg-type]  # all that it asks of a loop
        here.sendall(data[:65536])
        here.shutdown(socket.SHUT_WR)
        for _ in range(64):
            if connection._closed or (read := loop.readable.get(there.fileno())) is None:
                break
            read()
        if not connection._closed:
            connection._close()
