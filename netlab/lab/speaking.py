"""The speaker process: started when the plan first has an announcement, started again when it dies, and then told all of them."""

import contextlib
import socket
from collections.abc import Callable, Sequence

from netlab.kernel import agent
from netlab.lab.loop import Loop
from netlab.ops import Announcement, Identity

DEADLINE_S = 10.0


class Speaking:
    """Every announcement of one lab."""

    def __init__(self, loop: Loop, path_of: Callable[[str], str], log: Callable[[str], None]) -> None:
        self._loop, self._path_of, self._log = loop, path_of, log
        self._agent: agent.Agent | None = None
        self._ops: dict[Identity, Announcement] = {}

    def pids(self) -> dict[str, int]:
        return {"speaker": self._agent.pid} if self._agent is not None else {}

    def announce(self, wanted: Sequence[Announcement]) -> None:
        """Answer for these addresses from now on."""
        if wanted:
            self._ops.update((op.identity, op) for op in wanted)
            self._tell("announce", [(self._path_of(op.netns), op) for op in wanted])

    def withdraw(self, gone: Sequence[Announcement]) -> None:
        """Answer for them no more."""
        if gone:
            for op in gone:
                self._ops.pop(op.identity, None)
            self._tell("withdraw", [op.identity for op in gone])

    def drift(self) -> list[tuple[str, Identity | None]]:
        """What is not answered for, and the identity of the op that mends it."""
        if not self._ops or self._agent is None:
            return []
        there: set[Identity] = set()
        with contextlib.suppress(agent.AgentGone):
            there = set(self._agent.call("announcing", deadline_s=DEADLINE_S))
        return [
            (f"{op.netns}: nobody answers for {op.address}", op.identity) for op in self._ops.values() if op.identity not in there
        ]

    def _tell(self, method: str, argument: object) -> None:
        if self._agent is None:
            self._start()
        assert self._agent is not None
        try:
            self._agent.call(method, argument, deadline_s=DEADLINE_S)
        except agent.AgentGone:
            self._restart()

    def _start(self) -> None:
        self._agent = started = agent.spawn("speaker", _serve)
        self._loop.watch(started.sock, lambda: self._readable(started))

    def _readable(self, which: agent.Agent) -> None:
        if not which.on_readable() and self._agent is which:
            self._restart()

    def _restart(self) -> None:
        assert self._agent is not None
        self._loop.forget(self._agent.sock)
        self._agent.sock.close()
        self._log("the speaker process died and was started again")
        self._start()
        with contextlib.suppress(agent.AgentGone):  # the loop sees its socket closed, and starts it again
            self._agent.call("announce", [(self._path_of(op.netns), op) for op in self._ops.values()], deadline_s=DEADLINE_S)


def _serve(sock: socket.socket) -> None:
    from netlab.agents import speaker

    speaker.serve(sock)
