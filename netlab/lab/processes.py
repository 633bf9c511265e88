"""Containers with a command of their own: real programs of this machine in the pod's namespaces.

They are children of the holder, which is init of their pid namespace: none outlives the lab. Each is the first process of a pid
namespace of its own (or one of the pod's, with shareProcessNamespace), so that ending it ends all that it started. What it prints
goes to a file of the lab's tmpfs, `logs/POD/CONTAINER`; what the run before it printed is kept beside it.
Refuses to know whether a program is started again: it reports the end, and a new op asks for the next run.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from netlab.kernel import agent, context
from netlab.kernel import namespaces as ns
from netlab.lab.loop import Loop
from netlab.model import Ref
from netlab.ops import Identity, Process

MAXIMUM_LOG_BYTES = 10 << 20
PREVIOUS = ".previous"
OnEnd = Callable[[Process, int], None]
"""(op, exit code: 128 + N when signal N ended it)"""


@dataclass(slots=True)
class _Running:
    op: Process
    pid: int
    stopped: bool = False
    terminated: bool = False


class Processes:
    """Every container command of one lab."""

    def __init__(self, loop: Loop, files: Path, on_end: OnEnd) -> None:
        self._loop, self._files, self._on_end = loop, files, on_end
        self._running: dict[Identity, _Running] = {}

    def pids(self) -> dict[str, int]:
        """`pod/NS/NAME/CONTAINER` -> pid of every command that runs."""
        return {f"{run.op.pod}/{run.op.container}": run.pid for run in self._running.values() if run.pid}

    def pid(self, pod: Ref, container: str) -> int:
        """The pid of the container's program; 0 when it does not run."""
        run = self._running.get(("process", str(pod), container))
        return run.pid if run is not None else 0

    def log_path(self, pod: Ref, container: str, previous: bool = False) -> Path:
        """Where a container's output is kept; it stays when the program has ended."""
        return self._files / "logs" / str(pod) / (container + (PREVIOUS if previous else ""))

    def ensure(self, op: Process, place: context.Place) -> None:
        """Have this run of the container: start it, or tell the one that runs to end."""
        run = self._running.get(op.identity)
        if run is None or (run.op.uid, run.op.run) != (op.uid, op.run):
            self.stop(op)
            self._spawn(op, place)
            return
        if op.ending and not run.op.ending:
            run.terminated = _terminate(run.pid)
        run.op = op

    def stop(self, op: Process) -> None:
        """End the program at once: its container is gone."""
        run = self._running.pop(op.identity, None)
        if run is not None:
            run.stopped = True
            _signal(run.pid, signal.SIGKILL)

    def _spawn(self, op: Process, place: context.Place) -> None:
        log = self._log(op)

        def main() -> None:
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            context.run(place, op.command, {"PATH": os.environ.get("PATH", ""), **dict(op.env)})

        with ns.children_in(place.pids):
            pid = agent.fork(main, log)
        os.close(log)
        run = self._running[op.identity] = _Running(op, pid)
        self._loop.on_exit(pid, lambda status: self._ended(run, os.waitstatus_to_exitcode(status)))

    def _log(self, op: Process) -> int:
        path = self.log_path(op.pod, op.container)
        path.parent.mkdir(parents=True, exist_ok=True)
        previous = self.log_path(op.pod, op.container, previous=True)
        if op.run and path.exists():
            path.replace(previous)
        else:
            previous.unlink(missing_ok=True)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def _ended(self, run: _Running, status: int) -> None:
        run.pid = 0
        if not run.stopped:
            code = 128 - status if status < 0 else status
            self._on_end(run.op, 128 + signal.SIGTERM if run.terminated else code)


def _signal(pid: int, number: signal.Signals) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _terminate(pid: int) -> bool:
    """SIGTERM; SIGKILL for a program that has left SIGTERM at its default, and then True.

    As the first process of its pid namespace it would not even notice (pid_namespaces(7)), and in a cluster everybody waits for
    the whole grace period then. Here it ends as it would anywhere else.
    """
    _signal(pid, signal.SIGTERM)
    if not pid or _has_disposition(pid, signal.SIGTERM):
        return False
    _signal(pid, signal.SIGKILL)
    return True


def _has_disposition(pid: int, number: signal.Signals) -> bool:
    """Whether the program catches or ignores the signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return True
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigCgt:", "SigIgn:"))]
    return any(mask >> (number - 1) & 1 for mask in masks)
