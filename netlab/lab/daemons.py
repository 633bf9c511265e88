"""Daemons: programs that machines of the lab run besides pods (a routing daemon, a proxy), kept running while the plan has them.

Each runs in its machine's namespace, in a directory of its own on the lab's tmpfs that holds its files; what it prints goes to a
log there. One that ends is started again (kernel/keeping.py says when).
They are children of the holder, which is init of their pid namespace: none outlives the lab.
"""

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from netlab.kernel import agent, context, tools
from netlab.kernel.keeping import Keeping
from netlab.lab.loop import Loop
from netlab.ops import Daemon, Identity

MAXIMUM_LOG_BYTES = 10 << 20


@dataclass(slots=True)
class _Running:
    op: Daemon
    keeping: Keeping = field(default_factory=Keeping)
    pid: int = 0
    stopped: bool = False


class Daemons:
    """Every daemon of one lab."""

    def __init__(self, loop: Loop, files: Path, path_of: Callable[[str], str], log: Callable[[str], None]) -> None:
        self._loop, self._files, self._path_of, self._log = loop, files, path_of, log
        self._running: dict[Identity, _Running] = {}

    def pids(self) -> dict[str, int]:
        """`NAME-MACHINE` -> pid of those that run now."""
        return {f"{run.op.name}-{run.op.netns.partition('/')[2]}": run.pid for run in self._running.values() if run.pid}

    def rows(self) -> list[dict[str, str | int]]:
        """What `get daemons` shows of each, in the order in which they were first started."""
        return [
            {
                "target": run.op.netns,
                "name": run.op.name,
                "command": " ".join(run.op.command),
                "pid": run.pid,
                "restarts": run.keeping.restarts,
            }
            for run in self._running.values()
        ]

    def names(self, netns: str) -> tuple[str, ...]:
        """The daemons of one machine."""
        return tuple(run.op.name for run in self._running.values() if run.op.netns == netns)

    def directory(self, netns: str, name: str) -> Path:
        return self._files / "daemons" / netns / name

    def log_path(self, netns: str, name: str) -> Path:
        return self.directory(netns, name) / "log"

    def run(self, op: Daemon) -> None:
        """Start it, or tell the one that runs what has changed."""
        run = self._running.get(op.identity)
        self._write(op)
        if run is not None and run.pid and op.reload == "SIGHUP" and op.command == run.op.command:
            run.op = op
            os.kill(run.pid, signal.SIGHUP)
            return
        if run is not None:
            self.stop(run.op)
        self._running[op.identity] = run = _Running(op)
        self._spawn(run)

    def stop(self, op: Daemon) -> None:
        """End it: what it put into the kernel it takes back first."""
        run = self._running.pop(op.identity, None)
        if run is not None:
            run.stopped = True
            if run.pid:
                os.kill(run.pid, signal.SIGTERM)
                self._loop.after(2.0, lambda: self._kill(run))

    def _kill(self, run: _Running) -> None:
        if run.pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(run.pid, signal.SIGKILL)

    def _write(self, op: Daemon) -> None:
        directory = self.directory(op.netns, op.name)
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in op.files:
            (directory / name).write_text(text)

    def _spawn(self, run: _Running) -> None:
        if run.stopped:
            return
        op, directory = run.op, self.directory(run.op.netns, run.op.name)
        if op.ready:  # one that was killed leaves its socket behind
            (directory / op.ready).unlink(missing_ok=True)
        log = os.open(self.log_path(op.netns, op.name), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        if os.fstat(log).st_size > MAXIMUM_LOG_BYTES:
            os.ftruncate(log, 0)
        place = context.Place(self._path_of(op.netns), "", op.netns.partition("/")[2])
        search = os.environ.get("PATH", "")

        def main() -> None:
            os.setsid()
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.chdir(directory)
            context.run(place, op.command, {"PATH": search})

        run.pid = agent.fork(main, log)
        run.keeping.started()
        os.close(log)
        self._loop.on_exit(run.pid, lambda status: self._ended(run, os.waitstatus_to_exitcode(status)))

    def _ended(self, run: _Running, status: int) -> None:
        run.pid = 0
        if run.stopped:
            return
        self._log(f"{run.op.name} of {run.op.netns} ended with {status}; it is started again")
        self._loop.after(run.keeping.ended(), lambda: self._spawn(run))


def check(op: Daemon) -> None:
    """Raises MissingTool, which names the package, when this machine lacks the program."""
    tools.find(op.command[0])
