"""What must not end a lab: agents that die or hang, programs that crash, names that reach for other directories."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import InputError
from tests.waiting import until, until_equal

KUBIA = "manifests/kubia.yaml"


def agent(lab: Lab, name: str) -> int:
    return int(lab.verb("processes")["agents"][name])


def signal_inside(lab: Lab, number: signal.Signals, pid: int) -> None:
    lab.exec("node/node-169", ["kill", f"-{int(number)}", str(pid)], check=True)


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_a_change_outlives_the_death_of_the_loader(mode: str) -> None:
    with netlab.up(manifests=[KUBIA], proxy=mode) as lab:
        signal_inside(lab, signal.SIGKILL, agent(lab, "loader"))
        lab.scale("rc", "kubia", 5)
        assert lab.probe("pod/client", "svc/kubia", count=100).verdict == "pass"
        assert lab.verify().drift == []


def test_a_stuck_responder_is_replaced() -> None:
    with netlab.up(manifests=[KUBIA]) as lab:
        stuck = agent(lab, "responder")
        signal_inside(lab, signal.SIGSTOP, stuck)
        assert lab.verify().drift == []
        assert agent(lab, "responder") != stuck
        assert lab.probe("pod/client", "svc/kubia", count=30, protocol="http").verdict == "pass"


def test_agents_that_are_killed_again_and_again_do_not_end_the_lab() -> None:
    """A new one needs the ports of the one before it, which it closes after its wire: `Address already in use` ended the lab."""
    names = ("proxy-node-169", "proxy-node-170", "proxy-node-171")
    with netlab.up(manifests=[KUBIA], proxy="userspace") as lab:
        for number in range(60):
            signal_inside(lab, signal.SIGKILL, agent(lab, names[number % len(names)]))
        for name in ("responder", "loader", "dns", "responder"):
            signal_inside(lab, signal.SIGKILL, agent(lab, name))
        until_equal(lambda: lab.verify().drift, [])  # what nobody waits for is given again a little later
        assert lab.probe("node/node-170", "svc/kubia", count=9).verdict == "pass"


def test_a_stopped_holder_is_ended_all_the_same() -> None:
    lab = netlab.up(manifests=[KUBIA])
    os.kill(lab.pid, signal.SIGSTOP)
    lab.down()
    assert not lab.directory.exists()


@pytest.mark.parametrize("name", ["../x", "a/b", "", "Up", "x" * 64, ".", ".."])
def test_a_name_never_becomes_another_path(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = tmp_path / "runtime"
    private.mkdir(mode=0o700)
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "precious").write_text("data")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(private))
    with pytest.raises(InputError, match="is no lab name"):
        netlab.up(name=name)
    assert (tmp_path / "x" / "precious").read_text() == "data"


def test_a_directory_that_no_lab_made_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    tmp_path.chmod(0o700)
    (tmp_path / "netlab" / "mine").mkdir(parents=True)
    (tmp_path / "netlab" / "mine" / "precious").write_text("data")
    with pytest.raises(InputError, match="no lab made it"):
        netlab.up(name="mine")
    assert (tmp_path / "netlab" / "mine" / "precious").read_text() == "data"


def test_a_crashing_command_is_no_healthy_pod(tmp_path: Path) -> None:
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(
        """
apiVersion: v1
kind: Pod
metadata: {name: crasher, labels: {app: crasher}}
spec:
  containers:
  - {name: main, image: x, command: [sh, -c, "echo dying; exit 3"], ports: [{containerPort: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: crasher}
spec: {selector: {app: crasher}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: once}
spec:
  restartPolicy: Never
  containers:
  - {name: main, image: x, command: [sh, -c, "echo done"]}
"""
    )
    with netlab.up(manifests=[manifest]) as lab:

        def crasher() -> dict[str, Any]:
            return dict(lab.get("pods", "crasher")[0]["status"]["containerStatuses"][0])

        until(lambda: crasher()["restartCount"] >= 2, "two restarts")
        assert crasher()["ready"] is False
        assert lab.endpoints("svc/crasher") == set()
        assert "dying" in lab.logs("pod/crasher", previous=True)
        until_equal(lambda: lab.get("pods", "once")[0]["status"]["phase"], "Succeeded")
        assert lab.logs("pod/once") == "done\n"
        with pytest.raises(InputError, match="no container 'nope'"):
            lab.logs("pod/once", container="nope")
