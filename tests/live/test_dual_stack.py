"""A dual-stack lab from end to end: both families side by side in one lab, drift, change, real clients, conntrack."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import netlab
from netlab.client import Lab

ROOT = Path(__file__).parent.parent.parent
WEB = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "grows"}}
CHANGES = {  # a route, an address, a neighbour and rules of IPv6 that someone takes away
    "iptables": ("ip6tables", "-t", "nat", "-F", "KUBE-SERVICES"),
    "nftables": ("nft", "delete", "map", "ip6", "kube-proxy", "service-ips"),
}


@pytest.fixture(scope="module", params=["iptables", "nftables"])
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with netlab.up(ROOT / "topologies/dual-stack.yaml", [ROOT / "manifests/dual-stack.yaml"], proxy=request.param) as running:
        yield running


def addresses(lab: Lab, name: str) -> list[str]:
    return list(lab.get("services", name)[0]["spec"]["clusterIPs"])


def target(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def test_every_pair_in_both_families(lab: Lab) -> None:
    results = lab.matrix()
    assert [(one.sender, one.to, one.why) for one in results if one.verdict != "pass"] == []
    to = {one.to for one in results}
    assert {text.startswith("[fd00:10:96:") for text in to} == {True, False}
    assert len([text for text in to if text.startswith("[")]) >= 6


@pytest.mark.parametrize("sender", ["pod/client", "node/node-a", "node/node-b", "host/client"])
def test_each_family_spreads_over_both_pods(lab: Lab, sender: str) -> None:
    for service in ("prefer", "require"):
        for address in addresses(lab, service):
            seen = lab.probe(sender, target(address, 80), count=60)
            assert (seen.verdict, len(seen.backends)) == ("pass", 2), seen
            assert {":" in source for source in seen.sources} == {":" in address}


def test_endpoints_are_told_whatever_their_family(lab: Lab) -> None:
    assert lab.endpoints("six") == lab.endpoints("single") == lab.endpoints("prefer")
    assert len(lab.endpoints("six")) == 2
    assert lab.probe("pod/client", "svc/six", count=60).backends.keys() == lab.endpoints("six")


def test_node_ports_udp_echo_and_refusals(lab: Lab) -> None:
    node = "fd00:192:168::11"
    outside = lab.probe("host/client", target(node, 30080), count=40)
    assert outside.outcomes["delivered"] == 40 and len(outside.backends) == 2
    assert not any(source == "fd00:192:168::100" for source in outside.sources)  # masqueraded
    assert lab.probe("host/client", target(node, 30053), count=10, protocol="udp").outcomes["delivered"] == 10
    assert lab.probe("pod/client", "fd00:192:168::100", protocol="icmp").outcomes["delivered"] == 1
    refused = lab.probe("pod/client", "svc/empty", count=100)  # more than an unlimited icmp_msgs_burst
    assert (refused.outcomes["rejected"], refused.verdict) == (100, "pass"), refused
    here = lab.probe("node/node-a", target("::1", 30080))
    assert (here.outcomes["rejected"], here.verdict) == (1, "pass"), here


def test_real_clients(lab: Lab) -> None:
    single, both = addresses(lab, "six")[0], addresses(lab, "prefer")[1]
    for address in (single, both):
        done = lab.exec("pod/client", ["curl", "-s", "-g", "-m", "5", f"http://[{address}]/"])
        assert "You've hit web-" in done.stdout, done
        seen = lab.probe("node/node-b", f"http://[{address}]/hostname", count=4)
        assert (seen.outcomes["delivered"], seen.verdict) == (4, "pass"), seen


def test_ipv6_that_is_switched_off_on_a_link_is_named_and_mended(lab: Lab) -> None:
    """The kernel forgets the link's IPv6 addresses and routes, and takes none before it is on again."""
    node = next(iter(lab.get("nodes")))["metadata"]["name"]
    lab.exec(f"node/{node}", ["sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=1"], check=True)
    said = lab.verify(repair=True)
    assert any("net/ipv6/conf/eth0/disable_ipv6" in one for one in said.drift), said.drift
    assert said.left == [] and lab.verify().drift == []


def test_drift_in_ipv6_is_seen_and_mended(lab: Lab) -> None:
    assert lab.verify().drift == []
    mode = lab.cluster().topology.cluster.proxy.mode
    for command in (
        ("ip", "-6", "route", "del", "fd00:10:244:1::/64"),
        ("ip", "-6", "neigh", "del", "fd00:192:168::11", "dev", "eth0"),
        ("ip", "-6", "addr", "del", "fd00:10:244::1/64", "dev", "cni0"),
    ):
        lab.exec("node/node-a", command, check=True)
    if mode == "iptables":
        lab.exec("node/node-a", CHANGES[mode], check=True)
    else:
        lab.exec("node/node-a", ("nft", "flush", "chain", "ip6", "kube-proxy", "services"), check=True)
    drift = "\n".join(lab.verify().drift)
    for word in ("fd00:10:244:1::/64", "fd00:192:168::11", "fd00:10:244::1", "ip6"):
        assert word in drift
    assert lab.verify(repair=True).repaired
    assert lab.verify().drift == []
    assert lab.probe("pod/client", target(addresses(lab, "prefer")[1], 80), count=20).verdict == "pass"


def test_udp_entries_of_a_vanished_ipv6_endpoint_are_forgotten(lab: Lab) -> None:
    address = addresses(lab, "prefer")[1]
    assert lab.probe("pod/client", target(address, 53), count=30, protocol="udp").outcomes["delivered"] == 30
    assert any(str(entry).count(address) for entry in lab.node("node-a").conntrack())
    lab.scale("deploy", "web", 1)
    (left,) = lab.endpoints("prefer")
    pod = lab.get("pods", left.rpartition("/")[2])[0]
    (own,) = [one["ip"] for one in pod["status"]["podIPs"] if ":" in one["ip"]]
    kept = [str(entry) for entry in lab.node("node-a").conntrack() if entry["protocol"] == "udp" and entry["dst"] == address]
    assert kept and all(own in entry for entry in kept), kept
    lab.scale("deploy", "web", 2)


def test_a_service_gets_its_second_family_while_the_lab_runs(lab: Lab) -> None:
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    lab.apply([{**WEB, "spec": spec}])
    assert len(addresses(lab, "grows")) == 1
    lab.apply([{**WEB, "spec": {**spec, "ipFamilyPolicy": "PreferDualStack"}}])
    first, second = addresses(lab, "grows")
    assert lab.probe("pod/client", target(second, 80), count=20).verdict == "pass"
    lab.apply([{**WEB, "spec": {**spec, "ipFamilyPolicy": "SingleStack"}}])
    assert addresses(lab, "grows") == [first]
    gone = lab.probe("pod/client", target(second, 80), timeout_s=0.3)
    assert (gone.outcomes["delivered"], gone.verdict) == (0, "pass"), gone
    lab.delete("service", "grows")
