"""What apply, delete, fault and up say about what they have done, without a lab."""

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from netlab import client, controllers, manifest
from netlab.cli import app, faults, lab, objects, output
from netlab.errors import InputError
from netlab.model import Cluster
from tests.test_cli import FakeLab

CUSTOM = """
apiVersion: example.com/v1
kind: Foo
metadata: {name: mine}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    fake = FakeLab()
    monkeypatch.setattr(client.Lab, "attach", classmethod(lambda cls, name=None: fake))
    return fake


def two_lans() -> Cluster:
    topology = Path(__file__).parents[1] / "topologies" / "two-lans.yaml"
    return controllers.initial(manifest.read_topology(manifest.Source("two-lans.yaml", topology.read_bytes())), ())


# ---------------------------------------------------------------- objects


@pytest.mark.parametrize(
    ("kind", "api_version", "shown"),
    [
        ("services", "", "service"),
        ("Deployment", "", "deployment.apps"),
        ("Deployment", "extensions/v1beta1", "deployment.apps"),
        ("Foo", "example.com/v1", "foo.example.com"),
        ("Service", "serving.knative.dev/v1", "service.serving.knative.dev"),
        ("Foo", "", "foo"),
    ],
)
def test_how_an_object_is_called(kind: str, api_version: str, shown: str) -> None:
    assert objects.identity(kind, api_version) == shown


def test_a_custom_resource_is_named_with_its_group(fake: FakeLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "custom.yaml"
    file.write_text(CUSTOM)
    named = [("Foo", "mine"), ("ConfigMap", "settings")]
    fake.answers["verb"] = [{"kind": kind, "name": name, "namespace": "default", "action": "created"} for kind, name in named]
    assert app.main(["apply", "-f", str(file)]) == 0
    assert capsys.readouterr().out == "foo.example.com/mine created\nconfigmap/settings created\n"
    assert app.main(["delete", "-f", str(file)]) == 0
    assert capsys.readouterr().out == 'foo.example.com "mine" deleted\nconfigmap "settings" deleted\n'


@pytest.mark.parametrize("verb", ["apply", "delete"])
@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\n", "apiVersion: v1\nkind: List\nitems: []\n"])
def test_a_file_without_objects_is_a_mistake(
    verb: str, text: str, fake: FakeLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "empty.yaml"
    file.write_text(text)
    assert app.main([verb, "-f", str(file)]) == 2
    assert capsys.readouterr().err == f"error: no objects passed to {verb}\n"
    assert fake.asked == []


def test_delete_goes_on_after_a_mistake(fake: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["delete"] = InputError("no such kind")
    assert app.main(["delete", "svc/a", "svc/b", "--ignore-not-found"]) == 2
    assert len(fake.asked) == 2
    assert capsys.readouterr().err.count("no such kind") == 2


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("client/lan-a", ("host/client", "eth0")),
        ("node-a/lan-a", ("node/node-a", "eth0")),
        ("node-a/lan-b", ("node/node-a", "eth1")),
        ("node/node-a", ("node/node-a", None)),
        ("node/node-a:eth1", ("node/node-a", "eth1")),
        ("pod/web/client:eth0", ("pod/web/client", "eth0")),
        ("rc/kubia@2", ("rc/kubia@2", None)),
    ],
)
def test_both_spellings_of_a_link(text: str, meant: tuple[str, str | None]) -> None:
    assert faults.link_of(FakeLab(cluster=two_lans()), text) == meant  # type: ignore[arg-type]  # it answers like a lab


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("client/lan-b", "host/client has no link to lan-b; it has client/lan-a"),
        ("clint/lan-a", "did you mean client/lan-a?"),
        ("zzz/lan-a", "links are named"),
        ("node/a:", "the device's name is missing"),
    ],
)
def test_a_link_that_is_not_there(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", ".")):
        faults.link_of(FakeLab(cluster=two_lans()), text)  # type: ignore[arg-type]  # it answers like a lab


@pytest.mark.parametrize(("interrupted", "code"), [(False, 0), (True, 130)], ids=["time is up", "Ctrl-C"])
def test_a_fault_for_a_while_is_undone(interrupted: bool, code: int, fake: FakeLab, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        assert [arguments for _, arguments, _ in fake.asked] == [("link-down",)]
        if interrupted:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    assert app.main(["fault", "link-down", "node/a:eth1", "--for", "2.5"]) == code
    assert slept == [2.5]
    options = {"target": "node/a", "device": "eth1", "namespace": "default"}
    assert fake.asked == [("fault", ("link-down",), options), ("fault", ("link-up",), options)]


@pytest.mark.parametrize("words", [["kill-pod", "pod/a"], ["link-up", "node/a"], ["flush-conntrack"]], ids=lambda words: words[0])
def test_what_cannot_be_undone_takes_no_time(words: list[str], fake: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["fault", *words, "--for", "3"]) == 2
    assert "--for is for faults that can be undone" in capsys.readouterr().err
    assert fake.asked == []


def test_the_pod_that_was_killed_is_named(fake: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["fault"] = {"target": "pod/default/web-1"}
    assert app.main(["fault", "kill-pod", "deploy/web"]) == 0
    assert capsys.readouterr().err == "pod/default/web-1 is killed\n"


# ---------------------------------------------------------------- up


def pod(name: str, phase: str = "Running", ready: bool = False) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": name, "namespace": "default"}, "status": {"phase": phase, "conditions": conditions}}


def test_up_names_the_pods_that_are_not_ready(capsys: pytest.CaptureFixture[str]) -> None:
    lab.tell_waiting([pod("a", ready=True), pod("b", "Pending"), pod("done", "Succeeded")])
    assert capsys.readouterr().err.startswith("1 pod is not ready: default/b (Pending); ")
    lab.tell_waiting([pod(f"p{number}") for number in range(7)])
    said = capsys.readouterr().err
    assert said.startswith("7 pods are not ready: default/p0 (Running), ")
    assert "default/p4 (Running) and 2 more; " in said and "p5" not in said
    lab.tell_waiting([pod("a", ready=True), pod("done", "Succeeded")])
    assert capsys.readouterr().err == ""


def test_one_is_no_plural() -> None:
    assert [output.number_of(number, "packet") for number in (0, 1, 2)] == ["0 packets", "1 packet", "2 packets"]
