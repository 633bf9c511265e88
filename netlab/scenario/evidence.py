"""What is kept of a lab whose test failed: its plan, and the packets of the probe that failed, sent once more under a capture.

Decides nothing about verdicts: a probe is repeated here to be looked at, never to be judged again.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from netlab.client import Lab
from netlab.errors import KernelError
from netlab.scenario.values import Lab as AnyLab

READY_S = 5.0
END_S = 5.0


def save_plan(lab: Lab, path: Path) -> Path:
    """Write the lab's plan as `netlab plan` prints it."""
    from netlab import plan

    path.write_text(plan.text(lab.plan()))
    return path


def capture(lab: AnyLab, replay: Callable[[], object], path: Path) -> Path:
    """Record the whole lab into a pcapng file while `replay` runs. Raises: KernelError when nothing could be recorded."""
    command = [sys.executable, "-m", "netlab", "capture", "--lab", lab.name, "-w", str(path)]
    # A session of its own: as Ctrl-C at a terminal does, the signal has to reach the recording child of the command too.
    recorder = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_until_recording(recorder, path)
        replay()
    finally:
        _end(recorder)
    return path


def _wait_until_recording(recorder: "subprocess.Popen[bytes]", path: Path) -> None:
    """The file gets its header when all packet sockets are open."""
    end = time.monotonic() + READY_S
    while not (path.exists() and path.stat().st_size):
        if recorder.poll() is not None or time.monotonic() > end:
            raise KernelError(f"netlab capture did not start within {READY_S:g} s")
        select.select([], [], [], 0.02)


def _end(recorder: "subprocess.Popen[bytes]") -> None:
    for number, patience_s in ((signal.SIGINT, END_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(recorder.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            recorder.wait(patience_s)
            return
