"""One lab from end to end: what runs in it, what it answers, what is left of it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import netlab
from netlab.client import Lab, labs
from netlab.errors import InputError, InputWarning, LabGone
from tests.live import caller
from tests.waiting import until, until_equal

KUBIA = "manifests/kubia.yaml"
MARK = "NETLAB_TEST_MARK"


@pytest.fixture
def unchanged(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The caller's own network, mounts and processes are the same before and after, byte for byte."""
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    monkeypatch.setenv(MARK, mark)
    before = caller.state()
    yield
    assert caller.changed(before, caller.state()) == []
    until_equal(lambda: caller.marked_processes(mark), [])  # a starter that was refused is on its way out


def run(*arguments: str, **options: object) -> "subprocess.CompletedProcess[str]":
    """The command line in a process of its own."""
    return subprocess.run([sys.executable, "-m", "netlab", *arguments], capture_output=True, text=True, check=False, timeout=180)


@pytest.mark.usefixtures("unchanged")
def test_a_pod_has_its_own_names_and_network() -> None:
    with netlab.up(manifests=[KUBIA]) as lab:
        pod = lab.get("pods", "client")[0]
        address = pod["status"]["podIP"]
        assert lab.exec("pod/client", ["hostname"]).stdout == "client\n"
        assert f"{address}\tclient" in lab.exec("pod/client", ["cat", "/etc/hosts"]).stdout
        assert "search default.svc.cluster.local" in lab.exec("pod/client", ["cat", "/etc/resolv.conf"]).stdout
        assert address in lab.exec("pod/client", ["ip", "-br", "address"]).stdout
        assert "KUBIA_SERVICE_HOST=" in lab.exec("pod/client", ["env"]).stdout
        assert lab.exec("node/node-170", ["hostname"]).stdout == "node-170\n"
        assert "192.168.0.100" in lab.exec("host/client", ["ip", "-br", "address"]).stdout


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.usefixtures("unchanged")
def test_http_through_a_cluster_ip_from_everywhere(mode: str) -> None:
    with netlab.up(manifests=[KUBIA], proxy=mode) as lab:
        service = lab.get("services", "kubia")[0]
        url = f"http://{service['spec']['clusterIP']}/"
        for sender in ("pod/client", "node/node-169", "node/node-170", "host/client"):
            done = lab.exec(sender, ["curl", "-s", "-m", "5", url])
            assert "You've hit kubia-" in done.stdout, (sender, done)
        pod = lab.get("pods", selector="app=kubia")[0]["status"]["podIP"]
        assert "You've hit kubia-" in lab.exec("host/client", ["curl", "-s", "-m", "5", f"http://{pod}:8080/"]).stdout


def test_what_has_no_effect_is_told_to_programs_and_once_in_a_run(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}}\n---\n" + Path(KUBIA).read_text()
    )
    with pytest.warns(InputWarning, match="ConfigMap: accepted"), netlab.up(manifests=[tmp_path / "settings.yaml"]) as lab:
        assert lab.probe("pod/client", "node/node-170", protocol="icmp").verdict == "pass"  # the Pod of the same file is there
    (tmp_path / "run.yaml").write_text(
        "{apiVersion: netlab/v1, kind: Scenario, name: run, manifests: [settings.yaml], steps: [verify: {}]}"
    )
    done = run("run", str(tmp_path / "run.yaml"), "--proxy", "all")
    assert done.returncode == 0 and done.stderr.count("ConfigMap: accepted") == 1, done.stderr


def test_exit_codes_of_exec() -> None:
    with netlab.up(manifests=[KUBIA]) as lab:
        assert lab.exec("pod/client", ["sh", "-c", "exit 7"]).returncode == 7
        assert lab.exec("pod/client", ["no-such-program"]).returncode == 127
        assert lab.exec("pod/client", ["/etc/hostname"]).returncode == 126
        with pytest.raises(subprocess.TimeoutExpired):
            lab.exec("pod/client", ["sleep", "30"], timeout_s=0.2)
        with pytest.raises(InputError, match="clien"):
            lab.exec("pod/clien", ["true"])


@pytest.mark.usefixtures("unchanged")
def test_two_labs_of_one_name() -> None:
    name = f"twice-{os.getpid()}"
    with netlab.up(name=name) as lab:
        with pytest.raises(InputError, match=f"{name} is running already"):
            netlab.up(name=name)
        assert lab.info()["nodes"] == 3
    with pytest.raises(LabGone):
        Lab.attach(name)


@pytest.mark.usefixtures("unchanged")
def test_a_killed_holder_takes_everything_along() -> None:
    lab = netlab.up(manifests=[KUBIA])
    os.kill(lab.pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{lab.pid}").exists(), "the holder lives")
    assert lab.name not in [one.name for one in labs()]
    with pytest.raises(LabGone):
        lab.info()
    assert not lab.directory.exists()


@pytest.mark.usefixtures("unchanged")
def test_the_lab_ends_with_the_program_that_made_it() -> None:
    code = "import netlab, os; lab = netlab.up(name='tethered'); print(lab.pid, flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    until(lambda: not Path(f"/proc/{int(done.stdout)}").exists(), "the holder lives")
    assert "tethered" not in [one.name for one in labs()]


@pytest.mark.usefixtures("unchanged")
def test_command_line_up_exec_down() -> None:
    done = run("up", "-f", KUBIA, "--name", "cli-lab")
    try:
        assert (done.returncode, done.stdout) == (0, "cli-lab\n"), done
        shown = run("exec", "--lab", "cli-lab", "pod/client", "--", "sh", "-c", "hostname; exit 3")
        assert (shown.returncode, shown.stdout) == (3, "client\n"), shown
        assert "kubia" in run("get", "--lab", "cli-lab", "svc").stdout
    finally:
        ended = run("down", "cli-lab")
    assert ended.returncode == 0, ended
    assert "cli-lab" not in run("ls").stdout


def test_a_command_runs_for_real_and_its_output_is_kept(tmp_path: Path) -> None:
    manifest = tmp_path / "pod.yaml"
    manifest.write_text(
        """
apiVersion: v1
kind: Pod
metadata: {name: talker}
spec:
  containers:
  - name: main
    image: busybox
    command: [sh, -c, "echo hello from $(hostname); exec sleep 1000"]
"""
    )
    with netlab.up(manifests=[manifest]) as lab:
        until_equal(lambda: lab.logs("pod/talker"), "hello from talker\n")


def test_a_lab_of_another_version_is_refused_and_can_be_taken_down() -> None:
    with netlab.up(manifests=["manifests/kubia.yaml"]) as lab:
        info = lab.directory / "info"
        before = json.loads(info.read_text())
        info.write_text(json.dumps({**before, "version": "0.0.9"}))
        asked = run("probe", "--lab", lab.name, "pod/client", "svc/kubia")
        assert asked.returncode == 2
        assert f"lab {lab.name} was started by netlab 0.0.9, this is {before['version']}" in asked.stderr
        assert f"`netlab down {lab.name}`" in asked.stderr
        listed = run("ls")
        assert lab.name in listed.stdout
        down = run("down", lab.name)
        assert (down.returncode, down.stderr) == (0, f"{lab.name} is down\n")
        assert not lab.directory.exists()


def test_an_update_in_place_is_named_and_a_bug_stays_a_bug(tmp_path: Path) -> None:
    """Agents import late: a lab that began before its files changed says so; one that began with the same mistake does not."""
    shutil.copytree("netlab", tmp_path / "netlab", ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    name = f"edition-{os.getpid()}"

    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        line = [sys.executable, "-m", "netlab", *arguments]
        return subprocess.run(line, capture_output=True, text=True, timeout=120, env=environment, cwd=tmp_path, check=False)

    assert command("up", "--name", name).returncode == 0
    try:
        late = tmp_path / "netlab/kernel/verify.py"
        late.write_text(late.read_text() + "\nraise AttributeError('of another edition')\n")
        done = command("verify", "--lab", name)
        assert (done.returncode, f"`netlab down {name}` and start it again" in done.stderr) == (2, True), done.stderr
        assert "netlab's files have changed" in done.stderr and "of another edition" in done.stderr
        assert "Traceback" not in done.stderr
        assert command("down", name).returncode == 0
        assert command("up", "--name", name).returncode == 0
        done = command("verify", "--lab", name)
        assert done.returncode != 0 and "of another edition" in done.stderr and "have changed" not in done.stderr, done.stderr
    finally:
        assert command("down", name).returncode == 0
