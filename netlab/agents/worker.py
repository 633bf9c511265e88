"""A worker: does what the holder must not wait for - probes, read-back, verification, captures, commands - one request at a time.

It is forked from the holder, so it is root of the lab's namespaces; it imports scapy and pyroute2, which the holder never does.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netlab.agents import asking
from netlab.kernel import agent, context
from netlab.kernel.namespaces import children_in
from netlab.ops import Learned
from netlab.plan import Plan


def serve(sock: socket.socket, own: int) -> None:
    """Answer the holder's requests until it has gone. `own`: the upper byte of the tokens of its probes."""
    from netlab.probes import worker as probing
    from netlab.probes.spaces import REST_S

    state = probing.Worker(own)
    others: dict[str, agent.Method] = {
        "run": run,
        "observe": observe,
        "verify": verify,
        "flush_conntrack": flush_conntrack,
        "ask": asking.ask,
        "remove": remove,
        "wait_learned": wait_learned,
        "explain": state.explain,
    }
    resting = {name: _after(state.rest, method) for name, method in others.items()}
    agent.serve_forever(sock, {**state.methods(), **resting}, (REST_S, state.rest))


def _after(rest: Callable[[], None], method: agent.Method) -> agent.Method:
    """What may take as long as a command does keeps no namespace of the probe before."""

    def do(*arguments: Any) -> Any:
        rest()
        return method(*arguments)

    return do


def wait_learned(
    paths: Mapping[str, str], wanted: Sequence[Learned], gone: Sequence[Learned], deadline_s: float, sockets: Mapping[str, str]
) -> list[str]:
    """Wait until the kernel holds what routing daemons are expected to have learned; [] or what is wrong, sessions first."""
    from netlab.kernel import learned

    problems = learned.wait(paths, wanted, gone, deadline_s)
    return [*learned.sessions(sockets), *problems] if problems else []


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
    import selectors
    import signal
    import time

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


def remove(directory: str) -> None:
    """Delete what a pod that is gone has left on the lab's tmpfs."""
    import shutil

    shutil.rmtree(directory, ignore_errors=True)


def observe(path: str, what: str, peers: Any = None) -> Any:
    """What the kernel says about one namespace."""
    from netlab.kernel import observe as kernel_observe

    return kernel_observe.read(path, what, peers)


def verify(paths: Mapping[str, str], plan: Plan) -> list[tuple[str, tuple[str, ...] | None]]:
    """(sentence, identity of the op that mends it) for each difference between plan and kernel."""
    from netlab.kernel import verify as kernel_verify

    found: list[tuple[str, tuple[str, ...] | None]] = kernel_verify.drift(paths, tuple(plan.ops.values()))
    return found


def flush_conntrack(paths: Sequence[str]) -> dict[str, int]:
    """Forget every connection in the namespaces."""
    from netlab.kernel import rules

    for path in paths:
        rules.flush_conntrack(path)
    return {"flushed": len(paths)}
