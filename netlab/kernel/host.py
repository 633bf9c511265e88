"""What kind of machine this is, where that decides what must be done: the kernel's version, WSL, a container.

Read from where the kernel and the container engines say it; nothing is tried here (features.py does).
"""

import os
import re
from contextlib import suppress
from pathlib import Path

TRIED = (6, 1)
"""The oldest kernel that the project is run on (Debian 12)."""
WSL_1 = "this is WSL 1, which has no Linux kernel: in Windows, `wsl --set-version DISTRIBUTION 2`"


def version() -> tuple[int, int]:
    """Of the kernel, as uname(2) says it."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def wsl() -> int:
    """1 or 2: the Windows Subsystem for Linux; 0: none. Source: github.com/microsoft/WSL#423, its kernels' own names."""
    with suppress(OSError):
        said = Path("/proc/version").read_text()
        if "microsoft" in said.lower():
            return 2 if "WSL2" in said or "microsoft-standard" in said else 1
    return 0


def container() -> str:
    """The kind of container that this is inside of; '' for none that says so."""
    with suppress(OSError):
        return Path("/run/systemd/container").read_text().strip()
    for path, name in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if Path(path).exists():
            return name
    return ""


def described() -> str:
    """In a line: `Linux 6.1.0-13-amd64, WSL 2, in a container (docker)`."""
    number, kind = wsl(), container()
    parts = [f"Linux {os.uname().release}", f"WSL {number}" if number else "", f"in a container ({kind})" if kind else ""]
    return ", ".join(filter(None, parts))
