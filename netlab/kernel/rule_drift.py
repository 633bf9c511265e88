"""How the rules in the kernel differ from a planned Ruleset.

No parser: the plan's text is loaded into a scratch namespace, and what the tool prints there is compared with what it prints in
the real one, chain by chain and set by set. For iptables the renderer knows what iptables-save prints, so that the scratch
namespace is needed only where the two differ. What packets change (counters, elements of dynamic sets) is left out.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher

from netlab.errors import NetlabError
from netlab.kernel import ipsets, nft_trace
from netlab.kernel import rule_listing as listing
from netlab.kernel.namespaces import new_netns
from netlab.kernel.rule_listing import Blocks
from netlab.kernel.rules import Loader
from netlab.ops import Identity, Ruleset
from netlab.rendering import iptables
from netlab.ruleset import Family
from netlab.ruleset import Ruleset as Rules

Drift = tuple[str, Identity | None]
_MOST = 20
"""Sentences a namespace; a table that is wholly gone needs no thousand."""
_FAMILIES: tuple[tuple[Family, str], ...] = (("ip", "iptables"), ("ip6", "ip6tables"))


def drift(namespaces: Mapping[str, tuple[int, Sequence[Ruleset]]]) -> list[Drift]:
    """Differences of every namespace: (descriptor, its planned rulesets) by name."""
    found: list[Drift] = []
    for netns, (fd, rulesets) in namespaces.items():
        mine: list[Drift] = []
        for op in rulesets:
            mine += _of_ruleset(fd, op)
        mine += _extra_tables(netns, fd, [op.value for op in rulesets])
        found += [(f"{netns}: {sentence}", identity) for sentence, identity in mine[:_MOST]]
        if len(mine) > _MOST:
            found.append((f"{netns}: and {len(mine) - _MOST} more differences of its rules", mine[-1][1]))
    return found


def _of_ruleset(fd: int, op: Ruleset) -> Iterator[Drift]:
    try:
        differences = _iptables(fd, op.value) if op.value.dialect == "iptables" else _nftables(fd, op.value)
        if op.value.ipsets:
            differences += ipsets.differences(fd, op.value.ipsets)
    except NetlabError as error:
        yield f"the {op.value.dialect} rules cannot be read: {error}", op.identity
        return
    for sentence in differences:
        yield sentence, op.identity


def _iptables(fd: int, rules: Rules) -> list[str]:
    found: list[str] = []
    for family, program in _FAMILIES:
        planned: Blocks = listing.lines_blocks(iptables.lines(rules, family))
        there = listing.iptables_blocks(listing.save(fd, program, rules.backend))
        if planned == there:
            continue
        with _Scratch(rules) as scratch:
            planned = listing.iptables_blocks(listing.save(scratch, program, rules.backend))
        found += _differences(program, planned, there)
    return found


def _nftables(fd: int, rules: Rules) -> list[str]:
    with _Scratch(rules) as scratch:
        planned = listing.nft_blocks(listing.nft_text(scratch))
    own = {table for table, _ in planned}
    there = {key: lines for key, lines in listing.nft_blocks(listing.nft_text(fd)).items() if key[0] in own}
    return _differences("nftables", planned, there)


class _Scratch:
    """The descriptor of a namespace that holds these rules and nothing else, for as long as the `with` lasts."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def __enter__(self) -> int:
        self._fd = new_netns("for comparing rules")
        loader = Loader()
        try:
            loader.load(self._fd, "the plan", self._rules, None)
        except BaseException:
            os.close(self._fd)
            raise
        finally:
            loader.close()
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def _differences(tool: str, planned: Blocks, there: Blocks) -> list[str]:
    found: list[str] = []
    for key in sorted({*planned, *there}):
        place = " ".join(part for part in key if part)
        if key not in there:
            found.append(f"{tool}: {place} is missing, with {len(planned[key])} lines")
        elif key not in planned:
            found.append(f"{tool}: {place} is not planned, with {len(there[key])} lines")
        else:
            found += (f"{tool}: {place}: {sentence}" for sentence in _lines(planned[key], there[key]))
    return found


def _lines(planned: Sequence[str], there: Sequence[str]) -> Iterator[str]:
    if planned == there:
        return
    if sorted(planned) == sorted(there):
        yield "its lines are in another order"
        return
    for kind, a, b, c, d in SequenceMatcher(None, planned, there, autojunk=False).get_opcodes():
        if kind != "equal":
            yield from (f"missing: {line}" for line in planned[a:b])
            yield from (f"not planned: {line}" for line in there[c:d])


def _extra_tables(netns: str, fd: int, rulesets: Sequence[Rules]) -> Iterator[Drift]:
    """nftables tables and iptables rules that no planned ruleset speaks of."""
    planned = {(table.family, table.name) for rules in rulesets if rules.dialect == "nftables" for table in rules.tables}
    compared = {rules.backend for rules in rulesets if rules.dialect == "iptables"}
    suspects: set[str] = set()
    for family, name in listing.nft_tables(fd):
        if family in ("ip", "ip6") and name in listing.IPTABLES_TABLES:
            suspects.add(family)  # made by iptables, perhaps by nothing more than a look
        elif (family, name) not in planned and not name.startswith(nft_trace.TABLE):  # an `explain` under way
            yield f"nftables: table {family} {name} is not planned", ("table", netns, family, name)
    for family, program in _FAMILIES:
        for backend, present in (("nft", family in suspects), ("legacy", bool(listing.legacy_tables(fd, family)))):
            if present and backend not in compared:
                yield from _foreign(netns, program, family, backend, fd)


def _foreign(netns: str, program: str, family: str, backend: str, fd: int) -> Iterator[Drift]:
    for (table, chain), lines in listing.iptables_blocks(listing.save(fd, program, backend)).items():
        identity = ("table", netns, family, table) if backend == "nft" else None
        for line in lines:
            yield f"{program}-{backend}: {table} {chain}: not planned: {line}", identity
