"""The Vagrantfile's provisioner, run in the booted VM, and what its first lines promise afterwards."""

import os
import subprocess
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.needs_ip_vs,
    pytest.mark.needs_netem,
    pytest.mark.skipif("NETLAB_VM_SAY" not in os.environ, reason="it would provision the machine that runs the tests"),
    pytest.mark.skipif(os.geteuid() != 0, reason="provisioners run as root"),
]


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """As a login shell of the VM would: only the system's own directories are on PATH."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
    environment |= {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return subprocess.run(
        command, cwd="/", env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def test_a_provisioned_machine_runs_scenarios() -> None:
    done = run("/vagrant/tools/provision.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = Path("/etc/modules-load.d/netlab.conf").read_text().split()
    assert {"ip_vs", "ip_vs_wrr", "sch_netem", "dummy", "vxlan"} <= set(loaded), done.stderr
    # Not `userspace`: its proxy gives an endpoint 250 ms to accept, as kube-proxy's did; an emulated processor may need more.
    for mode, names in (("ipvs", ("clusterip", "no-endpoints")), ("nftables", ("clusterip",))):
        ran = run("netlab", "run", *(f"/vagrant/scenarios/{name}.yaml" for name in names), "--proxy", mode)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert f"clusterip [{mode}]: lab" in ran.stdout
        assert "FAIL" not in ran.stdout
