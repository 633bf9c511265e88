"""A program run in a container, on a node or a host, and what it printed."""

import os
import selectors
import signal
import time
from collections.abc import Sequence
from typing import Any

from netlab.kernel import agent, context
from netlab.kernel.namespaces import children_in


def run(place: context.Place, command: Sequence[str], stdin: str, timeout_s: float | None) -> dict[str, Any]:
    """Run a program in the place and take in what it prints."""
    read_out, write_out = os.pipe()
    read_err, write_err = os.pipe()
    read_in, write_in = os.pipe()

    def main() -> None:
        os.setsid()
        for source, target in ((read_in, 0), (write_out, 1), (write_err, 2)):
            os.dup2(source, target)
        agent.close_other_fds()
        context.run(place, command, os.environ)

    with children_in(place.pids):
        pid = agent.fork(main, read_in, write_out, write_err)
    for fd in (read_in, write_out, write_err):
        os.close(fd)
    out, err, timed_out = _communicate(pid, write_in, stdin.encode(), read_out, read_err, timeout_s)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    return {
        "returncode": 128 - code if code < 0 else code,
        "stdout": out.decode(errors="replace"),
        "stderr": err.decode(errors="replace"),
        "timed_out": timed_out,
    }


def _communicate(
    pid: int, stdin: int, data: bytes, stdout: int, stderr: int, timeout_s: float | None
) -> tuple[bytes, bytes, bool]:
    """Feed and drain the three pipes until both outputs are closed or the time is over (then the program is killed)."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    texts = {stdout: bytearray(), stderr: bytearray()}
    timed_out = False
    with selectors.DefaultSelector() as selector:
        for fd in texts:
            selector.register(fd, selectors.EVENT_READ)
        if data:
            os.set_blocking(stdin, False)
            selector.register(stdin, selectors.EVENT_WRITE)
        else:
            os.close(stdin)
        while any(fd in selector.get_map() for fd in texts):
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0 and not timed_out:
                timed_out, deadline = True, time.monotonic() + 1
                os.killpg(pid, signal.SIGKILL)
                continue
            if left is not None and left <= 0:
                break
            for key, _ in selector.select(left):
                if key.fd == stdin:
                    try:
                        data = data[os.write(stdin, data) :]
                    except BrokenPipeError:
                        data = b""
                    if not data:
                        selector.unregister(stdin)
                        os.close(stdin)
                elif chunk := os.read(key.fd, 1 << 16):
                    texts[key.fd] += chunk
                else:
                    selector.unregister(key.fd)
    for fd in texts:
        os.close(fd)
    return bytes(texts[stdout]), bytes(texts[stderr]), timed_out
