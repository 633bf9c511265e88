"""Labs where br_netfilter is loaded, as container engines load it: bridged frames pass iptables in every new namespace then.

A lab switches that off for its own bridges. Where this kernel has no br_netfilter, `make test-vm` runs this.
"""

import os
import subprocess

import pytest

import netlab

pytestmark = pytest.mark.needs_br_netfilter
SWITCH = "net/bridge/bridge-nf-call-iptables"


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize("fabric", ["bridge", "routed"])
def test_packets_go_as_without_it(fabric: str, mode: str) -> None:
    new = ["unshare", "-n" if os.geteuid() == 0 else "-Urn", "cat", f"/proc/sys/{SWITCH}"]
    assert subprocess.run(new, capture_output=True, text=True, check=True).stdout == "1\n"  # what a lab begins with
    with netlab.up(manifests=["manifests/kubia.yaml"], fabric=fabric, proxy=mode) as lab:
        seen = [
            *lab.matrix(),
            lab.probe("rc/kubia", "svc/kubia", count=30),  # one in three is a pod's packet to itself
            lab.probe("host/client", "192.168.0.170:30123", count=30),
        ]
        assert [(one.sender, one.to, one.why) for one in seen if one.verdict != "pass"] == []
        assert len(seen) > 20 and lab.verify().drift == []
        if fabric == "bridge" and mode == "iptables":  # the control: what it does to a node whose bridge is not told
            for node in ("node-170", "node-171"):
                lab.exec(f"node/{node}", ["sh", "-c", f"echo 1 >/proc/sys/{SWITCH}"], check=True)
            lost = lab.probe("rc/kubia", "svc/kubia", count=30)
            assert lost.verdict == "fail" and 0 < lost.outcomes["dropped"] < 30, lost
            assert [one for one in lab.verify().drift if f"sysctl {SWITCH} is 1, not 0" in one]
