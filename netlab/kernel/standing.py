"""iptables-restore processes that stay: one a namespace, fed one difference after the other.

Why: a restore commits a small difference in 0.1 ms, but needs 4 ms to start and, with the nft backend, 10-20 ms more to leave,
because the kernel waits for an RCU grace period when its netlink socket closes. With --verbose it repeats comment lines, after
it has committed what stood before them: that is how its being done is known. `stdbuf -oL` (coreutils) makes it say so at once.
A process that refuses something ends; the caller then loads the whole text with a fresh one, whose words are the ones reported.
"""

import os
import subprocess
from collections.abc import Sequence

from netlab.kernel.tools import path_of

MAXIMUM_TEXT_BYTES = 32 * 1024
"""What a pipe takes without a reader; larger differences are loaded by a process of their own."""


class Standing:
    """One restore process, bound to the namespace in which it was started."""

    def __init__(self, command: Sequence[str], stdbuf: str) -> None:
        lock = os.memfd_create("netlab-xtables-lock")
        try:
            self._process = subprocess.Popen(
                [stdbuf, "-oL", *command, "--noflush", "--verbose"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "XTABLES_LOCKFILE": f"/proc/self/fd/{lock}"},
                pass_fds=(lock,),
            )
        finally:
            os.close(lock)
        self._count = 0

    def load(self, text: str) -> bool:
        """Commit the text; False when it was refused, and this process is of no use any more."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._count += 1
        mark = f"# netlab {self._count}\n".encode()
        try:
            self._process.stdin.write(text.encode() + mark)
            self._process.stdin.flush()
            while line := self._process.stdout.readline():
                if line == mark:
                    return True
        except OSError:
            pass
        self.close()
        return False

    def close(self) -> None:
        """Let it end."""
        with self._process as process:  # closes the pipes and waits
            process.terminate()


def stdbuf() -> str | None:
    """Where coreutils' stdbuf is."""
    return path_of("stdbuf")
