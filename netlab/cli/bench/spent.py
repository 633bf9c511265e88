"""CPU time and memory of a lab's processes, as the kernel counts them."""

import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
KERNEL_PARTS = ("Slab", "Percpu", "KernelStack", "PageTables", "VmallocUsed")
REST_S, STILL_BYTES = 10.0, 1_000_000
"""How long the kernel's memory is waited for, and within how much of it a quarter of a second is no change."""


def children() -> float:
    """CPU seconds of this process and of all children that have ended."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, kinds))


def running_children() -> float:
    """CPU seconds of this process' children that have not ended, and of theirs, to the nanosecond where the kernel counts so."""
    return sum(_exact(one) for one in processes(os.getpid()))


def _exact(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (OSError, IndexError):  # a kernel without CONFIG_SCHED_INFO, or it has just ended
        return _cpu(pid)


def of_lab(pid: int) -> float:
    """CPU seconds of a lab's holder and of its processes, those that have ended included."""
    return sum(_cpu(one) for one in (pid, *processes(pid)))


def processes(pid: int) -> Iterator[int]:
    """The pids of a process' children, and of theirs."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in map(int, found):
        yield child
        yield from processes(child)


def _cpu(pid: int) -> float:
    """user + system, and that of its children that it has waited for (proc(5): fields 14 to 17)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS_A_SECOND


def resident_bytes(pid: int) -> int:
    """The memory that would be free without this process: its share of what it shares (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


def kernel_at_rest() -> int:
    """The same once it stays: namespaces that nobody has any more are taken apart for a second or two."""
    last, deadline = kernel_bytes(), time.monotonic() + REST_S
    while time.monotonic() < deadline:
        time.sleep(0.25)
        now = kernel_bytes()
        if abs(now - last) < STILL_BYTES:
            return now
        last = now
    return last


def kernel_bytes() -> int:
    """What the kernel of the whole machine uses for itself, without page cache."""
    lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    return sum(int(lines[name].split()[0]) * 1024 for name in KERNEL_PARTS if name in lines)
