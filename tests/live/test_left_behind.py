"""Nothing is ever left behind, however a lab dies, and no lab disturbs another or its caller.

How many kills: NETLAB_KILLS (25 unless told; the release check runs 200).
"""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.client import labs
from tests.live import caller
from tests.torture.world import has_traceback
from tests.waiting import until_equal

KUBIA = "manifests/kubia.yaml"
KILLS = int(os.environ.get("NETLAB_KILLS", "25"))
MARK = "NETLAB_TEST_MARK"


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> str:
    """How the names of a test's labs begin: no two tests, nor two runs of one, have the same."""
    return f"left-{request.node.name.removeprefix('test_').replace('_', '-')[:12]}-{os.getpid()}"


@pytest.fixture(autouse=True)
def unchanged(monkeypatch: pytest.MonkeyPatch, prefix: str) -> Iterator[str]:
    """The caller's own namespace is byte-identical before and after; no process, no directory is left."""
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv(MARK, mark)
    before = caller.state()
    yield mark
    wait_until_gone(mark)
    assert caller.changed(before, caller.state()) == []
    assert [lab.name for lab in labs() if lab.name.startswith(prefix)] == []


def wait_until_gone(mark: str) -> None:
    """Wait, with a deadline, until no process carries the mark."""
    until_equal(lambda: caller.marked_processes(mark), [], 120)


def start(*arguments: str, **options: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "netlab", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def holders(mark: str) -> list[int]:
    """The pids of the marked processes that are init of a pid namespace of their own."""
    found = []
    for pid in caller.marked_processes(mark):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            continue
        numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
        if len(numbers) > 1 and numbers[-1] == "1":
            found.append(pid)
    return found


def test_a_holder_killed_at_random_moments(unchanged: str, prefix: str) -> None:
    chance = random.Random(20261120)
    killed = 0
    for number in range(KILLS):
        process = start("up", "-f", KUBIA, "--name", f"{prefix}-{number}")
        while number % 2 and process.poll() is None and not holders(unchanged):
            time.sleep(0.005)  # every other one is sure to be there
        time.sleep(chance.uniform(0.0, 0.7 - 0.4 * (number % 2)))  # the moment is what is random here
        for pid in holders(unchanged):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                killed += 1
        _, errors = process.communicate(timeout=300)
        assert process.returncode in (0, 1, 2, 3), errors
        assert "Traceback" not in errors, errors
        subprocess.run([sys.executable, "-m", "netlab", "down", f"{prefix}-{number}"], capture_output=True, check=False)
        wait_until_gone(unchanged)
    assert killed >= KILLS // 5  # on a busy machine many of the others are not there yet


def test_interrupted_while_starting(unchanged: str, prefix: str) -> None:
    chance = random.Random(7)
    for number in range(8):
        process = start("up", "-f", KUBIA, "--name", f"{prefix}-{number}")
        time.sleep(chance.uniform(0.1, 0.5))  # the moment is what is random here
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
        early = "KeyboardInterrupt" in errors  # it met the interpreter, before a line of netlab was read
        assert process.returncode in (0, 130, -signal.SIGINT) or early, (process.returncode, errors)
        assert not has_traceback(errors), errors
        if process.returncode == 0:
            subprocess.run([sys.executable, "-m", "netlab", "down", f"{prefix}-{number}"], capture_output=True, check=False)
        wait_until_gone(unchanged)


def test_eight_labs_at_once(prefix: str) -> None:
    started = [start("up", "-f", KUBIA, "--name", f"{prefix}-{number}", "--proxy", mode) for number, mode in enumerate(MODES)]
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    probes = [start("probe", "--lab", f"{prefix}-{number}", "pod/client", "svc/kubia", "--count", "60") for number in range(8)]
    for process in probes:
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, (output, errors)
    names = [f"{prefix}-{number}" for number in range(8)]
    assert start("down", *names).wait(timeout=300) == 0


MODES = ["iptables", "nftables"] * 4


@pytest.mark.skipif(os.geteuid() != 0, reason="the strange host is played by a mount namespace, which root makes")
def test_a_full_disk(prefix: str) -> None:
    script = (
        "mount -t tmpfs -o size=16k,mode=700 none /mnt && dd if=/dev/zero of=/mnt/full bs=1k count=64 2>/dev/null; "
        f"XDG_RUNTIME_DIR=/mnt exec {sys.executable} -m netlab up -f {KUBIA} --name {prefix}"
    )
    done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 3, done
    assert "No space left" in done.stderr, done
    assert "Traceback" not in done.stderr
