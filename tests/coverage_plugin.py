"""What `make coverage` needs besides coverage itself: the lines that agents ran, which die with their lab's holder.

The holder is init of its pid namespace: with its `os._exit` the kernel kills all that is left, which then writes nothing down. So
it asks them to end first. Loaded by coverage in every process that it measures, and by nothing else.
"""

import contextlib
import os
import signal
import sys
import time
from typing import Any, NoReturn

PATIENCE_S = 5.0


def coverage_init(_registry: Any, _options: Any) -> None:
    """The hook of a coverage plugin."""
    exit_now = os._exit  # the real one: coverage puts its own, which saves first, in the place of ours

    def exit_as_init(status: int) -> NoReturn:
        if os.getpid() == 1 and os.getppid() == 0 and "netlab.lab.holder" in sys.modules:
            _end_the_others()
        exit_now(status)

    def on_asked() -> None:
        with contextlib.suppress(ValueError):  # a thread that is not the main one may not
            signal.signal(signal.SIGUSR1, lambda *_: os._exit(0))

    os._exit = exit_as_init
    os.register_at_fork(after_in_child=on_asked)


def _end_the_others() -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(-1, signal.SIGUSR1)
    deadline = time.monotonic() + PATIENCE_S
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if not os.waitpid(-1, os.WNOHANG)[0]:
                time.sleep(0.005)  # any of them, for at most so long
