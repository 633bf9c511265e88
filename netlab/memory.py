"""What a pure function answered last time, for the very same arguments: how a cluster is planned quickly when little changed.

The parts of a Cluster are values that are never changed, only replaced: a mapping that is the same object holds the same. So
an answer that is kept can never be wrong, and it is the answer to one question, or to a few, so that nothing grows.
"""

import gc
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from operator import is_
from typing import Any, ParamSpec, TypeVar

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")
Name = TypeVar("Name")
Part = TypeVar("Part")
Rest = TypeVar("Rest")
AT_ONCE = 256


def last_kept(function: Callable[Asked, Answer]) -> Callable[Asked, Answer]:
    """The function, which gives its last answer again when it is asked with the very same objects (by identity, not equality)."""
    return last_ones_kept(1)(function)


def last_ones_kept(number: int) -> Callable[[Callable[Asked, Answer]], Callable[Asked, Answer]]:
    """The same for so many questions that are asked by turns; what was not asked for longest is forgotten."""

    def of(function: Callable[Asked, Answer]) -> Callable[Asked, Answer]:
        kept: list[tuple[tuple[Any, ...], Answer]] = []

        @wraps(function)
        def asked(*args: Asked.args, **named: Asked.kwargs) -> Answer:
            assert not named, "only what is given by position is compared"
            for at, known in enumerate(kept):
                if same(known[0], args):
                    if at:
                        kept.insert(0, kept.pop(at))
                    return known[1]
            kept.insert(0, (args, function(*args, **named)))
            del kept[number:]
            return kept[0][1]

        return asked

    return of


def kept_for_each(function: Callable[[Part, Rest], Answer]) -> Callable[[Iterable[Part], Rest], list[Answer]]:
    """The function for each of many: it is called for those only that it was not called for last time, with an equal rest."""
    kept: list[tuple[Rest, dict[int, tuple[Part, Answer]]]] = []

    @wraps(function)
    def for_each(parts: Iterable[Part], rest: Rest) -> list[Answer]:
        last = kept[0] if kept else None
        known = last[1] if last is not None and last[0] == rest else {}
        now: dict[int, tuple[Part, Answer]] = {}
        for part in parts:
            answered = known.get(id(part))  # the part is kept with its answer, so that nobody else can get its id
            now[id(part)] = answered if answered is not None else (part, function(part, rest))
        kept[:] = [(rest, now)]
        return [answer for _, answer in now.values()]

    return for_each


@contextmanager
def no_collection() -> Iterator[None]:
    """While much is read: all of it is kept, nothing is circular, and the collector would look at it again and again, a third
    of the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def collect_less() -> None:
    """What is there now stays: a cluster and its plan are values without cycles, and looking for cycles among 100,000 of them
    doubles the time of a change.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    gc.enable()


def same(some: tuple[Any, ...], others: tuple[Any, ...]) -> bool:
    """Both consist of the very same objects."""
    return len(some) == len(others) and all(map(is_, some, others))


def replaced(old: Mapping[Name, Any], new: Mapping[Name, Any]) -> set[Name]:
    """The names under which the two do not have the same, those that only one has among them."""
    if old is new:
        return set()
    names = list(new)
    if list(old) != names:
        found = {name for name, value in new.items() if name not in old or old[name] != value}
        return found | (old.keys() - new.keys())
    before, after = list(old.values()), list(new.values())
    # The very same object is equal to C without a question: this is how most of 10,000 are passed over.
    starts = [at for at in range(0, len(names), AT_ONCE) if before[at : at + AT_ONCE] != after[at : at + AT_ONCE]]
    return {names[at] for start in starts for at in range(start, min(start + AT_ONCE, len(names))) if before[at] != after[at]}
