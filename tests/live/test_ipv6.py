"""IPv6 with packets: the verdict table's labs and a selection of the spec's cases on IPv6 addresses, in both modes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.client import Lab
from tests import spec
from tests.live.test_spec import check, probe, start
from tests.spec import MODES, Case

CHOSEN = (
    "cip-01",
    "cip-03",
    "np-01",
    "np-07",
    "np-09",
)
CASES = [spec.in_ipv6(case) for case in spec.load_cases() if case.single]
SETTINGS = sorted({case.id.split("/")[0] for case in spec.load_verdicts()})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(case: Case, mode: str, tmp_path: Path) -> None:
    with start(case, mode, tmp_path) as lab:
        check(probe(lab, case, case.packets[0]), case, case.steps[0], mode)


@pytest.fixture(scope="module", params=[(setting, mode) for setting in SETTINGS for mode in MODES], ids="-".join)
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, list[Case], str]]:
    """One lab a setting and mode: the table's rows of a setting share their objects."""
    setting, mode = request.param
    cases = [spec.in_ipv6(case) for case in spec.load_verdicts() if case.id.split("/")[0] == setting]
    with start(cases[0], mode, tmp_path_factory.mktemp("table")) as lab:
        yield lab, cases, mode


def test_verdict_table(table: tuple[Lab, list[Case], str]) -> None:
    lab, cases, mode = table
    assert len(cases) == 27
    for case in cases:
        check(probe(lab, case, case.packets[0]), case, case.steps[0], mode)
    assert lab.verify().drift == []
