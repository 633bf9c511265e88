"""What the routing daemons are expected to have learned: when a change has settled, and what is said when it does not.

A change is settled once every learned route that the new plan expects is in the kernel, and every one that it does not expect any
more has gone. A worker waits for that. Refuses to know BGP.
"""

from collections.abc import Callable

from netlab.errors import KernelError
from netlab.lab.holder import Lab
from netlab.ops import Daemon, Identity, Learned

DEADLINE_S = 15.0
"""A dropped session is opened again within about three seconds; the rest is for a machine that has other things to do."""
_SHOWN = 6


class Learning:
    """The learned routes of one lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._unwanted: dict[Identity, Learned] = {}

    def update(self, gone: tuple[Learned, ...]) -> None:
        """Note what a change no longer expects."""
        self._unwanted.update((op.identity, op) for op in gone)

    def when_learned(self, call: Callable[[KernelError | None], None]) -> None:
        """Call once the kernel holds what the plan expects, or with what is missing after DEADLINE_S."""
        lab = self._lab
        wanted = [op for op in lab.plan.ops.values() if isinstance(op, Learned)]
        expected = {op.identity for op in wanted}
        gone = [op for identity, op in self._unwanted.items() if identity not in expected and op.netns in lab.kernel.fds]
        if not wanted and not gone:
            call(None)
            return
        paths = {op.netns: lab.netns_path(op.netns) for op in (*wanted, *gone)}
        daemons = [op for op in lab.plan.ops.values() if isinstance(op, Daemon) and op.ready]
        sockets = {op.netns: str(lab.daemons.directory(op.netns, op.name) / op.ready) for op in daemons if op.netns in paths}

        def answered(ok: bool, answer: object) -> None:
            if not ok:
                call(KernelError(str(answer)))
            elif isinstance(answer, list) and answer:
                call(_unsettled(answer))
            else:
                for op in gone:
                    self._unwanted.pop(op.identity, None)
                call(None)

        lab.agents.work(answered, "wait_learned", paths, wanted, gone, DEADLINE_S, sockets)


def _unsettled(problems: list[str]) -> KernelError:
    lines = problems[:_SHOWN] + ([f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else [])
    text = "".join(f"\n  {line}" for line in lines)
    return KernelError(
        f"the routing daemons did not settle within {DEADLINE_S:g} s (`netlab logs node/NAME bird` says more):{text}"
    )
