"""The packet filter of one namespace, read back as text and cut into blocks that can be compared.

iptables: what {ip,ip6}tables-{nft,legacy}-save prints; a block is a chain. nftables: what `nft -s list ruleset` prints; a block
is a chain, set or map. Counters, handles and the elements of sets that packets fill are left out, and so is the order in which
chains were made. Refuses to know what a rule means.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from netlab.errors import KernelError
from netlab.kernel import ipsets, ipvs_drift
from netlab.kernel import netlink as nl
from netlab.kernel.libnftables import Nftables, available
from netlab.kernel.namespaces import entered
from netlab.kernel.tools import find, path_of

Blocks = Mapping[tuple[str, str], Sequence[str]]
"""(table, chain or set) -> its lines."""

IPTABLES_TABLES = ("filter", "nat", "mangle", "raw", "security")
_FAMILIES = {0: "unspec", 1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
_NFT_GETTABLE, _NFT_NEWTABLE = (10 << 8) | 1, 10 << 8
_ELEMENT = re.compile(r'(?:[^,"]|"[^"]*")+')


def text(fd: int) -> str:
    """The rules for people, in the dialect in which they were made; '' where there is none."""
    tables = nft_tables(fd)
    ours = [table for table in tables if table[1] not in IPTABLES_TABLES]
    parts = [nft_text(fd)] if ours else []
    families = {family for family, name in tables if name in IPTABLES_TABLES}
    for family, program in (("ip", "iptables"), ("ip6", "ip6tables")):
        if not ours and family in families:
            parts.append(save(fd, program, "nft"))
        if legacy_tables(fd, family):
            parts.append(save(fd, program, "legacy"))
    virtual_servers = ipvs_drift.text(fd)
    if virtual_servers:
        parts += [ipsets.save(fd), virtual_servers]
    return "".join(parts)


def nft_tables(fd: int) -> list[tuple[str, str]]:
    """(family, name) of every nftables table, iptables-nft's own among them; one short question to the kernel."""
    with entered(fd):
        sock = nl.Socket(nl.NETLINK_NETFILTER)
    with sock:
        try:
            rows = sock.dump(nl.Message(_NFT_GETTABLE, 0, b"\0\0\0\0"))
        except OSError:  # a kernel without nftables
            return []
    found = []
    for kind, body in rows:
        if kind == _NFT_NEWTABLE:
            name = nl.attributes(body, 4).get(1, b"").rstrip(b"\0").decode(errors="replace")
            found.append((_FAMILIES.get(body[0], str(body[0])), name))
    return found


def legacy_tables(fd: int, family: str) -> list[str]:
    """The tables that iptables-legacy has made in the namespace."""
    path = Path(f"/proc/thread-self/net/{family}_tables_names")
    with entered(fd):
        try:
            return path.read_text().split()
        except OSError:  # the modules are not there: no tables
            return []


def nft_text(fd: int) -> str:
    """`nft -s list ruleset`. Raises KernelError with nft's words."""
    if available():
        with entered(fd):
            context = Nftables()
        try:
            error, output = context.run("list ruleset")
        finally:
            context.close()
    else:
        output, error = _output(fd, [find("nft"), "-s", "list", "ruleset"])
    if error:
        raise KernelError(f"nft list ruleset: {error.strip()}")
    return output


def save(fd: int, program: str, backend: str, counters: bool = False) -> str:
    """`iptables-save` of this backend, with `-c` if asked; '' where the program is missing, and so has made nothing."""
    path = path_of(f"{program}-{backend}-save")
    if path is None:
        return ""
    output, error = _output(fd, [path, *(["-c"] if counters else [])])
    if error:
        raise KernelError(f"{program}-{backend}-save: {error.strip()}")
    return output


def _output(fd: int, command: Sequence[str]) -> tuple[str, str]:
    pipe = subprocess.PIPE
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "XTABLES_LOCKFILE": os.devnull}
    with entered(fd):
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environment)
    output, error = process.communicate()
    return output, (error or f"exit code {process.returncode}") if process.returncode else ""


# ---------------------------------------------------------------- blocks


def iptables_blocks(saved: str) -> dict[tuple[str, str], list[str]]:
    """Chains of an iptables-save text: a built-in one's policy, then rules in order. Chains that hold nothing are left out."""
    return _chains(saved.splitlines(), "")


def lines_blocks(lines: Mapping[str, Iterable[str]]) -> dict[tuple[str, str], list[str]]:
    """The same of what rendering/iptables.lines expects to be saved."""
    found: dict[tuple[str, str], list[str]] = {}
    for table, rows in lines.items():
        found.update(_chains(rows, table))
    return found


def _chains(lines: Iterable[str], table: str) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith(":"):
            name, policy = (*line[1:].split(" "), "-")[:2]
            found[table, name] = [] if policy in ("-", "ACCEPT") else [f"policy {policy}"]
            if policy == "-":
                found[table, name] = ["chain"]
        elif line.startswith("-A "):
            found.setdefault((table, line.split(" ")[1]), []).append(line)
    return {key: rows for key, rows in found.items() if rows}


def nft_blocks(listed: str) -> dict[tuple[str, str], list[str]]:
    """Chains, sets and maps of an nft listing. Elements come one a line; those of dynamic sets are left out."""
    found: dict[tuple[str, str], list[str]] = {}
    table, block = "", ""
    for line in _logical_lines(listed):
        stripped = line.strip()
        if not line.startswith("\t"):
            table = stripped.removesuffix("{").strip() if stripped != "}" else ""
            if table:
                found[table, ""] = []
        elif line.startswith("\t\t"):
            found.setdefault((table, block), []).append(stripped)
        elif stripped.endswith("{"):
            block = stripped.removesuffix("{").strip()
            found[table, block] = []
        elif stripped != "}":
            found.setdefault((table, ""), []).append(stripped)
    return {key: _without_state(rows) for key, rows in found.items()}


def _logical_lines(listed: str) -> list[str]:
    """Lines, with the elements of a set joined into one."""
    out: list[str] = []
    joining = False
    for line in listed.splitlines():
        if not line.strip():
            continue
        if joining:
            out[-1] += " " + line.strip()
        else:
            out.append(line)
        joining = out[-1].lstrip().startswith("elements = {") and not out[-1].rstrip().endswith("}")
    return out


def _without_state(rows: Sequence[str]) -> list[str]:
    dynamic = any(row.startswith(("flags ", "timeout ")) and ("dynamic" in row or "timeout" in row) for row in rows)
    out: list[str] = []
    for row in rows:
        if not row.startswith("elements = {"):
            out.append(row)
        elif not dynamic:
            inside = row.removeprefix("elements = {").rstrip().removesuffix("}")
            out += sorted(f"element {element.strip()}" for element in _ELEMENT.findall(inside) if element.strip())
    return out
