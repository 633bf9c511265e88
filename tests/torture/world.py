"""One piece of the world that a torture may touch: a runtime directory of its own, marked processes, and what must be as before.

A torture is done to labs of this world only. What is compared afterwards: the caller's namespace byte for byte
(tests/live/caller.py), processes that carry the mark, files in the runtime directory, and a witness: a lab that was up all the
time, which must still work.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.live import caller

ROOT = Path(__file__).parents[2]
KUBIA = str(ROOT / "manifests/kubia.yaml")
MARK = "NETLAB_TORTURE_MARK"
LISTENING = ("env", "--default-signal=INT,QUIT")
"""What a shell starts in the background ignores Ctrl-C, and so would all that is started here."""


class NotPlayed(Exception):
    """This machine cannot play it, and why."""


@dataclass(slots=True)
class World:
    """`mark` is in the environment of all that is started here."""

    runtime: Path
    mark: str
    environment: dict[str, str]
    before: dict[str, str] = field(default_factory=dict)

    def command(self, *arguments: str) -> list[str]:
        return [*LISTENING, sys.executable, "-m", "netlab", *arguments]

    def start(self, *arguments: str, **changes: str) -> "subprocess.Popen[str]":
        """A netlab command that runs on."""
        environment = {**self.environment, **changes}
        return subprocess.Popen(
            self.command(*arguments),
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, timeout_s: float = 120.0, **changes: str) -> "subprocess.CompletedProcess[str]":
        """A netlab command to its end, which may not be a traceback."""
        with self.start(*arguments, **changes) as process:
            try:
                output, errors = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        assert not has_traceback(errors), errors
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    def shell(self, script: str, timeout_s: float = 120.0) -> "subprocess.CompletedProcess[str]":
        """A shell in a mount and network namespace of its own (and a user namespace for ordinary users): the strange host."""
        unshare = ["unshare", "-m", "-n"] if os.geteuid() == 0 else ["unshare", "-Urmn"]
        python = f"N='{sys.executable} -m netlab'\n"
        done = subprocess.run(
            [*unshare, "sh", "-c", python + script],
            env=self.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def holders(self) -> list[int]:
        """The marked processes that are init of a pid namespace: the labs' own."""
        found = []
        for pid in caller.marked_processes(self.mark):
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{pid}/status").read_text()
                numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
                if len(numbers) > 1 and numbers[-1] == "1" and Path(f"/proc/{pid}/ns/pid").exists() and _is_holder(pid):
                    found.append(pid)
        return found

    def works(self, name: str = "next") -> None:
        """A lab can be built, used and taken down."""
        up = self.run("up", "-f", KUBIA, "--name", name)
        assert up.returncode == 0, up.stderr
        seen = self.run("probe", "--lab", name, "pod/client", "svc/kubia", "--count", "20")
        assert seen.returncode == 0, seen.stdout + seen.stderr
        down = self.run("down", name)
        assert down.returncode == 0, down.stderr

    def left(self, allowed: Sequence[str] = ()) -> list[str]:
        """Sentences about what is left, after a deadline for the kernel to free it; labs named in `allowed` may live."""
        self.run("ls")  # the next command sweeps the directories of the dead
        deadline = time.monotonic() + 20
        while (found := self._left(allowed)) and time.monotonic() < deadline:
            time.sleep(0.05)  # there is no event for "all of this has gone"
        return found

    def _left(self, allowed: Sequence[str]) -> list[str]:
        found = []
        known = self._family(allowed)
        found += [f"process {pid}" for pid in caller.marked_processes(self.mark) if pid not in known]
        base = self.runtime / "netlab"
        if base.exists():
            found += [f"file {path.name}" for path in base.iterdir() if path.name != ".lock" and path.name not in allowed]
        return found + [f"the caller's {line[:200]}" for line in caller.changed(self.before, caller.state())]

    def _family(self, allowed: Sequence[str]) -> set[int]:
        """The processes of labs that may live: their holders and all below."""
        import json

        roots = []
        for name in allowed:
            with contextlib.suppress(OSError, ValueError):
                roots.append(int(json.loads((self.runtime / "netlab" / name / "info").read_text())["pid"]))
        family: set[int] = set()
        while roots:
            pid = roots.pop()
            family.add(pid)
            with contextlib.suppress(OSError):
                roots += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return family


def has_traceback(errors: str) -> bool:
    """Through a line of netlab that could have caught it. Ctrl-C may meet the interpreter before, or while it reads what the
    first two files begin with; it then tells so in its own way.
    """
    frames = re.findall(rf'File "{re.escape(str(ROOT / "netlab"))}/([^"]+)", line \d+, in (\S+)', errors)
    beginning = {("__init__.py", "<module>"), ("__main__.py", "<module>")} if "KeyboardInterrupt" in errors else set()
    return "Traceback" in errors and not beginning.issuperset(frames)


def _is_holder(pid: int) -> bool:
    """Not a pod's first process, which is init of a pid namespace, too, but one further in."""
    status = Path(f"/proc/{pid}/status").read_text()
    return len(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]) == 2


@contextlib.contextmanager
def world(environment: Mapping[str, str] | None = None) -> Iterator[World]:
    """A new world. Whatever still lives in it at the end is killed, by its mark, after it was reported."""
    runtime = Path(tempfile.mkdtemp(prefix="netlab-torture-"))
    mark = f"torture-{os.getpid()}-{time.monotonic_ns()}"
    made = World(runtime, mark, {**(environment or os.environ), MARK: mark, "XDG_RUNTIME_DIR": str(runtime)})
    made.before = caller.state()
    try:
        yield made
    finally:
        for pid in caller.marked_processes(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(runtime, ignore_errors=True)
