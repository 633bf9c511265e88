"""A share of the torture suite (`make torture` runs all of it): nothing is left, other labs and the next work."""

import os

import pytest

from tests.torture.__main__ import run
from tests.torture.tortures import ROWS, Row
from tests.torture.world import NotPlayed


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_torture(row: Row) -> None:
    if row.root and os.geteuid() != 0:
        pytest.skip("only root can play this host")
    try:
        _, left = run(row, row.small)
    except NotPlayed as reason:
        pytest.skip(str(reason))
    assert left == []
