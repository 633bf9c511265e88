"""The system calls that Python 3.11 lacks: unshare, setns, mount, umount2, sethostname; and descriptors of namespaces.

Decides how a refusal by the machine (a limit, a permission) is put into words. Refuses to know what a lab is. `entered` is for
opening a socket, a netlink context or a file under /proc/sys/net, or for spawning a process: never across a wait, a yield of an
event loop or a callback.
"""

import ctypes
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from netlab.errors import KernelError, MachineError
from netlab.kernel import host

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_PRIVATE = 0x40000
MNT_DETACH = 0x2

_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
"""The same numbers on every architecture."""
_CLOEXEC, _CMD_CREATE = 1, 6
_AT_FDCWD, _FROM_DESCRIPTOR = -100, 4

_LIMITS = {
    CLONE_NEWUSER: "user.max_user_namespaces",
    CLONE_NEWNS: "user.max_mnt_namespaces",
    CLONE_NEWPID: "user.max_pid_namespaces",
    CLONE_NEWNET: "user.max_net_namespaces",
    CLONE_NEWUTS: "user.max_uts_namespaces",
    CLONE_NEWIPC: "user.max_ipc_namespaces",
}


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def unshare(flags: int) -> None:
    """New namespaces for this (single-threaded) process. Raises OSError, which `refused` puts into words."""
    if _libc().unshare(ctypes.c_int(flags)) != 0:
        raise _failed("unshare")


def setns(fd: int, kind: int = CLONE_NEWNET) -> None:
    """Join the namespace behind `fd`. Raises OSError."""
    if _libc().setns(ctypes.c_int(fd), ctypes.c_int(kind)) != 0:
        raise _failed(f"setns({fd})")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError with the target as its file name."""
    arguments = (source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), data.encode() or None)
    if _libc().mount(*arguments) != 0:
        raise _failed(target)


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """umount2(2). Raises OSError."""
    if _libc().umount2(target.encode(), ctypes.c_int(flags)) != 0:
        raise _failed(target)


def detached_proc() -> int:
    """A new proc that is mounted nowhere: a descriptor of its directory. Raises OSError where that is not allowed (a container
    with parts of /proc hidden) or not known (before Linux 5.2).
    """
    context = _system_call(_FSOPEN, b"proc", _CLOEXEC)
    try:
        _system_call(_FSCONFIG, context, _CMD_CREATE, None, None, 0)
        return _system_call(_FSMOUNT, context, _CLOEXEC, MS_NOSUID | MS_NODEV | MS_NOEXEC)
    finally:
        os.close(context)


def attach_mount(mount: int, target: str) -> None:
    """Mount what a descriptor stands for. Raises OSError."""
    _system_call(_MOVE_MOUNT, mount, b"", _AT_FDCWD, target.encode(), _FROM_DESCRIPTOR)


def _system_call(number: int, *arguments: int | bytes | None) -> int:
    given = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    result: int = _libc().syscall(ctypes.c_long(number), *given)
    if result < 0:
        raise _failed(f"system call {number}")
    return result


def sethostname(name: str) -> None:
    """Set the hostname of this process's UTS namespace; names are cut at the kernel's 64 bytes. Raises OSError."""
    data = name.encode()[:64]
    if _libc().sethostname(data, ctypes.c_size_t(len(data))) != 0:
        raise _failed(f"sethostname({name!r})")


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


def map_to_root(uid: int, gid: int) -> None:
    """Map one user and one group to root of the user namespace that this process has just made."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def current_netns() -> int:
    """A descriptor of the network namespace that this thread is in."""
    return _opened("/proc/thread-self/ns/net")


def new_netns(name: str = "", home: int | None = None) -> int:
    """A descriptor of a new network namespace; the process is back in its old one (`home`, if given: one call less)."""
    back = current_netns() if home is None else home
    try:
        fd = unshared_netns(name)
        setns(back)
        return fd
    finally:
        if home is None:
            os.close(back)


def unshared_netns(name: str = "") -> int:
    """As new_netns, but the process stays inside: whoever makes many goes home once, at the end."""
    try:
        unshare(CLONE_NEWNET)
    except OSError as error:
        raise refused(error.errno, CLONE_NEWNET, f"cannot make the namespace {name}: " if name else "") from None
    return current_netns()


@contextmanager
def entered(fd: int, home: int | None = None) -> Iterator[None]:
    """Inside, this process is in the network namespace `fd`. `home` is a descriptor of its own one, where the caller has it."""
    back = current_netns() if home is None else home
    try:
        setns(fd)
        try:
            yield
        finally:
            setns(back)
    finally:
        if home is None:
            os.close(back)


def new_uts_and_ipc(hostname: str) -> tuple[int, int]:
    """Descriptors of new UTS and IPC namespaces, the host name set; the process is back in its own."""
    back = [(_opened("/proc/self/ns/uts"), CLONE_NEWUTS), (_opened("/proc/self/ns/ipc"), CLONE_NEWIPC)]
    try:
        try:
            unshare(CLONE_NEWUTS | CLONE_NEWIPC)
        except OSError as error:
            raise refused(error.errno, CLONE_NEWUTS | CLONE_NEWIPC) from None
        try:
            sethostname(hostname)
            return _opened("/proc/self/ns/uts"), _opened("/proc/self/ns/ipc")
        finally:
            for fd, kind in back:
                setns(fd, kind)
    finally:
        for fd, _ in back:
            os.close(fd)


def send_children_to(pids: str) -> None:
    """From now on children are born there, as `children_in` says; for a process that does not come back from it.

    Raises: MachineError at the machine's limit of pid namespaces.
    """
    if pids == "new":
        try:
            unshare(CLONE_NEWPID)
        except OSError as error:
            raise refused(error.errno, CLONE_NEWPID) from None
    elif pids:
        with suppress(FileNotFoundError):
            fd = os.open(pids, os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(fd, CLONE_NEWPID)
            finally:
                os.close(fd)


@contextmanager
def children_in(pids: str) -> Iterator[None]:
    """Inside, children are born in this pid namespace: `new` for one of their own, a path of one, '' for the process's own.

    One whose first process has ended takes no more children: then they are born in the process's own.
    """
    if not pids:
        yield
        return
    home = _opened("/proc/self/ns/pid")
    try:
        send_children_to(pids)
        try:
            yield
        finally:
            setns(home, CLONE_NEWPID)
    finally:
        os.close(home)


def raise_descriptor_limit() -> int:
    """Raise RLIMIT_NOFILE's soft limit (usually 1,024) to the hard one, and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # an unlimited hard limit may be above fs.nr_open: then the soft one stays
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise MachineError(out_of_descriptors()) from None
        raise KernelError(f"cannot open {path}: {error.strerror}") from None


def out_of_descriptors() -> str:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return f"out of file descriptors (limit {soft}, hard limit {hard}): raise it with `ulimit -Hn` as root or LimitNOFILE="


def refused(number: int | None, flags: int, what: str = "") -> MachineError:
    """Why unshare(flags) failed with errno `number`, and what to do about it; `what` goes in front."""
    words = os.strerror(number or 0)
    limits = [name for flag, name in _LIMITS.items() if flags & flag]
    match number:
        case errno.ENOSPC | errno.EUSERS:
            why = f"no more namespaces are allowed ({words}): as root, raise {' or '.join(limits)} with sysctl -w"
        case errno.EPERM if flags & CLONE_NEWUSER:
            why = f"user namespaces are not allowed here ({words}): {_user_namespace_remedy()}"
        case errno.EPERM:
            why = f"making namespaces is not allowed here ({words}): run as root or in a user namespace"
        case errno.EINVAL if flags & CLONE_NEWUSER:
            why = "a process with threads cannot make a user namespace: start the lab from a process of its own"
        case errno.ENOMEM:
            why = f"the kernel has no memory for another namespace ({words})"
        case errno.EMFILE | errno.ENFILE:
            why = out_of_descriptors()
        case _:
            why = f"the kernel refused to make a namespace: {words}"
    return MachineError(what + why)


def _user_namespace_remedy() -> str:
    """Which of the known switches forbids user namespaces, and how to turn it."""
    if host.wsl() == 1:
        return host.WSL_1
    for key, bad in (("kernel/apparmor_restrict_unprivileged_userns", "1"), ("kernel/unprivileged_userns_clone", "0")):
        with suppress(OSError):
            if (Path("/proc/sys") / key).read_text().strip() == bad:
                good = "0" if bad == "1" else "1"
                return (
                    f"as root, sysctl -w {key.replace('/', '.')}={good} (or an AppArmor profile with `userns,` for this program)"
                )
    kind = host.container()
    if kind:
        return f"this is a container ({kind}), whose seccomp profile must allow unshare: --security-opt seccomp=unconfined"
    return (
        "as root, check sysctl user.max_user_namespaces; in a container, its seccomp profile must allow unshare; in a chroot "
        "nobody may make one; or run as root"
    )
