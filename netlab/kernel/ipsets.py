"""The sets of ipset(8) in a namespace, read back; the rule loader fills them (rules.py)."""

import subprocess

from netlab.errors import KernelError
from netlab.kernel.namespaces import entered
from netlab.kernel.tools import find
from netlab.rendering import ipset
from netlab.rendering.ipset import Sets
from netlab.ruleset import IpSet


def save(fd: int) -> str:
    """`ipset save`, sorted. Raises KernelError with its words."""
    command = [find("ipset"), "save", "-sorted"]
    with entered(fd):
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={"LC_ALL": "C"}, text=True
        )
    output, error = process.communicate()
    if process.returncode:
        raise KernelError(f"ipset save: {error.strip() or f'exit code {process.returncode}'}")
    return output


def read(fd: int) -> Sets:
    """Every set of the namespace."""
    return ipset.parsed(save(fd))


def differences(fd: int, planned: tuple[IpSet, ...]) -> list[str]:
    """How the sets differ from planned ones, a sentence each. Sets that nobody planned count, too."""
    wanted, there = ipset.listed(planned), dict(read(fd))
    found: list[str] = []
    for name, one in wanted.items():
        real = there.pop(name, None)
        if real is None:
            found.append(f"ipset: {name} is missing, with {len(one.elements)} elements")
        elif not ipset.same_kind(one, real):
            found.append(f"ipset: {name} is {real.create}, not {one.create}")
        else:
            found += (f"ipset: {name} lacks {element}" for element in sorted(one.elements - real.elements))
            found += (f"ipset: {name} has {element}, which is not planned" for element in sorted(real.elements - one.elements))
    return [*found, *(f"ipset: {name} is not planned" for name in there)]
