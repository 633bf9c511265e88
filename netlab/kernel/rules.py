"""The rule loader: puts rules, as their tools read them, into the kernel of one namespace.

Runs in a child of the holder (libnftables calls exit() when it runs out of descriptors). Decides which program or library
does it, and what its refusal means to the user. Refuses to know how rules are spelled (rendering), which texts a change of
rules needs (rule_texts) and what they mean.

nftables: one libnftables context a namespace, made inside it, because it stays bound there; `nft -f -` where the library is
missing. iptables: {ip,ip6}tables-{nft,legacy}-restore. A difference goes in with --noflush, through a process that stays
(standing.py); a whole text without, which replaces what its tables held. Each gets a lock file of its own, in memory: the
legacy lock is the machine's otherwise, and one lab would wait for another. Where iptables-nft may not send so much at once (an
ordinary user's socket buffer), whole tables go in by several transactions. The sets that iptables rules ask: `ipset restore`, in
two halves, before and after the rules.
"""

import os
import re
import socket
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from netlab.errors import KernelError
from netlab.kernel import conntrack, ipsets
from netlab.kernel.libnftables import Nftables, available
from netlab.kernel.namespaces import current_netns, entered
from netlab.kernel.rule_texts import FILL, NFT, TRIM, Job, Loaded, Netns, Text, load_all
from netlab.kernel.standing import MAXIMUM_TEXT_BYTES, Standing, stdbuf
from netlab.kernel.tools import find
from netlab.rendering import ipset, iptables
from netlab.ruleset import Ruleset


class Piece(NamedTuple):
    """What one iptables-restore reads. `flush`: first it empties the tables that it names."""

    text: Text
    flush: bool


class Loader:
    """Keeps what is worth keeping between loads: a libnftables context for each namespace, by name."""

    def __init__(self) -> None:
        self._home = current_netns()
        self._contexts: dict[str, tuple[Inode, Nftables]] = {}
        self._standing: dict[tuple[str, str], tuple[Inode, Standing]] = {}

    def load(self, netns: Netns, name: str, new: Ruleset, old: Ruleset | None) -> None:
        """Make the namespace hold `new`, given that it holds `old` (None: not known; the tables are replaced whole).

        Raises: KernelError with the tool's words and the line; MachineError when the tool is missing.
        """
        self.load_all([(netns, name, new, old)])

    def load_all(self, todo: Sequence[Job]) -> None:
        """The same for several; those that are programs run side by side. All are tried; the failures are raised together."""
        load_all(self.run, todo)

    def run(self, texts: Sequence[Text]) -> Loaded:
        """Load texts; those that are read by programs side by side. Says which were not taken."""
        programs: list[tuple[int, list[Piece]]] = []
        loaded = Loaded()
        with ExitStack() as stack:
            for text in texts:
                fd = stack.enter_context(opened(text.netns))
                if text.tool == NFT:
                    _note(loaded, text, self._run_nft(fd, text.name, text.text))
                elif text.tool in (FILL, TRIM):
                    _note(loaded, text, self._sets(fd, text))
                elif not (text.difference and self._stood(fd, text)):
                    programs.append((fd, self._pieces(text)))
            while programs := self._restored(loaded, programs):
                pass
        return loaded

    def _restored(self, loaded: Loaded, todo: Sequence[tuple[int, list[Piece]]]) -> list[tuple[int, list[Piece]]]:
        """Load the first piece of each, side by side; what is left to do of those that were taken."""
        running = []
        for fd, (piece, *_) in todo:
            command = [_restore(piece.text.tool), *([] if piece.flush else ["--noflush"])]
            with entered(fd, self._home):
                running.append(_spawn(command, piece.text.text))
        left = []
        for (fd, (piece, *rest)), process in zip(todo, running, strict=True):
            error = _error_of(process)
            _note(loaded, piece.text, error)
            if rest and not error:
                left.append((fd, rest))
        return left

    def _pieces(self, text: Text) -> list[Piece]:
        """What is too much for one transaction goes in after its chains, in several."""
        if text.difference or "-nft-" not in text.tool or len(text.text) < SENT_BYTES // 10 or may_send_much():
            return [Piece(text, not text.difference)]
        declared, filled = iptables.in_pieces(text.text, SENT_BYTES)
        return [Piece(replace(text, text=declared), flush=True), Piece(replace(text, text=filled), flush=False)]

    def _sets(self, fd: int, text: Text) -> str:
        """Restore a difference; of whole sets what the kernel lacks (FILL), or take out what it has too much (TRIM)."""
        lines = text.text
        if not text.difference:
            wanted, there = ipset.parsed(lines), ipsets.read(fd)
            lines = ipset.before(wanted, there) if text.tool == FILL else ipset.after(wanted, there)
        if not lines:
            return ""
        command = [find("ipset"), "restore"]
        with entered(fd, self._home):
            process = _spawn(command, lines)
        return _error_of(process)

    def forget(self, name: str) -> None:
        """The namespace is gone: free what was kept for it."""
        kept = self._contexts.pop(name, None)
        if kept is not None:
            kept[1].close()
        for key in [key for key in self._standing if key[0] == name]:
            self._standing.pop(key)[1].close()

    def close(self) -> None:
        """Free everything that was kept."""
        for name in {*self._contexts, *(name for name, _ in self._standing)}:
            self.forget(name)
        os.close(self._home)

    # ------------------------------------------------------------ nftables

    def _run_nft(self, fd: int, name: str, text: str) -> str:
        if available():
            return self._context(fd, name).run(text)[0]
        with entered(fd, self._home):
            process = _spawn([find("nft"), "-f", "-"], text)
        return _error_of(process)

    def _context(self, fd: int, name: str) -> Nftables:
        """The context of this very namespace: a name may come again with another one."""
        identity = _inode(fd)
        kept = self._contexts.get(name)
        if kept is None or kept[0] != identity:
            self.forget(name)
            with entered(fd, self._home):
                self._contexts[name] = kept = (identity, Nftables())
        return kept[1]

    # ------------------------------------------------------------ iptables

    def _stood(self, fd: int, text: Text) -> bool:
        """Whether a standing process has loaded the difference. One that refused is gone; the usual way goes on from there."""
        program = stdbuf()
        if program is None or len(text.text) > MAXIMUM_TEXT_BYTES:
            return False
        identity, key = _inode(fd), (text.name, text.tool)
        kept = self._standing.get(key)
        if kept is None or kept[0] != identity:
            if kept is not None:
                kept[1].close()
            with entered(fd, self._home):
                self._standing[key] = kept = (identity, Standing([_restore(text.tool)], program))
        if kept[1].load(text.text):
            return True
        del self._standing[key]
        return False


SO_SNDBUFFORCE = 32  # asm-generic/socket.h; Python has no name for it
SENT_BYTES = 180_000
"""What a netlink socket surely sends at once when nobody may enlarge its buffer (net.core.wmem_default is 212,992)."""


@cache
def may_send_much() -> bool:
    """Whether iptables-nft may send as much at once as it wants: SO_SNDBUFFORCE is for the machine's root only."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SENT_BYTES)
        except PermissionError:
            return False
    return True


Inode = tuple[int, int]


def _inode(fd: int) -> Inode:
    """What tells one namespace from another that is named like it."""
    status = os.fstat(fd)
    return (status.st_dev, status.st_ino)


def _restore(tool: str) -> str:
    """Where `{ip,ip6}tables-BACKEND-restore` is."""
    return find(tool, tool.split("-")[1])


def _note(loaded: Loaded, text: Text, error: str) -> None:
    """Keep what a tool said against a text."""
    if error and text.difference:  # the kernel's state is not the one it starts from, or it still refers to a chain
        loaded.refused.append((text.name, text.tool))
    elif error:
        loaded.failures.append(_refusal(text.name, text.tool, text.text, error))


class opened:  # a context manager, named as a verb like open()
    """The descriptor of a namespace given as descriptor (which stays open) or as path (which is closed at the end)."""

    def __init__(self, netns: Netns) -> None:
        self._netns = netns

    def __enter__(self) -> int:
        if isinstance(self._netns, int):
            return self._netns
        try:
            self._fd = os.open(self._netns, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(f"cannot open the namespace {self._netns}: {error.strerror}") from None
        return self._fd

    def __exit__(self, *_: object) -> None:
        if not isinstance(self._netns, int):
            os.close(self._fd)


def _spawn(command: Sequence[str], text: str) -> subprocess.Popen[bytes]:
    """Start it in the namespace that this process is in, reading `text`. Nobody need feed it, so that several run at once."""
    stdin, lock = os.memfd_create("netlab-rules"), os.memfd_create("netlab-xtables-lock")
    try:
        data = memoryview(text.encode())
        while data:
            data = data[os.write(stdin, data) :]
        os.lseek(stdin, 0, os.SEEK_SET)
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "XTABLES_LOCKFILE": f"/proc/self/fd/{lock}"}
        return subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, pass_fds=(lock,)
        )
    finally:
        os.close(stdin)
        os.close(lock)


def _error_of(process: subprocess.Popen[bytes]) -> str:
    """What it said, once it has ended; '' when it did its work."""
    _, error = process.communicate()
    return error.decode(errors="replace") or f"exit code {process.returncode}" if process.returncode else ""


def _refusal(name: str, tool: str, text: str, error: str) -> str:
    """The tool's own words, and the line of the input that it means, where its words name one."""
    error = error.strip() or "it failed without a word"
    lines = text.splitlines()
    shown = ""
    found = re.search(r"line:? (\d+)", error) or re.search(r"(?:stdin|cmdline>?):(\d+):", error)
    if found and 0 < int(found[1]) <= len(lines):
        line = lines[int(found[1]) - 1]
        if line.strip() and line.strip() not in error:
            shown = f"\n  line {found[1]}: {line.strip()}"
    words = "\n  ".join(error.splitlines()[:12])
    return f"{name}: {tool} refused the rules:\n  {words}{shown}{_hint(error)}"


def _hint(error: str) -> str:
    if "Permission denied" in error or "Operation not permitted" in error:
        return "\n  (`netlab doctor` says what this machine allows)"
    if "Extension" in error or "missing kernel module" in error or "No such file or directory" in error:
        return "\n  (a kernel module may be missing; `netlab doctor` says which features this kernel has)"
    return ""


def flush_conntrack(netns: Netns) -> None:
    """Forget every connection of the namespace."""
    with opened(netns) as fd:
        with entered(fd):
            table = conntrack.Table()
        with table:
            table.flush()


def stale_udp(netns: Netns, wanted: conntrack.Wanted) -> int:
    """Delete UDP entries that lead to an endpoint which no longer serves. Returns how many."""
    with opened(netns) as fd:
        with entered(fd):
            table = conntrack.Table()
        with table:
            return table.delete_stale_udp(wanted)
