"""IPv6 with packets: the spec's cases and the verdict table on IPv6 addresses, in both modes.

Cases whose topologies are the same take turns in one lab, so that the second family does not cost the suite its time again.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import netlab
from netlab.client import Lab
from tests import spec
from tests.live.test_spec import changed, check, probe, start, take
from tests.spec import CHAINS as MODES
from tests.spec import Case

CASES = [spec.in_ipv6(case) for case in spec.load_cases() if case.single]
SETTINGS = sorted({case.id.split("/")[0] for case in spec.load_verdicts()})


class Labs:
    """One lab for each topology."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.stack = ExitStack()
        self.labs: dict[str, Lab] = {}

    def of(self, case: Case, mode: str) -> Lab:
        topology = json.dumps(spec.topology_of(case, mode), sort_keys=True)
        if topology not in self.labs:
            path = self.directory / f"{len(self.labs)}.json"
            path.write_text(topology)
            self.labs[topology] = self.stack.enter_context(netlab.up(path))
        return self.labs[topology]


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labs]:
    found = Labs(tmp_path_factory.mktemp("labs"))
    with found.stack:
        yield found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(labs: Labs, case: Case, mode: str) -> None:
    lab, objects = labs.of(case, mode), spec.manifests_of(case)
    lab.apply(objects)
    try:
        check(probe(lab, case, case.packets[0]), case, case.steps[0], mode)
    finally:
        for one in reversed(objects):
            lab.delete(one["kind"], one["metadata"]["name"])


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


OTHERS = {"tcp-01", "hc-01", "hc-03"}  # a held connection and health checks: nothing of IPv6 in them
STEPPED = [spec.in_ipv6(case) for case in spec.load_cases() if not case.single and case.id not in OTHERS]
SHORT = [case for case in STEPPED if not any("sleep_between_s" in step or "sleep_s" in step for step in case.steps)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", SHORT, ids=lambda case: case.id)
def test_case_in_steps(case: Case, mode: str, tmp_path: Path) -> None:
    """Those that need not wait: affinity, and UDP flows after their endpoint has gone."""
    with start(case, mode, tmp_path) as lab:
        remembered = ""
        for step in case.steps:
            remembered = take(lab, case, step, mode, remembered)
            case = changed(lab, case, step, remembered)
