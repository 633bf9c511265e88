"""The Ingress controllers' proxies: an agent a controller pod, started when the plan first has it, again when it dies.

Decides when a proxy learns of a change: when pods that are new answer and pods that go still do; all learn of it at once.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from netlab.errors import KernelError, MachineError
from netlab.ingress import haproxy, nginx, traefik
from netlab.kernel import agent
from netlab.kernel.tools import path_of
from netlab.lab.loop import Loop
from netlab.ops import Identity, IngressProxy, Op

DEADLINE_S = 15.0
_MODULES = {"haproxy": haproxy, "nginx": nginx, "traefik": traefik}


def check(ops: Iterable[Op]) -> None:
    """Raises MachineError when a proxy that is wanted is not on this machine. Asked before anything is built."""
    for proxy in dict.fromkeys(op.proxy for op in ops if isinstance(op, IngressProxy)):
        module = _MODULES[proxy]
        if path_of(module.PROGRAM) is None:
            how = f"apt install {module.PACKAGE}" if module.PACKAGE else traefik.ABSENT
            raise MachineError(f"an Ingress controller is asked for whose proxy {module.PROGRAM} is missing: {how}")


class Ingresses:
    """Every Ingress controller of one lab, by its op's identity."""

    def __init__(self, loop: Loop, files: Path, path_of: Callable[[str], str], log: Callable[[str], None]) -> None:
        self._loop, self._files, self._path_of, self._log = loop, files, path_of, log
        self._agents: dict[Identity, agent.Agent] = {}
        self._ops: dict[Identity, IngressProxy] = {}

    def pids(self) -> dict[str, int]:
        """`ingress-POD` -> pid of every controller, `haproxy-POD` -> pid of the program that it runs."""
        found: dict[str, int] = {}
        for identity, one in self._agents.items():
            op = self._ops[identity]
            name = op.pod.rpartition("/")[2]
            found |= {f"ingress-{name}": one.pid, f"{op.proxy}-{name}": _state(one)["pid"]}
        return found

    def state(self) -> dict[str, dict[str, int]]:
        """POD -> {pid, restarts, reloads} of its proxy."""
        return {self._ops[i].pod: _state(one) for i, one in self._agents.items()}

    def configure(self, wanted: Iterable[IngressProxy]) -> None:
        """Tell all of them, then wait until it is in force everywhere."""
        told: list[agent.Agent] = []
        problems: list[KernelError] = []

        def answered(ok: bool, answer: object) -> None:
            if not ok:
                assert isinstance(answer, Exception)
                problems.append(answer if isinstance(answer, KernelError) else KernelError(str(answer)))

        for op in wanted:
            old = self._ops.get(op.identity)
            if old is not None and (old.netns, old.proxy, old.ipv6) != (op.netns, op.proxy, op.ipv6):
                self.close([old])
            self._ops[op.identity] = op
            if op.identity not in self._agents:
                self._start(op)
            one = self._agents[op.identity]
            one.sock.settimeout(DEADLINE_S)
            one.request(answered, "configure", op.table)
            told.append(one)
        for one in told:
            while one.busy:
                one.on_readable()
            one.sock.settimeout(None)
        gone = [problem for problem in problems if isinstance(problem, agent.AgentGone)]
        for problem in gone:
            self._log(f"{problem}; it is started again")  # when the loop sees its socket closed
        if refused := [problem for problem in problems if problem not in gone]:
            raise refused[0]

    def close(self, gone: Iterable[IngressProxy]) -> None:
        """End them. When this returns nobody listens any more."""
        ending: list[agent.Agent] = []
        for op in gone:
            self._ops.pop(op.identity, None)
            one = self._agents.pop(op.identity, None)
            if one is not None:
                self._loop.forget(one.sock)
                one.sock.settimeout(DEADLINE_S)
                one.request(lambda ok, answer: None, "stop")
                ending.append(one)
        for one in ending:
            while one.busy:
                one.on_readable()
            one.sock.close()  # it reads the end of its orders, and ends

    def drift(self) -> list[tuple[str, Identity | None]]:
        """What the proxies do otherwise than they were told, and the identity of the op that mends it."""
        found: list[tuple[str, Identity | None]] = []
        for identity, one in self._agents.items():
            op = self._ops[identity]
            try:
                said = one.call("drift", deadline_s=DEADLINE_S)
            except agent.AgentGone:
                said = ["it does not run"]
            found += [(f"{op.netns}: {op.proxy} of {op.pod}: {text}", identity) for text in said]
        return found

    def repair(self, wanted: Iterable[IngressProxy]) -> None:
        """Give these proxies their whole configuration anew. Raises KernelError."""
        for op in wanted:
            if op.identity in self._agents:
                self._agents[op.identity].call("repair", deadline_s=DEADLINE_S)

    def _start(self, op: IngressProxy) -> None:
        from netlab.agents import ingress  # before the fork, so that it is read once for all

        netns, directory = self._path_of(op.netns), str(self._files / "ingress" / op.pod)
        executable = path_of(_MODULES[op.proxy].PROGRAM)
        assert executable is not None, "it was checked"
        started = agent.spawn(
            f"Ingress controller {op.pod}",
            lambda sock: ingress.serve(sock, netns, directory, op.proxy, executable, op.ipv6),
        )
        self._agents[op.identity] = started
        self._loop.watch(started.sock, lambda: self._readable(op.identity, started))

    def _readable(self, identity: Identity, which: agent.Agent) -> None:
        if not which.on_readable() and self._agents.get(identity) is which:
            self._loop.forget(which.sock)
            which.sock.close()
            del self._agents[identity]
            op = self._ops[identity]
            self._log(f"the Ingress controller {op.pod} died and is started again")
            self._loop.after(0.0, lambda: self._again(identity))

    def _again(self, identity: Identity) -> None:
        if identity in self._ops and identity not in self._agents:
            try:
                self.configure([self._ops[identity]])
            except KernelError as error:
                self._log(str(error))


def _state(one: agent.Agent) -> dict[str, int]:
    """What the agent says of its proxy; all zero where the agent itself has just died."""
    try:
        return dict(one.call("state", deadline_s=DEADLINE_S))
    except agent.AgentGone:
        return {"pid": 0, "restarts": 0, "reloads": 0}
