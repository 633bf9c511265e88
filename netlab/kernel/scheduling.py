"""Being woken early on a busy machine.

A process that mostly waits and then works for a moment waits longest where other programs compute: each of them keeps its
processor for a whole slice first (3 ms). It is no good for one that works longer than its slice: others then come between
(of the holder it made changes slower by half). Since Linux 6.12 anybody may ask for shorter slices of his own: the share of the
processor stays the same, but the turn comes sooner (sched(7), sched_setattr(2): SCHED_OTHER with sched_runtime). Where the
kernel or the machine does not know it, everything goes on as before.
"""

import ctypes
import os
import struct

SLICE_NS = 100_000
"""The shortest that the kernel grants."""
_SYSCALLS = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
_RESET_ON_FORK = 1


def answer_soon() -> bool:
    """Ask for short slices for this process, not for its children. Whether the kernel agreed."""
    number = _SYSCALLS.get(os.uname().machine)
    if number is None:
        return False
    # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period
    attributes = struct.pack(
        "=IIQiIQQQ", 48, os.SCHED_OTHER, _RESET_ON_FORK, os.getpriority(os.PRIO_PROCESS, 0), 0, SLICE_NS, 0, 0
    )
    failed: int = ctypes.CDLL(None, use_errno=True).syscall(number, 0, attributes, 0)
    return not failed
