"""Row group `capture`: what recording every pod and node costs the traffic, beside tcpdump in two pods, and nothing."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from netlab.cli.bench import peers
from netlab.cli.bench.labs import pod_names, standing
from netlab.cli.bench.rows import Row, timed
from netlab.errors import KernelError

if TYPE_CHECKING:
    from netlab.client import Lab

PODS = (10, 100)
FLOWS = 1_000
READY_S = 10.0


def rows(runs: int, counts: Sequence[int] = PODS) -> Sequence[Row]:
    found: list[Row] = []
    for pods in counts:
        with standing(pods) as lab, tempfile.TemporaryDirectory(prefix="netlab-bench-") as directory:
            found += _in(lab, pods, runs, Path(directory))
    return found


def _in(lab: "Lab", pods: int, runs: int, directory: Path) -> list[Row]:
    one, other = pod_names(lab)[0], pod_names(lab)[-1]

    def send() -> None:
        lab.probe(one, other, count=FLOWS)

    send()
    without, name = (f"{FLOWS} flows, {pods} pods, {how}" for how in ("not recorded", "all recorded"))
    plain = Row(without, tuple(timed(send) for _ in range(runs)), series="not recorded", size=pods)
    seconds, notes = [], [""]
    for run in range(runs):
        with recorded(lab, directory / f"{run}.pcapng") as ended:
            seconds.append(timed(send))
        notes += ended
    every = Row(name, tuple(seconds), notes[-1], (without,), series="all recorded", size=pods)
    return [plain, every, _tcpdump(lab, one, other, pods, runs, without)]


@contextmanager
def recorded(lab: "Lab", file: Path) -> Iterator[list[str]]:
    """`netlab capture -w FILE` runs inside; afterwards the list has its last line."""
    command = [sys.executable, "-m", "netlab", "capture", "--lab", lab.name, "-w", str(file)]
    said: list[str] = []
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        _wait_for(file, process)
        yield said
        process.terminate()  # not an interrupt: a shell lets its background jobs ignore that
        said += process.communicate()[1].splitlines()[-1:]


def _wait_for(file: Path, process: "subprocess.Popen[str]") -> None:
    """Until the file has its header: sockets are open then."""
    deadline = time.monotonic() + READY_S
    while not (file.exists() and file.stat().st_size):
        if process.poll() is not None or time.monotonic() > deadline:
            raise KernelError(f"{' '.join(map(str, process.args))} does not begin to record")  # type: ignore[arg-type]  # a list
        time.sleep(0.01)


def _tcpdump(lab: "Lab", one: str, other: str, pods: int, runs: int, without: str) -> Row:
    name = f"{FLOWS} flows, {pods} pods, tcpdump in both pods"
    if (missing := peers.missing("tcpdump", "tcpdump")) is not None:
        return Row(name, note=missing.note)
    with ExitStack() as stack:
        if not all(stack.enter_context(_tcpdump_in(lab, pod)) for pod in (one, other)):
            return Row(name, note="tcpdump does not run here")
        seconds = tuple(timed(lambda: lab.probe(one, other, count=FLOWS)) for _ in range(runs))
    return Row(name, seconds, "", (without,), series="tcpdump in both pods", size=pods)


@contextmanager
def _tcpdump_in(lab: "Lab", pod: str) -> Iterator[bool]:
    """tcpdump runs in the pod; False when it refused to."""
    tcpdump = ["tcpdump", "-Z", "root", "-n", "-i", "any", "-w", "/dev/null"]
    command = [sys.executable, "-m", "netlab", "exec", "--lab", lab.name, pod, "--", *tcpdump]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield any("listening on" in line for line in process.stderr)
        finally:
            process.terminate()
