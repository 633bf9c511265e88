"""Runs a test in a forked child with namespaces of its own, once as root and once as root of a user namespace only."""

import os
from collections.abc import Callable
from typing import Any

from netlab.kernel import namespaces as ns
from netlab.kernel.apply import Kernel
from netlab.ops import File, Listener, Op, Process, Ruleset
from netlab.plan import Plan
from tests.live.child import in_child

WAYS = ["root", "user"] if os.geteuid() == 0 else ["user"]
"""An ordinary user can only do the one; root does both, so that both are tested in one run."""


def run(way: str, body: Callable[..., None], *arguments: Any) -> None:
    """Call `body` in the child; what it raises is this test's failure."""

    def inside() -> None:
        _unshare(way)
        body(*arguments)

    in_child(inside)


def _unshare(way: str) -> None:
    uid, gid = os.getuid(), os.getgid()
    if way == "user":
        ns.unshare(ns.CLONE_NEWUSER)
        ns.map_to_root(uid, gid)
    ns.unshare(ns.CLONE_NEWNS)
    ns.mount("none", "/", "", ns.MS_REC | ns.MS_PRIVATE)
    ns.unshare(ns.CLONE_NEWNET)


def kernel_ops(plan: Plan) -> list[Op]:
    """What Kernel carries out."""
    return [op for op in plan.ops.values() if not isinstance(op, Ruleset | Listener | Process | File)]


def paths(kernel: Kernel) -> dict[str, str]:
    """What opens each namespace, as the holder hands it to a worker."""
    return {name: f"/proc/{os.getpid()}/fd/{fd}" for name, fd in kernel.fds.items()}
