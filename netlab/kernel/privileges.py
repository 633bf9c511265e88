"""Which of root's capabilities a lab does without. Decides the list; everything that a lab starts inherits the lack."""

import ctypes
import struct

from netlab.errors import KernelError

GIVEN_UP = {
    "LINUX_IMMUTABLE": 9, "SYS_MODULE": 16, "SYS_RAWIO": 17, "SYS_PACCT": 20, "SYS_BOOT": 22, "SYS_TIME": 25,
    "SYS_TTY_CONFIG": 26, "MKNOD": 27, "LEASE": 28, "AUDIT_CONTROL": 30,
    "MAC_OVERRIDE": 32, "MAC_ADMIN": 33, "SYSLOG": 34, "WAKE_ALARM": 35,
    "BLOCK_SUSPEND": 36, "AUDIT_READ": 37, "PERFMON": 38, "BPF": 39, "CHECKPOINT_RESTORE": 40,
}  # fmt: skip
"""Names and numbers of capabilities(7): modules, the clock, rebooting, raw devices, the kernel's log, security modules, BPF."""
_PR_CAPBSET_DROP = 24
_VERSION_3 = 0x20080522


def give_up() -> None:
    """Drop them for this process, and for all that it will ever start, from the bounding set on. Raises KernelError."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in GIVEN_UP.values():
        libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # an older kernel does not know the last of them, and need not
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    data = ctypes.create_string_buffer(24)
    if libc.capget(header, data) != 0:
        raise KernelError("cannot read this process' capabilities")
    words = list(struct.unpack("=6I", data.raw[:24]))  # effective, permitted, inheritable; then their upper halves
    for number in GIVEN_UP.values():
        for kind in range(3):
            words[kind + 3 * (number // 32)] &= ~(1 << number % 32) & 0xFFFFFFFF
    if libc.capset(header, ctypes.create_string_buffer(struct.pack("=6I", *words))) != 0:
        raise KernelError("cannot give up capabilities")
