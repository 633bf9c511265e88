"""Small hand-made networks for the live tests of probes, responder and capture, in a child process that unshared.

Nothing here touches the namespaces of the process that runs the tests: the child has a user (for ordinary users), mount and
network namespace of its own, and everything in them is gone when it ends.
"""

import os
import subprocess
from collections.abc import Callable
from functools import wraps
from pathlib import Path

from netlab.kernel import namespaces
from tests.live.child import in_child


def sandboxed(test: Callable[[], None]) -> Callable[[], None]:
    """Run a test function in a child process with namespaces of its own; its failure is this test's failure."""

    def inside() -> None:
        _unshare()
        test()

    @wraps(test)
    def run() -> None:
        in_child(inside)

    return run


def _unshare() -> None:
    uid, gid = os.getuid(), os.getgid()
    if uid:
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        namespaces.map_to_root(uid, gid)
    namespaces.unshare(namespaces.CLONE_NEWNS | namespaces.CLONE_NEWNET)
    namespaces.mount("none", "/", "", namespaces.MS_REC | namespaces.MS_PRIVATE)


class Net:
    """Namespaces by name, wired with `ip`."""

    def __init__(self) -> None:
        self.fds: dict[str, int] = {}

    def open(self, name: str) -> int:
        """A new descriptor of the namespace, which the caller closes."""
        return os.dup(self.fds[name])

    def make(self, *names: str) -> None:
        for name in names:
            self.fds[name] = namespaces.new_netns(name)
            self.run(name, "ip", "link", "set", "lo", "up")

    def run(self, name: str, *command: str, text: str = "") -> str:
        """Run a program inside; its output."""
        with namespaces.entered(self.fds[name]):
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {command}: {done.stderr}"
        return done.stdout

    def wire(self, left: str, right: str, left_device: str, right_device: str, left_address: str, right_address: str) -> None:
        """A veth pair between two namespaces, with addresses (or '')."""
        path = f"/proc/{os.getpid()}/fd/{self.fds[right]}"
        self.run(left, "ip", "link", "add", left_device, "type", "veth", "peer", "name", right_device, "netns", path)
        for name, device, address in ((left, left_device, left_address), (right, right_device, right_address)):
            if address:
                self.run(name, "ip", "address", "add", address, "dev", device)
            self.run(name, "ip", "link", "set", device, "up")

    def sysctl(self, name: str, key: str, value: str) -> None:
        with namespaces.entered(self.fds[name]):
            Path("/proc/sys", key).write_text(value)
