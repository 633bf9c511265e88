"""The holder's agents: which processes there are, how they are started, and what happens when one dies.

loader     loads rules (libnftables calls exit() when it runs out of descriptors: it must not take the lab along), virtual servers
dns        answers questions for names in the DNS pods
responder  answers for every pod that has no program of its own
errands    what takes long and needs to know the whole lab: a matrix; forked for it, and gone with its answer
keeper     holds TCP connections open for who asked; started at the first
load       one for each load under way: sends at a constant rate, in the sender's namespace
workers    probe, read back, verify, capture, run commands; as many as there is to do at once, each one request at a time

A dead agent is started again at once; the holder then gives the new one everything the dead one held.
"""

import socket
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal

from netlab.errors import NetlabError
from netlab.kernel import agent
from netlab.lab.connections import Serving
from netlab.lab.loop import Loop
from netlab.lab.ranges import Ranges
from netlab.probes.load import LoadRequest

MAXIMUM_WORKERS = 16
RESERVED = MAXIMUM_WORKERS + 1
"""So many ranges of tokens are left to the workers and the keeper."""
DEADLINES_S = {"loader": 900.0, "responder": 10.0, "dns": 10.0}
"""How long the holder waits for an answer. iptables-nft takes minutes for ten thousand Services; the others never long."""

TRIES = 3
"""How many processes in a row may die of, or during, one thing that is asked of them."""


class Agents:
    """Every agent of one lab, watched by the loop."""

    def __init__(self, loop: Loop, on_restart: Callable[[str], None]) -> None:
        self._loop = loop
        self._on_restart = on_restart
        self.loader = self._start("loader", serve_loader)
        self.responder = self._start("responder", serve_responder)
        self._dns: agent.Agent | None = None
        self._workers: list[agent.Agent] = []
        self._queue: deque[tuple[agent.Reply, str, tuple[Any, ...]]] = deque()
        self._keeper: agent.Agent | None = None
        self._loads: dict[int, agent.Agent] = {}
        self._loads_begun = 0
        self._ranges = Ranges()
        self._owned: dict[int, tuple[int, ...]] = {}  # pid -> the upper byte of its tokens

    @property
    def dns(self) -> agent.Agent:
        """The DNS server; started when it is first wanted."""
        if self._dns is None:
            self._dns = self._start("dns", serve_dns)
        return self._dns

    def tell_dns(self, reply: agent.Reply, method: str, *arguments: Any) -> None:
        """Ask the DNS server and do not wait; `wait_for_dns` does."""
        self.dns.sock.settimeout(DEADLINES_S["dns"])
        self.dns.request(reply, method, *arguments)

    def wait_for_dns(self) -> None:
        """Until the DNS server has answered all that it was asked. A dead or stuck one the loop replaces next."""
        while self.dns.busy:
            self.dns.on_readable()

    def pids(self) -> dict[str, int]:
        """Name -> pid (in the lab's pid namespace) of every agent that runs."""
        names = {"dns": self._dns.pid} if self._dns is not None else {}
        workers = {f"worker-{number}": worker.pid for number, worker in enumerate(self._workers)}
        keeper = {"keeper": self._keeper.pid} if self._keeper is not None else {}
        loads = {f"load-{number}": one.pid for number, one in self._loads.items()}
        return {"loader": self.loader.pid, "responder": self.responder.pid, **names, **keeper, **workers, **loads}

    def keep(self, reply: agent.Reply, method: str, *arguments: Any) -> None:
        """Let the keeper do it: a connection lives in one process."""
        if self._keeper is None:
            self._keeper = self._start_probing("keeper", serve_keeper)
        self._keeper.request(reply, method, *arguments)

    def begin_load(self, reply: agent.Reply, request: LoadRequest) -> int:
        """Start a generator of its own for this load; `reply` when it sends. Its number."""
        self._loads_begun += 1
        generator = self._loads[self._loads_begun] = self._start("load", serve_load)
        generator.request(reply, "start", request)
        return self._loads_begun

    def end_load(self, reply: agent.Reply, number: int, stop: bool) -> None:
        """`reply` gets the record when the load is over; with `stop` it is over now. The generator then ends."""
        generator = self._loads.get(number)
        if generator is None:
            reply(False, agent.AgentGone(f"load {number} is not under way: it was ended, or its process died"))
            return

        def ended(ok: bool, answer: Any) -> None:
            if self._loads.pop(number, None) is not None and ok:
                self._loop.forget(generator.sock)
                self._loop.after(0.0, generator.sock.close)
            reply(ok, answer)

        generator.request(ended, "finish", stop)

    def errand(self, reply: agent.Reply, name: str, do: Callable[[Sequence[int]], Any], probers: int) -> None:
        """Let a process do it that is forked now: it knows all that this one knows, and ends with its answer.

        `do` gets the upper bytes of the tokens of up to so many probers, at least one. Raises NetlabError where all are in use.
        """
        own = self._ranges.take(probers, leave=RESERVED - len(self._owned))
        if not own:
            raise NetlabError(f"too much is probed at the same time for another {name}: try again when something has ended")
        started = self._start(name, lambda sock: agent.serve_forever(sock, {"do": lambda: do(own)}))

        def ended(ok: bool, answer: Any) -> None:
            self._ranges.give_back(own)
            self._loop.forget(started.sock)
            self._loop.after(0.0, started.sock.close)
            reply(ok, answer)

        started.request(ended, "do")

    def work(self, reply: agent.Reply, method: str, *arguments: Any) -> None:
        """Let an idle worker do it, or a new one, or the first that has time; `reply` gets (ok, answer) later."""
        worker = next((worker for worker in self._workers if not worker.busy), None)
        if worker is None:
            if len(self._workers) >= MAXIMUM_WORKERS:
                self._queue.append((reply, method, arguments))
                return
            worker = self._start_probing("worker", serve_worker)
            self._workers.append(worker)
        worker.request(reply, method, *arguments)

    def call(self, name: Literal["loader", "responder", "dns"], method: str, *arguments: Any) -> Any:
        """Ask one of the three and wait. One that is dead, or does not answer in time, is replaced and asked again."""
        for _ in range(TRIES):
            which: agent.Agent = getattr(self, name)
            try:
                return which.call(method, *arguments, deadline_s=DEADLINES_S[name])
            except agent.AgentGone as error:
                gone = error
                self._replace(which)
        raise gone

    def _start(self, name: str, serve: Callable[[socket.socket], None]) -> agent.Agent:
        started = agent.spawn(name, serve)
        self._loop.watch(started.sock, lambda: self._readable(started))
        return started

    def _start_probing(self, name: str, serve: Callable[[socket.socket, int], None]) -> agent.Agent:
        """One that sends probes, under tokens that nobody else has. There are always enough: see RESERVED."""
        (own,) = taken = self._ranges.take(1)
        started = self._start(name, lambda sock: serve(sock, own))
        self._owned[started.pid] = taken
        return started

    def _readable(self, which: agent.Agent) -> None:
        if not which.on_readable():
            self._replace(which)
        elif self._queue and which in self._workers and not which.busy:
            reply, method, arguments = self._queue.popleft()
            which.request(reply, method, *arguments)
        else:
            self._retire(which)

    def _replace(self, which: agent.Agent) -> None:
        """Start another in the place of one that has gone; the holder then gives it what the dead one held."""
        self._loop.forget(which.sock)
        which.sock.close()
        self._ranges.give_back(self._owned.pop(which.pid, ()))
        if which in self._workers:
            self._workers.remove(which)
            if self._queue:
                reply, method, arguments = self._queue.popleft()
                self.work(reply, method, *arguments)
        elif which is self._keeper:
            self._keeper = None
        elif which in self._loads.values():
            self._loads = {number: one for number, one in self._loads.items() if one is not which}
        elif which is self.loader:
            self.loader = self._start("loader", serve_loader)
        elif which is self.responder:
            which.wait_for_end()
            self.responder = self._start("responder", serve_responder)
        elif which is self._dns:
            which.wait_for_end()
            self._dns = self._start("dns", serve_dns)
        self._on_restart(which.name)

    def _retire(self, which: agent.Agent) -> None:
        """Let go of idle workers beyond two, so that a burst does not keep memory for ever."""
        idle = [worker for worker in self._workers if not worker.busy]
        if which in idle and len(idle) > 2:
            self._workers.remove(which)
            self._loop.forget(which.sock)
            which.sock.close()
            self._ranges.give_back(self._owned.pop(which.pid, ()))


def serve_loader(sock: socket.socket) -> None:
    from netlab.kernel import rules, virtual_servers

    servers = virtual_servers.VirtualServers()

    def stale_udp(paths: Sequence[str], serving: Serving) -> int:
        return sum(rules.stale_udp(path, serving) for path in paths)

    agent.serve_forever(
        sock,
        {"run": rules.Loader().run, "stale_udp": stale_udp, "virtual_servers": servers.load, "sweep": servers.sweep},
    )


def serve_responder(sock: socket.socket) -> None:
    from netlab.agents import responder

    responder.serve(sock)


def serve_dns(sock: socket.socket) -> None:
    from netlab.agents import dns

    dns.serve(sock)


def serve_keeper(sock: socket.socket, own: int) -> None:
    from netlab.lab import holding

    holding.serve(sock, own)


def serve_load(sock: socket.socket) -> None:
    from netlab.agents import load

    load.serve(sock)


def serve_worker(sock: socket.socket, own: int) -> None:
    from netlab.agents import worker

    worker.serve(sock, own)
