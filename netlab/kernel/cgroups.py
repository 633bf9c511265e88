"""Whether the kernel has killed something of this process' cgroup for want of memory, and what that cgroup may use.

Cgroups of version 2 and 1, where systemd, container engines and most others mount them. Decides nothing, and never fails: a
machine that has none, or keeps it elsewhere, has killed nothing that could be told here.
"""

from dataclasses import dataclass
from pathlib import Path

_ROOT = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Cgroup:
    """`path` as /proc/self/cgroup says it; `events` counts kills, `limit` is a number of bytes, or says that there is none."""

    path: str
    events: str
    limit: str

    def kills(self) -> int:
        """How many of its processes the kernel has killed for want of memory: of the cgroup, one above it or the machine."""
        counts = (line.split() for line in _text(self.events).splitlines())
        return next((int(words[1]) for words in counts if words[:1] == ["oom_kill"]), 0)

    def allowance(self) -> str:
        """Its limit in words, or '' where it has none of its own."""
        text = _text(self.limit).strip()
        return f", which may use {int(text) / (1 << 20):.0f} MiB" if text.isdigit() and int(text) < 1 << 60 else ""


def own() -> Cgroup:
    """The cgroup of this process that accounts for memory."""
    paths = {fields[1]: fields[2] for line in _text("/proc/self/cgroup").splitlines() if len(fields := line.split(":", 2)) == 3}
    for controllers, path in paths.items():
        if "memory" in controllers.split(","):
            return Cgroup(path, f"{_ROOT}/memory{path}/memory.oom_control", f"{_ROOT}/memory{path}/memory.limit_in_bytes")
    path = paths.get("", "/")
    return Cgroup(path, f"{_ROOT}{path}/memory.events", f"{_ROOT}{path}/memory.max")


def _text(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def killed(before: int) -> str:
    """A sentence about what has been killed since `kills` was `before`, or ''."""
    group = own()
    count = group.kills() - before
    if count <= 0:
        return ""
    what = "a process" if count == 1 else f"{count} processes"
    return (
        f"out of memory: the kernel has killed {what} of the cgroup {group.path}{group.allowance()}: end something, or give it "
        f"more (memory.max)"
    )
