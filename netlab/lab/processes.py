"""Containers with a command of their own: real programs of this machine in the pod's namespaces, kept running by their policy.

They are children of the holder, which is init of their pid namespace: none outlives the lab. What they print goes to a file
of the lab's tmpfs, `logs/POD/CONTAINER`, of which `logs` shows the end. Restarts back off as the kubelet's do: 10 s, doubled
up to 300 s - but the first restart is immediate, because here no image has to be pulled.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from netlab.kernel import agent, context
from netlab.lab.loop import Loop
from netlab.model import Ref
from netlab.ops import Identity, Process

MAXIMUM_LOG_BYTES = 10 << 20
STEADY_S = 0.2
OnEnd = Callable[[Process, int, bool], None]
"""(op, exit status, whether it stays down)"""


@dataclass(slots=True)
class _Running:
    op: Process
    place: context.Place
    pid: int
    group: int = 0
    restarts: int = 0
    stopped: bool = False


class Processes:
    """Every container command of one lab."""

    def __init__(self, loop: Loop, files: Path, on_end: OnEnd, on_restart: Callable[[Process], None]) -> None:
        self._loop, self._files, self._on_end, self._on_restart = loop, files, on_end, on_restart
        self._running: dict[Identity, _Running] = {}

    def pids(self) -> dict[str, int]:
        """`pod/NS/NAME/CONTAINER` -> pid of every command that runs."""
        return {f"{run.op.pod}/{run.op.container}": run.pid for run in self._running.values() if run.pid}

    def restarts(self, op: Process) -> int:
        run = self._running.get(op.identity)
        return run.restarts if run else 0

    def log_path(self, pod: Ref, container: str) -> Path:
        """Where a container's output is kept; it stays when the program has ended."""
        return self._files / "logs" / str(pod) / container

    def start(self, op: Process, place: context.Place) -> None:
        run = _Running(op, place, 0)
        self._running[op.identity] = run
        self._spawn(run)

    def stop(self, op: Process) -> None:
        """End the program: its pod is gone."""
        run = self._running.pop(op.identity, None)
        if run is None:
            return
        run.stopped = True
        if run.group:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.group, signal.SIGTERM)
            self._loop.after(2.0, lambda: self._kill(run))

    def _kill(self, run: _Running) -> None:
        """End what is left of the container: its program may have children that outlive it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(run.group, signal.SIGKILL)

    def _spawn(self, run: _Running) -> None:
        if run.stopped:
            return
        path = self.log_path(run.op.pod, run.op.container)
        path.parent.mkdir(parents=True, exist_ok=True)
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if os.fstat(log).st_size > MAXIMUM_LOG_BYTES:
            os.ftruncate(log, 0)

        def main() -> None:
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            context.run(run.place, run.op.command, {"PATH": os.environ.get("PATH", ""), **dict(run.op.env)})

        run.pid = run.group = agent.fork(main, log)
        os.close(log)
        self._loop.on_exit(run.pid, lambda status: self._ended(run, os.waitstatus_to_exitcode(status)))

    def _ended(self, run: _Running, status: int) -> None:
        run.pid = 0
        if run.stopped:
            return
        again = run.op.restart == "Always" or (run.op.restart == "OnFailure" and status != 0)
        if again:
            delay_s = 0.0 if run.restarts == 0 else min(10.0 * 2 ** (run.restarts - 1), 300.0)
            run.restarts += 1
            self._loop.after(delay_s, lambda: self._restart(run))
        self._on_end(run.op, status, not again)

    def _restart(self, run: _Running) -> None:
        self._spawn(run)
        # Its pod is ready again only if the program stays: one that crashes at once must not flap.
        self._loop.after(STEADY_S, lambda: self._steady(run, run.restarts))

    def _steady(self, run: _Running, restarts: int) -> None:
        if run.pid and not run.stopped and run.restarts == restarts:
            self._on_restart(run.op)
