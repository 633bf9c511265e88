"""Load balancers with packets: who answers on the LAN, who takes over, and that a LAN hears of it before anyone asks."""

import signal
from collections.abc import Iterator
from typing import Any

import pytest

import netlab
from netlab.client import Lab
from tests.waiting import until

TOPOLOGY = """
apiVersion: netlab/v1
kind: Topology
cluster:
  podCIDR: 10.244.0.0/16,fd00:10:244::/56
  serviceCIDR: 10.96.0.0/16,fd00:10:96::/112
  loadBalancer: {pool: [192.168.0.240/29, "fd00:192:168::f0-fd00:192:168::ff"]}
networks: {lan: {cidr: [192.168.0.0/24, "fd00:192:168::/64"]}}
nodes:
  node-a: {addresses: [192.168.0.10, "fd00:192:168::10"]}
  node-b: {addresses: [192.168.0.11, "fd00:192:168::11"]}
hosts:
  client: {addresses: [192.168.0.100, "fd00:192:168::100"]}
"""
BOTH: dict[str, Any] = {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv4", "IPv6"]}


def objects() -> list[dict[str, Any]]:
    container = {"name": "web", "image": "nginx", "ports": [{"containerPort": 80}]}
    found: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"web-{node[-1]}", "labels": {"app": "web"}},
            "spec": {"nodeName": node, "containers": [container]},
        }
        for node in ("node-a", "node-b")
    ]
    spec = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "selector": {"app": "web"}, "ports": [{"port": 80}], **BOTH}
    return [*found, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}]


@pytest.fixture(scope="module", params=["iptables", "nftables"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    path = tmp_path_factory.mktemp("topology") / "l2.yaml"
    path.write_text(TOPOLOGY)
    with netlab.up(path, proxy=request.param) as found:
        found.apply(objects())
        yield found


def announcer(lab: Lab) -> str:
    (condition,) = lab.get("services", "web")[0]["status"]["conditions"]
    return str(condition["message"]).removeprefix("announced by ")


def targets(lab: Lab) -> list[str]:
    found = [one["ip"] for one in lab.get("services", "web")[0]["status"]["loadBalancer"]["ingress"]]
    return [f"[{ip}]:80" if ":" in ip else f"{ip}:80" for ip in found]


def known_to_client(lab: Lab) -> dict[str, str]:
    return {row["dst"]: row.get("lladdr", "") for row in lab.host("client").neighbours()}


def mac(lab: Lab, node: str) -> str:
    return str(next(row["address"] for row in lab.node(node).links() if row["ifname"] == "eth0"))


def test_one_node_answers_in_both_families(lab: Lab) -> None:
    node = announcer(lab)
    for target in targets(lab):
        result = lab.probe("host/client", target, count=20)
        assert result.verdict == "pass" and result.outcomes["delivered"] == 20, result.why
        assert set(result.backends) == {f"pod/default/web-{node[-1]}"}
        address = target.removesuffix(":80").strip("[]")
        assert known_to_client(lab)[address] == mac(lab, node)
        assert set(result.sources) == {"fd00:192:168::100" if ":" in address else "192.168.0.100"}
    assert lab.verify().drift == []


def test_takeover_is_heard_before_anyone_asks(lab: Lab) -> None:
    """The client has the dead node's MAC in its cache: what it learns unasked is what makes its next packet arrive."""
    first = announcer(lab)
    for target in targets(lab):
        assert lab.probe("host/client", target).outcomes["delivered"] == 1
    lab.fault("link-down", f"node/{first}")
    try:
        second = announcer(lab)
        assert second != first
        addresses = [target.removesuffix(":80").strip("[]") for target in targets(lab)]
        until(
            lambda: all(known_to_client(lab).get(address) == mac(lab, second) for address in addresses), "the client was not told"
        )
        for target in targets(lab):
            result = lab.probe("host/client", target, count=20)
            assert (result.verdict, set(result.backends)) == ("pass", {f"pod/default/web-{second[-1]}"}), result.why
    finally:
        lab.fault("link-up", f"node/{first}")
    assert announcer(lab) == first
    assert lab.probe("host/client", targets(lab)[0], count=20).verdict == "pass"


def test_a_machine_that_is_parted_from_the_announcer_does_not_find_it_by_the_address(lab: Lab) -> None:
    pair = f"client/{announcer(lab)}"
    lab.fault("partition", pair)
    try:
        for target in targets(lab):
            result = lab.probe("host/client", target)
            assert (result.verdict, result.outcomes["dropped"], result.backends) == ("pass", 1, {}), result.why
        assert lab.verify().drift == []
    finally:
        lab.fault("heal", pair)
    for target in targets(lab):
        assert lab.probe("host/client", target, count=5).outcomes["delivered"] == 5
    assert lab.verify().drift == []


def test_a_killed_speaker_is_started_again(lab: Lab) -> None:
    pid = lab.verb("processes")["agents"]["speaker"]
    lab.exec("node/node-a", ["kill", f"-{int(signal.SIGKILL)}", str(pid)], check=True)
    until(lambda: lab.verb("processes")["agents"]["speaker"] != pid, "no other speaker was started")
    lab.exec("host/client", ["ip", "neigh", "flush", "nud", "all", "to", targets(lab)[0].removesuffix(":80")])
    assert lab.probe("host/client", targets(lab)[0], count=5).outcomes["delivered"] == 5


def test_an_address_that_is_given_up_is_answered_for_by_nobody(lab: Lab) -> None:
    target = targets(lab)[0]
    assert lab.probe("host/client", target).outcomes["delivered"] == 1
    lab.delete("services", "web")
    result = lab.probe("host/client", target)
    assert result.outcomes["dropped"] == 1 and result.verdict != "fail", result.why
    lab.apply(objects())
    assert lab.probe("host/client", target).outcomes["delivered"] == 1
    assert lab.verify().drift == []
