"""Broken on purpose, it says so: the probe never passes, `verify` names the difference, `verify --repair` mends it."""

import os
import signal
from collections.abc import Callable

import pytest

import netlab
from netlab.client import Lab
from tests.waiting import until, until_equal

KUBIA = "manifests/kubia.yaml"
Breakage = Callable[[Lab], None]


def in_node(lab: Lab, node: str, script: str) -> None:
    done = lab.exec(f"node/{node}", ["sh", "-ec", script])
    assert done.returncode == 0, done


def nodes(lab: Lab, script: str) -> None:
    for node in ("node-169", "node-170", "node-171"):
        in_node(lab, node, script)


def masquerade_removed(lab: Lab) -> None:
    nodes(lab, "iptables-nft -t nat -F KUBE-POSTROUTING")


def masquerade_removed_nft(lab: Lab) -> None:
    nodes(lab, "nft flush chain ip kube-proxy masquerading")


def endpoint_swapped(lab: Lab) -> None:
    client = lab.get("pods", "client")[0]["status"]["podIP"]
    nodes(
        lab,
        "chain=$(iptables-nft -t nat -S | grep -o 'KUBE-SEP-[A-Z0-9]*' | grep -v x | sort -u | "
        "while read c; do iptables-nft -t nat -S $c | grep -q 8080 && echo $c; done | head -1); "
        f"iptables-nft -t nat -F $chain; iptables-nft -t nat -A $chain -p tcp -j DNAT --to-destination {client}:8080",
    )


def route_deleted(lab: Lab) -> None:
    in_node(lab, "node-170", "ip route del $(ip route | grep -o '10.244.[0-9]*.0/24 via 192.168.0.171' | head -1)")
    in_node(lab, "node-171", "ip route del $(ip route | grep -o '10.244.[0-9]*.0/24 via 192.168.0.170' | head -1)")
    in_node(lab, "node-169", "ip route | grep '^10.244.* via' | while read net rest; do ip route del $net; done")


BROKEN = {
    "a masquerade rule removed": ("iptables", masquerade_removed, "host/client", "192.168.0.170:{node_port}"),
    "a masquerade rule removed, nftables": ("nftables", masquerade_removed_nft, "host/client", "192.168.0.170:{node_port}"),
    "an endpoint swapped": ("iptables", endpoint_swapped, "pod/client", "svc/kubia"),
    "a route deleted": ("nftables", route_deleted, "node/node-169", "svc/kubia"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_is_told_and_mended(name: str) -> None:
    mode, breakage, sender, to = BROKEN[name]
    with netlab.up(manifests=[KUBIA], proxy=mode) as lab:
        to = to.format(node_port=_node_port(lab))
        assert lab.verify().drift == []
        good = lab.probe(sender, to, count=60)
        assert good.verdict == "pass", good
        breakage(lab)
        bad = lab.probe(sender, to, count=60)
        assert bad.verdict in ("fail", "inconclusive"), bad
        assert bad.why
        report = lab.verify()
        assert report.drift, name
        after = lab.verify(repair=True)
        assert (after.repaired, after.left) == (len(report.drift), [])
        assert lab.verify().drift == []
        mended = lab.probe(sender, to, count=60)
        assert mended.verdict == "pass", mended


def test_a_killed_responder_is_started_again_and_the_lab_answers() -> None:
    with netlab.up(manifests=[KUBIA]) as lab:
        _kill(lab, lab.verb("processes")["agents"]["responder"])
        assert lab.verify().drift == []
        assert lab.probe("pod/client", "svc/kubia", count=60).verdict == "pass"


def test_agents_that_are_killed_again_and_again_come_back() -> None:
    with netlab.up(manifests=[KUBIA]) as lab:
        for name in ("responder", "dns"):
            seen: set[int] = set()
            for _ in range(3):
                pid = _another(lab, name, seen)
                seen.add(pid)
                _kill(lab, pid)
            _another(lab, name, seen)
        until_equal(lambda: lab.verify().drift, [])  # the third is told what the others knew 0.2 s later
        assert lab.probe("pod/client", "svc/kubia", count=60).verdict == "pass"
        assert "10.96" in lab.exec("pod/client", ["getent", "hosts", "kubia"], check=True).stdout


def _another(lab: Lab, name: str, seen: set[int]) -> int:
    """The agent's pid once it is none of these."""

    def another() -> int:
        pid = int(lab.verb("processes")["agents"][name])
        return 0 if pid in seen else pid

    return until(another, f"no other {name} was started")


def test_a_stopped_responder_is_no_pass_for_http() -> None:
    with netlab.up(manifests=[KUBIA]) as lab:
        pid = lab.verb("processes")["agents"]["responder"]
        lab.exec("node/node-169", ["kill", "-STOP", str(pid)], check=True)
        assert lab.probe("pod/client", "svc/kubia", count=3, protocol="http").verdict != "pass"
        lab.exec("node/node-169", ["kill", "-CONT", str(pid)], check=True)


def _kill(lab: Lab, pid: int) -> None:
    """End one process of the lab, by its number inside."""
    lab.exec("node/node-169", ["kill", f"-{int(signal.SIGKILL)}", str(pid)], check=True)
    os.sched_yield()


def _node_port(lab: Lab) -> int:
    ports = [port.get("nodePort") for service in lab.get("services") for port in service["spec"]["ports"]]
    return int(next(port for port in ports if port))


OWNED = """
(echo 'add table inet theirs { flags owner; }'; exec sleep 1000) 2>/dev/null | nft -i >/dev/null 2>&1 &
echo $!
until nft list tables | grep -q theirs; do sleep 0.05; done
"""


def test_what_cannot_be_mended_is_not_called_repaired() -> None:
    """A table that a living program owns: the kernel lets nobody else delete it. The rest is mended all the same."""
    with netlab.up(manifests=[KUBIA]) as lab:
        pid = lab.exec("node/node-170", ["sh", "-ec", OWNED], check=True).stdout.strip()
        lab.exec("node/node-170", ["ip", "route", "del", "10.244.2.0/24"], check=True)
        report = lab.verify(repair=True)
        assert len(report.drift) == 2 and report.repaired == 1, report
        assert "table inet theirs is not planned" in report.left[0] and report.left[1].startswith("cannot be mended: "), report
        assert lab.verify().left == report.left[:1]
        lab.exec("node/node-170", ["kill", pid], check=True)  # the table goes with its owner
        report = lab.verify(repair=True)
        assert report.left == [] and lab.verify().drift == []
