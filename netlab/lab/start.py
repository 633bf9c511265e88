"""Start a holder: from the caller's process to init of a new pid namespace, in the order that the kernel demands.

Three forks. The first child leaves the session and closes every descriptor. Ordinary users: a second one makes the user
namespace, and the first maps its ids (from outside, because newuidmap asks for that). The last is init of the new pid
namespace; it makes the mount namespace's own /proc and a tmpfs, and takes a network namespace of its own last: one made
together with the user namespace has /proc files that belong to the host's root, and iptables-legacy-save is then refused.

The caller never unshares: `unshare(CLONE_NEWUSER)` fails in a process with threads and would take the caller along. The
command line forks before it imports anything heavy (`fork_holder`), a program with threads starts a fresh interpreter
(`spawn_holder`).
"""

import contextlib
import errno
import fcntl
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlab.errors import KernelError, MachineError, NetlabError
from netlab.kernel import agent, cgroups, privileges
from netlab.kernel import namespaces as ns
from netlab.lab import directory

if TYPE_CHECKING:
    from netlab.lab.spec import LabSpec


@dataclass(slots=True)
class Starting:
    """A holder on its way: it waits on `sock` for what it shall hold. `kills`: for want of memory, before it began."""

    sock: socket.socket
    first_child: int
    kills: int = field(default_factory=lambda: cgroups.own().kills())

    def go(self, lock: int, spec: "LabSpec") -> dict[str, Any]:
        """Hand over the lab's lock and specification and wait until the lab answers; what the holder says of itself."""
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it gave up before: what it said is to be read
                socket.send_fds(self.sock, [b"L"], [lock])
                agent.send(self.sock, spec)
            while True:
                kind, value = agent.receive(self.sock)
                if kind == "error":
                    directory.remove(Path(spec.directory))  # it did, too, if it came to know of it
                    raise self._for_want_of_memory(value)
                if kind == "ready":
                    return dict(value)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            died = KernelError(f"the lab's process died while it started; its log: {spec.directory}/log")
            raise self._for_want_of_memory(died) from None
        finally:
            self.reap()

    def _for_want_of_memory(self, error: NetlabError) -> NetlabError:
        """The same, with its cause where the kernel has killed the holder or one of its agents: whoever is killed cannot tell."""
        cause = cgroups.killed(self.kills)
        return MachineError(f"{error}; {cause}") if cause and type(error) is KernelError else error

    def cancel(self) -> None:
        """Let the waiting holder end, and wait until it has: its end of the socket closes with it."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            self.sock.settimeout(5.0)
            while self.sock.recv(1 << 16):
                pass
        self.sock.close()
        self.reap()

    def reap(self) -> None:
        if self.first_child > 0:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.first_child, 0)
            self.first_child = 0


def _pair() -> tuple[socket.socket, socket.socket]:
    """A socket pair for a holder and its starter. Neither is a standard stream, not even where the caller has closed his."""
    found = []
    for end in socket.socketpair():
        with end:
            found.append(socket.socket(fileno=fcntl.fcntl(end.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)))
    return found[0], found[1]


def fork_holder() -> Starting:
    """Fork a holder from this process, which must have no threads."""
    ours, theirs = _pair()
    pid = agent.fork(lambda: become_holder(theirs), theirs.fileno())
    theirs.close()
    return Starting(ours, pid)


def spawn_holder() -> Starting:
    """Start a holder in a fresh small interpreter: for callers that may have threads.

    In a session of its own from the first: a Ctrl-C is for the caller, whose end of the socket closes then.
    """
    ours, theirs = _pair()
    with theirs:
        command = [sys.executable, "-P", "-c", "from netlab.lab import start; start.main()", str(theirs.fileno())]
        search = os.pathsep.join([str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])])
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": search},
            start_new_session=True,
        )
    starting = Starting(ours, process.pid)
    process.returncode = 0  # reaped by Starting.reap
    return starting


def main() -> None:
    """Entry of `spawn_holder`'s interpreter."""
    sock = socket.socket(fileno=int(sys.argv[1]))
    agent.close_other_fds(sock.fileno())
    become_holder(sock)


def become_holder(sock: socket.socket) -> None:
    """Run in the first child: make the namespaces, then hold the lab. Returns (in the intermediate processes) or ends."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    os.umask(0o022)
    os.chdir("/")
    _redirect_output()
    _raise_limits()
    try:
        ordinary = os.geteuid() != 0
        if ordinary and not _enter_user_namespace():
            return
        for kind in (ns.CLONE_NEWNS, ns.CLONE_NEWPID, ns.CLONE_NEWUTS, ns.CLONE_NEWIPC):  # one by one: which is refused is said
            _unshare(kind, own_user=ordinary)
        pid = os.fork()
    except (NetlabError, OSError) as error:
        agent.send(sock, ("error", error if isinstance(error, NetlabError) else KernelError(f"cannot start a lab: {error}")))
        return
    if pid:
        return
    try:
        host_pid = int(Path("/proc/self").readlink().name)  # before /proc becomes the lab's own
        _own_mounts()
        _unshare(ns.CLONE_NEWNET, own_user=ordinary)
        privileges.give_up()
        _set_dumpable()
        from netlab.lab.holder import hold
    except (NetlabError, OSError) as error:
        agent.send(sock, ("error", error if isinstance(error, NetlabError) else KernelError(f"cannot start a lab: {error}")))
        os._exit(1)
    hold(sock, host_pid)
    os._exit(0)


def _redirect_output() -> None:
    """Standard input from /dev/null; output to memory until the lab's log is known."""
    null = os.open("/dev/null", os.O_RDONLY)
    log = os.memfd_create("netlab-log")
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in (null, log)]  # a caller may have closed 0, 1 and 2
    for source, target in ((high[0], 0), (high[1], 1), (high[1], 2)):
        os.dup2(source, target)
    for fd in {null, log, *high} - {0, 1, 2}:
        os.close(fd)
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:  # closed when the interpreter began
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))


def _raise_limits() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _unshare(flags: int, own_user: bool = False) -> None:
    """`own_user`: inside a user namespace that this process has made: AppArmor lets that be made, and no other then."""
    try:
        ns.unshare(flags)
    except PermissionError:
        if os.geteuid() == 0 and not own_user:
            raise MachineError(
                "root may not make namespaces here (a container without CAP_SYS_ADMIN?): run netlab as an ordinary user, or give "
                "the container `--cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt apparmor=unconfined`"
            ) from None
        raise _no_user_namespace(errno.EPERM) from None
    except OSError as error:
        refused = ns.refused(error.errno, flags)
        raise MachineError(f"{refused}; `netlab doctor` says more") from None


def _no_user_namespace(number: int | None) -> MachineError:
    return MachineError(f"{ns.refused(number, ns.CLONE_NEWUSER)}; `netlab doctor` says more")


def _enter_user_namespace() -> bool:
    """True in the child that is root of a new user namespace, False in the process that mapped its ids and is done."""
    uid, gid, mapper = os.getuid(), os.getgid(), os.getpid()
    made, made_w = os.pipe()
    mapped, mapped_w = os.pipe()
    ranges = _subordinate(uid)
    pid = os.fork()
    if pid:
        os.close(made_w)
        os.close(mapped)
        if os.read(made, 1) == b"u" and ranges is not None:
            _map_range(pid, uid, gid, ranges)
        os.close(mapped_w)
        return False
    os.close(made)
    os.close(mapped_w)
    _unshare(ns.CLONE_NEWUSER)
    os.write(made_w, b"u")
    os.read(mapped, 1)
    try:
        if not Path("/proc/self/uid_map").read_text().strip():
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        if not Path("/proc/self/gid_map").read_text().strip():
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except PermissionError:  # as AppArmor says it on Ubuntu 24.04
        raise _no_user_namespace(errno.EPERM) from None
    except OSError as error:
        raise MachineError(f"a user namespace can be made, but no id mapped ({error}): is /proc read-only here?") from None
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.close(made_w)
    os.close(mapped)
    assert os.getpid() != mapper
    return True


def _subordinate(uid: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """((first uid, count), (first gid, count)) that /etc/subuid and /etc/subgid grant, None without newuidmap or a range."""
    import pwd

    if not (os.access("/usr/bin/newuidmap", os.X_OK) and os.access("/usr/bin/newgidmap", os.X_OK)):
        return None
    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:
        names = {str(uid)}
    found: list[tuple[int, int]] = []
    for file in ("/etc/subuid", "/etc/subgid"):
        with contextlib.suppress(OSError, ValueError):
            for line in Path(file).read_text().splitlines():
                owner, first, count = line.split(":")
                if owner in names and int(count) >= 65535:
                    found.append((int(first), 65535))
                    break
    return (found[0], found[1]) if len(found) == 2 else None


def _map_range(pid: int, uid: int, gid: int, ranges: tuple[tuple[int, int], tuple[int, int]]) -> None:
    """A full range of ids through newuidmap; where it refuses, the child falls back to its own single id."""
    for program, own, (first, count) in (("newgidmap", gid, ranges[1]), ("newuidmap", uid, ranges[0])):
        numbers: Sequence[int] = (0, own, 1, 1, first, count)
        done = subprocess.run([f"/usr/bin/{program}", str(pid), *map(str, numbers)], stdin=subprocess.DEVNULL, check=False)
        if done.returncode:
            return


def _own_mounts() -> None:
    """Nothing that is mounted here is seen outside; /proc shows the lab's own processes where the kernel lets us mount it.

    The machine's /proc goes, so that a program that takes ours off finds nothing under it. In an ordinary user's namespace it is
    locked and stays: what its user sees anyway.
    """
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    try:
        _own_proc()
    except OSError:  # not known before Linux 5.2, or a seccomp profile that does not know it
        with contextlib.suppress(OSError):
            ns.mount("proc", "/proc", "proc", ns.MS_NOSUID | ns.MS_NODEV | ns.MS_NOEXEC)
        return
    with contextlib.suppress(OSError):
        ns.umount("/proc")  # the one that was just mounted, which shows that there can be one
        with contextlib.suppress(OSError):
            ns.umount("/proc")
        _own_proc()


def _own_proc() -> None:
    """This pid namespace's /proc over what is there. Raises OSError."""
    proc = ns.detached_proc()
    try:
        ns.attach_mount(proc, "/proc")
    finally:
        os.close(proc)


def _set_dumpable() -> None:
    """Let processes of the same user open our /proc files, as `exec` does; entering a user namespace forbade it."""
    import ctypes

    PR_SET_DUMPABLE = 4
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
