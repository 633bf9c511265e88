"""No frame is flooded by a lab's bridges, however long nobody spoke; and where one is, no verdict takes a copy for an arrival.

Bridges forget at once here (`ageing_time 0`), instead of after five minutes' silence: what they did not learn, the plan says.
"""

import json
import subprocess
import sys

import netlab
from netlab.client import Lab


def in_switches(lab: Lab) -> list[tuple[str, str]]:
    """(namespace's number, bridge) of every bridge of the lab."""
    return [
        (str(number), link["ifname"])
        for name, number in lab.verb("namespaces").items()
        if name.startswith(("node/", "lan/"))
        for link in json.loads(inside(lab, str(number), "ip", "-j", "link", "show", "type", "bridge") or "[]")
    ]


def inside(lab: Lab, number: str, *command: str) -> str:
    way = [sys.executable, "-m", "tests.live.inside", str(lab.pid), number, "--"]
    return subprocess.run([*way, *command], capture_output=True, text=True, check=True).stdout


def flooded(lab: Lab) -> list[str]:
    """Who got copies of a packet and of its answer, on their way from one node to another."""
    found = lab.explain("pod/client", "svc/kubia")
    assert (found["verdict"], found["outcome"]) == ("pass", "delivered")
    return [one["netns"] for one in found["flooded"] if one["event"] == "received"]


def forget(lab: Lab) -> int:
    """Every static entry; how many there were."""
    count = 0
    for number, bridge in in_switches(lab):
        for one in json.loads(inside(lab, number, "bridge", "-j", "fdb", "show", "br", bridge)):
            if one.get("state") == "static":
                inside(lab, number, "bridge", "fdb", "del", one["mac"], "dev", one["ifname"], "master")
                count += 1
    return count


def test_nothing_is_flooded_and_a_copy_is_no_arrival() -> None:
    with netlab.up(manifests=["manifests/kubia.yaml"]) as lab:
        for number, bridge in in_switches(lab):
            inside(lab, number, "ip", "link", "set", bridge, "type", "bridge", "ageing_time", "0")
        assert flooded(lab) == []
        assert forget(lab) >= 8  # four pods, three nodes, router, client
        assert flooded(lab) != []  # the control: this is how a copy is seen
        seen = lab.probe("pod/client", "svc/kubia", count=100)
        assert (seen.verdict, {*seen.backends}) == ("pass", lab.endpoints("svc/kubia")), seen.why
        assert [one.why for one in lab.matrix() if one.verdict != "pass"] == []
        lost = lab.probe("host/client", "10.96.0.222:80", timeout_s=0.5)
        assert lost.outcomes["dropped"] == 1 and "entering" in (why := " ".join(lost.why)) and " pod/" not in why, lost.why
        drift = lab.verify(repair=True).drift
        assert len([one for one in drift if "its frames are flooded" in one]) >= 8, drift
        assert lab.verify().drift == []
        assert flooded(lab) == []
