"""Scenarios: what a step answers for what a lab did, what the runner makes of it, and what the reports say."""

import io
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from netlab import controllers
from netlab.errors import ApiError, InputError, LabGone
from netlab.manifest import Step
from netlab.manifest.scenario import step_kinds
from netlab.model import Cluster, Judgement
from netlab.scenario import reports, runner
from netlab.scenario.exhibits import Exhibits
from netlab.scenario.runner import Options
from netlab.scenario.steps import kinds
from netlab.scenario.values import Context, StepRun, exit_code
from tests.test_controllers import KUBIA, SERVICE, joined, started


@dataclass(frozen=True)
class Result:
    """A probe result without a lab."""

    sender: str = "host/client"
    to: str = "10.96.0.80:80/tcp"
    proxy: str = "iptables"
    sent: int = 6
    outcomes: dict[str, int] = field(default_factory=lambda: {"delivered": 6})
    backends: dict[str, int] = field(default_factory=lambda: {"pod/default/a": 3, "pod/default/b": 3})
    sources: dict[str, int] = field(default_factory=lambda: {"192.168.0.169": 6})
    verdict: str = "pass"
    why: Sequence[str] = ()
    variant: str = "iptables"

    def json(self) -> dict[str, Any]:
        return {"from": self.sender, "to": self.to, "verdict": self.verdict}


@dataclass(frozen=True)
class FailedProbe(Result):
    """One with the document that the client gives."""

    verdict: str = "fail"
    document: dict[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        return {**super().json(), **self.document}


@dataclass(frozen=True)
class Report:
    drift: Sequence[str] = ()
    repaired: int = 0
    left: Sequence[str] = ()


class FakeLab:
    """A lab that answers what a test put into it, and remembers what it was asked."""

    def __init__(self, cluster: Cluster | None = None, **answers: Any) -> None:
        self.name = "fake"
        self._cluster = cluster or started()
        self.answers = answers
        self.calls: list[tuple[Any, ...]] = []
        self.is_down = False

    @property
    def rollout(self) -> Any:
        return self.answers.get("rollout")

    def _answer(self, verb: str, *arguments: Any) -> Any:
        self.calls.append((verb, *arguments))
        answer = self.answers.get(verb)
        if isinstance(answer, BaseException):
            raise answer
        return answer(*arguments) if callable(answer) else answer

    def probe(self, sender: str, to: str, count: int = 1, **options: Any) -> Any:
        return self._answer("probe", sender, to, count, options)

    def load(self, sender: str, to: str, rate: float, **options: Any) -> Any:
        return self._answer("load", sender, to, rate, options)

    def matrix(self, senders: Any = None, to: Any = None, **options: Any) -> Any:
        return self._answer("matrix", senders, to)

    def exec(self, target: str, command: Sequence[str], **options: Any) -> Any:
        return self._answer("exec", target, tuple(command))

    def fault(self, kind: str, target: str | None = None, **arguments: Any) -> Any:
        return self._answer("fault", kind, target, arguments)

    def verify(self, repair: bool = False) -> Any:
        return self._answer("verify", repair)

    def scale(self, kind: str, name: str, replicas: int, namespace: str = "default") -> None:
        self._answer("scale", kind, name, replicas, namespace)

    def delete(self, kind: str, name: str, namespace: str = "default", cascade: str = "background") -> None:
        self._answer("delete", kind, name, namespace, cascade)

    def apply_files(self, *paths: str | Path) -> Any:
        return self._answer("apply_files", *paths)

    def get(self, kind: str, name: str | None = None, namespace: str | None = "default", selector: str = "") -> Any:
        return self._answer("get", kind, name, namespace, selector)

    def request(self, method: str, path: str, body: Any = None, headers: Any = None) -> Any:
        return self._answer("request", method, path, body)

    def endpoints(self, service: str, namespace: str = "default") -> Any:
        return self._answer("endpoints", service, namespace)

    def cluster(self) -> Cluster:
        return self._cluster

    def explain(self, sender: str, to: str, **options: Any) -> Any:
        return self._answer("explain", sender, to, options)

    def down(self) -> None:
        self.is_down = True


def ran(lab: FakeLab, kind: str, arguments: dict[str, Any]) -> StepRun:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    context = Context(Path("/scenarios"), clock=lambda: now[0], sleep=sleep)
    return runner.run_step(lab, Step(kind, arguments), kinds(), context)


def test_every_kind_of_step_that_files_may_have_is_built() -> None:
    assert set(kinds()) == set(step_kinds())


PROBE = {"from": "host/client", "to": "svc/kubia", "count": 6}
PASS, FAIL, OPEN = Judgement.PASS, Judgement.FAIL, Judgement.INCONCLUSIVE


@pytest.mark.parametrize(
    ("result", "expect", "verdict", "says"),
    [
        (Result(), {}, PASS, ""),
        (Result(verdict="fail", why=["no"]), {}, FAIL, "no"),
        (Result(verdict="inconclusive", why=["blind"]), {}, OPEN, "blind"),
        (Result(verdict="inconclusive", why=["blind"]), {"backends": 3}, FAIL, "arrived at 2 backends"),
        (Result(), {"outcome": "delivered", "backends": 2}, PASS, ""),
        (Result(), {"outcome": "rejected"}, FAIL, "0 of 6 flows were rejected"),
        (Result(outcomes={"delivered": 5, "dropped": 1}), {"outcome": "delivered"}, FAIL, "5 of 6"),
        (Result(), {"backends": ["pod/a", "pod/default/b"]}, PASS, ""),
        (Result(), {"backends": ["pod/a"]}, FAIL, "pod/default/b, which was not expected"),
        (Result(), {"backends": ["pod/a", "pod/b", "pod/c"]}, FAIL, "nothing arrived at pod/c"),
        (Result(), {"backends": "pod/*"}, PASS, ""),
        (Result(), {"masqueraded": True}, PASS, ""),
        (Result(), {"masqueraded": False}, FAIL, "expected the sender's own address (192.168.0.100)"),
        (Result(sources={"192.168.0.100": 6}), {"masqueraded": False}, PASS, ""),
        (Result(sources={"192.168.0.100": 6}), {"masqueraded": True}, FAIL, "expected it to be masqueraded"),
        (Result(sources={"192.168.0.100": 5, "192.168.0.169": 1}), {"masqueraded": True}, FAIL, "own address"),
        (Result(sources={}), {"masqueraded": False}, FAIL, "no backend saw"),
        (Result(), {"sources": ["192.168.0.169"]}, PASS, ""),
        (Result(), {"sources": "192.168.0.100"}, FAIL, "no backend saw the source 192.168.0.100"),
        (Result(), {"affinity": True}, FAIL, "went to 2 backends"),
        (Result(), {"affinity": False}, PASS, ""),
        (Result(verdict="fail", why=["x"]), {"verdict": "fail"}, PASS, ""),
        (Result(), {"verdict": "fail"}, FAIL, "the verdict is pass, expected fail"),
    ],
)
def test_probe(result: Result, expect: dict[str, Any], verdict: Judgement, says: str) -> None:
    step = ran(FakeLab(probe=result), "probe", {**PROBE, "expect": expect} if expect else PROBE)
    assert step.result.verdict is verdict, step.result.why
    assert says in " ".join(step.result.why)
    assert step.title == "probe host/client -> svc/kubia" and step.result.summary.endswith("to 2 backends")


def test_probe_passes_its_options_on() -> None:
    lab = FakeLab(probe=Result())
    ran(
        lab,
        "probe",
        {**PROBE, "protocol": "udp", "source": "203.0.113.50", "sourcePort": 99, "timeout": "200ms", "namespace": "x"},
    )
    options = {"namespace": "x", "timeout_s": 0.2, "protocol": "udp", "source": "203.0.113.50", "source_port": 99}
    assert lab.calls == [("probe", "host/client", "svc/kubia", 6, options)]


@pytest.mark.parametrize(
    ("expect", "verdict"),
    [
        ({}, PASS),
        ({"stdout": "Welcome"}, PASS),
        ({"stdout": "/^Welc.me to/"}, PASS),
        ({"stdout": "/^to/"}, FAIL),
        ({"stdout": "nothing"}, FAIL),
        ({"stdout": ""}, FAIL),
        ({"stderr": ""}, PASS),
        ({"code": 7}, FAIL),
    ],
)
def test_exec(expect: dict[str, Any], verdict: Judgement) -> None:
    done = subprocess.CompletedProcess(["curl"], 0, "Welcome to nginx\n", "")
    assert ran(FakeLab(exec=done), "exec", {"target": "pod/c", "command": ["curl"], "expect": expect}).result.verdict is verdict


def test_exec_that_fails_or_hangs() -> None:
    arguments = {"target": "pod/c", "command": ["curl"], "timeout": "1s"}
    failed = ran(FakeLab(exec=subprocess.CompletedProcess([], 7, "", "refused")), "exec", arguments)
    assert failed.result.verdict is FAIL and "7, expected 0; it said: refused" in failed.result.why[0]
    hung = ran(FakeLab(exec=subprocess.TimeoutExpired(["curl"], 1)), "exec", arguments)
    assert hung.result.verdict is FAIL and "did not end within 1 s" in hung.result.why[0]


def test_wait_returns_when_the_condition_holds_and_fails_at_the_deadline() -> None:
    left = iter([0, 1, 4])
    lab = FakeLab(endpoints=lambda *_: dict.fromkeys(range(next(left))))
    step = ran(lab, "wait", {"for": "endpoints", "of": "svc/kubia", "count": 4})
    assert step.result.verdict is PASS and len(lab.calls) == 3 and step.result.summary == "4 endpoints"
    never = ran(FakeLab(endpoints={}), "wait", {"for": "endpoints", "of": "svc/kubia", "count": 1, "timeout": "1s"})
    assert never.result.verdict is FAIL and never.result.why == ("after 1 s there are 0 endpoints",)
    assert 1.0 <= never.seconds < 1.1


def test_wait_for_ready_pods_and_for_affinity() -> None:
    ready = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}

    def get(kind: str, *_: Any) -> list[dict[str, Any]]:
        return [ready, ready] if kind == "pods" else [{"spec": {"selector": {"matchLabels": {"app": "web"}}}}]

    lab = FakeLab(get=get)
    assert ran(lab, "wait", {"for": "ready", "of": "deploy/web"}).result.summary == "2 of 2 pods ready"
    assert lab.calls[-1] == ("get", "pods", None, "default", "app=web")
    assert ran(lab, "wait", {"for": "ready", "of": "deploy/web", "count": 3, "timeout": "1s"}).result.verdict is FAIL
    spec = {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 3}}}
    assert ran(FakeLab(get=[{"spec": spec}]), "wait", {"for": "affinity", "of": "svc/x"}).seconds == 4.0


@pytest.mark.parametrize(
    ("kind", "arguments", "call"),
    [
        ("scale", {"target": "deploy/web", "replicas": 4}, ("scale", "Deployment", "web", 4, "default")),
        ("scale", {"target": "rc/shop/web", "replicas": 0}, ("scale", "ReplicationController", "web", 0, "shop")),
        ("delete", {"target": "pod/x", "cascade": "orphan"}, ("delete", "pods", "x", "default", "orphan")),
        ("fault", {"kill-pod": "deploy/web"}, ("fault", "kill-pod", "deploy/web", {"namespace": "default"})),
        ("fault", {"link-down": "node/a:eth1"}, ("fault", "link-down", "node/a:eth1", {"namespace": "default"})),
        (
            "fault",
            {"delay": "client/lan", "value": "10ms", "direction": "out"},
            ("fault", "delay", "client/lan", {"namespace": "default", "value": "10ms", "direction": "out"}),
        ),
        ("fault", {"flush-conntrack": None}, ("fault", "flush-conntrack", None, {"namespace": "default"})),
        ("apply", {"manifests": ["../m.yaml"]}, ("apply_files", Path("/scenarios/../m.yaml"))),
        (
            "label",
            {"target": "pod/x", "labels": {"a": "b", "c": None}},
            ("request", "PATCH", "/api/v1/namespaces/default/pods/x", {"metadata": {"labels": {"a": "b", "c": None}}}),
        ),
    ],
)
def test_steps_that_act(kind: str, arguments: dict[str, Any], call: tuple[Any, ...]) -> None:
    lab = FakeLab(apply_files=[{"action": "created"}])
    step = ran(lab, kind, arguments)
    assert step.result.verdict is PASS and lab.calls == [call]


def test_a_link_that_is_down_for_a_while_comes_up_again() -> None:
    lab = FakeLab()
    step = ran(lab, "fault", {"link-down": "node/a", "for": "2s"})
    assert [call[1] for call in lab.calls] == ["link-down", "link-up"] and step.seconds == 2.0


@pytest.mark.parametrize(
    ("report", "arguments", "verdict"),
    [
        (Report(), {}, PASS),
        (Report(["a route is missing"]), {}, FAIL),
        (Report(["a route is missing"]), {"expect": {"drift": 1}}, PASS),
        (Report(), {"expect": {"drift": 1}}, FAIL),
        (Report(["a route is missing"], 1), {"repair": True}, PASS),
        (Report(["a route is missing", "b"], 1, ["b"]), {"repair": True}, FAIL),
        (Report(["a route is missing"], 1, ["a new one"]), {"repair": True}, FAIL),
    ],
)
def test_verify(report: Report, arguments: dict[str, Any], verdict: Judgement) -> None:
    assert ran(FakeLab(verify=report), "verify", arguments).result.verdict is verdict


@pytest.mark.parametrize(
    ("results", "expect", "verdict"),
    [
        ([Result(), Result()], {}, PASS),
        ([Result(), Result(verdict="fail", why=["lost"])], {}, FAIL),
        ([Result(), Result(verdict="inconclusive")], {}, OPEN),
        ([], {}, OPEN),
        ([Result()], {"outcome": "rejected"}, FAIL),
        ([Result(verdict="fail")], {"verdict": "fail"}, PASS),
    ],
)
def test_matrix(results: list[Result], expect: dict[str, Any], verdict: Judgement) -> None:
    assert ran(FakeLab(matrix=results), "matrix", {"expect": expect}).result.verdict is verdict


def test_matrix_takes_targets_and_selectors() -> None:
    pod = {"metadata": {"namespace": "shop", "name": "a"}}
    lab = FakeLab(matrix=[Result()], get=lambda kind, *_: [pod] if kind == "pods" else [])
    ran(lab, "matrix", {"from": "app=x", "to": "svc/a,node/b"})
    assert lab.calls[-1] == ("matrix", ["pod/shop/a"], ["svc/a", "node/b"])


@pytest.mark.parametrize(
    ("error", "verdict", "says"),
    [
        (InputError("no pod is called x"), FAIL, "no pod is called x"),
        (ApiError(404, "NotFound", 'pods "x" not found'), FAIL, "not found"),
        (LabGone("lab fake does not answer"), OPEN, "does not answer"),
        (ZeroDivisionError("oops"), OPEN, "ZeroDivisionError: oops"),
    ],
)
def test_errors_of_steps(error: Exception, verdict: Judgement, says: str) -> None:
    step = ran(FakeLab(probe=error), "probe", PROBE)
    assert step.result.verdict is verdict and says in step.result.why[0]


# ---------------------------------------------------------------- whole files

FILE = """
apiVersion: netlab/v1
kind: Scenario
name: demo
topology: t.yaml
manifests: [m.yaml]
proxy: [iptables, nftables]
steps:
- probe: {from: pod/client, to: svc/kubia}
- name: nothing differs
  verify: {}
"""


def run_file(tmp_path: Path, text: str, lab: FakeLab, options: Options | None = None) -> tuple[tuple[Any, ...], list[Any], str]:
    path = tmp_path / "demo.yaml"
    path.write_text(text)
    ups: list[Any] = []

    def up(topology: Any, manifests: Any, **options: Any) -> FakeLab:
        ups.append((topology, manifests, options))
        return lab

    out = io.StringIO()
    given = options or Options()
    runs = runner.run_all([path], up, Options(given.proxy, given.modes, given.keep, out, given.paused, given.exhibits))
    return runs, ups, out.getvalue()


def test_each_mode_has_a_lab_of_its_own_and_paths_start_at_the_file(tmp_path: Path) -> None:
    lab = FakeLab(probe=Result(), verify=Report())
    runs, ups, printed = run_file(tmp_path, FILE, lab)
    assert [run.proxy for run in runs] == ["iptables", "nftables"] and exit_code(runs) == 0 and lab.is_down
    assert ups[0] == (str(tmp_path / "t.yaml"), [str(tmp_path / "m.yaml")], {"proxy": "iptables", "fabric": None})
    assert "  pass  1 probe pod/client -> svc/kubia: 6 delivered to 2 backends (" in printed
    assert "  pass  2 nothing differs: 0 differences (" in printed


@pytest.mark.parametrize(
    ("proxy", "modes"), [(None, ["iptables", "nftables"]), ("nftables", ["nftables"]), ("all", ["a", "b"])], ids=str
)
def test_modes(tmp_path: Path, proxy: str | None, modes: list[str]) -> None:
    runs, _, _ = run_file(tmp_path, FILE, FakeLab(probe=Result(), verify=Report()), Options(proxy=proxy, modes=("a", "b")))
    assert [run.proxy for run in runs] == modes


def test_beside_maps_plain_nftables_is_chains(tmp_path: Path) -> None:
    """Alone it is what the topology says."""
    text, asked = FILE.replace("[iptables, nftables]", "[nftables, nftables-maps]"), {}
    for proxy in (None, "nftables", "nftables-chains", "all"):
        options = Options(proxy=proxy, modes=("nftables", "nftables-maps"))
        runs, ups, _ = run_file(tmp_path, text, FakeLab(probe=Result(), verify=Report()), options)
        asked[proxy] = [(run.proxy, up[2]["proxy"]) for run, up in zip(runs, ups, strict=True)]
    both = [("nftables", "nftables-chains"), ("nftables-maps", "nftables-maps")]
    assert asked[None] == asked["all"] == both
    assert (asked["nftables"], asked["nftables-chains"]) == ([("nftables", "nftables")], [("nftables-chains", "nftables-chains")])


def test_a_step_for_a_mode_is_taken_in_its_layouts_too(tmp_path: Path) -> None:
    text = FILE.replace("  verify: {}", "  proxy: nftables\n  verify: {}")
    steps = {}
    for mode in ("iptables", "nftables", "nftables-maps"):
        runs, _, _ = run_file(tmp_path, text, FakeLab(probe=Result(), verify=Report()), Options(proxy=mode))
        steps[mode] = len(runs[0].steps)
    assert steps == {"iptables": 1, "nftables": 2, "nftables-maps": 2}


def test_a_failure_is_printed_with_its_reasons_and_the_rest_still_runs(tmp_path: Path) -> None:
    lab = FakeLab(probe=Result(verdict="fail", why=["nothing arrived"]), verify=Report())
    paused: list[Any] = []
    runs, _, printed = run_file(tmp_path, FILE, lab, Options(paused=lambda lab, step: paused.append(step)))
    assert exit_code(runs) == 1 and len(runs[0].steps) == 2 and len(paused) == 2
    assert "  FAIL  1 probe" in printed and "          nothing arrived\n" in printed


def test_missing_evidence_is_exit_code_4_and_a_gone_lab_ends_the_scenario(tmp_path: Path) -> None:
    runs, _, _ = run_file(tmp_path, FILE, FakeLab(probe=LabGone("gone"), verify=Report()))
    assert exit_code(runs) == 4 and len(runs[0].steps) == 1


def test_keep_leaves_the_last_lab(tmp_path: Path) -> None:
    lab = FakeLab(probe=Result(), verify=Report())
    run_file(tmp_path, FILE, lab, Options(proxy="iptables", keep=True))
    assert not lab.is_down


def test_leaving_ends_the_run_with_the_lab_up(tmp_path: Path) -> None:
    lab = FakeLab(probe=Result(verdict="fail", why=["nothing arrived"]), verify=Report())
    runs, _, _ = run_file(tmp_path, FILE, lab, Options(paused=lambda lab, step: runner.LEAVE))
    assert len(runs) == 1 and runs[0].left and len(runs[0].steps) == 1 and not lab.is_down


def test_what_failed_is_explained_and_what_passed_is_not(tmp_path: Path) -> None:
    story = {"from": "pod/default/client"}
    lab = FakeLab(probe=Result(verdict="fail", why=["nothing arrived"]), verify=Report(), explain=story)
    bad = FailedProbe(document={"from": "pod/default/client", "outcomes": {}})
    runs, _, _ = run_file(
        tmp_path, FILE, FakeLab(probe=bad, verify=Report(), explain=story), kept := Options(exhibits=Exhibits(True))
    )
    assert [one.exhibits.get("explain") for one in runs[0].steps] == [[story], None] and runs[0].cluster is not None
    assert reports.document(runs)["scenarios"][0]["steps"][0]["explain"] == [story]
    lab = FakeLab(probe=Result(), verify=Report(), explain=story)
    run_file(tmp_path, FILE, lab, kept)
    assert not [call for call in lab.calls if call[0] == "explain"]
    refused = FakeLab(probe=bad, verify=Report(), explain=InputError("IPv6"))
    runs, _, _ = run_file(tmp_path, FILE, refused, kept)
    assert runs[0].steps[0].exhibits["notes"] == ["pod/default/client -> svc/kubia cannot be explained: IPv6"]


def test_mistakes_of_all_files_are_told_before_anything_runs(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(FILE.replace("probe:", "prob:"))

    def up(*_: Any, **__: Any) -> FakeLab:
        raise AssertionError("a lab was started")

    with pytest.raises(InputError) as caught:
        runner.run_all([tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml"], up, Options())
    text = str(caught.value)
    assert "a.yaml" in text and "b.yaml" in text and "c.yaml: No such file" in text and "did you mean probe" in text


def test_reports(tmp_path: Path) -> None:
    lab = FakeLab(probe=Result(verdict="fail", why=["<nothing> & more\x07"]), verify=ZeroDivisionError("x"))
    runs, _, _ = run_file(tmp_path, FILE, lab, Options(proxy="iptables"))
    document = reports.document(runs)
    assert document["exitCode"] == 1 and document["scenarios"][0]["steps"][0]["details"]["verdict"] == "fail"
    (suite,) = ElementTree.fromstring(reports.junit(runs))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "1")
    failure = suite[0].find("failure")
    assert failure is not None and failure.get("message") == "<nothing> & more�"


def test_junit_has_the_story_and_the_packets_of_a_failure(tmp_path: Path) -> None:
    from tests import explaining as made
    from tests.test_explain_story import document

    told = document(*made.delivered())
    lab = FakeLab(probe=Result(verdict="fail", why=["it went astray"]))
    (run,), _, _ = run_file(tmp_path, FILE, lab, Options(proxy="iptables"))
    first = run.steps[0].with_exhibits({"pcap": "packets/a.pcapng", "explain": [told], "notes": []})
    text = reports.junit([replace(run, steps=(first, *run.steps[1:]))])
    (suite,) = ElementTree.fromstring(text)
    failure, out = suite[0].find("failure"), suite[0].find("system-out")
    assert failure is not None and failure.get("message") == "it went astray" and failure.text is not None
    assert "packets: packets/a.pcapng" in failure.text and "10.96.1.1:80" in failure.text and "● node/node-170" in failure.text
    assert out is not None and f"[[ATTACHMENT|{Path.cwd() / 'packets/a.pcapng'}]]" in str(out.text)


# ---------------------------------------------------------------- the files of the project

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "scenarios").glob("*.yaml"))


def test_there_is_a_scenario_for_everything_promised() -> None:
    promised = {"affinity", "clusterip", "curl-loop", "named-ports", "no-endpoints", "nodeport", "outside", "scaling"}
    assert promised | {"two-labels", "two-ports"} <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario_files_are_read_and_their_labs_can_be_planned(path: Path) -> None:
    from netlab import manifest
    from netlab.lab.inputs import read_inputs

    ((_, scenario),) = runner.read_all([path])
    assert set(scenario.proxy) >= {"iptables", "nftables"} and scenario.name == path.stem
    topology = str(path.parent / scenario.topology) if scenario.topology else None
    value, objects, _ = read_inputs(topology, [str(path.parent / one) for one in scenario.manifests])
    cluster = controllers.initial(value, objects)
    assert all(pod.phase == "Running" for pod in cluster.pods.values())
    assert manifest.to_json(next(iter(cluster.pods.values()), next(iter(cluster.services.values()))), cluster)


def test_masquerading_is_judged_by_the_addresses_of_pods_and_nodes_too() -> None:
    cluster = started(joined(KUBIA, SERVICE))
    pod = next(iter(cluster.pods.values()))
    own = str(pod.addresses[0])
    seen: list[tuple[str, str, Judgement]] = [
        (str(pod.ref), own, PASS),
        (str(pod.ref), "10.244.1.1", FAIL),
        ("node/node-171", "192.168.0.171", PASS),
    ]
    for sender, source, verdict in seen:
        lab = FakeLab(cluster, probe=Result(sender=sender, sources={source: 6}))
        assert ran(lab, "probe", {**PROBE, "expect": {"masqueraded": False}}).result.verdict is verdict


@dataclass(frozen=True)
class Loaded:
    """A load without a lab."""

    document: dict[str, Any]
    calls: list[tuple[Any, ...]]

    def __enter__(self) -> "Loaded":
        return self

    def __exit__(self, *_: object) -> None:
        self.calls.append(("stopped",))

    def result(self, stop: bool = True) -> Any:
        return self

    def json(self) -> dict[str, Any]:
        return self.document

    @property
    def verdict(self) -> str:
        return str(self.document["verdict"])

    @property
    def why(self) -> list[str]:
        return list(self.document["why"])


def test_steps_are_taken_while_a_load_runs(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: a\nsteps:\n- load:\n    from: host/client\n    to: svc/kubia\n    rate: 200\n    while:\n"
        "    - scale: {target: rc/kubia, replicas: 5}\n    - verify: {}\n"
        "    expect: {lost: 0, outage: {max: 500ms}}\n- verify: {}\n"
    )
    counts = {"sent": 600, "lost": 2, "refused": 2, "timed_out": 0, "reset": 0, "wrong_status": 0}
    document = {**counts, "outage_ms": 12.5, "latency_ms": {"p99": 3.1}, "verdict": "fail", "why": ["2 of 600 were lost"]}
    lab = FakeLab(verify=Report(("a route is missing",)))
    lab.answers["load"] = lambda sender, to, rate, options: Loaded(document, lab.calls)
    out = io.StringIO()
    (run,) = runner.run_all([tmp_path / "s.yaml"], lambda *_, **__: lab, Options(out=out))
    expect = {"lost": 0, "outage_ms": 500.0}
    assert lab.calls == [
        ("load", "host/client", "svc/kubia", 200, {"expect": expect, "namespace": "default"}),
        ("scale", "ReplicationController", "kubia", 5, "default"),
        ("verify", False),
        ("stopped",),
        ("verify", False),
    ]
    load = run.steps[0].result
    assert load.verdict is Judgement.FAIL
    assert load.summary == "600 sent, 2 lost (2 refused), outage 12.5 ms, p99 3.1 ms"
    assert load.why[0] == "2 of 600 were lost"
    assert "a route is missing" in load.why[1]
    assert [one["verdict"] for one in load.details["steps"]] == ["pass", "fail"]
    printed = out.getvalue().splitlines()
    assert printed[1].startswith("      pass  1 scale")
    assert any(line.startswith("  FAIL  1 load host/client -> svc/kubia at 200/s: 600 sent") for line in printed)
