"""A `netlab capture` beside what a program does: started, waited for until it sees packets, and ended in good order.

Refuses to know what is recorded: the command's own process joins the lab, because a program with threads cannot.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from netlab.errors import InputError, KernelError, LabGone, MachineError, NetlabError

READY_S = 30.0
END_S = 5.0
BY_EXIT_CODE: Mapping[int, type[NetlabError]] = {2: InputError, 3: MachineError}


@contextlib.contextmanager
def recording(lab: str, file: Path, arguments: Sequence[str] = ()) -> Iterator[Path]:
    """`file` is being written while the block runs, and whole after it.

    Raises: InputError, MachineError or KernelError with the command's words when nothing can be recorded.
    """
    try:
        file.write_bytes(b"")  # what an earlier one left there must not be taken for this one's
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    command = [sys.executable, "-P", "-m", "netlab", "capture", "--lab", lab, "-w", str(file), *arguments]
    search = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    with tempfile.TemporaryFile() as said:
        # A session of its own: as Ctrl-C at a terminal does, the signal has to reach the recording child of the command too.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": search},
        )
        try:
            _wait_until_recording(process, file, said)
            yield file
        finally:
            code = _end(process)
        if code == -signal.SIGKILL:
            raise KernelError(f"netlab capture was killed, because it did not end within {END_S:g} s: {file} may be cut short")
        if code:  # it ended before the block did
            raise _failed(code, said)


def _wait_until_recording(process: "subprocess.Popen[bytes]", file: Path, said: IO[bytes]) -> None:
    """The file gets its header when all packet sockets are open."""
    end = time.monotonic() + READY_S
    while not file.stat().st_size:
        code = process.poll()
        if code is not None:
            raise _failed(code, said)
        if time.monotonic() > end:
            raise KernelError(f"netlab capture did not start within {READY_S:g} s")
        select.select([], [], [], 0.02)


def _failed(code: int, said: IO[bytes]) -> NetlabError:
    said.seek(0)
    text = said.read().decode(errors="replace").strip().removeprefix("error: ")
    if "no lab named" in text:
        return LabGone(text)
    return BY_EXIT_CODE.get(code, KernelError)(text or f"netlab capture ended with {code}")


def _end(process: "subprocess.Popen[bytes]") -> int:
    for number, patience_s in ((signal.SIGINT, END_S), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(patience_s)
    raise AssertionError("a killed process ends")
