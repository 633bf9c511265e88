"""How commands behave where their streams, files and demands are not as one hopes. No lab."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from netlab import client, demands, manifest
from netlab.cli import app, objects, output
from netlab.errors import InputError, InputWarning
from netlab.lab import loading
from netlab.lab.ranges import SourcePorts
from netlab.probes.load import Allowed
from netlab.probes.values import FIRST_PORT, PORTS
from tests.clusters import cluster, pod
from tests.test_cli import FakeLab

SCENARIO = "scenarios/clusterip.yaml"
SPEAKING = (["plan"], ["--help"], ["ls", "-o", "json"], ["schema", "topology"], ["completion", "bash"], ["--version"])


def netlab(words: list[str], tmp_path: Path, shell: str) -> "subprocess.CompletedProcess[str]":
    """A command with redirections that only a shell can make; the words are its arguments."""
    command = ["bash", "-c", f'set -o pipefail; "$@" {shell}', "-", sys.executable, "-m", "netlab", *words]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    environment.pop("PYTHONUNBUFFERED", None)  # the usual case: all is written at the end
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)


@pytest.fixture(autouse=True)
def private(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("words", SPEAKING, ids=" ".join)
def test_a_closed_standard_output_is_no_bug(words: list[str], tmp_path: Path) -> None:
    assert netlab(words, tmp_path, "").stdout, "the control: it has something to say"
    for closed in (">&-", "<&- >&-", "<&- >&- 2>&-"):
        done = netlab(words, tmp_path, closed)
        assert (done.returncode, done.stderr) == (0, ""), closed


@pytest.mark.parametrize("words", SPEAKING, ids=" ".join)
def test_a_full_disk_and_a_reader_who_left_are_told_apart(words: list[str], tmp_path: Path) -> None:
    full = netlab(words, tmp_path, "> /dev/full")
    assert full.returncode == 3 and "No space left on device" in full.stderr and "Traceback" not in full.stderr
    left = netlab(words, tmp_path, "| exec 0<&-")
    assert left.returncode in (0, app.BROKEN_PIPE) and left.stderr == ""


def test_what_cannot_be_written_is_said_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["report", "-o", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path}: Is a directory\n"
    for words in (["bench", "cli", "--save", str(tmp_path)], ["run", SCENARIO, "--pcap", SCENARIO]):
        assert app.main(words) == 2
        told = capsys.readouterr()
        assert told.out == "" and told.err.startswith("error: ")
    (tmp_path / "kept").write_text("text")
    output.writable(tmp_path / "kept")
    assert (tmp_path / "kept").read_text() == "text"


# ---------------------------------------------------------------- namespaces of manifests

TWO = [
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}},
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "test"}},
]


def test_objects_without_a_namespace_go_into_the_one_that_is_given() -> None:
    service, namespace = objects.placed(TWO, "test")
    assert service["metadata"] == {"name": "s", "namespace": "test"}
    assert namespace["metadata"] == {"name": "test"}
    assert objects.placed([service], "test") == [service]
    with pytest.raises(InputError, match="Service s: its namespace test does not match -n other"):
        objects.placed([service], "other")
    assert TWO[0]["metadata"] == {"name": "s"}, "what was given stays as it is"


@pytest.mark.parametrize(("verb", "asked"), [("apply", "verb"), ("delete", "delete")])
def test_apply_and_delete_take_the_namespace(verb: str, asked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = FakeLab(verb=[])
    monkeypatch.setattr(client.Lab, "attach", classmethod(lambda cls, name=None: fake))
    file = tmp_path / "one.yaml"
    file.write_text("{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {ports: [{port: 80}]}}")
    assert app.main([verb, "-f", str(file), "-n", "test"]) == 0
    (call,) = [one for one in fake.asked if one[0] == asked]
    assert "test" in str(call)


# ---------------------------------------------------------------- what Python callers demand


@dataclass
class Result:
    sent: int = 2
    outcomes: dict[str, int] = field(default_factory=lambda: {"delivered": 2})
    backends: dict[str, int] = field(default_factory=lambda: {"pod/default/a": 2})
    sources: dict[str, int] = field(default_factory=lambda: {"10.0.0.1": 1, "10.0.0.2": 1})

    def json(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        (["10.0.0.1", "10.0.0.2"], ""),
        ("10.0.0.*", ""),
        ("10.0.0.1", "10.0.0.2, which was not expected"),
        (["10.0.0.*", "10.9.9.9"], "no backend saw the source 10.9.9.9"),
        ([], "10.0.0.1, which was not expected"),
    ],
)
def test_sources_are_compared(wanted: Any, says: str) -> None:
    told = " ".join(demands.unmet(Result(), {"sources": wanted}, ()))
    assert (says in told) if says else not told


def test_every_demand_of_a_probe_can_fail() -> None:
    """One that is read and not judged would be a test that cannot fail."""
    never: dict[str, Any] = {
        "outcome": "dropped", "masqueraded": True, "backends": 9, "sources": "192.0.2.1", "affinity": False, "route": "pod/x",
    }  # fmt: skip
    from netlab.manifest.own_fields import TABLES

    assert never.keys() | {"verdict"} == {word.partition(":")[0] for word in TABLES["ProbeExpect"].split()}
    for name, value in never.items():
        assert demands.unmet(Result(), {name: value}, ("10.0.0.1",)), name


def test_a_node_sends_from_its_bridge_too() -> None:
    """Towards its own pods: the address that routing takes there is no masqueraded one."""
    nodes = cluster([pod("a", "node-169", "10.244.0.2", 80)], nodes=1)
    assert demands.own_addresses(nodes, "node/node-169", None) == ("192.168.0.169", "10.244.0.1")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"outcom": "delivered"}, "expect.outcom: unknown field; did you mean outcome"),
        ({"outcome": "arrived"}, "expect.outcome: "),
        ({"masqueraded": "yes"}, "expect.masqueraded: "),
        ({"verdict": "pass"}, "expect.verdict: is for scenarios"),
    ],
)
def test_a_demand_that_is_misspelt_is_an_error(words: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        manifest.probe_expectation(words)


@pytest.mark.parametrize("words", [{"lots": 0}, {"lost": True}, {"lost": {"mox": 1}}, {"lost": "0"}, {"outage_ms": "5ms"}])
def test_what_a_load_may_lose_is_read_strictly(words: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="there is lost"):
        loading.allowed(words)
    assert loading.allowed({"lost": {"max": 3}, "outage_ms": 5}) == Allowed(3, 5.0)


class Asked(client.Lab):
    """A Lab that asks nobody."""

    def __init__(self) -> None:
        pass

    def verb(self, name: str, /, **body: Any) -> Any:
        return [{"kind": "Ingress", "namespace": "default", "name": "i", "action": "created", "warning": "leads nowhere"}]


def test_apply_tells_python_what_has_no_effect(tmp_path: Path) -> None:
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}}
    with pytest.warns(InputWarning) as told:
        Asked().apply([settings])
    assert [str(one.message) for one in told] == ["ConfigMap: accepted; it has no effect on the network here", "leads nowhere"]
    assert {one.filename for one in told} == {__file__}
    file = tmp_path / "settings.yaml"
    file.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n")
    with pytest.warns(InputWarning, match=f"no effect on the network here \\({file}:2\\)"):
        Asked().apply_files(file)


@pytest.mark.parametrize("wrong", ["manifests/kubia.yaml", {"kind": "Pod"}])
def test_apply_takes_a_list(wrong: Any) -> None:
    with pytest.raises(InputError, match="a list of objects"):
        Asked().apply(wrong)


@pytest.mark.parametrize("wrong", ["ip route", "", []])
def test_a_command_is_a_list(wrong: Any) -> None:
    with pytest.raises(InputError, match="a program and its arguments"):
        Asked().exec("pod/client", wrong)


# ---------------------------------------------------------------- source ports


def test_no_two_requests_of_a_namespace_send_from_one_port() -> None:
    ports = SourcePorts()
    taken = []
    for count in (60, 1, 300, 7) * 40:
        first = ports.take("pod/a", count) - FIRST_PORT
        taken += [(first + number) % PORTS for number in range(count)]
    assert len(set(taken)) == len(taken) > 14_000
    assert all(0 <= port < PORTS for port in taken)
