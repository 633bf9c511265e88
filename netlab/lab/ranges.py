"""Who sends in a lab under which tokens: everyone that probes at the same time has an upper byte of its own.

A token has 16 bits (netlab/probes/packets.py), a prober chooses the lower byte. Two that drew the same upper byte would take each
other's packets for theirs. What was given back comes again last: packets that are late are not taken for someone else's, either.
"""

from collections import deque
from collections.abc import Iterable

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
