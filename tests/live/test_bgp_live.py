"""Routing `bgp` with BIRD and packets: routes are there when `up` returns, a dead node's go, flows spread over nodes.

How soon is a figure of docs/routing.md; here only that it happens, with deadlines that a loaded machine keeps.
"""

import json
import signal
import threading
import time
from collections.abc import Iterator

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import NetlabError
from netlab.kernel.tools import path_of
from tests.waiting import until, until_equal

TOPOLOGY = "topologies/bgp.yaml"
KUBIA = "manifests/kubia.yaml"
MONITOR = """
import json, socket, struct, sys, time
sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
sock.bind((0, 0x40))
sock.settimeout(float(sys.argv[2]))
wanted = socket.inet_aton(sys.argv[1])
print("watching", file=sys.stderr)
try:
    while True:
        data = sock.recv(65536)
        kind = struct.unpack_from("=IH", data)[1]
        if kind == 25 and wanted in data:
            print(json.dumps(time.monotonic()))
            break
except TimeoutError:
    print("null")
"""
CHI_SQUARE_2 = 27.63
"""Two degrees of freedom: a fair spread exceeds it once in a million."""
FLOWS = 600


pytestmark = pytest.mark.skipif(path_of("bird") is None, reason="bird is not installed: it is for labs that ask for it")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with netlab.up(TOPOLOGY, manifests=[KUBIA]) as found:
        yield found


def learned(lab: Lab) -> dict[str, int]:
    """What the router's kernel has from its daemon: destination -> number of ways."""
    return {row["dst"]: len(row.get("nexthops", [0])) for row in lab.router().routes() if row.get("protocol") == "bird"}


ALL = {"10.96.0.0/12": 3, "10.244.0.0/24": 1, "10.244.1.0/24": 1, "10.244.2.0/24": 1}


def test_routes_are_in_the_kernel_when_up_returns(lab: Lab) -> None:
    assert learned(lab) == ALL
    assert lab.verify().drift == []
    assert set(lab.verb("processes")["daemons"]) == {"bird-router", "bird-node-169", "bird-node-170", "bird-node-171"}


def test_flows_spread_over_all_nodes(lab: Lab) -> None:
    """Masquerade names the node: a backend on the node itself sees its bridge's address, the others its address in the LAN."""
    result = lab.probe("host/client", "svc/kubia", count=FLOWS)
    assert result.verdict == "pass", result.why
    nodes = {f"192.168.0.{169 + i}": i for i in range(3)} | {f"10.244.{i}.1": i for i in range(3)}
    counts = [0, 0, 0]
    for source, number in result.sources.items():
        counts[nodes[source]] += number
    assert sum(counts) == FLOWS
    expected = FLOWS / 3
    assert sum((count - expected) ** 2 / expected for count in counts) < CHI_SQUARE_2, counts


def test_without_the_hash_over_ports_one_client_uses_one_node(lab: Lab) -> None:
    """The negative of the spread: with the kernel's default (addresses only) all flows of one client take one way."""
    key = "/proc/sys/net/ipv4/fib_multipath_hash_policy"
    write = ["python3", "-c", f"open('{key}', 'w').write('0')"]
    lab.exec("router/router", write, check=True)
    try:
        assert [line for line in lab.verify().drift if "fib_multipath_hash_policy is 0, not 1" in line]
        sources = lab.probe("host/client", "svc/kubia", count=60).sources
        lans = {source for source in sources if source.startswith("192.168.0.")}
        assert len(lans) == 1
    finally:
        lab.verify(repair=True)
    assert lab.verify().drift == []


@pytest.mark.parametrize(("break_it", "mend_it"), [("link-down", "link-up"), ("kill-node", "heal")])
def test_a_dead_nodes_routes_go_and_come_back(lab: Lab, break_it: str, mend_it: str) -> None:
    found: list[str] = []
    command = ["python3", "-c", MONITOR, "10.244.2.0", "20"]
    watcher = threading.Thread(target=lambda: found.append(lab.exec("router/router", command, check=True).stdout))
    watcher.start()
    wait_for_listener(lab)
    start = time.monotonic()
    lab.fault(break_it, "node/node-171")
    watcher.join()
    gone = json.loads(found[0])
    assert gone is not None, "the router's kernel kept the route"
    print(f"the route to the dead node's pods was deleted {gone - start:.3f} s after {break_it}")
    assert learned(lab) == {"10.96.0.0/12": 2, "10.244.0.0/24": 1, "10.244.1.0/24": 1}
    lab.fault(mend_it, "node/node-171")
    assert learned(lab) == ALL


def wait_for_listener(lab: Lab) -> None:
    """Until the router has a netlink socket that listens for routes besides BIRD's own."""

    def listens() -> bool:
        table = lab.exec("router/router", ["cat", "/proc/net/netlink"]).stdout.splitlines()
        return 0x40 in [int(line.split()[3], 16) for line in table[1:] if line.split()[1] == "0"]

    until(listens, "nobody listens for routes")


def test_a_killed_daemon_is_started_again_and_its_routes_return(lab: Lab) -> None:
    pid = lab.verb("processes")["daemons"]["bird-node-171"]
    lab.exec("node/node-171", ["kill", f"-{int(signal.SIGKILL)}", str(pid)], check=True)
    lab.apply([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "any-change"}}])
    until(lambda: lab.verb("processes")["daemons"].get("bird-node-171") not in (None, pid), "no other daemon was started")
    until_equal(lambda: learned(lab), ALL)
    assert "Started" in lab.logs("node/node-171", container="bird")
    assert lab.verify().drift == []
    assert lab.probe("host/client", "svc/kubia", count=60).verdict == "pass"


def test_a_learned_route_that_is_not_there_is_drift(lab: Lab) -> None:
    lab.exec("router/router", ["ip", "route", "del", "10.244.2.0/24"], check=True)
    assert "router/router: route 10.244.2.0/24 has not been learned" in lab.verify().drift
    lab.exec("router/router", ["ip", "route", "add", "203.0.113.7/32", "via", "192.168.0.169", "proto", "bird"], check=True)
    assert not [line for line in lab.verify().drift if "203.0.113.7" in line], "what is learned besides is no drift"
    lab.exec("router/router", ["ip", "route", "del", "203.0.113.7/32"], check=True)
    until_equal(lambda: learned(lab), ALL)


def test_a_session_that_does_not_stand_is_named() -> None:
    """What `up` would say, too: the lab is cut so that BGP, and nothing else, cannot pass."""
    rule = (
        "add table ip cut; add chain ip cut in { type filter hook input priority -500; }; add rule ip cut in tcp sport 179 drop; "
    )
    with netlab.up(TOPOLOGY) as lab:
        lab.exec("node/node-170", ["nft", rule + "add rule ip cut in tcp dport 179 drop"], check=True)
        lab.fault("link-down", "node/node-170")
        with pytest.raises(NetlabError) as caught:
            lab.fault("link-up", "node/node-170")
        text = str(caught.value)
        assert "did not settle" in text and "node/node-170: session router_ipv4 is not established" in text
        assert "router/router: route 10.244.1.0/24 has not been learned" in text


IPV6 = """
apiVersion: netlab/v1
kind: Topology
cluster: {podCIDR: "10.244.0.0/16,fd00:10:244::/56", serviceCIDR: "10.96.0.0/16,fd00:10:96::/112", routing: bgp}
networks:
  lan: {cidr: [192.168.0.0/24, "fd00:192:168::/64"]}
  outside: {cidr: [198.51.100.0/24, "2001:db8::/64"]}
nodes:
  node-a: {addresses: [192.168.0.10, "fd00:192:168::10"]}
  node-b: {addresses: [192.168.0.11, "fd00:192:168::11"]}
hosts:
  client: {addresses: [198.51.100.100, "2001:db8::100"]}
"""


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_dual_stack(mode: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("topology") / "dual.yaml"
    path.write_text(IPV6)
    with netlab.up(path, manifests=["manifests/dual-stack.yaml"], proxy=mode) as lab:
        assert learned(lab) | {"fd00:10:96::/112": 2} == learned(lab)
        result = lab.matrix()
        assert [one.why for one in result if one.verdict != "pass"] == []
        assert lab.verify().drift == []
