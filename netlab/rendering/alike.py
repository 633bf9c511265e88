"""Which parts of two long tuples differ: what both renderers ask first, because most of a large ruleset has not changed.

What did not change is mostly the very same object, which C compares without a question.
"""

from typing import TypeVar

AT_ONCE = 256
Part = TypeVar("Part")


def unlike(old: tuple[Part, ...], new: tuple[Part, ...]) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Both without what they begin with alike and end with alike."""
    start = _alike_until(old, new)
    end = _alike_from_end(old, new, min(len(old), len(new)) - start)
    return old[start : len(old) - end], new[start : len(new) - end]


def _alike_until(one: tuple[Part, ...], other: tuple[Part, ...]) -> int:
    start, least = 0, min(len(one), len(other))
    while start + AT_ONCE <= least and one[start : start + AT_ONCE] == other[start : start + AT_ONCE]:
        start += AT_ONCE
    while start < least and one[start] == other[start]:
        start += 1
    return start


def _alike_from_end(one: tuple[Part, ...], other: tuple[Part, ...], most: int) -> int:
    """How many of the last ones are alike, `most` at most."""
    end, last, other_last = 0, len(one), len(other)
    while end + AT_ONCE <= most and (
        one[last - end - AT_ONCE : last - end] == other[other_last - end - AT_ONCE : other_last - end]
    ):
        end += AT_ONCE
    while end < most and one[last - end - 1] == other[other_last - end - 1]:
        end += 1
    return end
