"""How `events` and `top` listen to a lab: the journal's stream from the holder, and the kernel's own notices from inside.

This process joins the lab's user namespace (it has no threads, and no way back) and opens netlink sockets in every network
namespace itself, so that the holder carries none of it. It ends with the lab: its sockets keep namespaces alive.
"""

import contextlib
import json
import os
import selectors
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlab import wire
from netlab.errors import LabGone
from netlab.kernel import namespaces
from netlab.kernel.monitor import Monitor

if TYPE_CHECKING:
    from netlab.client import Lab

Event = dict[str, Any]


class Inside:
    """This process, inside a lab: opens the namespaces of the holder. Made once in a process' life."""

    def __init__(self, lab: "Lab") -> None:
        """Raises LabGone, MachineError."""
        self._holder = lab.pid
        self.alive = os.pidfd_open(lab.pid)
        namespaces.raise_descriptor_limit()
        theirs = Path(f"/proc/{lab.pid}/ns/user")
        try:
            if theirs.readlink() != Path("/proc/self/ns/user").readlink():
                fd = os.open(theirs, os.O_RDONLY | os.O_CLOEXEC)
                namespaces.setns(fd, namespaces.CLONE_NEWUSER)
                os.close(fd)
                namespaces.unshare(namespaces.CLONE_NEWNET)
        except FileNotFoundError:
            raise LabGone(f"lab {lab.name} is gone") from None

    def open(self, number: int) -> int:
        """A descriptor of the namespace that the holder has as `number`. Raises OSError when it is gone."""
        return os.open(f"/proc/{self._holder}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)


class Following:
    """Every event of a lab in one stream, in the order in which they came."""

    def __init__(self, lab: "Lab", last: int = 0, kernel: bool = True, only: tuple[str, ...] = ("",)) -> None:
        """`only`: how the names of namespaces begin in which the kernel is listened to."""
        self._lab = lab
        self._stream = wire.stream(lab.directory, f"/netlab/v1/events?last={last}")
        self._rest = b""
        self._kernel, self._only = kernel, only
        self._monitors: dict[str, Monitor] = {}
        self._numbers: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._stream.fileno(), selectors.EVENT_READ, None)
        self.inside = Inside(lab)
        self._selector.register(self.inside.alive, selectors.EVENT_READ, None)
        self._look()

    def events(self, until: float | None = None) -> Iterator[Event]:
        """Events until that time (of time.monotonic). Raises LabGone when the lab ends."""
        while until is None or time.monotonic() < until:
            yield from self.ready(None if until is None else max(0.0, until - time.monotonic()))

    def ready(self, timeout_s: float | None) -> list[Event]:
        """What has happened; waits so long for something."""
        found: list[Event] = []
        renewed = False
        for key, _ in self._selector.select(timeout_s):
            if key.fd == self.inside.alive:
                raise LabGone(f"lab {self._lab.name} is gone")
            if key.data is None:
                told = self._told()
                renewed = renewed or any(one["type"] in ("object", "lab") for one in told)
                found += told
                continue
            monitor, sock = key.data
            now = time.time()
            try:
                found += [{"at": now, **event} for event in monitor.events(sock)]
            except OSError:  # the namespace is on its way out
                self._forget(monitor.name)
        if renewed:
            self._look()
        return found

    def _told(self) -> list[Event]:
        try:
            data = self._stream.read()
        except OSError:
            data = None
        if data is None:
            raise LabGone(f"lab {self._lab.name} is gone")
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def _look(self) -> None:
        """Listen in namespaces that are new, leave those that are gone."""
        if not self._kernel:
            return
        every: Mapping[str, int] = self._lab.verb("namespaces")
        numbers = {name: number for name, number in every.items() if name.startswith(self._only)}
        for name in [name for name, number in self._numbers.items() if numbers.get(name) != number]:
            self._forget(name)
        for name in numbers.keys() - self._monitors.keys():
            with contextlib.suppress(OSError):
                fd = self.inside.open(numbers[name])
                try:
                    self._monitors[name] = monitor = Monitor(name, fd, connections=name.startswith("node/"))
                finally:
                    os.close(fd)
                self._numbers[name] = numbers[name]
                for sock in monitor.sockets:
                    self._selector.register(sock, selectors.EVENT_READ, (monitor, sock))

    def _forget(self, name: str) -> None:
        monitor = self._monitors.pop(name, None)
        self._numbers.pop(name, None)
        if monitor is not None:
            for sock in monitor.sockets:
                self._selector.unregister(sock)
            monitor.close()
