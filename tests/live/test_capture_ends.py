"""How `netlab capture` ends: at Ctrl-C, with its lab, and with its parent: what records keeps namespaces alive."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.cli import capturing as recorder
from netlab.client import Lab
from netlab.observe import capture, tcpdump
from tests.live.test_capture_live import HAVE_TCPDUMP
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.skipif(not HAVE_TCPDUMP, reason="tcpdump is not installed")


@contextmanager
def capturing(lab: Lab, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """`netlab capture` of the client, in a process group of its own as a shell starts it."""
    command = [sys.executable, "-m", "netlab", "capture", "--lab", lab.name, "pod/client", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


def recording(file: Path) -> Callable[[], bool]:
    """The file has its head: every place is being watched."""
    return lambda: file.exists() and file.stat().st_size > 0


def alive(pid: int) -> bool:
    """Not gone, and no corpse that waits for its new parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def see_a_packet(lab: Lab, process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    deadline = time.monotonic() + PATIENCE_S
    while not select.select([process.stdout], [], [], 0.05)[0]:
        assert time.monotonic() < deadline, "no packet was shown"
        lab.exec("pod/client", ["ip", "neigh", "flush", "all"])
        lab.probe("pod/client", "node/node-170:9", timeout_s=0.1)


def test_ctrl_c_ends_a_capture_in_good_order(tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    with netlab.up(manifests=["manifests/kubia.yaml"]) as lab:
        with capturing(lab) as shown:
            see_a_packet(lab, shown)
            os.killpg(shown.pid, signal.SIGINT)  # as a terminal does
            out, err = shown.communicate(timeout=PATIENCE_S)
            assert (shown.returncode, "tcpdump" in err) == (0, False), err
            assert "pod/default/client:eth0" in out
        with capturing(lab, "-w", str(file)) as written:
            until(recording(file), "nothing is recorded")
            os.killpg(written.pid, signal.SIGINT)
            assert (written.communicate(timeout=PATIENCE_S)[1], written.returncode) == (f"0 packets in {file}\n", 0)


def test_a_capture_ends_with_its_lab(tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    with (
        netlab.up(manifests=["manifests/kubia.yaml"]) as lab,
        capturing(lab, "-w", str(file)) as written,
        capturing(lab) as shown,
    ):
        until(recording(file), "nothing is recorded")
        see_a_packet(lab, shown)
        recorders = children(written.pid) + children(shown.pid)
        lab.down()
        for process in (written, shown):
            err = process.communicate(timeout=PATIENCE_S)[1]
            assert process.returncode == 0, err
            assert err.startswith("the lab is gone"), err
        assert [pid for pid in recorders if alive(pid)] == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "kill"])
def test_what_records_ends_with_its_parent(number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "x.pcapng"
    with netlab.up(manifests=["manifests/kubia.yaml"]) as lab, capturing(lab, "-w", str(file)) as process:
        until(recording(file), "nothing is recorded")
        (recorder,) = children(process.pid)
        assert alive(recorder)
        os.kill(process.pid, number)  # the parent alone
        code = process.wait(PATIENCE_S)
        assert code == (0 if number == signal.SIGTERM else -9)
        until(lambda: not alive(recorder), "the recorder lives")


def test_a_capture_ends_when_nobody_reads_on() -> None:
    """`netlab capture | head -2`: it hung until it was killed."""
    with netlab.up(manifests=["manifests/kubia.yaml"]) as lab:
        command = f"{sys.executable} -m netlab capture --lab {lab.name} -f tcp | head -2"
        with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
            deadline = time.monotonic() + PATIENCE_S
            while running.poll() is None and time.monotonic() < deadline:
                lab.probe("pod/client", "svc/kubia", count=5)
            assert running.poll() == 0
            assert running.stdout is not None
            assert len(running.stdout.read().splitlines()) == 2


def test_interrupted_before_anything_was_recorded_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """tcpdump, which shows what is recorded, gets an empty file then, and complains of it."""

    class Interrupted:
        def finish(self) -> capture.Captured:
            return capture.Captured(0, 0, (), begun=False)

    monkeypatch.setattr(recorder, "_start", lambda *arguments: Interrupted())
    lab: Any = None
    wanted = capture.Wanted(tcpdump.compile_filter(""), format="sll2")
    assert recorder._printed(lab, (), wanted, ("-n",), {}) == capture.Captured(0, 0, (), begun=False)


def test_what_tcpdump_refuses_is_said_in_its_words() -> None:
    with netlab.up() as lab:
        command = [sys.executable, "-m", "netlab", "tcpdump", "--lab", lab.name, "node/node-170", "-T", "nosuch", "-c", "1"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert (done.returncode, "unknown packet type" in done.stderr) == (1, True), "as tcpdump ends"
