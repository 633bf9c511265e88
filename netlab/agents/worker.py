"""A worker: does what the holder must not wait for - probes, read-back, verification, captures, commands - one request at a time.

It is forked from the holder, so it is root of the lab's namespaces; it imports scapy and pyroute2, which the holder never does.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netlab.agents import asking
from netlab.agents.commands import run
from netlab.kernel import agent
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
