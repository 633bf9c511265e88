"""Memory that runs out: cgroups of the suite's own with so much of it, of version 1 or 2, where this machine lets root make one.

A group is made below the suite's own (version 2: below the next one up that may hand on its memory controller) and removed again.
No limit of a group that was there before is touched.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.torture.world import KUBIA, ROOT, NotPlayed, World, has_traceback

KILLED = (137, -9)
"""What a command returns that the kernel has killed. Whoever is killed says nothing."""
PATIENCE_S = 60.0
MIB = 1 << 20
MANY = 4096 * MIB


@dataclass(frozen=True, slots=True)
class Group:
    """A cgroup of our own; `version` is 1 or 2."""

    path: Path
    version: int

    def limit(self, size: int) -> None:
        """Bytes, swap included. Version 1 refuses less than is used (EBUSY); version 2 kills until it is enough."""
        if self.version == 2:
            with contextlib.suppress(FileNotFoundError):  # a kernel without swap
                (self.path / "memory.swap.max").write_text("0")
            (self.path / "memory.max").write_text(str(size))
        else:
            (self.path / "memory.swappiness").write_text("0")
            (self.path / "memory.limit_in_bytes").write_text(str(size))

    def used(self) -> int:
        return int((self.path / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")).read_text())

    def pids(self) -> list[int]:
        return list(map(int, (self.path / "cgroup.procs").read_text().split()))

    def kills(self) -> int:
        """How many of its processes the kernel has killed."""
        text = (self.path / ("memory.events" if self.version == 2 else "memory.oom_control")).read_text()
        return int(next(line.split()[1] for line in text.splitlines() if line.startswith("oom_kill ")))

    def tighten(self) -> None:
        """Leave as little as the kernel lets us, which is what is used when nothing more can be taken back."""
        for spare in range(64):
            with contextlib.suppress(OSError):  # EBUSY: that much cannot be taken back
                self.limit(self.used() * 3 // 4 + spare * MIB)
                return
        raise AssertionError("the kernel refuses every limit")

    def run(self, world: World, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """A netlab command in the group, to its end or until it is killed."""
        done = subprocess.run(
            ["sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "-", *world.command(*arguments)],
            env=world.environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert not has_traceback(done.stderr), done.stderr
        return done


def _mounted(kind: str, option: str = "") -> Path | None:
    """Where the cgroups of this file system are; `option`: a controller of version 1."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, system = line.partition(" - ")
        if system.split()[0] == kind and (not option or option in system.split()[2].split(",")):
            return Path(mount.split()[4])
    return None


def _parent() -> tuple[Path, int]:
    """Below which group ours can be, and of which version. Raises NotPlayed."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    own = {name: path for _, names, path in lines for name in names.split(",")}
    if (root := _mounted("cgroup2")) is not None:
        for path in (root / own.get("", "/").lstrip("/"), *(root / own.get("", "/").lstrip("/")).parents):
            subtree = path / "cgroup.subtree_control"
            if path.is_relative_to(root) and subtree.exists() and "memory" in subtree.read_text().split():
                return path, 2
    if (root := _mounted("cgroup", "memory")) is not None and "memory" in own:
        return root / own["memory"].lstrip("/"), 1
    raise NotPlayed("this machine has no memory controller of cgroups that could be handed on")


@contextlib.contextmanager
def group(size: int) -> Iterator[Group]:
    """A cgroup with so many bytes, until the end. Raises NotPlayed where none can be made."""
    parent, version = _parent()
    made = Group(parent / f"netlab-torture-{os.getpid()}", version)
    try:
        made.path.mkdir()
    except OSError as error:
        raise NotPlayed(f"no cgroup can be made here: {error}") from None
    try:
        made.limit(size)
        yield made
        _until(lambda: not made.pids(), "processes are left in the cgroup")
    finally:
        for pid in made.pids():  # it has failed, which is told: nothing may keep the group from being removed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _until(lambda: not made.pids(), "killed processes are left in the cgroup")
        made.path.rmdir()


def _until(happened: Callable[[], object], otherwise: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)  # no event tells of what the kernel kills


def no_memory(world: World, times: int) -> str:
    """`up` in a cgroup of 6 to 75 MiB: refused in words, killed by the kernel, or it works"""
    ended = {"refused": 0, "killed": 0, "enough": 0}
    for number in range(times):
        size = (6 + (69 * number // max(1, times - 1))) * MIB
        with group(size) as made:
            done = made.run(world, "up", "-f", KUBIA, "--name", "mem")
            if done.returncode == 0:
                ended["enough"] += 1
                seen = world.run("probe", "--lab", "mem", "pod/client", "svc/kubia", "--count", "20")
                assert seen.returncode == 0 or made.kills(), (size, seen)  # a probe takes some memory, too
            elif done.returncode in KILLED:
                ended["killed"] += 1
                assert made.kills(), (size, done)
            else:
                ended["refused"] += 1
                assert done.returncode == 3 and "memory" in done.stderr, (size, done)
            world.run("down", "mem")
    return "; ".join(f"{count} {word}" for word, count in ended.items())


def memory_that_runs_out(world: World, times: int) -> str:
    """a lab's memory (cgroup) is eaten by a pod's program, which is killed; then by more pods: the lab mends itself, or ends"""
    mended = 0
    for _ in range(times):
        with group(MANY) as made:
            done = made.run(world, "up", "-f", KUBIA, "--name", "full")
            assert done.returncode == 0, done
            made.limit(made.used() + 64 * MIB)
            greedy = made.run(world, "exec", "--lab", "full", "pod/client", "--", sys.executable, "-c", "b'x' * (1 << 30)")
            assert greedy.returncode in KILLED and made.kills() == 1, greedy
            seen = world.run("probe", "--lab", "full", "pod/client", "svc/kubia", "--count", "50")
            assert seen.returncode == 0, seen
            made.tighten()
            scaled = world.run("scale", "rc/kubia", "--replicas", "200", "--lab", "full")
            assert scaled.returncode in (0, 1, 2, 3), scaled
            _until(lambda: made.kills() > 1, "200 pods had room")
            made.limit(MANY)
            if "full" in world.run("ls").stdout:
                mended += 1
                _until(
                    lambda: (
                        world.run("scale", "rc/kubia", "--replicas", "5", "--lab", "full").returncode == 0
                        and world.run("verify", "--lab", "full").returncode == 0
                    ),
                    "the lab does not mend itself",
                )
                seen = world.run("probe", "--lab", "full", "pod/client", "svc/kubia", "--count", "50")
                assert seen.returncode == 0, seen
            world.run("down", "full")
    return f"{mended} of {times} labs went on"
