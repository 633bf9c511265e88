"""The holder's event loop: readable descriptors, timers, dead children. One thread, nothing hidden, nothing waits for long.

A callback that raises is a bug: it ends the holder, and with it the lab, rather than leave a lab that lies.
"""

import heapq
import os
import selectors
import signal
import time
from collections.abc import Callable
from typing import Any, Protocol


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class Loop:
    """Runs callbacks until `stop`."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._children: dict[int, Callable[[int], None]] = {}
        self._signals: dict[int, Callable[[], None]] = {}
        self._running = True
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(read, selectors.EVENT_READ, lambda: self._on_signals(read))

    def watch(self, file: HasFileno | int, readable: Callable[[], Any]) -> None:
        """Call `readable` whenever there is something to read."""
        self._selector.register(file, selectors.EVENT_READ, readable)

    def forget(self, file: HasFileno | int) -> None:
        self._selector.unregister(file)

    def when_writable(self, file: HasFileno | int, ready: Callable[[], Any]) -> None:
        """From now on wait for room to write instead of something to read."""
        self._selector.modify(file, selectors.EVENT_WRITE, ready)

    def when_readable(self, file: HasFileno | int, ready: Callable[[], Any]) -> None:
        self._selector.modify(file, selectors.EVENT_READ, ready)

    def now(self) -> float:
        """The clock that timers go by, in seconds."""
        return time.monotonic()

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Call once, `delay_s` seconds from now."""
        self._count += 1
        heapq.heappush(self._timers, (time.monotonic() + delay_s, self._count, call))

    def on_exit(self, pid: int, call: Callable[[int], None]) -> None:
        """Call with the wait status when this child has ended."""
        self._children[pid] = call

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        signal.signal(number, lambda *_: None)
        self._signals[number] = call

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, _ in self._selector.select(timeout):
                if self._selector.get_map().get(key.fd) is key:
                    key.data()
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()

    def _on_signals(self, read: int) -> None:
        numbers = os.read(read, 4096)
        if signal.SIGCHLD in numbers:
            self._reap()
        for number, call in self._signals.items():
            if number in numbers:
                call()

    def _reap(self) -> None:
        """Take in every dead child: ours, and orphans that init of a pid namespace inherits."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if (call := self._children.pop(pid, None)) is not None:
                call(status)
