"""The kernel's nftables trace of one namespace, turned into rules: passes told apart, handles looked up, texts read.

Decides which packets are traced, and how a rule is shown. Refuses to know the plan.
"""

from collections.abc import Callable
from typing import Any
from typing import Protocol as Interface

from netlab.kernel import netlink as nl
from netlab.kernel import nft_trace, rule_listing
from netlab.kernel.namespaces import entered
from netlab.model import Protocol
from netlab.probes import filters
from netlab.probes.witnessed import RuleMet, Shown

Seen = Callable[[bytes], tuple[str, Shown] | None]
"""Which part of the story a packet's bytes are, and how it looks; None for a stranger's."""


class Told(Interface):
    """A namespace and what its trace has told."""

    name: str
    fd: int
    trace: nft_trace.Trace | None
    told: list[nft_trace.Told]

    def device(self, index: int) -> str: ...


def matches(protocol: Protocol, run: int, version: int = 4) -> tuple[list[str], list[str]]:
    """nft matches of the packet and its answers: by the token, at the same offsets as probes/filters; late ones ask conntrack."""
    text = filters.run_text(run)
    token = f"{filters.MAGIC} @th,{{}},32 {text}"
    inside = (8 + (20 if version == 4 else 40)) * 8  # an ICMP error quotes the packet behind its own eight bytes
    echo = "icmp" if version == 4 else "ipv6-icmp"
    match protocol:
        case Protocol.TCP:
            own = [f"meta l4proto tcp @th,32,16 {run}", f"meta l4proto tcp @th,64,16 {run}"]
            quoted = f"@th,{inside + 32},16 {run}"
        case Protocol.SCTP:
            own = [f"meta l4proto sctp @th,128,16 {run}", f"meta l4proto sctp @th,32,16 {run}"]
            quoted = f"@th,{inside + 128},16 {run}"
        case Protocol.UDP | Protocol.ICMP:
            own = [f"meta l4proto {'udp' if protocol is Protocol.UDP else echo} @th,64,32 {token.format(96)}"]
            quoted = f"@th,{inside + 64},32 {token.format(inside + 96)}"
    kinds = "icmp type { destination-unreachable, redirect, time-exceeded }"
    errors = f"{kinds if version == 4 else 'icmpv6 type { destination-unreachable, time-exceeded }'} {quoted}"
    late = ["meta l4proto udp ct direction reply"] if protocol is Protocol.UDP else []
    return [*own, errors], late


class Telling:
    """Turns one namespace's trace messages into rules: passes told apart, handles looked up, texts read."""

    def __init__(self, place: Told, seen: Seen, version: int = 4) -> None:
        self._place, self._seen = place, seen
        self._family, self._program = ("ip", "iptables") if version == 4 else ("ip6", "ip6tables")
        self._texts: dict[tuple[str, str, str], list[str]] = {}
        self._handles: dict[tuple[str, str, str], list[int]] = {}
        self._saved: dict[str, list[str]] | None = None

    def rules(self) -> list[RuleMet]:
        with entered(self._place.fd):
            sock = nl.Socket(nl.NETLINK_NETFILTER)
        with sock:
            bases = {
                family: nft_trace.base_chains(sock, family) for family in dict.fromkeys(told.family for told in self._place.told)
            }
            found: list[RuleMet] = []
            passes: dict[int, tuple[int, Any, str, str, str]] = {}
            for told in self._place.told:
                if told.packet:
                    hook = bases[told.family].get((told.table, told.chain), ("", 0))[0]
                    devices = self._place.device(told.iif), self._place.device(told.oif)
                    passes[told.number] = (len(found), self._seen(told.packet), hook, *devices)
                run, seen, hook, iif, oif = passes.get(told.number, (0, None, "", "", ""))
                if seen is None or (told.kind == "rule" and not told.handle) or told.kind == "return":
                    continue
                part, packet = seen
                position, count, text = self._rule(sock, told) if told.kind == "rule" else (-1, 0, "")
                found.append(
                    RuleMet(
                        self._place.name, part, run, hook, self._table(told), told.chain, position, count, told.verdict,
                        told.target, packet, iif, oif, text, told.handle,
                    )
                )  # fmt: skip
        return found

    def _rule(self, sock: nl.Socket, told: nft_trace.Told) -> tuple[int, int, str]:
        """Position in its chain, the chain's length, and text."""
        key = told.family, told.table, told.chain
        if key not in self._handles:
            self._handles[key] = nft_trace.handles(sock, told.table, told.chain, told.family)
            self._texts[key] = self._text(*key)
        known, texts = self._handles[key], self._texts[key]
        position = known.index(told.handle) if told.handle in known else -1
        return position, len(known), texts[position] if 0 <= position < len(texts) else ""

    def _table(self, told: nft_trace.Told) -> str:
        """`filter`, `inet firewalld`: the family where it is not the packet's own."""
        return told.table if told.family == self._family else f"{told.family} {told.table}"

    def _text(self, family: str, table: str, chain: str) -> list[str]:
        if family != self._family or table not in rule_listing.IPTABLES_TABLES:
            assert self._place.trace is not None
            return self._place.trace.chain_text(table, chain, family)
        if self._saved is None:
            self._saved = {}
            current = ""
            for line in rule_listing.save(self._place.fd, self._program, "nft").splitlines():
                if line.startswith("*"):
                    current = line[1:]
                elif line.startswith("-A "):
                    self._saved.setdefault(f"{current} {line.split(' ', 2)[1]}", []).append(line)
        return self._saved.get(f"{table} {chain}", [])
