"""What people read: probe results, the matrix, the drawing of a lab, the benchmark's table."""

from dataclasses import replace
from ipaddress import IPv4Address, ip_address, ip_network
from typing import Any
from xml.etree import ElementTree

import pytest

from netlab.cli import drawing, kernel_objects
from netlab.cli.bench import wire_texts
from netlab.cli.bench.plot import svg
from netlab.cli.bench.rows import Row, document, table
from netlab.cli.probing import junit, matrix_text, probe_text
from netlab.model import Cluster, Key, Lan, Meta, Protocol, Service, ServicePort, ServiceType
from netlab.ops import Bridge, DeviceAddress, Netns, Op, Route, Veth
from tests import clusters
from tests.test_cli import RESULT

DROPPED = {
    **RESULT,
    "from": "host/client",
    "verdict": "fail",
    "outcomes": {"delivered": 0, "rejected": 0, "dropped": 3},
    "backends": {},
    "sources": {},
    "why": ["last seen at the router, un-rewritten"],
}


def test_a_probe_shows_bars_sources_and_spread() -> None:
    spread = {"test": "chi-square", "p": 0.87, "alpha": 1e-06}
    assert probe_text({**RESULT, "distribution": spread}, colour=False).splitlines() == [
        "pod/default/client -> 10.96.0.80:80/tcp  (nftables)",
        "  PASS  3 delivered of 3",
        "    pod/default/a      2  ████████████████████████",
        "    pod/default/b      1  ████████████",
        "  seen from 10.244.1.3 (3)",
        "  spread: chi-square p = 0.87 (fails below 1e-06)",
    ]


def test_a_failed_probe_shows_what_was_expected_and_why() -> None:
    assert probe_text(DROPPED, colour=False).splitlines() == [
        "host/client -> 10.96.0.80:80/tcp  (nftables)",
        "  FAIL  3 dropped of 3",
        "  expected: delivered to pod/default/a, pod/default/b",
        "  why: last seen at the router, un-rewritten",
    ]


@pytest.mark.parametrize(("verdict", "code"), [("pass", "32"), ("fail", "31"), ("inconclusive", "33")])
def test_the_verdict_has_a_colour_only_where_colours_are_shown(verdict: str, code: str) -> None:
    assert f"\x1b[{code}m{verdict.upper()}" in probe_text({**RESULT, "verdict": verdict}, colour=True)
    assert "\x1b" not in probe_text({**RESULT, "verdict": verdict}, colour=False)


def test_the_matrix_shows_seen_and_where_it_differs_expected() -> None:
    other = {**RESULT, "to": "10.96.0.81:80/tcp", "verdict": "inconclusive", "why": ["a sniffer failed"]}
    assert matrix_text([RESULT, other, DROPPED], colour=False, names={"10.96.0.81": "svc/b"}).splitlines() == [
        "FROM                1         2",
        "pod/default/client  ok        ok?",
        "host/client         ok/drop!  -",
        "",
        "    1  10.96.0.80:80/tcp",
        "    2  10.96.0.81:80/tcp         svc/b",
        "",
        "1 pass, 1 fail, 1 inconclusive",
        "  pod/default/client -> 10.96.0.81:80/tcp: a sniffer failed",
        "  host/client -> 10.96.0.80:80/tcp: last seen at the router, un-rewritten",
    ]


def test_junit_has_the_story_of_a_pair_that_failed() -> None:
    failed = {**DROPPED, "verdict": "fail", "why": ["it was lost"]}
    suite = ElementTree.fromstring(junit([RESULT, failed], {(str(failed["from"]), str(failed["to"])): "● node/node-170"}))
    assert [case.findtext("failure") for case in suite] == [None, "it was lost\n● node/node-170"]


def test_junit_counts_failures_and_calls_missing_evidence_an_error() -> None:
    suite = ElementTree.fromstring(junit([RESULT, DROPPED, {**RESULT, "verdict": "inconclusive", "why": ["<blind>"]}]))
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [child.tag for case in suite for child in case] == ["failure", "error"]


# ---------------------------------------------------------------- the drawing


def small_cluster() -> Cluster:
    nodes = [clusters.node(f"node-{n}", [f"192.168.0.{n}"], f"10.244.{n - 169}.0/24") for n in (169, 170)]
    pods = [clusters.pod("kubia-x7k2p", "node-170", "10.244.1.2", 8080), clusters.pod("client", "node-170", "10.244.1.3")]
    ports = (ServicePort(80, node_port=30123),)
    service = Service(Meta("kubia", "default"), ServiceType.NODE_PORT, (IPv4Address("10.96.0.80"),), ports=ports)
    return Cluster(
        clusters.topology(),
        nodes={node.meta.name: node for node in nodes},
        pods={pod.meta.key: pod for pod in pods},
        services={Key("default", "kubia"): service},
    )


def test_a_port_names_its_protocol_where_it_is_not_tcp() -> None:
    ports = (ServicePort(53, protocol=Protocol.UDP), ServicePort(53), ServicePort(80, node_port=30080))
    assert [drawing.port_words(port) for port in ports] == ["53/udp", "53", "80 (node port 30080)"]


def test_drawing() -> None:
    assert (
        drawing.draw(small_cluster())
        == """\
+---------------------------------+
| host/client                     |
| 192.168.0.100                   |
| 10.96.0.0/12 via 192.168.0.169  |
| 10.244.0.0/16 via 192.168.0.169 |
+---------------------------------+
                 |
== lan 192.168.0.0/24, router 192.168.0.1 ===========
          |                           |
+--------------------+  +---------------------------+
| node/node-169      |  | node/node-170             |
| 192.168.0.169      |  | 192.168.0.170             |
| pods 10.244.0.0/24 |  | pods 10.244.1.0/24        |
|   (none)           |  |   10.244.1.2  kubia-x7k2p |
+--------------------+  |   10.244.1.3  client      |
                        +---------------------------+

svc/kubia  10.96.0.80  port 80 (node port 30123)
"""
    )


def test_a_narrow_page_takes_more_rows_and_names_the_network_again() -> None:
    narrow = drawing.draw(small_cluster(), width=40)
    assert narrow.count("== lan ") == 2
    assert all(name in narrow for name in ("node/node-169", "node/node-170", "host/client"))


def test_a_node_on_two_networks_is_drawn_once() -> None:
    cluster = small_cluster()
    second = Lan("lan-b", ip_network("192.168.9.0/24"))
    node = replace(cluster.nodes["node-170"], addresses=(ip_address("192.168.0.170"), ip_address("192.168.9.170")))
    shown = drawing.draw(
        cluster.with_(
            topology=replace(cluster.topology, networks=(*cluster.topology.networks, second)),
            nodes={**cluster.nodes, "node-170": node},
        )
    )
    assert shown.count("| node/node-170") == 1
    assert "also here: node/node-170 192.168.9.170" in shown


# ---------------------------------------------------------------- tables of netlab's own kinds, and of the benchmark


def test_routes_of_two_nodes_in_one_table() -> None:
    rows = [{"dst": "default", "gateway": "192.168.0.1", "dev": "eth0"}, {"type": "blackhole", "dst": "10.0.0.0/8"}]
    items = [{"kind": "Route", "metadata": {"name": "node/a"}, "status": {"items": rows}}]
    assert kernel_objects.text(items).splitlines() == [
        "TARGET   DESTINATION            GATEWAY       DEVICE   SOURCE   PROTOCOL",
        "node/a   default                192.168.0.1   eth0     -        -",
        "node/a   blackhole 10.0.0.0/8   -             -        -        -",
    ]


def test_rules_are_shown_as_they_are() -> None:
    items = [{"kind": "Rule", "metadata": {"name": "node/a"}, "status": {"text": "*nat\nCOMMIT\n"}}]
    assert kernel_objects.text(items) == "# node/a\n*nat\nCOMMIT\n"


def test_benchmark_rows_name_their_peer() -> None:
    shown = table(
        [Row("mine", (0.010, 0.020, 0.030), peers=("other",)), Row("other", (0.040,)), Row("third", note="not installed")]
    )
    assert "0.50 x other" in shown.splitlines()[1]
    assert shown.splitlines()[3].split()[-2:] == ["not", "installed"]


def test_ip_batch_makes_what_the_ops_say() -> None:
    mac = "02:00:00:00:00:01"
    ops: list[Op] = [
        Netns("node/a"),
        Netns("pod/x"),
        Bridge("node/a", "cni0", mac),
        Veth("pod/x", "eth0", mac, "node/a", "veth1", mac, peer_master="cni0"),
        DeviceAddress("pod/x", "eth0", IPv4Address("10.244.1.2"), 24, prefix_route=False),
        Route("pod/x", ip_network("0.0.0.0/0"), IPv4Address("10.244.1.1"), "eth0"),
    ]
    text = wire_texts.batches(ops)
    assert text[""] == [
        "netns add n0",
        "netns add n1",
        f"link add eth0 netns n1 address {mac} type veth peer name veth1 netns n0 address {mac}",
    ]
    assert text["n0"] == [
        "link set lo up",
        f"link add cni0 address {mac} type bridge",
        "link set cni0 up",
        "link set veth1 master cni0 up",
    ]
    assert text["n1"] == [
        "link set lo up",
        "link set eth0 up",
        "addr add 10.244.1.2/24 dev eth0 noprefixroute",
        "route add unicast 0.0.0.0/0 via 10.244.1.1 dev eth0",
    ]


def test_benchmark_series_have_a_growth_and_a_picture() -> None:
    rows = [Row(f"a, {size}", (size / 1000, size / 500), series="a", size=size, cpu=(0.5,)) for size in (10, 100, 1000)]
    rows.append(Row("less than nothing", (-5.0,), unit="B", series="b", size=10))
    rows.append(Row("a, 2000", (-1.0, 3.0, 3.0), series="a", size=2000))
    assert "a: grows with size^1.0" in table(rows)
    assert [one["growth"] for one in document(rows)] == [pytest.approx(1.0, abs=0.1)] * 3 + [None, pytest.approx(1.0, abs=0.1)]
    picture = svg("it <grows>", rows)
    assert picture.count("<circle") == 4 and "it &lt;grows&gt;" in picture and "a (size^1.0" in picture
    assert svg("bars", rows[:1]).count("<rect") == 2, "the ground and one bar"
    ElementTree.fromstring(picture)


def test_the_floor_reads_what_the_ops_say() -> None:
    mac = "02:00:00:00:00:01"
    ops: list[Op] = [
        Netns("node/a"),
        Netns("pod/x"),
        Veth("pod/x", "eth0", mac, "node/a", "veth1", mac, peer_master="cni0", peer_up=False),
        DeviceAddress("pod/x", "eth0", IPv4Address("10.244.1.2"), 24, prefix_route=False),
        Route("pod/x", ip_network("0.0.0.0/0"), IPv4Address("10.244.1.1"), "eth0"),
        Route("node/a", ip_network("10.0.0.0/8"), type="blackhole"),
    ]
    assert wire_texts.floor_lines(ops).splitlines() == [
        "n node/a",
        "n pod/x",
        f"v 1 eth0 {mac} - 1 0 veth1 {mac} cni0 0 1500",
        "a 1 eth0 10.244.1.2 24 0",
        "r 1 0.0.0.0 0 10.244.1.1 eth0 - 0 0",
        "r 0 10.0.0.0 8 - - - 0 1",
        f"f 0 veth1 {mac}",
    ]


ROUTED: dict[str, Any] = {
    "from": "host/client", "to": "http://a.example.com/", "proxy": "nftables", "sent": 3,
    "outcomes": {"delivered": 3, "rejected": 0, "dropped": 0}, "backends": {"pod/ingress-controller/haproxy-ingress-x": 3},
    "sources": {"192.168.0.100": 3}, "distribution": None, "expected": {"outcome": "delivered"}, "verdict": "pass", "why": [],
    "route": {
        "controller": "pod/ingress-controller/haproxy-ingress-x", "proxy": "haproxy", "ingress": "default/web",
        "service": "svc/default/web:80", "backends": {"pod/default/web-a": 2, "pod/default/web-b": 1},
        "sources": {"192.168.0.169": 3},
    },
}  # fmt: skip


def test_a_probe_through_an_ingress_names_the_pods_that_answered() -> None:
    assert probe_text(ROUTED, False) == (
        "host/client -> http://a.example.com/  (nftables)\n"
        "  PASS  3 delivered of 3\n"
        "    pod/default/web-a      2  ████████████████████████\n"
        "    pod/default/web-b      1  ████████████\n"
        "  seen from 192.168.0.169 (3)\n"
        "  through haproxy of pod/ingress-controller/haproxy-ingress-x, which saw 192.168.0.100: ingress default/web, "
        "svc/default/web:80\n"
    )
    route = {**ROUTED["route"], "ingress": None, "service": None, "backends": {}, "sources": {}, "why": "no rule fits"}
    shown = probe_text({**ROUTED, "route": route}, False)
    assert "    pod/ingress-controller/haproxy-ingress-x      3" in shown
    assert shown.splitlines()[4].endswith("which saw 192.168.0.100: no Ingress: no rule fits")
