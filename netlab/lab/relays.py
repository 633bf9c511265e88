"""The proxy processes of mode userspace: one a node, started when the plan first has one, started again when it dies.

Decides when a process learns of a change: of new ports before the rules lead there, of old ones after no rule does any more.
"""

from collections.abc import Callable, Iterable

from netlab.errors import KernelError
from netlab.kernel import agent
from netlab.lab.loop import Loop
from netlab.ops import Identity, Relay

DEADLINE_S = 60.0
"""How long the holder waits for an answer; a process that is stopped or stuck is killed then."""
RETRY_S = 1.0


class Relays:
    """Every proxy process of one lab, by its node's namespace."""

    def __init__(self, loop: Loop, path_of: Callable[[str], str], log: Callable[[str], None]) -> None:
        self._loop, self._path_of, self._log = loop, path_of, log
        self._agents: dict[str, agent.Agent] = {}
        self._ops: dict[str, Relay] = {}

    def pids(self) -> dict[str, int]:
        """`proxy-NODE` -> pid of every process."""
        return {f"proxy-{netns.partition('/')[2]}": one.pid for netns, one in self._agents.items()}

    def ops(self) -> tuple[Relay, ...]:
        """What every process was told."""
        return tuple(self._ops.values())

    def open(self, wanted: Iterable[Relay]) -> None:
        """Serve what is wanted besides what was."""
        for op in wanted:
            self._ops[op.netns] = op
            self._tell(op, keep=True)

    def trim(self, wanted: Iterable[Relay]) -> None:
        """Serve no more than what is wanted."""
        for op in wanted:
            self._tell(op, keep=False)

    def close(self, gone: Iterable[Relay]) -> None:
        for op in gone:
            self._ops.pop(op.netns, None)
            one = self._agents.pop(op.netns, None)
            if one is not None:
                self._loop.forget(one.sock)
                one.sock.close()  # it reads the end of its orders, and ends

    def drift(self) -> list[tuple[str, Identity | None]]:
        """What does not serve as it should, and the identity of the op that mends it."""
        found: list[tuple[str, Identity | None]] = []
        for netns, op in self._ops.items():
            try:
                served = set(self._agents[netns].call("ports", deadline_s=DEADLINE_S))
            except agent.AgentGone:
                served = set()
            found += [
                (f"{netns}: the proxy process does not serve {port.name}", op.identity)
                for port in op.ports
                if port.key not in served
            ]
        return found

    def _tell(self, op: Relay, keep: bool) -> None:
        if op.netns not in self._agents:
            self._start(op.netns)
        try:
            self._agents[op.netns].call("configure", op, keep, deadline_s=DEADLINE_S)
        except agent.AgentGone:
            self._restart(op.netns)

    def _start(self, netns: str) -> None:
        from netlab.agents import relay  # before the fork, so that it is read once for all nodes

        path = self._path_of(netns)
        started = agent.spawn(f"proxy of {netns}", lambda sock: relay.serve(sock, path))
        self._agents[netns] = started
        self._loop.watch(started.sock, lambda: self._readable(netns, started))

    def _readable(self, netns: str, which: agent.Agent) -> None:
        if not which.on_readable() and self._agents.get(netns) is which:
            self._restart(netns)

    def _restart(self, netns: str) -> None:
        which = self._agents.pop(netns)
        self._loop.forget(which.sock)
        which.sock.close()
        which.wait_for_end()
        self._log(f"the proxy process of {netns} died and was started again")
        self._start(netns)
        self._configure(netns)

    def _configure(self, netns: str) -> None:
        """Tell it all, by itself: nobody waits for the answer. A port may be somebody else's for a while."""
        if netns not in self._agents or netns not in self._ops:
            return
        try:
            self._agents[netns].call("configure", self._ops[netns], False, deadline_s=DEADLINE_S)
        except agent.AgentGone:
            pass  # the loop sees its socket closed, and starts it again
        except KernelError as error:
            self._log(f"{netns}: {error}; trying again in {RETRY_S:g} s")
            self._loop.after(RETRY_S, lambda: self._configure(netns))
