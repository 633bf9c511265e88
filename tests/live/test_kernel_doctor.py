"""`netlab doctor`'s questions are asked of the real kernel, and every answer that is no says what to do."""

import json
import os
import subprocess
import sys

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


def test_a_machine_without_user_namespaces_is_told_so() -> None:
    """Played by a user namespace that allows none inside: max_user_namespaces is 0 there."""
    script = "echo 0 > /proc/sys/user/max_net_namespaces && exec " + f"{sys.executable} -m netlab.kernel.features"
    done = subprocess.run(
        ["unshare", "-Ur", "sh", "-c", script], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    if "echo" in done.stderr or "unshare" in done.stderr:
        pytest.skip(f"cannot be played here: {done.stderr.strip()}")
    row = json.loads(done.stdout.splitlines()[0])
    assert not row["ok"] and row["needed"] and "user.max_net_namespaces" in row["remedy"]
