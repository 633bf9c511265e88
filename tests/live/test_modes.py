"""Which proxy modes this machine can run, as `netlab doctor` says, is what `netlab up` does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.proxy import modes

KUBIA = str(Path(__file__).parents[2] / "manifests" / "kubia.yaml")


def netlab(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "netlab", *words], capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize("mode", modes())
def test_doctor_says_whether_a_mode_can_be_run(mode: str) -> None:
    checks = {row["name"]: row for row in json.loads(netlab("doctor", "-o", "json").stdout)["checks"]}
    said = checks[f"mode {mode}"]
    name = f"can-{mode}"
    done = netlab("up", "-f", KUBIA, "--proxy", mode, "--name", name)
    if said["ok"]:
        assert done.returncode == 0, done.stderr
        assert netlab("down", name).returncode == 0
        return
    assert said["found"] == "" and said["remedy"]
    assert done.returncode == 3
    assert f"mode {mode} cannot run here: " in done.stderr
    assert name not in netlab("ls").stdout
