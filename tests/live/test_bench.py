"""The benchmark's peers do what they are compared for: all of a lab's wires, none refused."""

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from netlab import plan
from netlab.cli import bench
from netlab.cli.bench import peers
from netlab.cli.bench.peers import Measured
from netlab.cli.bench.services import CONNECTIONS, WAYS, rows
from netlab.kernel import tools
from netlab.ops import Route
from netlab.plan import Plan
from tests import clusters

PEERS = (peers.floor, peers.wiring, peers.ip_batch, peers.ip_commands, peers.pyroute2)


@pytest.mark.parametrize("fabric", ["bridge", "routed"])
@pytest.mark.parametrize("peer", PEERS, ids=lambda one: one.__name__)
def test_a_peer_makes_the_lab(peer: Callable[[Plan, int], Measured], fabric: str) -> None:
    measured = peer(plan.build(clusters.default(fabric=fabric)), 1)
    if "not installed" in measured.note or "no C compiler" in measured.note:
        pytest.skip(measured.note)
    assert not measured.note and len(measured.seconds) == len(measured.cpu) == 1


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_having_services_is_measured(way: str) -> None:
    """Connections pass the first and the last of three Services, before which one endpoint was changed some times.

    Mode ipvs where this kernel has it; not in the VM, where its emulated processors kept it from ending once.
    """
    if why := tools.why_not(WAYS[way].mode):
        pytest.skip(f"mode {WAYS[way].mode} cannot run here: {why}")
    done = peers.unshared([sys.executable, "-m", "netlab.cli.bench.services", way, "3", "1"])
    if way == "iptables-legacy" and "iptables-legacy-restore" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout.splitlines()[-1])
    assert {"plan", "load", "change", "load, CPU", "change, CPU", "first Service", "last Service"} <= measured.keys()
    assert len(measured["last Service"]) == CONNECTIONS and all(measured.values())


def test_what_is_not_measured_is_said_with_its_reason() -> None:
    found = {row.name: row.note for row in rows(1, (1_001,), {"iptables-nft": WAYS["iptables-nft"], "ipvs": WAYS["ipvs"]})}
    assert "not measured above 1000" in found["iptables, 1001"]
    assert ("ipvs" in found) == bool(tools.why_not("ipvs")) and found.get("ipvs", "not measured").startswith("not measured")


def test_what_the_kernel_refuses_the_floor_says() -> None:
    built = plan.build(clusters.default())
    stray = Route("node/node-170", IPv4Network("198.51.100.0/24"), IPv4Address("203.0.113.1"), "eth0")
    measured = peers.floor(Plan({**built.ops, stray.identity: stray}), 1)
    if "no C compiler" in measured.note:
        pytest.skip(measured.note)
    assert not measured.seconds and "refused: Network is unreachable" in measured.note


def test_the_floor_of_legacy_iptables_leaves_the_table_as_it_was() -> None:
    """It reads the table and puts it back; without a rule in it there is nothing that it could be the floor of."""
    script = """
import subprocess
from netlab.cli.bench.legacy_floor import replace_with_itself
rules = "*nat\\n:KUBE-X - [0:0]\\n-A PREROUTING -d 10.96.0.1 -p tcp --dport 80 -j KUBE-X\\n-A KUBE-X -j DNAT --to 10.0.0.1\\n"
done = subprocess.run(["iptables-legacy-restore"], input=rules + "COMMIT\\n", text=True)
if done.returncode:
    raise SystemExit("this kernel has no legacy iptables")
save = lambda: [one for one in subprocess.check_output(["iptables-legacy-save"], text=True).splitlines() if one[0] != "#"]
before = save()
replace_with_itself()
assert save() == before and any("KUBE-X" in one for one in before), (before, save())
print("as it was")
"""
    missing = peers.missing("iptables-legacy-restore", "iptables")
    if missing is not None:
        pytest.skip(missing.note)
    done = peers.unshared([sys.executable, "-c", script])
    if "has no legacy iptables" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert done.stdout.strip() == "as it was", done.stderr


def test_a_bench_that_is_ended_leaves_no_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By SIGTERM, as `timeout` and CI do."""

    def rows(runs: int) -> list[object]:
        with tempfile.TemporaryDirectory(prefix="netlab-bench-", dir=tmp_path):
            os.kill(os.getpid(), signal.SIGTERM)
            return []

    before = signal.signal(signal.SIGTERM, lambda *_: None)  # what ended the bench before would end the tests
    monkeypatch.setattr(peers, "rows", rows, raising=False)
    try:
        with pytest.raises(KeyboardInterrupt):
            bench.measured("peers", 1, None, None, None)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert list(tmp_path.iterdir()) == []
