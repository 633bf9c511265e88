"""Waiting in tests for what nobody tells: it is asked for again and again, for longer than any machine is busy."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE_S = 60.0
PAUSE_S = 0.02
Answer = TypeVar("Answer")


def until(ask: Callable[[], Answer], words: str, seconds: float = PATIENCE_S) -> Answer:
    """The first answer that is true; `words` say what did not come."""
    deadline = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < deadline, words
        time.sleep(PAUSE_S)
    return answer


def until_equal(ask: Callable[[], object], wanted: object, seconds: float = PATIENCE_S) -> None:
    """Until the answer is the one that is wanted."""
    deadline = time.monotonic() + seconds
    while (answer := ask()) != wanted:
        assert time.monotonic() < deadline, answer
        time.sleep(PAUSE_S)
