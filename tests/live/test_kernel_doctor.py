"""`netlab doctor`'s questions are asked of the real kernel, and every answer that is no says what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netlab.kernel import tools
from tests.live.caller import state
from tests.live.kernel_sandbox import WAYS, run


@pytest.mark.parametrize("way", WAYS)
def test_what_a_lab_needs_is_there_where_labs_run(way: str) -> None:
    run(way, needed_is_there)


def needed_is_there() -> None:
    command = [sys.executable, "-m", "netlab.kernel.features"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"namespaces", "link veth", "nftables", "iptables (nft)", "connection tracking"} <= {row["name"] for row in rows}
    assert [row for row in rows if row["needed"] and not row["ok"]] == []


def test_asking_changes_nothing_and_every_no_has_a_remedy() -> None:
    before = state()
    checks = tools.checks()
    assert state() == before
    assert len({check.name for check in checks}) == len(checks) > 20
    assert [check.name for check in checks if not check.ok and not check.remedy] == []
    assert [check.name for check in checks if check.ok and not check.found] == []


@pytest.mark.parametrize("kind", ["net", "mnt", "pid", "uts", "ipc"])
def test_a_machine_without_namespaces_is_told_which(kind: str, tmp_path: Path) -> None:
    """Played by a user namespace that allows none of a kind inside. `up` says the same."""
    limit = f"echo 0 > /proc/sys/user/max_{kind}_namespaces"
    tmp_path.chmod(0o700)
    environment = {**os.environ, "LC_ALL": "C", "XDG_RUNTIME_DIR": str(tmp_path)}

    def played(*words: str) -> "subprocess.CompletedProcess[str]":
        command = ["unshare", "-Ur", "sh", "-c", f'{limit} && exec "$@"', "-", sys.executable, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        if "sh: " in done.stderr or "unshare: " in done.stderr:
            pytest.skip(f"cannot be played here: {done.stderr.strip()}")
        return done

    row = json.loads(played("-m", "netlab.kernel.features").stdout.splitlines()[0])
    assert not row["ok"] and row["needed"] and f"user.max_{kind}_namespaces" in row["remedy"]
    up = played("-m", "netlab", "up")
    assert up.returncode == 3 and f"raise user.max_{kind}_namespaces with" in up.stderr
