"""Probes in small hand-made networks: a client, a router that may rewrite, and servers behind it."""

import dataclasses
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest

from netlab.agents.responder import PodFacts, Responder
from netlab.errors import InputError
from netlab.model import Address, Flow, Protocol, Ref
from netlab.ops import Listener
from netlab.probes import connections, http
from netlab.probes.prober import Prober
from netlab.probes.values import HttpRequest, ProbeRequest, Used, Watched
from tests.live.probe_sandbox import Net, sandboxed
from tests.waiting import until

SERVICE, A, B = IPv4Address("10.96.0.80"), IPv4Address("10.0.1.2"), IPv4Address("10.0.2.2")
CLIENT, ROUTER = IPv4Address("10.0.0.2"), IPv4Address("10.0.0.1")
DNAT = """
table ip t {
  chain pre {
    type nat hook prerouting priority -100;
    ip daddr 10.96.0.80 meta l4proto { tcp, udp, sctp } th dport 80 \\
      dnat ip to numgen inc mod 2 map { 0 : 10.0.1.2 . 8080, 1 : 10.0.2.2 . 8080 }
  }
  chain out {
    type nat hook output priority -100;
    ip daddr 10.96.0.80 meta l4proto { tcp, udp, sctp } th dport 80 \\
      dnat ip to numgen inc mod 2 map { 0 : 10.0.1.2 . 8080, 1 : 10.0.2.2 . 8080 }
  }
  chain passing {
    type filter hook forward priority 0;
    ip daddr 10.96.0.81 reject
    ip daddr 10.96.0.82 tcp dport 80 reject with tcp reset
  }
}
"""
MASQUERADE = """
table ip m {
  chain post {
    type nat hook postrouting priority 100;
    ct status dnat masquerade
  }
}
"""
NAMES: dict[tuple[Address, int], str] = {(A, 0): "pod/default/a", (B, 0): "pod/default/b"}
WATCHED = (
    Watched("a", "pod/default/a", (A,)),
    Watched("b", "pod/default/b", (B,)),
    Watched("router", "node/router", (ROUTER,)),
    Watched("client", "pod/default/client", (CLIENT,)),
)


@contextmanager
def network(rules: str = DNAT, listeners: bool = True) -> Iterator[tuple[Net, Prober]]:
    """client - router - a, b; the router rewrites 10.96.0.80:80; both servers answer on 8080 by a process of their own."""
    net = Net()
    net.make("client", "router", "a", "b")
    net.wire("client", "router", "eth0", "veth0", f"{CLIENT}/24", f"{ROUTER}/24")
    net.wire("a", "router", "eth0", "veth1", f"{A}/24", "10.0.1.1/24")
    net.wire("b", "router", "eth0", "veth2", f"{B}/24", "10.0.2.1/24")
    for name, gateway in (("client", "10.0.0.1"), ("a", "10.0.1.1"), ("b", "10.0.2.1")):
        net.run(name, "ip", "route", "add", "default", "via", gateway)
    for key, value in (("net/ipv4/ip_forward", "1"), ("net/ipv4/icmp_ratemask", "0")):
        net.sysctl("router", key, value)
    net.run("router", "ip", "route", "add", "blackhole", "default")
    for number in (80, 81, 82, 85):  # a way out, so that packets meet the hooks behind the routing decision
        net.run("router", "ip", "route", "add", f"10.96.0.{number}/32", "dev", "veth1")
    if rules:
        net.run("router", "nft", "-f", "-", text=rules)
    responder = Responder()
    for name in ("a", "b") if listeners else ():
        for protocol in (Protocol.TCP, Protocol.UDP):
            responder.listen(net.fds[name], Listener(name, f"pod-{name}", protocol, 8080, "agnhost"), PodFacts(f"pod-{name}"))
    pid = os.fork()
    if pid == 0:
        parent = os.getppid()
        while os.getppid() == parent:
            responder.poll(0.2)
        os._exit(0)
    responder.close_all()
    try:
        yield net, Prober(net.open, Random(1))
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def request(
    to: IPv4Address = SERVICE,
    port: int = 80,
    protocol: Protocol = Protocol.TCP,
    count: int = 1,
    netns: str = "client",
    source: IPv4Address = CLIENT,
    timeout_s: float = 0.3,
) -> ProbeRequest:
    flow = Flow(Ref("pod", "default", "client"), source, to, port, protocol)
    return ProbeRequest(netns, flow, count, timeout_s, WATCHED, NAMES)


@sandboxed
def test_tcp_through_a_service_is_seen_at_both_backends_with_its_source() -> None:
    with network() as (_, prober):
        seen = prober.probe(request(count=300))
        assert (seen.sent, seen.delivered, seen.blind) == (300, 300, ())
        assert seen.backends == {"pod/default/a": 150, "pod/default/b": 150}
        assert seen.sources == {str(CLIENT): 300}
        assert seen.arrivals == {(A, 8080, CLIENT): 150, (B, 8080, CLIENT): 150}
        assert seen.evidence == () and seen.control is True


@sandboxed
def test_masquerading_shows_in_the_sources() -> None:
    with network(DNAT + MASQUERADE) as (_, prober):
        seen = prober.probe(request(count=10))
        assert seen.delivered == 10
        assert seen.sources == {"10.0.1.1": 5, "10.0.2.1": 5}


@sandboxed
def test_udp_and_icmp() -> None:
    with network() as (_, prober):
        udp = prober.probe(request(protocol=Protocol.UDP, count=40))
        assert (udp.delivered, udp.backends) == (40, {"pod/default/a": 20, "pod/default/b": 20})
        refused = prober.probe(request(A, 9, Protocol.UDP, 2))
        assert (refused.rejected, refused.evidence) == (2, (f"all 2 flows refused by ICMP port unreachable from {A}",))
        ping = prober.probe(request(A, 0, Protocol.ICMP, 3))
        assert (ping.delivered, ping.backends) == (3, {"pod/default/a": 3})


@sandboxed
def test_sctp_is_judged_by_arrival_where_the_kernel_has_none() -> None:
    with network() as (_, prober):
        seen = prober.probe(request(protocol=Protocol.SCTP, count=4, timeout_s=0.5))
        try:
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
        except OSError:
            assert (seen.delivered, seen.backends) == (4, {"pod/default/a": 2, "pod/default/b": 2})
            assert "no SCTP" in seen.evidence[-1]


@sandboxed
def test_refusals() -> None:
    with network() as (_, prober):
        icmp = prober.probe(request(IPv4Address("10.96.0.81"), count=20))
        assert (icmp.rejected, icmp.backends) == (20, {})
        assert icmp.evidence == (f"all 20 flows refused by ICMP port unreachable from {ROUTER}",)
        reset = prober.probe(request(IPv4Address("10.96.0.82"), count=2))
        assert (reset.rejected, reset.evidence) == (2, ("all 2 flows refused by a RST from 10.96.0.82:80",))
        closed = prober.probe(request(A, 9))
        assert (closed.rejected, closed.backends) == (1, {"pod/default/a": 1})


@sandboxed
def test_what_no_rule_handles_is_dropped_and_was_last_seen_at_the_router() -> None:
    with network() as (_, prober):
        seen = prober.probe(dataclasses.replace(request(SERVICE, 81, count=3), control=request(A, 8080).flow))
        assert (seen.dropped, seen.backends, seen.control, seen.blind) == (3, {}, True, ())
        assert seen.evidence[0] == "all 3 flows arrived at no watched place and got no answer"
        where = "all 3 flows last seen entering node/router on veth0, still addressed to 10.96.0.80:81 (no rule rewrote it)"
        assert seen.evidence[1] == f"sent again: {where}"
        assert "TCP 10.0.0.2:" in seen.evidence[2]


@sandboxed
def test_a_rewritten_packet_that_gets_lost_is_said_to_be_rewritten() -> None:
    with network(DNAT.replace("10.0.1.2 ", "10.0.7.7 ")) as (_, prober):
        seen = prober.probe(request(count=4))
        assert (seen.delivered, seen.dropped) == (2, 2)
        assert seen.evidence[0].startswith("2 of 4 flows arrived at no watched place")
        assert "1 of 2 flows last seen entering node/router on veth0, still addressed to 10.96.0.80" in " ".join(seen.evidence)
        assert "1 of 2 flows delivered this time" in " ".join(seen.evidence)


@sandboxed
def test_an_arrival_whose_answer_takes_another_way_is_no_delivery() -> None:
    """The pod answers past the router that rewrote: the client gets an answer from an address that it never asked."""
    with network() as (net, prober):
        net.wire("client", "a", "eth1", "eth1", "", "")
        net.run("client", "ip", "address", "add", "10.9.9.1/24", "dev", "eth1")
        net.run("a", "ip", "address", "add", "10.9.9.2/24", "dev", "eth1")
        net.run("a", "ip", "route", "add", f"{CLIENT}/32", "via", "10.9.9.1")
        for name in ("client", "a"):
            net.sysctl(name, "net/ipv4/conf/all/rp_filter", "0")
            net.sysctl(name, "net/ipv4/conf/eth1/rp_filter", "0")
        seen = prober.probe(request(count=2))
        assert (seen.delivered, seen.dropped) == (1, 1)
        assert seen.backends == {"pod/default/a": 1, "pod/default/b": 1}
        assert "arrived at pod/default/a (10.0.1.2:8080), but no answer came back" in seen.evidence[0]
        assert "an answer came from 10.0.1.2:8080 instead of 10.96.0.80:80" in seen.evidence[0]


@sandboxed
def test_the_router_itself_as_sender_and_as_receiver() -> None:
    with network() as (net, prober):
        seen = prober.probe(request(netns="router", source=ROUTER, count=10))
        assert (seen.delivered, seen.backends, seen.sources) == (10, {"pod/default/a": 5, "pod/default/b": 5}, {str(ROUTER): 10})
        to_router = prober.probe(request(ROUTER, 9))
        assert (to_router.rejected, to_router.backends) == (1, {f"{ROUTER}:9": 1})
        net.run("router", "nft", "add rule ip t out ip daddr 10.96.0.85 drop")
        net.run("router", "ip", "route", "add", "unreachable", "10.97.0.0/16")
        dropped = prober.probe(request(IPv4Address("10.96.0.85"), netns="router", source=ROUTER, timeout_s=0.1))
        assert dropped.dropped == 1
        no_way = prober.probe(request(IPv4Address("10.97.0.1"), netns="router", source=ROUTER))
        assert (no_way.rejected, "has no way to 10.97.0.1:80" in no_way.evidence[0]) == (1, True)


@sandboxed
def test_a_foreign_source_counts_what_arrived_and_what_was_answered() -> None:
    with network() as (net, prober):
        foreign = IPv4Address("203.0.113.9")
        seen = prober.probe(request(count=4, source=foreign))
        assert (seen.delivered, seen.sources) == (4, {str(foreign): 4})
        closed = prober.probe(request(A, 9, source=foreign))
        assert (closed.rejected, closed.backends) == (1, {"pod/default/a": 1})
        gone = prober.probe(request(IPv4Address("10.96.0.83"), source=foreign, timeout_s=0.1))
        assert gone.dropped == 1
        until(lambda: "SYN-RECV" not in net.run("a", "ss", "-tan"), "the half open connection is left")


@sandboxed
def test_many_requests_wait_side_by_side() -> None:
    with network() as (_, prober):
        drops = [request(IPv4Address(f"10.96.1.{number}")) for number in range(1, 60)]
        started = time.monotonic()
        seen = prober.probe_all([*drops, request(count=5), request(protocol=Protocol.UDP, count=5)])
        assert time.monotonic() - started < 59 * 0.3 / 2, "not one after the other"
        assert [one.dropped for one in seen[:59]] == [1] * 59
        assert [one.delivered for one in seen[59:]] == [5, 5]


@sandboxed
def test_more_flows_than_one_round_holds() -> None:
    with network() as (_, prober), pytest.MonkeyPatch.context() as patch:
        patch.setattr("netlab.probes.prober.TCP_AT_ONCE", 1024)
        seen = prober.probe(request(count=3000))
        assert (seen.sent, seen.delivered, seen.blind) == (3000, 3000, ())
        assert sum(seen.backends.values()) == 3000


@sandboxed
def test_a_blind_watcher_is_said_to_be_blind() -> None:
    with network() as (net, _):

        def swapped(name: str) -> int:
            return net.open("router" if name == "a" else name)

        def missing(name: str) -> int:
            if name == "b":
                raise FileNotFoundError(2, "No such file or directory")
            return net.open(name)

        seen = Prober(swapped).probe(request(count=4))
        assert seen.delivered == 4 and seen.backends == {"pod/default/b": 2}
        assert "2 answered flows were seen to arrive at no watched namespace" in seen.blind
        lost = Prober(missing).probe(request(count=4))
        assert any(text.startswith("pod/default/b: cannot be entered") for text in lost.blind)


@sandboxed
def test_a_watcher_that_cannot_prove_itself_is_blind() -> None:
    with network() as (net, prober):
        net.run("b", "ip", "link", "set", "lo", "down")
        seen = prober.probe(request(SERVICE, 81, timeout_s=0.05))
        assert "pod/default/b: the watcher did not see its own test packet" in seen.blind
        assert seen.control is False


@sandboxed
def test_a_link_that_is_down_is_no_blindness() -> None:
    with network() as (net, prober):
        net.run("b", "ip", "link", "set", "eth0", "down")
        seen = prober.probe(request(B, 8080, timeout_s=0.1))
        assert (seen.dropped, seen.blind) == (1, ())


@sandboxed
def test_ports_are_not_used_again_soon_and_descriptors_are_given_back() -> None:
    with network() as (_, prober):
        ports = [port for _ in range(50) for port in prober.ports("client", 300)]
        assert len(set(ports)) == len(ports)
        assert all(10_000 <= port < 30_000 for port in ports)
        prober.probe(request(protocol=Protocol.UDP, count=5))
        before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208  # names are wanted
        for protocol in Protocol:
            prober.probe(request(A, 8080, protocol, 5, timeout_s=0.05))
        assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208  # names are wanted


@sandboxed
def test_input_that_cannot_be_probed() -> None:
    with network() as (_, prober):
        with pytest.raises(InputError, match="one family"):
            flow = dataclasses.replace(request().flow, destination=IPv6Address("::1"))
            prober.probe(dataclasses.replace(request(), flow=flow))
        with pytest.raises(InputError, match="at least one"):
            prober.probe(request(count=0))


@sandboxed
def test_http_shows_bodies_and_the_backends_that_saw_the_connection() -> None:
    with network(DNAT + MASQUERADE) as (_, prober):
        seen = http.probe(prober, dataclasses.replace(request(count=40), http=HttpRequest("/hostname")))
        assert (seen.observation.delivered, seen.observation.blind) == (40, ())
        assert seen.observation.backends == {"pod/default/a": 20, "pod/default/b": 20}
        assert {(one.status, one.body, one.backend) for one in seen.responses} == {
            (200, "pod-a", "pod/default/a"),
            (200, "pod-b", "pod/default/b"),
        }
        missing = http.probe(prober, dataclasses.replace(request(), http=HttpRequest("/none")))
        assert (missing.responses[0].status, missing.observation.delivered) == (404, 1)


@sandboxed
def test_http_that_fails() -> None:
    with network() as (_, prober):
        refused = http.probe(prober, dataclasses.replace(request(A, 9), http=HttpRequest()))
        assert (refused.observation.rejected, refused.responses[0].problem) == (1, "Connection refused")
        lost = http.probe(prober, dataclasses.replace(request(SERVICE, 81), http=HttpRequest()))
        assert lost.observation.dropped == 1
        assert "still addressed to 10.96.0.80:81" in " ".join(lost.observation.evidence)
        foreign = http.probe(prober, dataclasses.replace(request(source=IPv4Address("203.0.113.9")), http=HttpRequest()))
        assert foreign.responses[0].problem == "Cannot assign requested address"


@sandboxed
def test_connections_are_held_used_and_closed() -> None:
    with network() as (net, prober):
        held = connections.Connections(prober)
        one, two = held.open(request()), held.open(request())
        assert {one.backend, two.backend} == {"pod/default/a", "pod/default/b"}
        assert (one.id, two.id) == (1, 2)
        for _ in range(3):
            assert held.use(1) == Used(True, True, one.answer)
        net.run("router", "nft", "flush chain ip t pre")  # conntrack keeps what is established
        assert held.use(2).same
        number = one.id if one.backend == "pod/default/a" else two.id
        net.run("router", "nft", "add table ip d; add chain ip d c { type filter hook forward priority 0; }")
        net.run("router", "nft", "add rule ip d c ip daddr 10.0.1.2 drop")
        assert held.use(number, 0.3).problem == "no answer before the deadline"
        held.close(number)
        with pytest.raises(InputError, match="no connection"):
            held.use(number)
        assert held.open(request(A, 9)).id == 0
