"""The elements of all blocks of Services together, as a node of mode `nftables`, `layout: maps`, has them.

Decides the order of elements, and which Service has a key that two of them claim. Refuses to know what elements mean
(nftables_elements.py) and where blocks come from (port_blocks.py).

Theory. What was put together last time is kept. Where only a few blocks are other ones since, and they claim what the old ones
claimed, their elements are put in the place of the old ones: whatever they have nothing to do with is the very same object as
before, which the renderer passes over. In every other case all is put together anew. The answer never depends on what is kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from netlab.proxy.nftables_elements import UNIQUE, BlockElements, data_map, elements_for, first_come
from netlab.proxy.port_blocks import PortBlock
from netlab.proxy.settings import View
from netlab.ruleset import Chain, DataMap, SetDef

MOST_CHANGED = 8
"""And half of the blocks at most: nothing is taken over into a cluster that consists of other objects."""


@dataclass(frozen=True, slots=True)
class Together:
    """Elements by the set or map that they are for, in a stable order; and what else blocks have.

    plain: no two blocks bring the same key, so that each of them can be replaced by itself.
    """

    ports: tuple[PortBlock, ...]
    blocks: tuple[BlockElements, ...]
    plain: bool
    elements: Mapping[str, tuple[Any, ...]]
    data_maps: tuple[DataMap, ...]
    chains: tuple[Chain, ...]
    affinity_sets: tuple[SetDef, ...]


class Kept:
    """What a view of Services had last time."""

    def __init__(self, seen: View) -> None:
        self._elements_of = elements_for(seen)
        self._last: Together | None = None

    def together(self, ports: tuple[PortBlock, ...]) -> Together:
        """The elements of these blocks."""
        last = self._last
        if last is None or last.ports is not ports:
            last = (self._replaced(last, ports) if last is not None else None) or self._anew(ports)
            self._last = last
        return last

    def _anew(self, ports: tuple[PortBlock, ...]) -> Together:
        blocks = tuple(map(self._elements_of, ports))
        plain = _apart([block.claimed for block in blocks])
        used: Sequence[BlockElements] = blocks if plain else [first_come(blocks)]
        elements: dict[str, tuple[Any, ...]] = {}
        for name in _names(used):
            elements[name] = tuple(chain.from_iterable(block.elements.get(name, ()) for block in used))
            if name in UNIQUE and not _apart([block.keys[name] for block in used]):
                plain, elements[name] = False, tuple(dict.fromkeys(elements[name]))
        return Together(
            ports,
            blocks,
            plain,
            elements,
            _data_maps(elements, {}),
            tuple(one for block in used for one in block.chains),
            tuple(one for block in used for one in block.affinity_sets),
        )

    def _replaced(self, last: Together, ports: tuple[PortBlock, ...]) -> Together | None:
        """With the elements of the blocks that are other ones; None where that does not do."""
        if not last.plain or len(last.ports) != len(ports):
            return None
        changed = [at for at, (was, now) in enumerate(zip(last.ports, ports, strict=True)) if was is not now]
        if len(changed) > min(MOST_CHANGED, len(ports) // 2):
            return None
        blocks, elements = list(last.blocks), dict(last.elements)
        for at in changed:
            was, now = blocks[at], self._elements_of(ports[at])
            if not _alike(was, now):
                return None
            for name in was.elements.keys() | now.elements.keys():
                if (old := was.elements.get(name, ())) != (new := now.elements.get(name, ())):
                    start = sum(map(len, [block.elements.get(name, ()) for block in blocks[:at]]))
                    every = elements.get(name, ())
                    elements[name] = every[:start] + new + every[start + len(old) :]
            blocks[at] = now
        if elements.keys() != last.elements.keys() or any(not every and name not in UNIQUE for name, every in elements.items()):
            elements = {name: elements[name] for name in _names(blocks)}
        known = {one.name: one for one in last.data_maps}
        return Together(ports, tuple(blocks), True, elements, _data_maps(elements, known), last.chains, last.affinity_sets)


def _alike(was: BlockElements, now: BlockElements) -> bool:
    """They claim the same, have the same in what several blocks may bring, and the same chains."""
    unique = all(was.elements[name] == now.elements[name] for name in UNIQUE)
    return unique and (was.claimed, was.chains, was.affinity_sets) == (now.claimed, now.chains, now.affinity_sets)


def _apart(sets: list[frozenset[Any]]) -> bool:
    """No two of them have an element in common."""
    return len(frozenset().union(*sets)) == sum(map(len, sets))


def _names(blocks: Sequence[BlockElements]) -> list[str]:
    return sorted({name for block in blocks for name in block.elements}, key=_by_number)


def _by_number(name: str) -> tuple[str, int]:
    stem, _, number = name.rpartition("-")
    return (stem, int(number)) if number.isdigit() else (name, 0)


def _data_maps(elements: Mapping[str, tuple[Any, ...]], known: Mapping[str, DataMap]) -> tuple[DataMap, ...]:
    """Those of `known` that have the very same elements are used again."""
    found = (
        was if (was := known.get(name)) is not None and was.elements is every else data_map(name, every)
        for name, every in elements.items()
    )
    return tuple(one for one in found if one is not None)
