"""Running a program inside a lab from the caller's own process, so that terminal, job control and signals are the caller's own.

For the command line only: joining a user namespace needs a process without threads, and there is no way back. The program
runs in a child (a pid namespace is entered by the next fork); the parent waits and stops, continues and ends with it.
"""

import contextlib
import ctypes
import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netlab.errors import LabGone
from netlab.kernel import context, namespaces

if TYPE_CHECKING:
    from netlab.client import Lab

PR_SET_PDEATHSIG = 1


def run(lab: "Lab", target: str, command: Sequence[str], namespace: str = "default", container: str | None = None) -> int:
    """The program's exit code (128 + N when signal N ended it); 125-127 when it could not run. This process has joined the
    lab then.
    """
    place = lab.verb("place", target=target, namespace=namespace, container=container)
    directory = Path.cwd()
    try:
        netns = os.open(f"/proc/{lab.pid}/fd/{place['fd']}", os.O_RDONLY)
        context.Holder(lab.pid).join()
    except OSError as error:
        raise LabGone(f"cannot join lab {lab.name}: {error}") from None
    there = context.Place(
        f"/proc/self/fd/{netns}",
        place["etc"],
        place["hostname"],
        tuple((name, value) for name, value in place["environment"]),
        place["uts"],
        place["ipc"],
        place["pids"],
        tuple((source, where, bool(read_only)) for source, where, read_only in place["mounts"]),
        place["stage"],
    )
    namespaces.send_children_to(there.pids)
    pid = os.fork()
    if not pid:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        with contextlib.suppress(OSError):
            os.chdir(directory)
        os.set_inheritable(netns, False)
        context.run(there, command, os.environ)
    return _wait(pid)


def _wait(pid: int) -> int:
    """Wait as a shell's parent would: pass on SIGTERM and SIGHUP, stop when the program stops, go on when it goes on."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)  # the terminal sends these to the program itself
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _: os.kill(pid, got))
    while True:
        _, status = os.waitpid(pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            os.kill(os.getpid(), signal.SIGSTOP)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
            continue
        code = os.waitstatus_to_exitcode(status)
        return 128 - code if code < 0 else code
