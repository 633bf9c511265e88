"""`python -m tests.live.inside PID FD -- COMMAND`: run a program in the network namespace that process PID has open as FD.

For witnesses that netlab knows nothing of, in namespaces that `netlab exec` has no name for (switches, the router).
"""

import os
import sys
from pathlib import Path

from netlab.kernel import namespaces


def main(pid: int, number: int, command: list[str]) -> None:
    netns = os.open(f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_CLOEXEC)
    theirs = Path(f"/proc/{pid}/ns/user")
    if theirs.readlink() != Path("/proc/self/ns/user").readlink():
        namespaces.setns(os.open(theirs, os.O_RDONLY | os.O_CLOEXEC), namespaces.CLONE_NEWUSER)
    namespaces.setns(netns)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[4:])
