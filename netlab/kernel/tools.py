"""This machine: its programs and where they are, and, for `netlab doctor`, what it can do and how to get what is missing.

The kernel is asked by features.py, in a process of its own that makes a user namespace and tries things there. Refuses to
change anything on the machine.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from netlab.errors import MissingTool
from netlab.kernel import host

_SYSTEM = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
PACKAGES = {
    "nft": "nftables",
    "ipset": "ipset",
    "ipvsadm": "ipvsadm",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "tc": "iproute2",
    "tcpdump": "tcpdump",
    "curl": "curl",
    "newuidmap": "uidmap",
    "qemu-system-x86_64": "qemu-system-x86",
    "haproxy": "haproxy",
    "nginx": "nginx-light",
    "traefik": "",
    "bird": "bird2",
}
"""Program -> the Debian and Ubuntu package that has it; everything named ip*tables* is in iptables."""
_USES = {
    "nft": "shows the nftables mode's rules",
    "iptables-nft-restore": "the iptables mode",
    "iptables-legacy-restore": "the iptables mode with `backend: legacy`",
    "ip": "looking around with `netlab exec`",
    "tcpdump": "`netlab tcpdump`",
    "conntrack": "looking around with `netlab exec`",
    "ipset": "the ipvs mode",
    "curl": "the examples",
    "haproxy": "`cluster: {ingress: haproxy}`, the default Ingress controller",
    "nginx": "`cluster: {ingress: nginx}`",
    "traefik": "`cluster: {ingress: traefik}`",
    "bird": "`routing: bgp`",
    "qemu-system-x86_64": "`make test-vm` where this kernel lacks ip_vs or netem",
    "newuidmap": "more than one user inside a lab that an ordinary user runs",
}
_NEEDED = ("iptables-nft-restore",)


NEEDED_BY: dict[str, tuple[str, ...]] = {
    "iptables": ("iptables (nft)",),
    "ipvs": ("iptables (nft)", "ipset (kernel)", "IPVS", "rules that ask sets"),
    "nftables": ("nftables",),
    "userspace": ("iptables (nft)", "REDIRECT"),
}
"""Proxy mode -> the checks of features.py without which it cannot run."""


def path_of(program: str) -> str | None:
    """Where the program is, on PATH or in the directories that an ordinary user's PATH leaves out."""
    return shutil.which(program, path=":".join((os.environ.get("PATH", ""), *_SYSTEM)))


def package_of(program: str) -> str:
    return PACKAGES.get(program, "iptables" if "tables" in program else program)


def find(program: str, variant: str = "") -> str:
    """Where the program is. Raises MissingTool, which names its package."""
    path = path_of(program)
    if path is None:
        why = f" (a proxy with `backend: {variant}` needs it)" if variant else ""
        raise MissingTool(f"{program} is missing{why}: apt install {package_of(program)}")
    return path


# ---------------------------------------------------------------- doctor


@dataclass(frozen=True, slots=True)
class Check:
    """One line of `netlab doctor`. `found` says what is there, `remedy` how to get what is not."""

    name: str
    ok: bool
    needed: bool
    found: str = ""
    remedy: str = ""


def checks() -> list[Check]:
    """Everything that a lab rests on, most basic first. Takes about 0.2 s."""
    features = list(_features())
    return [*_python(), *_machine(), *features, *_modes(features), *_limits(), *_programs()]


def _modes(features: Sequence[Check]) -> Iterator[Check]:
    """A line for each proxy mode: whether this kernel can run it and, if not, what it lacks."""
    by_name = {check.name: check for check in features}
    for mode, needed in NEEDED_BY.items():
        lacking = [f"{name}: {by_name[name].remedy}" for name in needed if name in by_name and not by_name[name].ok]
        lacking += [f"{name} could not be tried" for name in needed if name not in by_name]
        yield Check(f"mode {mode}", not lacking, False, "" if lacking else "can run here", "; ".join(lacking))


def why_not(mode: str, scheduler: str = "rr") -> str:
    """Why this machine cannot run the proxy mode, and what to do; '' when it can. Only ipvs is tried: all others always can.

    Takes about 0.2 s for ipvs, and makes the kernel load its modules where it may.
    """
    if mode != "ipvs":
        return ""
    lacking = [f"{check.name}: {check.remedy}" for check in _features(scheduler) if not check.ok]
    return "; ".join(lacking)


def runnable(modes: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The modes that this machine can run, and a sentence for each of the others."""
    reasons = {mode: why_not(mode) for mode in modes}
    able = tuple(mode for mode, reason in reasons.items() if not reason)
    return able, tuple(f"mode {mode} is left out: {reason}" for mode, reason in reasons.items() if reason)


def _python() -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", sys.version_info >= (3, 11), True, version, "Python 3.11 or later: apt install python3")


def _machine() -> Iterator[Check]:
    """WSL 1 is no Linux; an old kernel may do, and is told."""
    if host.wsl() == 1:
        yield Check("kernel", False, True, "", host.WSL_1)
        return
    oldest = ".".join(map(str, host.TRIED))
    old = f"{host.described()}: older than {oldest}, on which netlab is tried; what it lacks is told below and by `up`"
    new = host.version() >= host.TRIED
    yield Check("kernel", new, False, host.described() if new else "", old)


def _features(scheduler: str = "") -> Iterator[Check]:
    command = [sys.executable, "-m", "netlab.kernel.features", *filter(None, [scheduler])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        yield Check("kernel", False, True, "", f"the kernel could not be asked: {error}")
        return
    for row in rows:
        yield Check(**row)
    if done.returncode:
        words = done.stderr.strip().splitlines()
        yield Check("kernel", False, True, "", f"asking the kernel failed: {words[-1] if words else done.returncode}")


def _limits() -> Iterator[Check]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough, found = hard < 0 or hard >= 1024, f"limit {soft}, can be raised to {hard}"
    remedy = (
        f"{found}; a pod takes about one: raise it with ulimit -Hn as root, or LimitNOFILE= (labs of some {max(hard, 0)} pods)"
    )
    yield Check("file descriptors", enough, 0 <= hard < 64, found if enough else "", remedy)
    for kind in ("net", "user"):
        limit = _number(f"/proc/sys/user/max_{kind}_namespaces")
        if limit is not None:
            remedy = f"as root: sysctl -w user.max_{kind}_namespaces=15000"
            found = f"at most {limit}"
            yield Check(f"number of {kind} namespaces", limit >= 32, kind == "net", found if limit >= 32 else "", remedy)
    limit = _number("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
    if limit is not None:
        found = f"{limit} learned entries for the whole machine"
        remedy = f"{found}; for `neighbours: learned`, as root: sysctl -w net.ipv4.neigh.default.gc_thresh3=8192"
        yield Check("neighbour table", limit >= 1024, False, found, remedy)


def _number(path: str) -> int | None:
    try:
        return int(Path(path).read_text())
    except (OSError, ValueError):
        return None


def _programs() -> Iterator[Check]:
    for program, use in _USES.items():
        path = path_of(program)
        package = package_of(program)
        remedy = f"apt install {package} ({use})" if package else f"it is in no package of Debian: put its binary on PATH ({use})"
        yield Check(program, path is not None, program in _NEEDED, _version(program, path) if path else "", remedy)


_VERSION_OPTIONS = {"ip": "-V", "newuidmap": "", "nginx": "-v", "traefik": "version"}


def _version(program: str, path: str) -> str:
    """Path and what the program says of its version, where it can be asked."""
    option = _VERSION_OPTIONS.get(program, "--version")
    if not option:
        return path
    try:
        done = subprocess.run([path, option], capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return path
    words = (done.stdout or done.stderr).strip().splitlines()
    return f"{path}: {words[0]}" if words else path
