"""What the containers of one pod share besides its network: host name (UTS), IPC and, where asked for, processes (PID).

Decides when these namespaces and directories are made: when the pod's first program is. A sandbox ends with its pod; `update`
lets go of those whose pods are gone.
"""

import os
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from netlab import discovery, volumes
from netlab.kernel import agent
from netlab.kernel import namespaces as ns
from netlab.kernel.context import Place
from netlab.lab.loop import Loop
from netlab.model import Container, Pod


@dataclass(slots=True)
class _Sandbox:
    """Open descriptors of the pod's namespaces; `pause` is the first process of its pid namespace, 0 when it has none."""

    uts: int
    ipc: int
    pids: int = -1
    pause: int = 0
    directories: list[Path] = field(default_factory=list)


class Sandboxes:
    """Those of every pod of one lab, by the pod's uid."""

    def __init__(self, loop: Loop, files: Path, proc_pid: int, remove: Callable[[str], None]) -> None:
        self._loop, self._files, self._proc_pid, self._remove = loop, files, proc_pid, remove
        self._held: dict[str, _Sandbox] = {}

    def place(self, pod: Pod, container: Container | None, place: Place, pid: int, starting: bool) -> Place:
        """The place with all that this pod's containers share, and this container's volumes.

        `pid`: the container's program, 0 when it does not run. `starting`: the place is for the program itself.
        """
        sandbox = self._held.get(pod.meta.uid)
        if sandbox is None:
            sandbox = self._held[pod.meta.uid] = self._made(pod)
        shm = self._directory(sandbox, f"shm/{pod.meta.uid}")
        mounts = tuple(
            (self._source(sandbox, source), target, read_only)
            for source, target, read_only in (volumes.mounts(pod, container) if container is not None else ())
        )
        pids = "new" if starting else ""
        if sandbox.pids >= 0:
            pids = self._path(sandbox.pids)
        elif pid and not starting and self._proc_pid == os.getpid():  # known by this number where /proc is the lab's own
            pids = f"/proc/{pid}/ns/pid"
        return replace(
            place,
            uts=self._path(sandbox.uts),
            ipc=self._path(sandbox.ipc),
            pids=pids,
            mounts=((str(shm), "/dev/shm", False), *mounts),
            stage=str(self._directory(sandbox, f"stage/{pod.meta.uid}")),
            directory=container.working_dir if container is not None else "",
        )

    def update(self, pods: Iterable[Pod]) -> None:
        """Let go of the sandboxes of pods that are not among these."""
        if not self._held:
            return
        for uid in self._held.keys() - {pod.meta.uid for pod in pods}:
            sandbox = self._held.pop(uid)
            if sandbox.pause:
                os.kill(sandbox.pause, signal.SIGKILL)
            for fd in (sandbox.uts, sandbox.ipc, sandbox.pids):
                if fd >= 0:
                    os.close(fd)
            for directory in sandbox.directories:
                self._remove(str(directory))

    def _made(self, pod: Pod) -> _Sandbox:
        uts, ipc = ns.new_uts_and_ipc(discovery.hostname(pod))
        sandbox = _Sandbox(uts, ipc)
        sandbox.directories.append(self._files / volumes.ROOT / pod.meta.uid)
        if pod.spec.share_process_namespace:
            with ns.children_in("new"):
                sandbox.pause = agent.fork(_pause)
                sandbox.pids = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
            self._loop.on_exit(sandbox.pause, lambda _: None)
        return sandbox

    def _path(self, fd: int) -> str:
        return f"/proc/{self._proc_pid}/fd/{fd}"

    def _directory(self, sandbox: _Sandbox, name: str) -> Path:
        path = self._files / name
        if path not in sandbox.directories:
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o1777)
            sandbox.directories.append(path)
        return path

    def _source(self, sandbox: _Sandbox, source: str) -> str:
        """A volume's directory, made where it is not there: an emptyDir, or a host path that this machine does not have."""
        path = self._files / source
        if path.exists():
            return str(path)
        if source.startswith("/"):
            return str(self._directory(sandbox, f"{volumes.ROOT}/{source.strip('/').replace('/', '-')}"))
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)
        return str(path)


def _pause() -> None:
    """The first process of a pod's pid namespace: it takes in orphans, and ends with the pod."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    while True:
        signal.sigwait({signal.SIGCHLD})
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            continue
