"""Who sends in a lab under which tokens and from which ports, so that what is probed at the same time never meets.

Everyone that probes has an upper byte of its own. A token has 16 bits (netlab/probes/packets.py), a prober chooses the lower
byte. Two that drew the same upper byte would take each other's packets for theirs. What was given back comes again last: packets
that are late are not taken for someone else's, either.

Source ports are handed out a request: connection tracking knows a flow by its addresses and ports alone, and would lead a second
one with the same to where the first went.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from random import Random

from netlab.probes.values import FIRST_PORT, PORTS

UPPER_BYTES = range(0x01, 0xFF)


class Ranges:
    """The upper bytes of one lab's tokens that nobody has now."""

    def __init__(self, of: Iterable[int] = UPPER_BYTES) -> None:
        self._free = deque(of)

    def take(self, most: int, leave: int = 0) -> tuple[int, ...]:
        """Up to so many, of what is beyond `leave`; () where nothing is."""
        return tuple(self._free.popleft() for _ in range(min(most, max(0, len(self._free) - leave))))

    def give_back(self, taken: Iterable[int]) -> None:
        self._free.extend(taken)


SPARE = 8
"""Ports beyond a request's flows: some are sent again to see where they get lost."""
SENT_AGAIN = 64
"""The same for many requests from one namespace: at most TRACED of their flows are sent again (netlab/probes/prober.py)."""


class SourcePorts:
    """The source ports of one lab's probes: each namespace goes round all of them, once in 20,000 flows, whoever sends."""

    def __init__(self, random: Random | None = None) -> None:
        self._random = random or Random()
        self._next: dict[str, int] = {}

    def take(self, netns: str, count: int) -> int:
        """The first of so many consecutive ports (beyond the last the first follows) that nobody else sends from there now."""
        start = self._next.get(netns)
        if start is None:
            start = self._random.randrange(PORTS)
        self._next[netns] = (start + count) % PORTS
        return FIRST_PORT + start

    def hand_out(self, taken: Mapping[str, int]) -> None:
        """In a fork: what was taken for it begins at these ports, by namespace."""
        self._next |= {netns: first - FIRST_PORT for netns, first in taken.items()}
