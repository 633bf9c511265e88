"""What a rule loader is told: rules as their tools read them, whole or only what changes from those that are loaded.

The holder has the old and the new rules at hand and writes the two lines that change for one among ten thousand Services in less
than a millisecond; to send the loader both rulesets instead takes a second. Decides which tool reads which text, and that a
difference which the kernel refuses (it is not as remembered) is followed by the whole. Refuses to know how tools are run.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from netlab.errors import KernelError
from netlab.rendering import ipset, iptables, nftables
from netlab.ruleset import Family, Ruleset

Netns = int | str
"""An open descriptor, or a path that opens the namespace."""
Job = tuple[Netns, str, Ruleset, Ruleset | None]
"""A namespace, its name, the rules that it shall hold, and those that it holds (None: not known)."""
FAMILIES: tuple[tuple[Family, str], ...] = (("ip", "iptables"), ("ip6", "ip6tables"))
NFT = "nft"
FILL, TRIM = "ipset restore (fill)", "ipset restore (trim)"
"""The sets that iptables rules ask: what is new goes in before the rules change, what is too much goes after them."""


@dataclass(frozen=True, slots=True)
class Text:
    """Input for one tool in one namespace. `difference`: it changes what the namespace holds, otherwise it replaces it."""

    netns: Netns
    name: str
    tool: str
    text: str
    difference: bool


@dataclass(frozen=True, slots=True)
class Loaded:
    """What did not go in. `refused`: (namespace's name, tool) of differences; `failures`: of whole texts, in the tools' words."""

    refused: list[tuple[str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def load_all(run: Callable[[Sequence[Text]], Loaded], todo: Sequence[Job]) -> None:
    """Make every namespace hold its new rules; `run` loads texts. All are tried. Raises: KernelError with every failure."""
    failures: list[str] = []
    for jobs in (_backends_left(todo), _without_old_backends(todo)):
        for texts_of in (_fills, _texts, _trims):
            texts = [text for job in jobs for text in texts_of(*job)]
            if not texts:
                continue
            done = run(texts)
            failures += done.failures
            if done.refused:
                whole = [text for netns, name, new, _ in jobs for text in texts_of(netns, name, new, None)]
                failures += run([text for text in whole if (text.name, text.tool) in done.refused]).failures
    if failures:
        raise KernelError("\n".join(failures))


def _backends_left(todo: Iterable[Job]) -> list[Job]:
    """What the back end that is left must give up, before the other one is told anything."""
    return [(netns, name, replace(old, tables=()), old) for netns, name, new, old in todo if old and old.backend != new.backend]


def _without_old_backends(todo: Iterable[Job]) -> list[Job]:
    return [(netns, name, new, old if old and old.backend == new.backend else None) for netns, name, new, old in todo]


def _texts(netns: Netns, name: str, new: Ruleset, old: Ruleset | None) -> Iterator[Text]:
    if new.dialect == "nftables":
        text = nftables.text(new, old)
        if text:
            yield Text(netns, name, NFT, text, old is not None)
        return
    for family, program in FAMILIES:
        text = iptables.text(new, old, family)
        if text:
            yield Text(netns, name, f"{program}-{new.backend}-restore", text, old is not None)


def _fills(netns: Netns, name: str, new: Ruleset, old: Ruleset | None) -> Iterator[Text]:
    text = ipset.text(new.ipsets) if old is None else ipset.before(*_unlike(new, old))
    if text:
        yield Text(netns, name, FILL, text, old is not None)


def _trims(netns: Netns, name: str, new: Ruleset, old: Ruleset | None) -> Iterator[Text]:
    text = ipset.text(new.ipsets) if old is None else ipset.after(*_unlike(new, old))
    if text:
        yield Text(netns, name, TRIM, text, old is not None)


def _unlike(new: Ruleset, old: Ruleset) -> tuple[ipset.Sets, ipset.Sets]:
    """The sets of both that are not the same."""
    before = {one.name: one for one in old.ipsets}
    alike = {one.name for one in new.ipsets if before.get(one.name) == one}
    fresh, stale = ((one for one in some.ipsets if one.name not in alike) for some in (new, old))
    return ipset.listed(fresh), ipset.listed(stale)
