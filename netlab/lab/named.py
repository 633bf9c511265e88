"""`--named`: the lab's namespaces under /run/netns, so that `ip netns exec` works. Root only, and the one exception to "the
host is never touched".

A watchdog outside the lab publishes the names (`LAB-node-node-170`, `LAB-pod-default-client`), follows pods that come and
go, and takes every name away when the holder is gone, however it went.
"""

import contextlib
import os
import select
from pathlib import Path
from typing import TYPE_CHECKING

from netlab.errors import NetlabError
from netlab.kernel import agent
from netlab.kernel import namespaces as ns

if TYPE_CHECKING:
    from netlab.client import Lab

DIRECTORY = Path("/run/netns")
FOLLOW_S = 0.5


def publish(lab: "Lab") -> int:
    """Start the watchdog and return when the names are there; its pid. Needs root."""
    DIRECTORY.mkdir(mode=0o755, exist_ok=True)
    ready, told = os.pipe()
    first = agent.fork(lambda: _detach(lab, told), told)
    os.close(told)
    os.waitpid(first, 0)
    pid = os.read(ready, 16)
    os.close(ready)
    return int(pid or b"0")


def name_of(lab: str, netns: str) -> str:
    return f"{lab}-{netns.replace('/', '-')}"


def _detach(lab: "Lab", told: int) -> None:
    os.setsid()
    if os.fork():
        return
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    watch(lab, told)


def watch(lab: "Lab", told: int) -> None:
    """Follow the lab until its holder is gone, then take the names away."""
    published: dict[str, int] = {}
    holder = os.pidfd_open(lab.pid)
    try:
        gone = False
        while not gone:
            with contextlib.suppress(NetlabError, OSError):
                _follow(lab, published)
            if told >= 0:
                os.write(told, str(os.getpid()).encode())
                os.close(told)
                told = -1
            gone = bool(select.select([holder], [], [], FOLLOW_S)[0])
    finally:
        for name in published:
            _withdraw(name)


def _follow(lab: "Lab", published: dict[str, int]) -> None:
    wanted = {name_of(lab.name, netns): fd for netns, fd in lab.verb("namespaces").items()}
    for name in [name for name, fd in published.items() if wanted.get(name) != fd]:
        _withdraw(name)
        del published[name]
    for name in wanted.keys() - published.keys():
        path = DIRECTORY / name
        try:
            path.touch(mode=0o444, exist_ok=False)
        except FileExistsError:
            continue  # somebody else's
        published[name] = wanted[name]
        ns.mount(f"/proc/{lab.pid}/fd/{wanted[name]}", str(path), "", ns.MS_BIND)


def _withdraw(name: str) -> None:
    with contextlib.suppress(OSError):
        ns.umount(str(DIRECTORY / name))
    with contextlib.suppress(OSError):
        (DIRECTORY / name).unlink()
