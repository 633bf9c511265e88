"""The rule loader and conntrack against the real kernel and the real tools, in every backend."""

import os
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from netlab.errors import KernelError
from netlab.kernel import conntrack, observe, rules, verify
from netlab.kernel import namespaces as ns
from netlab.kernel import netlink as nl
from netlab.kernel.rules import Loader
from netlab.model import Cluster
from netlab.ops import Netns, Ruleset
from netlab.proxy import iptables as iptables_mode
from netlab.proxy import nftables as nftables_mode
from netlab.ruleset import Base, Chain, Hook, Jump, Rule, Table
from netlab.ruleset import Ruleset as Rules
from tests import test_large_cluster as large_cluster
from tests.live.kernel_sandbox import WAYS, run
from tests.proxy_support import dual_stack, ruleset, states

pytestmark = pytest.mark.parametrize("way", WAYS)
BACKENDS = ["nftables", "nft", "legacy"]


def rules_of(cluster: Cluster, backend: str) -> Rules:
    node = next(iter(cluster.nodes.values()))
    if backend == "nftables":
        return ruleset(nftables_mode.plan(cluster, node))
    planned = ruleset(iptables_mode.plan(cluster, node))
    return replace(planned, backend="legacy" if backend == "legacy" else "nft")


def drift(fd: int, wanted: Rules) -> list[str]:
    return [sentence for sentence, _ in verify.drift({"node/a": fd}, [Netns("node/a"), Ruleset("node/a", wanted)])]


def sh(fd: int, command: str) -> None:
    lock = os.memfd_create("lock")  # the legacy lock is the machine's, and only root may open it
    environment = {**os.environ, "XTABLES_LOCKFILE": f"/proc/self/fd/{lock}"}
    with ns.entered(fd):
        process = subprocess.Popen(command.split(), stderr=subprocess.PIPE, text=True, env=environment, pass_fds=(lock,))
    os.close(lock)
    _, error = process.communicate()
    assert process.returncode == 0, f"{command}: {error}"


def namespace() -> int:
    fd = ns.new_netns("node/a")
    with ns.entered(fd), nl.Socket() as sock:
        assert sock.run([nl.set_link(1, up=True)]) == []
    return fd


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_change_leaves_what_was_planned(way: str, backend: str) -> None:
    run(way, every_change, backend)


def every_change(backend: str) -> None:
    loader, fd = Loader(), namespace()
    old: Rules | None = None
    for cluster in (*states().values(), dual_stack(), *reversed(states().values())):
        new = rules_of(cluster, backend)
        loader.load(fd, "node/a", new, old)
        assert drift(fd, new) == []
        old = new
    assert old is not None
    loader.load(fd, "node/a", replace(old, tables=()), old)
    assert drift(fd, replace(old, tables=())) == [], "everything is taken away again"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_kernel_that_is_not_as_remembered_is_replaced_whole(way: str, backend: str) -> None:
    run(way, not_as_remembered, backend)


def not_as_remembered(backend: str) -> None:
    loader, fd = Loader(), namespace()
    first, second, *_ = (rules_of(cluster, backend) for cluster in states().values())
    loader.load(fd, "node/a", first, None)
    sh(fd, "nft flush ruleset" if backend != "legacy" else "iptables-legacy -t nat -F")
    loader.load(fd, "node/a", second, first)
    loader.load(fd, "node/a", second, None)
    assert drift(fd, second) == []


BY_HAND = {
    "nftables": [
        "nft add rule ip kube-proxy services counter accept",
        "nft flush chain ip kube-proxy services",
        "nft flush ruleset",
    ],
    "nft": ["iptables -t nat -D POSTROUTING 1", "iptables -A FORWARD -s 1.2.3.4 -j DROP", "iptables -t nat -F KUBE-SERVICES"],
    "legacy": ["iptables-legacy -t nat -D POSTROUTING 1", "iptables-legacy -A FORWARD -s 1.2.3.4 -j DROP"],
}


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rule_changed_by_hand_is_named_and_mended(way: str, backend: str) -> None:
    run(way, changed_by_hand, backend)


def changed_by_hand(backend: str) -> None:
    loader, fd = Loader(), namespace()
    wanted = rules_of(next(iter(states().values())), backend)
    loader.load(fd, "node/a", wanted, None)
    for command in BY_HAND[backend]:
        sh(fd, command)
        found = verify.drift({"node/a": fd}, [Netns("node/a"), Ruleset("node/a", wanted)])
        assert found and all(identity == Ruleset("node/a", wanted).identity for _, identity in found), (command, found)
        loader.load(fd, "node/a", wanted, None)
        assert drift(fd, wanted) == [], command


def test_several_namespaces_are_loaded_side_by_side(way: str) -> None:
    run(way, side_by_side)


def side_by_side() -> None:
    loader = Loader()
    wanted = [rules_of(next(iter(states().values())), backend) for backend in BACKENDS]
    fds = [namespace() for _ in wanted]
    loader.load_all([(fd, f"node/{number}", one, None) for number, (fd, one) in enumerate(zip(fds, wanted, strict=True))])
    for fd, one in zip(fds, wanted, strict=True):
        assert drift(fd, one) == []
        assert "KUBE" in observe.read(fd, "rules") or "kube-proxy" in observe.read(fd, "rules")


def test_more_rules_than_one_transaction_of_an_ordinary_user_takes(way: str) -> None:
    run(way, many_rules, way)


def many_rules(way: str) -> None:
    assert rules.may_send_much() == (way == "root")
    loader, fd = Loader(), namespace()
    few, many = (rules_of(large_cluster.filled(count), "nft") for count in (40, 900))
    old: Rules | None = None
    for new in (many, few, many):  # whole; a small difference; one that is too large as well
        loader.load(fd, "node/a", new, old)
        assert drift(fd, new) == []
        old = new
    sh(fd, "iptables -t nat -F KUBE-SERVICES")
    loader.load(fd, "node/a", many, None)
    assert drift(fd, many) == [], "replaced whole where all of it was there"


def test_a_name_that_comes_again_is_another_namespace(way: str) -> None:
    run(way, name_again)


def name_again() -> None:
    loader = Loader()
    wanted = rules_of(next(iter(states().values())), "nftables")
    for _ in range(2):
        fd = namespace()
        loader.load(fd, "node/a", wanted, None)
        assert drift(fd, wanted) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_refusal_has_the_tools_words_and_the_line(way: str, backend: str) -> None:
    run(way, refusal, backend)


def refusal(backend: str) -> None:
    bad = Rule((), (Jump("NO-SUCH-CHAIN"),))
    chain = Chain("PREROUTING", (bad,), Base(Hook.PREROUTING, "nat", -100))
    wanted = Rules("nftables" if backend == "nftables" else "iptables", (Table("ip", "nat", (chain,)),))
    wanted = replace(wanted, backend="legacy" if backend == "legacy" else "nft")
    with pytest.raises(KernelError) as caught:
        Loader().load(namespace(), "node/a", wanted, None)
    text = str(caught.value)
    # nft 1.0.6 does not say which line of a table it was.
    assert text.startswith("node/a: ") and ("No such file" if backend == "nftables" else "NO-SUCH-CHAIN") in text, text


# ---------------------------------------------------------------- conntrack


def test_stale_udp_flows_are_forgotten_and_others_kept(way: str) -> None:
    run(way, stale_udp)


TABLE = """table ip t {
  chain out { type nat hook output priority -100;
    ip daddr 10.96.0.10 udp dport 53 dnat to 127.0.0.1:5301
    ip daddr 10.96.0.11 udp dport 53 dnat to 127.0.0.1:5302
    ip daddr 127.0.0.1 udp dport 30053 dnat to 127.0.0.1:5303
  }
}
"""
SERVICE, OTHER, NODE_PORT, UNTOUCHED = ("10.96.0.10", 53), ("10.96.0.11", 53), ("127.0.0.1", 30053), ("127.0.0.1", 9)


def flows(fd: int) -> set[tuple[str, int]]:
    return {(row["dst"], row["dport"]) for row in observe.read(fd, "conntrack") if row["protocol"] == "udp"}


def endpoints(*ports: int) -> Sequence[tuple[IPv4Address, int]]:
    return [(IPv4Address("127.0.0.1"), port) for port in ports]


def stale_udp() -> None:
    fd = namespace()
    sh(fd, "ip address add 10.1.1.1/32 dev lo")
    sh(fd, "ip route add default dev lo")
    with ns.entered(fd):
        process = subprocess.Popen(["nft", "-f", "-"], stdin=subprocess.PIPE, text=True)
    process.communicate(TABLE)
    assert process.returncode == 0
    every = {SERVICE, OTHER, NODE_PORT, UNTOUCHED}
    with ns.entered(fd):
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in every]
    for sock, address in zip(sockets, every, strict=True):
        sock.sendto(b"x", address)
    assert flows(fd) == every
    service = (IPv4Address(SERVICE[0]), SERVICE[1])
    cases: list[tuple[str, conntrack.Wanted, set[tuple[str, int]]]] = [
        ("still serving", {service: endpoints(5301, 99)}, every),
        ("no endpoint at all", {service: endpoints()}, every),
        ("a node port's endpoint went", {(None, 30053): endpoints(1)}, every - {NODE_PORT}),
        ("a Service's endpoint went", {service: endpoints(1)}, every - {NODE_PORT, SERVICE}),
    ]
    for name, wanted, left in cases:
        rules.stale_udp(fd, wanted)
        assert flows(fd) == left, name
    rules.flush_conntrack(fd)
    assert observe.read(fd, "conntrack") == []
