"""The pytest plugin: a lab for each test that asks for one, and scenario files as tests.

    @pytest.mark.netlab("topologies/two-node.yaml", manifests=["manifests/kubia.yaml"], proxy=["iptables", "nftables"])
    def test_clusterip(lab): ...

Every pytest run loads this module, so it imports nothing but pytest; whatever makes labs is imported when a test needs one.
A machine that cannot run labs skips their tests and says why; --netlab-require makes that a failure.
"""

import contextlib
import hashlib
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from netlab.client import Lab, ProbeResult
    from netlab.manifest import Scenario
    from netlab.scenario.values import Lab as AnyLab
    from netlab.scenario.values import ScenarioRun, StepRun

MARKER = (
    "netlab(topology=None, manifests=(), proxy=None, fabric=None): the lab of the fixture `lab`; proxy: a mode, several, 'all'"
)
ARGUMENTS = ("topology", "manifests", "proxy", "fabric")
RUNNING = pytest.StashKey["Running"]()
EVIDENCE = pytest.StashKey[Path]()
REPLAYED = 20
"""Flows of a failed probe that are sent again to be recorded."""
SCENARIO = re.compile(rb"^kind:\s*[\"']?Scenario[\"']?\s*(#.*)?$", re.MULTILINE)
NETLAB = re.compile(rb"^apiVersion:\s*[\"']?netlab/v1", re.MULTILINE)


class Running:
    """A test's lab, and what the test has sent through it: results, and how to send the last suspicious one again."""

    def __init__(self, lab: "Lab") -> None:
        self.lab = lab
        self.results: list[Any] = []
        self.replay: Callable[[], Any] | None = None
        self.failed = False


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("netlab")
    group.addoption("--netlab-require", action="store_true", help="Fail where this machine cannot run labs, instead of skipping.")
    group.addoption(
        "--netlab-pause", action="store_true", help="After a failed test keep its lab until Enter is pressed (needs -n0)."
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARKER)


# ---------------------------------------------------------------- the fixture


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("netlab")
    if marker is None or "netlab_proxy" not in metafunc.fixturenames:
        return
    modes = marker.kwargs.get("proxy")
    if modes is not None:
        from netlab.model import exact

        wanted = _modes(modes)
        metafunc.parametrize("netlab_proxy", [exact(one, wanted) for one in wanted], indirect=True, ids=wanted)


def _modes(given: str | Iterable[str]) -> list[str]:
    wanted = [given] if isinstance(given, str) else list(given)
    if "all" not in wanted:
        return wanted
    from netlab.proxy import variants

    return list(variants())


@pytest.fixture
def netlab_proxy(request: pytest.FixtureRequest) -> str | None:
    """The proxy mode of this run of the test, as its marker says; None: the topology's own."""
    mode: str | None = getattr(request, "param", None)
    return mode


@pytest.fixture
def lab(request: pytest.FixtureRequest, netlab_proxy: str | None) -> "Generator[Lab]":
    """A lab of this test's own, as its `netlab` marker describes; gone when the test is over."""
    item = request.node
    running = Running(_up(item, netlab_proxy))
    item.stash[RUNNING] = running
    _record(running)
    try:
        yield running.lab
        if running.failed and item.config.getoption("netlab_pause"):
            pause(item.config, running.lab)
    finally:
        running.lab.down()


def _up(item: pytest.Item, proxy: str | None) -> "Lab":
    marker = item.get_closest_marker("netlab")
    unnamed, named = (marker.args, marker.kwargs) if marker is not None else ((), {})
    given = {**dict(zip(ARGUMENTS, unnamed, strict=False)), **named}
    unknown = [name for name in given if name not in ARGUMENTS]
    if unknown or len(unnamed) > 1:
        what = f"has no {', '.join(unknown)}" if unknown else f"takes the topology alone without a name, not {unnamed!r}"
        pytest.fail(f"the marker netlab {what}: its arguments are {', '.join(ARGUMENTS)}", pytrace=False)
    arguments = {"topology": None, "manifests": (), "fabric": None, **given}
    topology = arguments["topology"]
    manifests = arguments["manifests"]
    manifests = [manifests] if isinstance(manifests, str | Path) else manifests
    return start(
        item,
        _path(item, topology) if isinstance(topology, str | Path) else topology,
        [_path(item, one) for one in manifests],
        proxy=proxy,
        fabric=arguments["fabric"],
    )


def _path(item: pytest.Item, path: str | Path) -> str:
    """A relative path starts at pytest's root directory, or beside the test's own file."""
    candidates = (item.config.rootpath / path, item.path.parent / path)
    return str(next((one for one in candidates if one.exists()), candidates[0]))


def start(
    item: pytest.Item, topology: Any, manifests: Sequence[str], *, proxy: str | None = None, fabric: str | None = None
) -> "Lab":
    """A lab named after the test. Where this machine cannot run one, the test is skipped, or fails with --netlab-require."""
    from netlab import client
    from netlab.errors import InputError, MachineError

    try:
        return client.up(topology, manifests, name=lab_name(item.nodeid, os.environ), proxy=proxy, fabric=fabric)
    except InputError as error:  # it names file, line and column: where netlab noticed helps nobody
        pytest.fail(str(error), pytrace=False)
    except MachineError as error:  # of this lab alone: others may need less of the machine, another proxy mode for one
        reason = f"this machine cannot run this lab: {error}"
    if item.config.getoption("netlab_require"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def lab_name(nodeid: str, environment: Mapping[str, str]) -> str:
    """Distinct for every test, worker and pytest process, so that nothing that runs side by side collides."""
    digest = hashlib.sha256(nodeid.encode()).hexdigest()[:8]
    return f"t-{digest}-{environment.get('PYTEST_XDIST_WORKER', 'main')}-{os.getpid()}"


def _record(running: Running) -> None:
    """Keep the results of the lab's probes: a failure report shows what the judge said of them, and sends one again."""
    probe, matrix = running.lab.probe, running.lab.matrix

    def probing(*args: Any, **options: Any) -> Any:
        result = probe(*args, **options)
        running.results.append(result)
        if running.replay is None or result.verdict != "pass":
            running.replay = lambda: probe(*args, **{**options, "count": min(options.get("count", 1), REPLAYED)})
        return result

    def matrices(*args: Any, **options: Any) -> Any:
        results = matrix(*args, **options)
        running.results += results
        return results

    setattr(running.lab, "probe", probing)  # noqa: B010  # on this one object: its class stays as it is
    setattr(running.lab, "matrix", matrices)  # noqa: B010


# ---------------------------------------------------------------- failures


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    outcome = yield
    report: pytest.TestReport = outcome.get_result()
    running = item.stash.get(RUNNING, None)
    if running is None or report.when != "call" or not report.failed:
        return
    running.failed = True
    report.sections += item.evidence if isinstance(item, ScenarioItem) else sections(item, running)


def sections(item: pytest.Item, running: Running) -> list[tuple[str, str]]:
    """What a failed test shows of its lab: its probes and the judge's reasons, how the kernel differs from the plan, the plan."""
    found = []
    told = [_told(one) for one in running.results]
    if told:
        found.append(("netlab probes", "\n".join(told)))
    failed = next((one for one in running.results if getattr(one, "verdict", "") == "fail"), None)
    if failed is not None:
        with contextlib.suppress(Exception):  # as below
            found.append(("netlab explain", _explained(running.lab, failed)))
    with contextlib.suppress(Exception):  # the test has failed already; what cannot be told of a broken lab must not hide that
        drift = running.lab.verify().drift
        found.append(("netlab verify", "\n".join(drift) or "the kernel holds what was planned"))
    for title, keep in (("netlab plan", _plan), ("netlab packets", _packets)):
        with contextlib.suppress(Exception):
            found += [(title, str(path)) for path in keep(item, running)]
    return found


def _explained(lab: "Lab", result: "ProbeResult") -> str:
    """The story of one packet of the first probe that failed."""
    from netlab.observe import explain_text

    to, _, protocol = str(result.to).rpartition("/")
    known = protocol in ("tcp", "udp", "sctp", "icmp")
    return explain_text.text(lab.explain(str(result.sender), to if known else str(result.to), protocol if known else None))


def _plan(item: pytest.Item, running: Running) -> list[Path]:
    from netlab.scenario.evidence import save_plan

    return [save_plan(running.lab, _directory(item) / f"{running.lab.name}.plan")]


def _packets(item: pytest.Item, running: Running) -> list[Path]:
    from netlab.scenario.evidence import capture

    if running.replay is None:
        return []
    return [capture(running.lab, running.replay, _directory(item) / f"{running.lab.name}.pcapng")]


def _directory(item: pytest.Item) -> Path:
    """Where this run keeps what it saw; made when the first test fails.

    Among pytest's own temporary directories, so that they go as those do (the last three runs are kept). pytest makes the factory
    known to plugins by this name; without its plugin `tmpdir` there is none.
    """
    if EVIDENCE not in item.config.stash:
        factory: pytest.TempPathFactory | None = getattr(item.config, "_tmp_path_factory", None)
        if factory is None:
            raise LookupError("nothing is kept without pytest's plugin tmpdir")
        item.config.stash[EVIDENCE] = factory.mktemp("netlab-evidence")
    return item.config.stash[EVIDENCE]


def _told(result: "ProbeResult") -> str:
    head = f"{result.verdict}: {result.sender} -> {result.to} [{result.variant}]: {result.outcomes}, backends {result.backends}"
    return "\n".join([head, *(f"    {reason}" for reason in result.why)])


def pause(config: pytest.Config, lab: "Lab") -> None:
    """Wait for Enter with the lab alive, and say how to get in; without a terminal there is nobody to wait for."""
    text = f"\nlab {lab.name} is alive: netlab shell node/NAME --lab {lab.name} · netlab get pods --lab {lab.name}\n"
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.suspend_global_capture(in_=True)
    try:
        if sys.stdin is None or not sys.stdin.isatty():
            print(f"{text}no terminal to wait at: the lab is taken down", file=sys.stderr)
            return
        print(f"{text}Enter takes it down", file=sys.stderr)
        with contextlib.suppress(EOFError):
            input()
    finally:
        if capture is not None:
            capture.resume_global_capture()


# ---------------------------------------------------------------- scenarios


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "ScenarioFile | None":
    """YAML files of a directory called scenarios, or named on the command line, that say they are netlab scenarios."""
    if file_path.suffix not in (".yaml", ".yml"):
        return None
    if file_path.parent.name != "scenarios" and not parent.session.isinitpath(file_path):
        return None
    data = file_path.read_bytes()
    if not (SCENARIO.search(data) and NETLAB.search(data)):
        return None
    collected: ScenarioFile = ScenarioFile.from_parent(parent, path=file_path)
    return collected


class ScenarioFile(pytest.File):
    """One scenario file: one test a proxy mode."""

    def collect(self) -> "Iterable[ScenarioItem]":
        from netlab.errors import InputError
        from netlab.proxy import variants
        from netlab.scenario.runner import Options, modes_of, read_all

        try:
            ((_, scenario),) = read_all([self.path])
        except InputError as error:
            raise self.CollectError(str(error)) from None
        for mode in modes_of(scenario, Options(modes=variants())):
            name = f"{scenario.name}[{mode}]" if mode else scenario.name
            yield ScenarioItem.from_parent(self, name=name, scenario=scenario, mode=mode)


class ScenarioItem(pytest.Item):
    """One scenario in one proxy mode. Passes when every step did; missing evidence is a failure too."""

    def __init__(self, *, scenario: "Scenario", mode: str, **options: Any) -> None:
        super().__init__(**options)
        self.scenario = scenario
        self.mode = mode
        self.evidence: list[tuple[str, str]] = []

    def runtest(self) -> None:
        from netlab.proxy import variants
        from netlab.scenario.runner import Options, run

        def up(topology: Any, manifests: Sequence[str], *, proxy: str | None, fabric: str | None) -> "Lab":
            running = Running(start(self, topology, manifests, proxy=proxy, fabric=fabric))
            _record(running)
            self.stash[RUNNING] = running
            return running.lab

        ran = run(self.path, self.scenario, self.mode, up, Options(modes=variants(), out=sys.stdout, paused=self._not_passed))
        if ran.verdict != "pass":
            raise ScenarioFailed(ran)

    def _not_passed(self, lab: "AnyLab", ran: "StepRun") -> None:
        """After the first step that did not pass: its evidence is taken now, while the lab is as the step left it."""
        running = self.stash[RUNNING]
        if not running.failed:
            running.failed = True
            self.evidence = sections(self, running)
        if self.config.getoption("netlab_pause"):
            pause(self.config, running.lab)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, ScenarioFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, f"scenario {self.name}"


class ScenarioFailed(Exception):
    """A scenario that did not pass; says which steps, and why."""

    def __init__(self, ran: "ScenarioRun") -> None:
        super().__init__(_failure(ran))


def _failure(ran: "ScenarioRun") -> str:
    from netlab.scenario.runner import lines

    told = []
    for number, step in enumerate(ran.steps, 1):
        if step.result.verdict != "pass":
            told += [f"{ran.file}:{step.step.line}:", *lines(step, number)]
            if "traceback" in step.result.details:
                told.append(str(step.result.details["traceback"]))
    return "\n".join(told)
