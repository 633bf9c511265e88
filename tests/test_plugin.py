"""The pytest plugin, run by pytest itself over small suites with a fake lab: labs, modes, skips, scenarios, failure reports."""

import importlib
import pkgutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # noqa: F401  # pytester forgets what its runs import, and a C extension must not be imported twice

import netlab
from netlab import client, pytest_plugin
from netlab.errors import InputError, MachineError
from netlab.scenario import evidence
from tests.test_scenario import FakeLab, Report, Result

pytest_plugins = ["pytester"]


class Labs:
    """Stands in for netlab.client.up and remembers every lab."""

    def __init__(self) -> None:
        self.ups: list[tuple[Any, Any, dict[str, Any]]] = []
        self.labs: list[FakeLab] = []
        self.error: Exception | None = None
        self.unable: set[str] = set()
        self.answers: dict[str, Any] = {"probe": Result(), "verify": Report()}

    def up(self, topology: Any = None, manifests: Any = (), **options: Any) -> FakeLab:
        self.ups.append((topology, manifests, options))
        if self.error is not None:
            raise self.error
        if options.get("proxy") in self.unable:
            raise MachineError("this kernel lacks what the mode needs")
        lab = FakeLab(**self.answers)
        lab.name = options["name"]
        self.labs.append(lab)
        return lab


@pytest.fixture(autouse=True, scope="module")
def all_imported() -> None:
    """pytester forgets what its runs were the first to import: a later import would make classes of the same name anew, and
    other tests of this process would hold both.
    """
    for module in pkgutil.walk_packages(netlab.__path__, "netlab."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


@pytest.fixture
def labs(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[Labs]:
    made = Labs()
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest -p no:xdist")  # they take most of a second to load
    monkeypatch.setattr(client, "up", made.up)
    monkeypatch.setattr(evidence, "capture", lambda lab, replay, path: path)
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    yield made
    assert all(lab.is_down for lab in made.labs), "a lab was left running"


MARKED = """
    import pytest

    @pytest.mark.netlab("t.yaml", manifests=["m.yaml"], proxy=["iptables", "nftables"])
    def test_it(lab):
        assert lab.probe("pod/client", "svc/kubia").verdict == "pass"
"""


def test_beside_maps_plain_nftables_is_chains(pytester: pytest.Pytester, labs: Labs) -> None:
    pytester.makepyfile(MARKED.replace('"iptables", "nftables"', '"nftables", "nftables-maps"'))
    result = pytester.runpytest("-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_it?nftables? PASSED*", "*test_it?nftables-maps? PASSED*"])
    assert [options["proxy"] for _, _, options in labs.ups] == ["nftables-chains", "nftables-maps"]
    pytester.makepyfile(MARKED.replace('"iptables", "nftables"', '"nftables"'))
    pytester.runpytest().assert_outcomes(passed=1)
    assert labs.ups[-1][2]["proxy"] == "nftables", "the topology says which layout"


def test_a_marked_test_runs_once_a_mode_each_in_its_own_lab(pytester: pytest.Pytester, labs: Labs) -> None:
    pytester.makepyfile(MARKED)
    for name in ("t.yaml", "m.yaml"):
        (pytester.path / name).touch()
    result = pytester.runpytest("-v", "--strict-markers")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_it?iptables? PASSED*", "*test_it?nftables? PASSED*"])
    assert [options["proxy"] for _, _, options in labs.ups] == ["iptables", "nftables"]
    assert labs.ups[0][:2] == (str(pytester.path / "t.yaml"), [str(pytester.path / "m.yaml")])
    assert len({options["name"] for _, _, options in labs.ups}) == 2


def test_paths_may_start_beside_the_test(pytester: pytest.Pytester, labs: Labs) -> None:
    directory = pytester.mkpydir("sub")
    (directory / "t.yaml").touch()
    (directory / "test_sub.py").write_text("import pytest\n@pytest.mark.netlab('t.yaml')\ndef test_it(lab): pass\n")
    pytester.runpytest().assert_outcomes(passed=1)
    assert labs.ups[0][0] == str(directory / "t.yaml") and labs.ups[0][2]["proxy"] is None


def test_a_test_without_a_marker_gets_the_default_lab_and_others_get_none(pytester: pytest.Pytester, labs: Labs) -> None:
    pytester.makepyfile("def test_one(lab): pass\ndef test_two(): pass\n")
    pytester.runpytest().assert_outcomes(passed=2)
    assert [(topology, manifests) for topology, manifests, _ in labs.ups] == [(None, [])]


def test_all_means_the_modes_of_this_version(pytester: pytest.Pytester, labs: Labs) -> None:
    from netlab.proxy import variants

    pytester.makepyfile("import pytest\n@pytest.mark.netlab(proxy='all')\ndef test_it(lab): pass\n")
    pytester.runpytest().assert_outcomes(passed=len(variants()))


def test_names_differ_by_test_worker_and_process() -> None:
    names = {pytest_plugin.lab_name(nodeid, {"PYTEST_XDIST_WORKER": worker}) for nodeid in "ab" for worker in ("gw0", "gw1")}
    assert len(names) == 4
    assert all(len(name) <= 63 for name in names)


def test_a_machine_that_cannot_run_labs_skips_with_the_reason(pytester: pytest.Pytester, labs: Labs) -> None:
    labs.error = MachineError("no user namespaces; sysctl ...")
    pytester.makepyfile(MARKED)
    result = pytester.runpytest("-rs")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(["*this machine cannot run this lab: no user namespaces*"])


def test_a_lab_that_the_machine_cannot_run_takes_no_other_along(pytester: pytest.Pytester, labs: Labs) -> None:
    """A mode that this kernel lacks is skipped; what comes after it is run."""
    labs.unable = {"ipvs"}
    pytester.makepyfile("import pytest\n@pytest.mark.netlab(proxy=['ipvs', 'iptables', 'nftables'])\ndef test_it(lab): pass\n")
    pytester.runpytest().assert_outcomes(passed=2, skipped=1)


@pytest.mark.parametrize(
    ("marker", "says"),
    [
        ("manifest=['x.yaml']", "has no manifest: its arguments are topology, manifests, proxy, fabric"),
        ("'t.yaml', ['x.yaml']", "takes the topology alone without a name"),
    ],
)
def test_a_marker_that_is_misspelt_is_an_error(pytester: pytest.Pytester, labs: Labs, marker: str, says: str) -> None:
    pytester.makepyfile(f"import pytest\n@pytest.mark.netlab({marker})\ndef test_it(lab): pass\n")
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([f"*the marker netlab {says}*"])


def test_a_mistake_in_a_file_is_told_without_a_traceback(pytester: pytest.Pytester, labs: Labs) -> None:
    labs.error = InputError("svc.yaml:7:3: spec.sessionAffnity: unknown field")
    pytester.makepyfile(MARKED)
    result = pytester.runpytest()
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["svc.yaml:7:3: spec.sessionAffnity: unknown field"])
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_require_makes_the_skip_a_failure(pytester: pytest.Pytester, labs: Labs) -> None:
    labs.error = MachineError("no user namespaces")
    pytester.makepyfile(MARKED)
    result = pytester.runpytest("--netlab-require")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines(["*this machine cannot run this lab: no user namespaces*"])


def test_a_failure_shows_probes_reasons_and_the_plan_and_ends_the_lab(pytester: pytest.Pytester, labs: Labs) -> None:
    labs.answers = {"probe": Result(verdict="fail", why=["nothing arrived"]), "verify": Report(["a route is missing"])}
    pytester.makepyfile(MARKED)
    result = pytester.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "*netlab probes*",
            "fail: host/client -> 10.96.0.80:80/tcp ?iptables?: *",
            "    nothing arrived",
            "*netlab verify*",
            "a route is missing",
        ]
    )


@pytest.mark.parametrize("kind", ["test", "scenario"])
def test_a_failure_keeps_plan_and_packets_of_the_probe_that_failed(
    pytester: pytest.Pytester, labs: Labs, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    alive: list[bool] = []

    def capture(lab: FakeLab, replay: Callable[[], Any], path: Path) -> Path:
        alive.append(not lab.is_down)
        replay()
        return path

    monkeypatch.setattr(evidence, "save_plan", lambda lab, path: path)
    monkeypatch.setattr(evidence, "capture", capture)
    elsewhere = pytester.mkdir("elsewhere")
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", None)
    labs.answers = {"probe": Result(verdict="fail", why=["lost"]), "verify": Report()}
    if kind == "test":
        pytester.makepyfile(MARKED)
    else:
        scenario(pytester, SCENARIO)
    result = pytester.runpytest()
    result.assert_outcomes(failed=2)
    kept = f"{pytester.path.parent}/basetemp/netlab-evidence0"
    result.stdout.fnmatch_lines(["*netlab plan*", f"{kept}/*.plan", "*netlab packets*", f"{kept}/*.pcapng"])
    assert list(elsewhere.iterdir()) == [], "pytest deletes its own directories in time, nobody does others"
    assert alive == [True, True] and [len(lab.calls) for lab in labs.labs] == [3, 3], "probe, verify, probe again"


def test_pause_says_how_to_enter(pytester: pytest.Pytester, labs: Labs) -> None:
    pytester.makepyfile("def test_it(lab): assert False\ndef test_fine(lab): pass\n")
    result = pytester.runpytest("--netlab-pause")
    result.assert_outcomes(failed=1, passed=1)
    text = result.stdout.str() + result.stderr.str()
    assert text.count("is alive: netlab shell") == 1 and "no terminal to wait at" in text


SCENARIO = """
apiVersion: netlab/v1
kind: Scenario
name: demo
proxy: [iptables, nftables]
steps:
- probe: {from: pod/client, to: svc/kubia}
"""


def scenario(pytester: pytest.Pytester, text: str, name: str = "scenarios/demo.yaml") -> None:
    path = pytester.path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_scenarios_are_tests(pytester: pytest.Pytester, labs: Labs) -> None:
    scenario(pytester, SCENARIO)
    scenario(pytester, "apiVersion: v1\nkind: Service\n", "scenarios/service.yaml")
    scenario(pytester, SCENARIO, "elsewhere/demo.yaml")
    result = pytester.runpytest("-v")
    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["scenarios/demo.yaml::demo?iptables? PASSED*", "scenarios/demo.yaml::demo?nftables? PASSED*"])
    pytester.runpytest("elsewhere/demo.yaml").assert_outcomes(passed=2)


@pytest.mark.parametrize("verdict", ["fail", "inconclusive"])
def test_a_scenario_that_does_not_pass_says_which_step_and_why(pytester: pytest.Pytester, labs: Labs, verdict: str) -> None:
    labs.answers = {"probe": Result(verdict=verdict, why=["nothing arrived"])}
    scenario(pytester, SCENARIO)
    result = pytester.runpytest()
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(["*demo.yaml:7:*", "*1 probe pod/client -> svc/kubia*", "*nothing arrived*"])


def test_a_wrong_scenario_is_an_error_with_its_place(pytester: pytest.Pytester, labs: Labs) -> None:
    scenario(pytester, SCENARIO.replace("probe:", "prob:"))
    result = pytester.runpytest()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*demo.yaml:7:3: steps?0?.prob: there is no step prob; did you mean probe?*"])


def test_scenarios_are_skipped_where_labs_cannot_run(pytester: pytest.Pytester, labs: Labs) -> None:
    labs.error = MachineError("no user namespaces")
    scenario(pytester, SCENARIO)
    pytester.runpytest().assert_outcomes(skipped=2)
    pytester.runpytest("--netlab-require").assert_outcomes(failed=2)


def test_loading_the_plugin_imports_nothing_but_pytest() -> None:
    code = "import pytest, sys; before = set(sys.modules); import netlab.pytest_plugin; print(*sorted(set(sys.modules) - before))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(seen) <= {"netlab", "netlab.pytest_plugin"}
