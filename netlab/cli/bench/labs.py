"""Labs started and ended for a benchmark, as a shell does it (`up_and_down`) or from Python (`standing`)."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from netlab.cli.bench import sizes, spent
from netlab.cli.bench.rows import timed
from netlab.errors import KernelError

if TYPE_CHECKING:
    from netlab.client import Lab


@dataclass(frozen=True, slots=True)
class UpAndDown:
    """Wall seconds of both commands, as a shell sees them; `cpu`: what all processes had spent when the lab was up."""

    up: tuple[float, ...]
    down: tuple[float, ...]
    cpu: tuple[float, ...]


def up_and_down(pods: int, fabric: str, runs: int) -> UpAndDown:
    from netlab.client import Lab

    up, down, cpu = [], [], []
    with sizes.written(pods, fabric) as files:
        for run in range(runs):
            name = f"bench-{os.getpid()}-{run}"
            before = spent.children()
            up.append(timed(lambda name=name: command("up", str(files.topology), "-f", str(files.manifest), "--name", name)))  # type: ignore[misc]  # called at once
            cpu.append(spent.children() - before + spent.of_lab(Lab.attach(name).pid))
            down.append(timed(lambda name=name: command("down", name)))  # type: ignore[misc]  # the same
    return UpAndDown(tuple(up), tuple(down), tuple(cpu))


def command(*arguments: str) -> None:
    """Run netlab as a shell does. Raises: KernelError with what it said."""
    done = subprocess.run([sys.executable, "-m", "netlab", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise KernelError(f"netlab {arguments[0]} failed in the benchmark: {done.stderr.strip()}")


@contextmanager
def standing(pods: int, fabric: str = "routed", mode: str = "nftables") -> "Iterator[Lab]":
    """A lab of so many pods, for as long as the `with` lasts."""
    import netlab

    with sizes.written(pods, fabric, mode) as files:
        name = f"bench-{os.getpid()}-{pods}-{fabric}-{mode}"
        with netlab.up(files.topology, [files.manifest], name=name) as lab:
            yield lab


def pod_names(lab: "Lab") -> list[str]:
    """`pod/NAME` of every pod of the namespace default, by name."""
    return sorted(f"pod/{pod['metadata']['name']}" for pod in lab.get("pods", namespace="default"))
