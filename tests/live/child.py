"""A body run in a forked child, whose failure is the test's: what it does to its own process leaves with it."""

import os
import traceback
from collections.abc import Callable

import pytest


def in_child(body: Callable[[], object]) -> None:
    """Fails with the child's traceback; skips where the child did."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        text = ""
        try:
            body()
        except BaseException:
            text = traceback.format_exc()
        with os.fdopen(write, "w") as pipe:
            pipe.write(text)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    last = text.rstrip().rpartition("\n")[2]
    if "Skipped:" in last:
        pytest.skip(last)
    if text:
        pytest.fail(text, pytrace=False)
