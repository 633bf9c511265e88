"""Where a program runs: inside which namespaces, with which /etc, host name and environment.

`enter` turns the calling process - a fresh, single-threaded child that is about to run a program - into one that lives in a
pod, a node or a host. It gets a mount namespace of its own, in which /etc/hosts and its companions are the place's own and
the sockets of the machine's name-service daemons (nscd, systemd-resolved), which would answer for the machine, are hidden.
"""

import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from netlab.kernel import mounts
from netlab.kernel import namespaces as ns

ETC_FILES = ("hosts", "hostname", "resolv.conf", "nsswitch.conf")
HIDDEN = ("/run/nscd", "/var/run/nscd", "/run/systemd/resolve", "/run/dbus")


@dataclass(frozen=True, slots=True)
class Place:
    """`netns` is a path to open; `etc` a directory that holds some of ETC_FILES, '' for none.

    `uts` and `ipc` are paths of namespaces that it shares with others ('': a UTS namespace of its own, the lab's IPC), `pids`
    says where it is born (`namespaces.children_in`, which is up to whoever forks). `mounts`: (directory or file, where it is
    seen, read-only). `stage`: an empty directory of the lab's tmpfs, for mount points that this machine does not have.
    """

    netns: str
    etc: str = ""
    hostname: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    uts: str = ""
    ipc: str = ""
    pids: str = ""
    mounts: tuple[tuple[str, str, bool], ...] = ()
    stage: str = ""
    directory: str = ""


@dataclass(frozen=True, slots=True)
class Holder:
    """The open namespaces of a lab's holder, to be joined from outside the lab."""

    pid: int

    def join(self) -> None:
        """Join user, mount, pid, UTS and IPC namespaces of the holder. The next fork is inside the pid namespace."""
        fds = []
        for name, flag in (
            ("user", ns.CLONE_NEWUSER),
            ("ipc", ns.CLONE_NEWIPC),
            ("uts", ns.CLONE_NEWUTS),
            ("pid", ns.CLONE_NEWPID),
            ("mnt", ns.CLONE_NEWNS),
        ):
            theirs, own = Path(f"/proc/{self.pid}/ns/{name}"), Path(f"/proc/self/ns/{name}")
            if theirs.readlink() != own.readlink():
                fds.append((os.open(theirs, os.O_RDONLY | os.O_CLOEXEC), flag))
        for fd, flag in fds:
            ns.setns(fd, flag)
            os.close(fd)
            if flag == ns.CLONE_NEWUSER:
                with contextlib.suppress(OSError):
                    os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)


def enter(place: Place) -> None:
    """Move this process into the place. Call in a child that is about to run a program. Raises OSError."""
    for path, kind in ((place.netns, ns.CLONE_NEWNET), (place.ipc, ns.CLONE_NEWIPC), (place.uts, ns.CLONE_NEWUTS)):
        if path:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            ns.setns(fd, kind)
            os.close(fd)
    ns.unshare(ns.CLONE_NEWNS | (0 if place.uts else ns.CLONE_NEWUTS))
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    if place.hostname and not place.uts:
        ns.sethostname(place.hostname)
    mounts.bind(place.mounts, place.stage)
    if place.pids:
        with contextlib.suppress(OSError):  # refused where the machine's own /proc is not whole, as in some containers
            ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
    with contextlib.suppress(OSError):
        ns.mount("sysfs", "/sys", "sysfs", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC | ns.MS_RDONLY)
    if place.etc:
        _bind_etc(Path(place.etc))
        for hidden in HIDDEN:
            if Path(hidden).is_dir():
                with contextlib.suppress(OSError):
                    ns.mount("none", hidden, "tmpfs", ns.MS_NOSUID | ns.MS_NODEV, "size=64k,mode=755")


def _bind_etc(own: Path) -> None:
    missing = []
    for name in ETC_FILES:
        source, target = own / name, Path("/etc") / name
        if not source.exists():
            continue
        if target.exists():
            ns.mount(str(source), os.path.realpath(target), "", ns.MS_BIND)
        else:  # absent, or a dangling link (systemd-resolved not running): nothing to bind over
            missing.append(source)
    if missing:
        _overlay_etc(own, missing)


def _overlay_etc(own: Path, sources: Sequence[Path]) -> None:
    """Lay the place's files over /etc where /etc has no such file to bind over."""
    upper, work = own / ".upper", own / ".work"
    for directory in (upper, work):
        directory.mkdir(exist_ok=True)
    for source in sources:
        (upper / source.name).write_bytes(source.read_bytes())
    with contextlib.suppress(OSError):
        ns.mount("overlay", "/etc", "overlay", 0, f"lowerdir=/etc,upperdir={upper},workdir={work}")


def environment(place: Place, base: Mapping[str, str]) -> dict[str, str]:
    """What a program in the place finds in its environment: the caller's, with the place's own laid over it."""
    search = base.get("PATH") or "/usr/local/bin:/usr/bin:/bin"
    for directory in ("/usr/local/sbin", "/usr/sbin", "/sbin"):
        if directory not in search.split(":"):
            search += ":" + directory
    return {**base, "PATH": search, **dict(place.environment), **({"HOSTNAME": place.hostname} if place.hostname else {})}


def found(program: str, search: str) -> str | None:
    """Where the program is, as a shell looks for it; None when it is nowhere. os.execvpe calls an unreadable directory EACCES."""
    if "/" in program:
        return program if Path(program).exists() else None
    files = []
    for directory in search.split(":"):
        path = Path(directory or ".") / program
        with contextlib.suppress(OSError):  # a directory that we may not look into
            if path.is_file():
                files.append(str(path))
    return next((path for path in files if os.access(path, os.X_OK)), files[0] if files else None)


def run(place: Place, command: Sequence[str], base: Mapping[str, str]) -> NoReturn:
    """Enter the place and become the program. Ends with 125 (cannot enter), 126 (cannot run) or 127 (not found)."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and an ignored signal stays ignored in a program
        signal.signal(number, signal.SIG_DFL)
    try:
        enter(place)
    except OSError as error:
        os.write(2, f"netlab: cannot enter the namespace: {error}\n".encode())
        os._exit(125)
    if place.directory:
        try:
            os.chdir(place.directory)
        except OSError as error:
            os.write(2, f"netlab: cannot change to the working directory {place.directory}: {error.strerror}\n".encode())
            os._exit(126)
    variables = environment(place, base)
    path = found(command[0], variables["PATH"])
    if path is None:
        os.write(2, f"netlab: {command[0]}: not found on this machine\n".encode())
        os._exit(127)
    try:
        os.execve(path, list(command), variables)
    except OSError as error:
        os.write(2, f"netlab: {command[0]}: {error.strerror}\n".encode())
        os._exit(126)
