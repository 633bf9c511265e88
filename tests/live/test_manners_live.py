"""A lab started, asked and left in ways that are not the usual ones."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import netlab
from netlab.client import Lab, labs
from netlab.errors import InputError
from netlab.lab import start
from tests.live.test_capture_live import HAVE_TCPDUMP

KUBIA = "manifests/kubia.yaml"


@pytest.fixture(scope="module")
def lab() -> Iterator[netlab.Lab]:
    with netlab.up(manifests=[KUBIA]) as made:
        yield made


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where labs of this test alone are."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_up_with_closed_streams(closed: str, runtime: Path) -> None:
    words = [sys.executable, "-m", "netlab", "up", "-f", KUBIA, "--name", "closed"]
    assert subprocess.run(["bash", "-c", f'"$@" {closed}', "-", *words], check=False, timeout=120).returncode == 0
    assert [one.name for one in labs()] == ["closed"]
    with Lab.attach("closed") as made:
        assert made.probe("pod/client", "svc/kubia").verdict == "pass"


def test_a_program_with_closed_streams_has_labs(runtime: Path) -> None:
    """As a daemon is started: what it opens gets the numbers 0, 1 and 2."""
    script = """
import os, sys
for fd in (0, 1, 2):
    os.close(fd)
import netlab
with netlab.up(manifests=["manifests/kubia.yaml"]) as lab:
    verdict = lab.probe("pod/client", "svc/kubia").verdict
open(sys.argv[1], "w").write(verdict)
"""
    subprocess.run([sys.executable, "-c", script, str(runtime / "said")], check=True, timeout=120)
    assert (runtime / "said").read_text() == "pass"


def test_a_lab_on_its_way_is_in_a_session_of_its_own() -> None:
    """A Ctrl-C at the terminal is its starter's; nobody else is to print what it interrupted."""
    starting = start.spawn_holder()
    try:
        assert os.getsid(starting.first_child) == starting.first_child != os.getsid(0)
    finally:
        starting.cancel()


def test_what_a_caller_demands_is_judged(lab: netlab.Lab) -> None:
    (client,) = lab.get("pods", "client")
    own = client["status"]["podIP"]
    met = {"outcome": "delivered", "masqueraded": False, "sources": own, "backends": "pod/kubia-*"}
    assert lab.probe("pod/client", "svc/kubia", expect=met).verdict == "pass"
    for demand in ({"outcome": "dropped"}, {"masqueraded": True}, {"sources": "192.0.2.1"}, {"backends": 7}):
        result = lab.probe("pod/client", "svc/kubia", expect=demand)
        assert result.verdict == result.json()["verdict"] == "fail" and result.why, demand


@pytest.mark.skipif(not HAVE_TCPDUMP, reason="tcpdump is not installed, which reads filters")
def test_packets_are_recorded_while_a_block_runs(lab: netlab.Lab, tmp_path: Path) -> None:
    file = tmp_path / "probe.pcapng"
    file.write_bytes(b"left over")
    with lab.capture(file, "pod/client", expression="tcp port 80") as recording:
        lab.probe("pod/client", "svc/kubia", count=3)
    read = ["tcpdump", "-n", "-r", str(recording)]
    shown = subprocess.run(read, capture_output=True, text=True, check=True).stdout
    assert shown.count("Flags [S]") >= 3 and ".80: Flags" in shown
    with pytest.raises(InputError, match="can't parse filter"), lab.capture(file, expression="tcp portt 80"):
        pass
    with pytest.raises(InputError, match="no pod 'nobody'"), lab.capture(file, "pod/nobody"):
        pass
    with pytest.raises(InputError, match="Is a directory"), lab.capture(tmp_path):
        pass
    with pytest.raises(KeyError, match="mine"), lab.capture(file):
        raise KeyError("mine")
