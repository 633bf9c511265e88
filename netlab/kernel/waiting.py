"""Waiting for what the kernel acknowledged and does in its own time: asked again after a pause that doubles.

For what tells nobody when it is done: links that come up (links.py), IPv6 addresses that are in force (addresses.py).
"""

import time
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TypeVar

from netlab.errors import KernelError

MOST_S = 30.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.0005, 0.05
NAMED = 8

Thing = TypeVar("Thing")


def wait_for(
    wanted: Mapping[str, Iterable[Thing]], missing: Callable[[str, Iterable[Thing]], tuple[Thing, ...]], problem: str
) -> None:
    """Return when nothing is missing of what is wanted in each namespace. `missing`: what is not there yet of some.

    Raises: KernelError with the first namespace in which some of it is still missing after MOST_S, and the problem in words.
    """
    deadline, pause_s = time.monotonic() + MOST_S, FIRST_PAUSE_S
    while wanted := {netns: left for netns, some in wanted.items() if (left := missing(netns, some))}:
        if time.monotonic() > deadline:
            netns, some = next(iter(wanted.items()))
            raise KernelError(f"{netns}: {', '.join(map(str, islice(some, NAMED)))}: {problem}")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
