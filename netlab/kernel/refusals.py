"""What a machine that has run out of something says, in words that help. Any call may meet one."""

import errno
import resource

from netlab.errors import MachineError
from netlab.kernel.namespaces import out_of_descriptors


def refusal(error: BaseException, directory: str = "") -> MachineError | None:
    """The refusal behind an exception, or None: then it is a mistake of ours. `directory`: where the lab's files lie."""
    if isinstance(error, MemoryError):
        return MachineError("out of memory: end something, or give this session's cgroup more (memory.max)")
    if not isinstance(error, OSError):
        return None
    match error.errno:
        case errno.EMFILE | errno.ENFILE:
            return MachineError(out_of_descriptors())
        case errno.ENOMEM:
            return MachineError(f"the kernel is out of memory ({error}): end something, or give this session's cgroup more")
        case errno.EAGAIN if not error.filename:
            limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
            return MachineError(f"no more processes are allowed ({error.strerror}): `ulimit -u` is {limit}; see pids.max")
        case errno.ENOSPC | errno.EDQUOT | errno.EROFS:
            where = error.filename or directory
            return MachineError(
                f"{where}: {error.strerror}: free some space there, or set XDG_RUNTIME_DIR to another directory"
                if where
                else f"{error.strerror}: free some space, or set XDG_RUNTIME_DIR to another directory"
            )
    return None
