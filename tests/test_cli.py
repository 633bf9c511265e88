"""The command line without a lab: which module is loaded, how mistakes are answered, which exit code comes out."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from netlab import __main__, client
from netlab.cli import app
from netlab.errors import ApiError, InputError, KernelError, LabGone, MachineError, NetlabError


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of one command line."""
    code = app.main([*arguments])
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def netlab(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "netlab", *arguments]
    return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, **environment})


class FakeLab:
    """Answers like netlab.client.Lab; remembers what it was asked."""

    pid = 0

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            self.asked.append((name, arguments, options))
            answer = self.answers.get(name)
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return call


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    fake = FakeLab()
    monkeypatch.setattr(client.Lab, "attach", classmethod(lambda cls, name=None: fake))
    return fake


# ---------------------------------------------------------------- help and mistakes


@pytest.mark.parametrize("verb", app.VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(verb, "--help", capsys=capsys)
    assert code == 0
    assert "Example" in out or verb in app.GROUPS, out


@pytest.mark.parametrize("group", sorted(app.GROUPS))
def test_verbs_of_verbs_have_help_with_an_example(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    names = [command.name or command.callback.__name__ for command in subcommands(group)]
    assert names
    for name in names:
        assert "Example" in run(group, name, "--help", capsys=capsys)[1]


def subcommands(group: str) -> Any:
    import importlib

    return importlib.import_module(f"netlab.cli.{app.VERBS[group]}").app.registered_commands


def test_help_lists_every_verb_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run("--help", capsys=capsys)
    assert code == 0
    assert all(f"  {verb} " in out for verb in app.VERBS)
    assert "4 inconclusive" in " ".join(out.split())
    assert "...\n" not in out.partition("Commands:")[2], "the first sentence of a verb's help must fit on its line"


@pytest.mark.parametrize(
    ("name", "arguments", "meant"),
    [
        ("verb", ["prob"], "did you mean `netlab probe`?"),
        ("verb after --lab", ["--lab", "x", "gett", "svc"], "did you mean `netlab get`?"),
        ("verb like nothing", ["zzzzzz"], "`netlab --help` lists the verbs"),
        ("kind", ["get", "servise"], "did you mean service"),
        ("fault", ["fault", "link-dwn", "node/a"], "link-down"),
        ("option", ["up", "--prox", "nftables"], "--proxy"),
        ("output form", ["get", "svc", "-o", "jsn"], "did you mean json?"),
        ("protocol", ["probe", "pod/a", "svc/b", "--protocol", "tpc"], "did you mean tcp?"),
        ("schema", ["schema", "topolgy"], "did you mean topology?"),
        ("delete without a name", ["delete", "svc"], "KIND/NAME"),
        ("scale without a kind", ["scale", "web", "--replicas", "2"], "KIND/NAME"),
        ("apply without files", ["apply"], "-f FILE"),
        ("number of replicas", ["scale", "rc/a", "--replicas", "-1"], "--replicas"),
        ("scenario file", ["run", "no/such.yaml"], "no/such.yaml: no such file"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_mistakes_say_what_was_meant(
    name: str, arguments: list[str], meant: str, lab: FakeLab, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(*arguments, capsys=capsys)
    assert code == 2
    assert out == ""
    assert meant in err


def in_a_class() -> RuntimeError:
    """Ctrl-C while Python before 3.12 makes a class, as in any import."""
    error = RuntimeError("Error calling __set_name__ on 'Field' instance 'left' in 'Report'")
    error.__cause__ = KeyboardInterrupt()
    return error


def test_ctrl_c_in_an_import_is_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def early_start(argv: list[str]) -> None:
        raise in_a_class()

    monkeypatch.setattr(__main__, "early_start", early_start)
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == 130


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("wrong"), 2),
        (MachineError("missing"), 3),
        (KernelError("refused"), 1),
        (LabGone("gone"), 2),
        (ApiError(404, "NotFound", 'services "x" not found'), 2),
        (ApiError(500, "InternalError", "bug"), 1),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
        (in_a_class(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_errors_become_exit_codes(
    error: BaseException, code: int, lab: FakeLab, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "dup2", lambda *fds: None)
    lab.answers["get"] = error
    assert app.main(["get", "svc"]) == code
    seen = capfd.readouterr()
    assert seen.out == ""
    assert (str(error) in seen.err) if isinstance(error, NetlabError) else (seen.err == "")


@pytest.mark.parametrize(("verb", "code"), [(["get", "svc"], 4), (["exec", "pod/a", "--", "true"], 125)], ids=["get", "exec"])
def test_a_bug_is_no_failed_expectation(verb: list[str], code: int, lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answers = {"get": ValueError("an odd one"), "exec_replace": ValueError("an odd one")}
    seen = run(*verb, capsys=capsys)
    assert seen[:2] == (code, "")
    assert "Traceback" in seen[2] and "ValueError: an odd one" in seen[2]


def test_a_verb_that_is_promised_is_not_taken_for_another() -> None:
    error = app.unknown_verb("kubeconfig")
    assert (error.exit_code, "not built yet in this version" in str(error), "did you mean" in str(error)) == (2, True, False)
    assert not app.NOT_BUILT & app.VERBS.keys()


def test_all_problems_are_shown() -> None:
    from netlab.cli.output import error_text
    from netlab.errors import Problem

    shown = error_text(InputError((Problem("unknown field", "spec.x", "a.yaml", 3, 1), Problem("missing", file="b.yaml"))))
    assert shown == "error: a.yaml:3:1: spec.x: unknown field\nerror: b.yaml: missing"


# ---------------------------------------------------------------- start-up


@pytest.mark.parametrize("verb", ["exec", "probe", "get", "down"])
def test_a_verb_imports_nothing_heavy(verb: str) -> None:
    code = (
        "import sys; from netlab.cli import app; app.build(app.wanted([sys.argv[1]])); "
        "print(*sorted({'scapy', 'pyroute2', 'yaml', 'pytest', 'rich', 'netlab.cli.bench'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_ctrl_c_is_caught_from_the_beginning() -> None:
    """What is imported before `main` runs is the interpreter's alone: Ctrl-C meets its traceback there, as in `import typing`."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); before = {*sys.modules}; import netlab.__main__; "
        "print(*sorted({*sys.modules} - before))"
    )
    root = str(Path(__file__).parents[1])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, root], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["netlab", "netlab.__main__"]


@pytest.mark.parametrize("verb", ["exec", "probe", "get", "ls", "top", "--help"])
def test_the_model_is_not_read_to_parse_a_command_line(verb: str) -> None:
    """A hundred frozen dataclasses take longer to make than all else that `--help` does."""
    code = (
        "import sys; from netlab.cli import app; app.build(app.wanted([sys.argv[1]])); "
        "print(*sorted({'netlab.model', 'netlab.ops', 'netlab.manifest', 'netlab.kernel', 'netlab.client'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code, verb], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "netlab", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


def test_version_and_module_entry() -> None:
    from netlab import __version__

    done = netlab("--version")
    assert (done.returncode, done.stdout.strip()) == (0, __version__)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_and_nothing_else(shell: str) -> None:
    done = netlab("completion", shell)
    assert done.returncode == 0, done.stderr
    assert "_NETLAB_COMPLETE" in done.stdout


def test_completion_knows_the_verbs() -> None:
    done = netlab(_NETLAB_COMPLETE="complete_bash", COMP_WORDS="netlab fau", COMP_CWORD="1")
    assert done.stdout.split() == ["fault"]


# ---------------------------------------------------------------- what verbs ask of the lab


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        (["get", "po"], ("get", ("pods", None, "default", ""), {})),
        (["get", "svc", "kubia", "-n", "web"], ("get", ("services", "kubia", "web", ""), {})),
        (["get", "ep", "-A", "-l", "a=b"], ("get", ("endpoints", None, None, "a=b"), {})),
        (["get", "deploy/web"], ("get", ("deployments", "web", "default", ""), {})),
        (["delete", "svc/kubia"], ("delete", ("services", "kubia", "default", "background"), {"grace_s": None, "wait": False})),
        (
            ["delete", "rc", "kubia", "--cascade=orphan"],
            ("delete", ("replicationcontrollers", "kubia", "default", "orphan"), {"grace_s": None, "wait": False}),
        ),
        (
            ["delete", "rc/kubia", "--cascade=false"],
            ("delete", ("replicationcontrollers", "kubia", "default", "orphan"), {"grace_s": None, "wait": False}),
        ),
        (["scale", "rc/kubia", "--replicas=5"], ("scale", ("replicationcontrollers", "kubia", 5, "default"), {})),
        (["scale", "deploy", "web", "--replicas", "0"], ("scale", ("deployments", "web", 0, "default"), {})),
        (
            ["exec", "pod/a", "-c", "side", "--", "ls", "-l", "-n"],
            ("exec_replace", ("pod/a", ["ls", "-l", "-n"], "default", "side"), {}),
        ),
        (["exec", "-n", "web", "pod/a", "--", "env"], ("exec_replace", ("pod/a", ["env"], "web", None), {})),
        (
            ["fault", "link-down", "node/a:eth1"],
            ("fault", ("link-down",), {"target": "node/a", "device": "eth1", "namespace": "default"}),
        ),
        (
            ["fault", "link-up", "pod/a:eth0", "-n", "web"],
            ("fault", ("link-up",), {"target": "pod/a", "device": "eth0", "namespace": "web"}),
        ),
        (
            ["delete", "svc/kubia", "--now"],
            ("delete", ("services", "kubia", "default", "background"), {"grace_s": 1.0, "wait": False}),
        ),
        (
            ["logs", "a", "-c", "side", "-p"],
            ("verb", ("logs",), {"pod": "pod/a", "namespace": "default", "container": "side", "previous": True}),
        ),
        (["fault", "kill-pod", "rc/x"], ("fault", ("kill-pod",), {"target": "rc/x", "namespace": "default"})),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_words_become_one_request(
    arguments: list[str], call: tuple[Any, ...], lab: FakeLab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.answers = {"get": [], "exec_replace": 0, "fault": {"target": "pod/default/x-1"}, "verb": {"text": "text", "note": ""}}
    assert app.main(arguments) == 0
    assert lab.asked == [call]


def test_exec_returns_the_programs_own_code(lab: FakeLab) -> None:
    lab.answers["exec_replace"] = 42
    assert app.main(["exec", "pod/a", "--", "false"]) == 42


TIMES = (
    ["capture", "--for"],
    ["events", "--for"],
    ["probe", "pod/a", "pod/b", "--timeout"],
    ["probe", "pod/a", "pod/b", "--rate", "5", "--for"],
    ["explain", "pod/a", "pod/b", "--timeout"],
    ["explain", "pod/a", "pod/b", "--live", "--wait"],
    ["top", "--every"],
    ["fault", "partition", "node/a", "--for"],
    ["fault", "link-down", "node/a", "--for"],
)


@pytest.mark.parametrize("time", ["0", "-1", "nan"])
@pytest.mark.parametrize("verb", TIMES, ids=" ".join)
def test_a_time_in_which_nothing_can_happen_is_refused(
    verb: list[str], time: str, lab: FakeLab, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(*verb, time, capsys=capsys)
    assert (code, out, lab.asked) == (2, "", []) and verb[-1] in err and time in err


def test_tcpdump_of_nothing_is_a_mistake_in_the_input(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.pid, lab.answers["verb"] = os.getpid(), InputError("pod/clint: no pod 'clint'; did you mean client?")
    lab.answers["exec_replace"] = lab.answers["verb"]
    code, _, err = run("tcpdump", "pod/clint", "-c", "1", capsys=capsys)
    assert code == 2 and "did you mean client?" in err


def test_events_have_no_document(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run("events", "-o", "json", capsys=capsys)
    assert code == 2 and "--json gives one JSON object a line" in err


@pytest.mark.parametrize(("error", "code"), [(InputError("no pod named x"), 125), (LabGone("no lab"), 125)])
def test_exec_has_a_code_of_its_own_for_its_own_failures(error: NetlabError, code: int, lab: FakeLab) -> None:
    lab.answers["exec_replace"] = error
    assert app.main(["exec", "pod/x", "--", "true"]) == code


def test_get_json_is_one_document_on_standard_output(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    import json

    lab.answers["get"] = [SERVICE]
    code, out, err = run("get", "svc", "-o", "json", capsys=capsys)
    assert (code, err) == (0, "")
    assert json.loads(out) == {"apiVersion": "v1", "kind": "List", "items": [SERVICE], "metadata": {"resourceVersion": ""}}
    assert json.loads(run("get", "svc", "kubia", "-o", "json", capsys=capsys)[1]) == SERVICE


def test_get_nothing_says_so_on_standard_error(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answers["get"] = []
    assert run("get", "svc", capsys=capsys) == (0, "", "No resources found in default namespace.\n")
    assert run("get", "svc", "-A", capsys=capsys) == (0, "", "No resources found\n")


def test_delete_goes_on_after_an_object_that_is_not_there(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answers["delete"] = ApiError(404, "NotFound", 'services "a" not found')
    code, out, err = run("delete", "svc/a", "svc/b", capsys=capsys)
    assert (code, out, err.count("not found"), len(lab.asked)) == (2, "", 2, 2)
    assert run("delete", "svc/a", "--ignore-not-found", capsys=capsys)[0] == 0


def test_get_names(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answers["get"] = [SERVICE, {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}]
    assert run("get", "svc", "-o", "name", capsys=capsys)[1] == "service/kubia\ndeployment.apps/web\n"


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 1), ("inconclusive", 4)])
def test_the_verdict_is_the_exit_code(verdict: str, code: int, lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answers["probe"] = Document({**RESULT, "verdict": verdict})
    assert run("probe", "pod/a", "svc/b", capsys=capsys)[0] == code


@pytest.mark.parametrize(
    ("verdicts", "code"),
    [(["pass", "pass"], 0), (["pass", "inconclusive"], 4), (["inconclusive", "fail"], 1), (["fail", "pass"], 1)],
    ids=["all pass", "one inconclusive", "one fails", "first fails"],
)
def test_the_worst_verdict_of_a_matrix_is_its_exit_code(
    verdicts: list[str], code: int, lab: FakeLab, capsys: pytest.CaptureFixture[str]
) -> None:
    lab.answers["get"] = []
    lab.answers["matrix"] = [Document({**RESULT, "verdict": verdict}) for verdict in verdicts]
    assert run("matrix", capsys=capsys)[0] == code


@pytest.mark.parametrize(
    ("drift", "repaired", "left", "options", "code"),
    [
        ([], 0, [], [], 0),
        (["a route is missing"], 0, ["a route is missing"], [], 1),
        (["a"], 1, [], ["--repair"], 0),
        (["a", "b"], 1, ["b"], ["--repair"], 1),
        (["a"], 1, ["c"], ["--repair"], 1),
    ],
)
def test_drift_that_stays_is_a_failure(
    drift: list[str], repaired: int, left: list[str], options: list[str], code: int, lab: FakeLab, capsys: Any
) -> None:
    lab.answers["verify"] = client.Report(drift, repaired, left)
    found, out, said = run("verify", *options, capsys=capsys)
    assert (found, out.split("\n")[:-1]) == (code, drift)
    assert [line for line in said.splitlines() if line.startswith("not mended: ")] == [
        f"not mended: {line}" for line in left if "--repair" in options
    ]


class Document:
    """Anything with json(), as a probe's result has."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def json(self) -> Mapping[str, Any]:
        return self.document


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "kubia", "namespace": "default"},
    "spec": {"clusterIP": "10.96.0.80"},
}
RESULT = {
    "from": "pod/default/client",
    "to": "10.96.0.80:80/tcp",
    "proxy": "nftables",
    "sent": 3,
    "outcomes": {"delivered": 3, "rejected": 0, "dropped": 0},
    "backends": {"pod/default/a": 2, "pod/default/b": 1},
    "sources": {"10.244.1.3": 3},
    "distribution": None,
    "expected": {"outcome": "delivered", "backends": ["pod/default/a", "pod/default/b"], "masqueraded": False},
    "verdict": "pass",
    "why": [],
}
