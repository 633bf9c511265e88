"""Programs of this machine: where they are, and which package has them. (What the kernel can do is doctor.py's question.)"""

import os
import shutil

from netlab.errors import MachineError

_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
PACKAGES = {
    "nft": "nftables",
    "iptables": "iptables",
    "iptables-nft-restore": "iptables",
    "iptables-nft-save": "iptables",
    "iptables-legacy-restore": "iptables",
    "iptables-legacy-save": "iptables",
    "ip6tables-nft-restore": "iptables",
    "ip6tables-nft-save": "iptables",
    "ip6tables-legacy-restore": "iptables",
    "ip6tables-legacy-save": "iptables",
    "ipset": "ipset",
    "ipvsadm": "ipvsadm",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "tc": "iproute2",
    "tcpdump": "tcpdump",
    "curl": "curl",
    "newuidmap": "uidmap",
}
"""Program -> the Debian and Ubuntu package that has it."""


def path_of(program: str) -> str | None:
    """Where the program is, on PATH or in the directories that an ordinary user's PATH leaves out."""
    return shutil.which(program, path=":".join((os.environ.get("PATH", ""), *_SYSTEM)))


def find(program: str, variant: str = "") -> str:
    """Where the program is. Raises MachineError that names its package."""
    path = path_of(program)
    if path is None:
        why = f" (a proxy with `backend: {variant}` needs it)" if variant else ""
        raise MachineError(f"{program} is missing{why}: apt install {PACKAGES.get(program, program)}")
    return path
