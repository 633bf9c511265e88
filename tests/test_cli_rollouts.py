"""rollout, cordon and the node faults as they are typed, without a lab: what is asked, what is printed, the exit codes."""

from collections.abc import Iterator
from typing import Any

import pytest

from netlab import client
from netlab.cli import app
from tests.test_cli import FakeLab, run


class FakeRollout(FakeLab):
    """The rollout verbs; `told` is what messages() yields, an exception its end."""

    told: tuple[Any, ...] = ()

    def messages(self, target: str, timeout_s: float | None, namespace: str) -> Iterator[dict[str, Any]]:
        self.asked.append(("messages", (target, timeout_s, namespace), {}))
        for one in self.told:
            if isinstance(one, BaseException):
                raise one
            yield one


@pytest.fixture
def rollout(monkeypatch: pytest.MonkeyPatch) -> FakeRollout:
    fake = FakeRollout()
    lab = FakeLab()
    lab.__dict__["rollout"] = fake
    monkeypatch.setattr(client.Lab, "attach", classmethod(lambda cls, name=None: lab))
    return fake


def told(message: str, done: bool = False, failed: bool = False) -> dict[str, Any]:
    return {"message": message, "done": done, "failed": failed}


def test_status_prints_each_message_and_ends_with_0(rollout: FakeRollout, capsys: pytest.CaptureFixture[str]) -> None:
    rollout.told = (told("Waiting..."), told("done", done=True))
    assert run("rollout", "status", "deploy/web", "--timeout", "1m30s", "-n", "shop", capsys=capsys) == (
        0,
        "Waiting...\ndone\n",
        "",
    )
    assert rollout.asked == [("messages", ("deployments/web", 90.0, "shop"), {})]


def test_status_fails_at_the_deadline_and_at_the_timeout(rollout: FakeRollout, capsys: pytest.CaptureFixture[str]) -> None:
    rollout.told = (told("error: late", done=True, failed=True),)
    assert run("rollout", "status", "deploy/web", capsys=capsys) == (1, "", "error: late\n")
    rollout.told = (told("Waiting..."), TimeoutError("x"))
    assert run("rollout", "status", "deploy/web", capsys=capsys) == (
        1, "Waiting...\n", "error: timed out waiting for the condition\n",
    )  # fmt: skip


def test_without_watch_it_says_what_is_now(rollout: FakeRollout, capsys: pytest.CaptureFixture[str]) -> None:
    rollout.told = (told("Waiting..."), told("done", done=True))
    assert run("rollout", "status", "ds/a", "--no-watch", capsys=capsys) == (0, "Waiting...\n", "")


@pytest.mark.parametrize(
    ("words", "asked", "shown"),
    [
        (["restart", "deploy/web"], ("restart", ("deployments/web", "default"), {}), "deployment.apps/web restarted"),
        (["pause", "deploy", "web"], ("pause", ("deployments/web", "default"), {}), "deployment.apps/web paused"),
        (["resume", "deploy/web"], ("resume", ("deployments/web", "default"), {}), "deployment.apps/web resumed"),
        (
            ["undo", "sts/db", "--to-revision", "3"],
            ("undo", ("statefulsets/db", 3, "default"), {}),
            "statefulset.apps/db rolled back",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_the_other_verbs(
    words: list[str], asked: tuple[Any, ...], shown: str, rollout: FakeRollout, capsys: pytest.CaptureFixture[str]
) -> None:
    rollout.answers = {"undo": "rolled back"}
    assert run("rollout", *words, capsys=capsys) == (0, shown + "\n", "")
    assert rollout.asked == [asked]


def test_history_as_kubectl_lays_it_out(rollout: FakeRollout, capsys: pytest.CaptureFixture[str]) -> None:
    template = {"labels": {"app": "web"}, "metadata": {}, "spec": {"containers": [{"name": "c", "image": "nginx:1"}]}}
    rollout.answers = {
        "history": [{"revision": number, "changeCause": cause, "template": template} for number, cause in ((1, ""), (2, "new"))]
    }
    assert run("rollout", "history", "deploy/web", capsys=capsys)[1] == (
        "deployment.apps/web \nREVISION   CHANGE-CAUSE\n1          <none>\n2          new\n\n"
    )
    shown = run("rollout", "history", "deploy/web", "--revision", "2", capsys=capsys)[1]
    assert shown.startswith("deployment.apps/web with revision #2\nPod Template:\n") and "Image:         nginx:1" in shown
    code, _, error = run("rollout", "history", "deploy/web", "--revision", "9", capsys=capsys)
    assert code == 2 and "unable to find the specified revision 9" in error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rollout", "status", "deploy/web", "--timeout", "soon"], "--timeout 'soon'"),
        (["rollout", "restart", "deploy"], "expected KIND/NAME"),
        (["rollout", "restat", "deploy/web"], "restart"),
        (["fault", "heal", "--for", "3"], "heal is how kill-node and partition are undone"),
    ],
)
def test_mistakes(words: list[str], said: str, rollout: FakeRollout, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, error = run(*words, capsys=capsys)
    assert code == 2 and said in error and not rollout.asked


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> FakeLab:
    fake = FakeLab(fault={"target": "node/node-170"}, cordon=True)
    monkeypatch.setattr(client.Lab, "attach", classmethod(lambda cls, name=None: fake))
    return fake


def test_heal_says_of_nodes_and_of_pairs_what_became_of_each(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    for target, said in (
        ("node/a, node/b, node/c and node/d", "node/a is back; node/b is back; node/c and node/d reach each other again\n"),
        ("node/c and node/d", "node/c and node/d reach each other again\n"),
        ("", "every node is in reach\n"),
    ):
        lab.answers["fault"] = {"target": target}
        assert run("fault", "heal", capsys=capsys)[2] == said


def test_node_faults_and_cordon(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fault", "kill-node", "node-170", capsys=capsys)[2].startswith(
        "node/node-170 is dead; `netlab fault heal node-170`"
    )
    assert run("fault", "partition", "node/node-170", "--for", "0.01", capsys=capsys)[2].endswith("node/node-170 is back\n")
    assert run("cordon", "node/node-170", "node-171", capsys=capsys)[1] == "node/node-170 cordoned\nnode/node-171 cordoned\n"
    assert [(verb, *arguments) for verb, arguments, _ in lab.asked] == [
        ("fault", "kill-node"), ("fault", "partition"), ("fault", "heal"),
        ("cordon", "node-170", True), ("cordon", "node-171", True),
    ]  # fmt: skip
    lab.answers["cordon"] = False
    assert run("uncordon", "node-170", capsys=capsys)[1] == "node/node-170 already uncordoned\n"
    assert app.VERBS["rollout"] == "rollouts"
