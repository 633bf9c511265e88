"""What must be the same before and after a lab: everything of the caller's own network namespace and mounts."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

COMMANDS = {
    "links": ["ip", "-d", "-j", "-p", "link"],
    "addresses": ["ip", "-j", "-p", "address"],
    "routes": ["ip", "-j", "route", "show", "table", "all"],
    "routes6": ["ip", "-6", "-j", "route", "show", "table", "all"],
    "policy": ["ip", "-j", "rule"],
    "named": ["ip", "netns"],
    "nftables": ["nft", "list", "ruleset"],
}
CHANGING = ("/nf_conntrack_count", "/random/", "/file-nr", "/inode-nr", "/stat/", "/nf_conntrack_buckets")


def state() -> dict[str, str]:
    """Name -> text of everything that a lab must leave alone."""
    found = {name: _output(command) for name, command in COMMANDS.items()}
    found["sysctls"] = "\n".join(_sysctls())
    found["mounts"] = Path("/proc/self/mountinfo").read_text()
    return found


def changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The lines that came (+) or went (-) between two states."""
    found = []
    for name, text in before.items():
        old, new = text.splitlines(), after[name].splitlines()
        set_old, set_new = set(old), set(new)
        found += [f"{name} -{line}" for line in old if line not in set_new]
        found += [f"{name} +{line}" for line in new if line not in set_old]
        found += [f"{name}: another order"] if not found and old != new else []
    return found


def marked_processes(mark: str) -> list[int]:
    """The pids of all processes that were started with this mark in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def _output(command: list[str]) -> str:
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment).stdout
    except FileNotFoundError:
        return ""


def _sysctls() -> Iterator[str]:
    for path in sorted(Path("/proc/sys/net").rglob("*")):
        if path.is_file() and not any(part in str(path) for part in CHANGING):
            try:
                yield f"{path}={path.read_text().strip()}"
            except OSError:
                continue
