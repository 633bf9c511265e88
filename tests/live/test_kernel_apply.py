"""Kernel and verify against the real kernel: what is planned is there, what is changed by hand is found and mended."""

import errno
import json
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from netlab import fabric, routing
from netlab.errors import KernelError
from netlab.kernel import addresses, observe, sysctls, verify, waiting
from netlab.kernel import namespaces as ns
from netlab.kernel.apply import Kernel
from netlab.kernel.session import Session
from netlab.model import Cluster
from netlab.ops import Bridge, DeviceAddress, Identity, Neighbour, Netns, Op, Route, Sysctl, Veth
from netlab.plan import Plan, diff, plan_of
from tests import clusters
from tests.live.kernel_sandbox import WAYS, kernel_ops, paths, run

pytestmark = pytest.mark.parametrize("way", WAYS)
OWN_NETNS = Path("/proc/thread-self/ns/net")
NODE, CLIENT = "node/node-170", "pod/default/client"


def planned(cluster: Cluster) -> Plan:
    return plan_of([*fabric.plan(cluster), *routing.plan(cluster)])


def default_lab(**options: Any) -> tuple[Kernel, list[Op]]:
    ops = kernel_ops(planned(clusters.default(**options)))
    kernel = Kernel()
    kernel.apply((), ops)
    return kernel, ops


def sentences(kernel: Kernel, ops: Sequence[Op]) -> list[str]:
    return [sentence for sentence, _ in verify.drift(paths(kernel), ops)]


def program(kernel: Kernel, netns: str, *command: str) -> str:
    with ns.entered(kernel.fds[netns]):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    output, error = process.communicate()
    assert process.returncode == 0, f"{command}: {error}"
    return output


def reaches(kernel: Kernel, sender: str, receiver: str, address: str, within_s: float = 10.0) -> bool:
    """A datagram sent from one namespace arrives in the other."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with ns.entered(kernel.fds[receiver]):
        server = socket.socket(family, socket.SOCK_DGRAM)
    with ns.entered(kernel.fds[sender]):
        client = socket.socket(family, socket.SOCK_DGRAM)
    with server, client:
        server.bind(("", 5000))
        server.settimeout(within_s)
        try:
            client.sendto(b"hello", (address, 5000))
            return server.recv(100) == b"hello"
        except OSError:  # unreachable, or no answer in time
            return False


# ---------------------------------------------------------------- making


@pytest.mark.parametrize("kind", ["bridge", "routed"])
def test_a_planned_lab_is_there_and_carries_packets(way: str, kind: str) -> None:
    run(way, planned_lab, kind)


def planned_lab(kind: str) -> None:
    kernel, ops = default_lab(fabric=kind)
    assert sentences(kernel, ops) == []
    assert reaches(kernel, CLIENT, "pod/default/kubia-a", "10.244.1.3"), "pod to pod of one node"
    assert reaches(kernel, CLIENT, "pod/default/kubia-b", "10.244.2.2"), "pod to pod of another node"
    assert reaches(kernel, NODE, "pod/default/kubia-b", "10.244.2.2"), "node to pod"
    assert reaches(kernel, "host/client", "pod/default/kubia-b", "10.244.2.2"), "outside host to pod, through its static route"
    assert not reaches(kernel, CLIENT, "host/client", "192.168.0.99", 0.3), "nobody has this address"


def test_the_process_is_home_again(way: str) -> None:
    run(way, home_again)


def home_again() -> None:
    before = OWN_NETNS.readlink()
    kernel, _ = default_lab()
    assert OWN_NETNS.readlink() == before
    assert program(kernel, CLIENT, "readlink", "/proc/self/ns/net").strip() != str(before)
    assert json.loads(subprocess.run(["ip", "-j", "link"], capture_output=True, check=True).stdout)[1:] == []


def test_what_the_kernel_refuses_is_named_with_its_place(way: str) -> None:
    run(way, refused)


def refused() -> None:
    kernel, _ = default_lab()
    route = Route(CLIENT, ip_network("10.9.0.0/16"), ip_address("172.31.0.1"), "eth0")
    setting = Sysctl(NODE, "net/ipv4/no_such_thing", "1")
    for op, words in ((route, "10.9.0.0/16 via 172.31.0.1"), (setting, "net/ipv4/no_such_thing = 1: No such file")):
        with pytest.raises(KernelError) as caught:
            kernel.apply((), [op])
        assert op.netns in str(caught.value) and words in str(caught.value)
    kernel.apply((), [replace(setting, optional=True)])
    with pytest.raises(KernelError, match="the lab has no namespace pod/default/nobody"):
        kernel.apply((), [replace(route, netns="pod/default/nobody")])


def test_dual_stack_addresses_are_usable_at_once(way: str) -> None:
    run(way, dual_stack)


def dual_stack() -> None:
    a, b = "node/a", "node/b"
    ops: list[Op] = [
        Netns(a),
        Netns(b),
        Bridge(b, "br0", "02:00:00:00:00:0b"),
        Veth(a, "eth0", "02:00:00:00:00:01", b, "port", "02:00:00:00:00:02", peer_master="br0", altname="the-other-name-of-eth0"),
        DeviceAddress(a, "eth0", ip_address("fd00::1"), 64),
        DeviceAddress(b, "br0", ip_address("fd00::2"), 64),
        DeviceAddress(b, "lo", ip_address("fd00:1::9"), 128),
        Route(a, ip_network("fd00:1::/64"), ip_address("fd00::2"), "eth0"),
        Route(a, ip_network("fd00:2::/64"), type="blackhole"),
        Neighbour(a, "eth0", ip_address("fd00::2"), "02:00:00:00:00:0b"),
    ]
    kernel = Kernel()
    kernel.apply((), ops)
    assert sentences(kernel, ops) == []
    assert reaches(kernel, a, b, "fd00::2") and reaches(kernel, a, b, "fd00:1::9")
    program(kernel, a, "ip", "link", "show", "dev", "the-other-name-of-eth0")
    with Session(kernel.fds, ns.current_netns()) as session:
        mine, nobodys = ip_address("fd00::2"), ip_address("fd00::3")
        addresses.wait_until_local(session, {b: [mine]})
        waiting.MOST_S = 0.1  # in a process of this test's own
        with pytest.raises(KernelError, match="node/b: fd00::3: the kernel does not take the address into use"):
            addresses.wait_until_local(session, {b: [mine, nobodys]})


# ---------------------------------------------------------------- changing


def test_pods_come_and_go(way: str) -> None:
    run(way, pods_come_and_go)


def pods_come_and_go() -> None:
    big = planned(clusters.default())
    cluster = clusters.default()
    small = planned(replace(cluster, pods={key: pod for key, pod in cluster.pods.items() if key.name != "kubia-a"}))
    kernel = Kernel()
    kernel.apply((), kernel_ops(big))
    for old, new in ((big, small), (small, big), (big, small), (small, big)):
        change = diff(old, new)
        kernel.apply((), [op for op in change.added if op in kernel_ops(new)])
        kernel.apply([op for op in change.removed if op in kernel_ops(old)], ())
        assert sentences(kernel, kernel_ops(new)) == []
    assert reaches(kernel, CLIENT, "pod/default/kubia-a", "10.244.1.3")
    kernel.apply(kernel_ops(big), ())
    assert kernel.fds == {}


def test_a_link_that_was_down_carries_packets_again(way: str) -> None:
    run(way, down_and_up)


def down_and_up() -> None:
    kernel, ops = default_lab()
    for netns, end in ((NODE, "up"), (NODE, "peer_up"), (CLIENT, "up"), (CLIENT, "peer_up")):
        link = next(op for op in ops if isinstance(op, Veth) and op.netns == netns)
        down = replace(link, up=False) if end == "up" else replace(link, peer_up=False)
        kernel.apply((), [down])
        assert sentences(kernel, [down if op is link else op for op in ops]) == [], f"{netns} {end}"
        assert any("down" in sentence for sentence in sentences(kernel, ops)), f"{netns} {end}"
        assert not reaches(kernel, CLIENT, "pod/default/kubia-b", "10.244.2.2", 0.3), f"{netns} {end} is down"
        kernel.apply((), [link])
        assert sentences(kernel, ops) == [], f"{netns} {end}"
        assert reaches(kernel, CLIENT, "pod/default/kubia-b", "10.244.2.2"), f"{netns} {end} is up again"


def test_a_changed_op_takes_its_predecessors_place(way: str) -> None:
    run(way, changed_ops)


def changed_ops() -> None:
    kernel, ops = default_lab()
    for op in ops:
        match op:
            case Veth(netns="pod/default/client"):
                new: Op = replace(op, mtu_bytes=1400)
            case Bridge(netns="node/node-170"):
                new = replace(op, mac="02:aa:00:00:00:01")
            case Route(netns="pod/default/client") if op.destination.prefixlen == 0:
                new = replace(op, gateway=None, device="", type="blackhole")
            case Neighbour(netns="pod/default/client"):
                new = replace(op, mac="02:aa:00:00:00:02")
            case Sysctl(netns="node/node-170", key="net/ipv4/ip_forward"):
                new = replace(op, value="0")
            case DeviceAddress(netns="pod/default/client"):
                new = replace(op, prefix_route=not op.prefix_route)
            case _:
                continue
        change = diff(plan_of(ops), plan_of([new if other is op else other for other in ops]))
        assert change.added, op
        kernel.apply(change.removed, change.added)
        ops = [new if other is op else other for other in ops]
        assert sentences(kernel, ops) == [], new


# ---------------------------------------------------------------- verify and repair


BY_HAND = {
    "route deleted": (NODE, "ip route del default", "route default via 192.168.0.1 dev eth0 is missing"),
    "route changed": (NODE, "ip route replace default via 192.168.0.171", "route default via 192.168.0.171 dev eth0 should be"),
    "route added": (NODE, "ip route add 7.0.0.0/8 dev cni0 metric 5", "route 7.0.0.0/8 dev cni0 metric 5 is not planned"),
    "blackhole deleted": ("router/router", "ip route del blackhole default", "route blackhole default is missing"),
    "second route added": (NODE, "ip route add default dev cni0 metric 9", "route default dev cni0 metric 9 is not planned"),
    "connected route deleted": (NODE, "ip route del 192.168.0.0/24", "route 192.168.0.0/24 dev eth0 of the connected network"),
    "address deleted": (NODE, "ip address del 10.244.1.1/24 dev cni0", "address 10.244.1.1/24 on cni0 is missing"),
    "address added": (CLIENT, "ip address add 10.7.7.7/24 dev eth0", "address 10.7.7.7/24 on eth0 is not planned"),
    "link deleted": (CLIENT, "ip link del eth0", "link eth0 is missing"),
    "link added": (NODE, "ip link add foo type veth peer name bar", "link foo is not planned"),
    "link down": (NODE, "ip link set eth0 down", "link eth0 is down, not up"),
    "loopback down": (CLIENT, "ip link set lo down", "link lo is down"),
    "mtu": (NODE, "ip link set eth0 mtu 1400", "link eth0 has mtu 1400, not 1500"),
    "mac": (CLIENT, "ip link set eth0 address 02:00:00:00:00:77", "link eth0 has address 02:00:00:00:00:77, not"),
    "bridge left": (NODE, "ip link set PORT nomaster", "is a port of no bridge, not of cni0"),
    "forwarding entry deleted": (
        NODE,
        "bridge fdb del MAC dev PORT master",
        "at the port PORT is missing: its frames are flooded",
    ),
    "bridge deleted": (NODE, "ip link del cni0", "link cni0 is missing"),
    "neighbour deleted": (NODE, "ip neigh del 192.168.0.171 dev eth0", "neighbour 192.168.0.171 on eth0 is missing"),
    "neighbour changed": (
        NODE,
        "ip neigh replace 192.168.0.171 lladdr 02:00:00:00:00:77 dev eth0 nud permanent",
        "neighbour 192.168.0.171 on eth0 has lladdr 02:00:00:00:00:77, not",
    ),
    "neighbour added": (
        NODE,
        "ip neigh add 192.168.0.77 lladdr 02:00:00:00:00:77 dev eth0 nud permanent",
        "neighbour 192.168.0.77 lladdr 02:00:00:00:00:77 on eth0 is not planned",
    ),
    "sysctl": (NODE, "sysctl -qw net.ipv4.ip_forward=0", "sysctl net/ipv4/ip_forward is 0, not 1"),
    "nft table added": (CLIENT, "nft add table inet mine", "nftables: table inet mine is not planned"),
    "iptables rule added": (CLIENT, "iptables -A INPUT -s 1.1.1.1 -j DROP", "not planned: -A INPUT -s 1.1.1.1/32 -j DROP"),
}


@pytest.mark.parametrize("refused", [False, True])
def test_each_of_many_namespaces_gets_its_own_settings(way: str, refused: bool) -> None:
    """Also where the kernel gives no proc to write them through: as here to a user namespace without a pid namespace."""
    run(way, many, refused)


def many(refused: bool) -> None:
    key, names = "net/ipv4/tcp_max_syn_backlog", [f"pod/default/p-{number}" for number in range(2 * sysctls.AT_ONCE + 6)]
    settings = {name: Sysctl(name, key, str(2000 + number)) for number, name in enumerate(names)}
    before, asked = sysctls.read(key), list[int]()

    def proc() -> int:
        asked.append(1)
        if refused:
            raise PermissionError(errno.EPERM, "not here")
        return made()

    with pytest.MonkeyPatch.context() as patch:
        made = ns.detached_proc
        patch.setattr(ns, "detached_proc", proc)
        kernel = Kernel()
        kernel.apply((), [*map(Netns, names), *settings.values()])
    assert len(asked) == 3
    for name, setting in settings.items():
        with ns.entered(kernel.fds[name]):
            assert sysctls.read(key) == setting.value
    assert sysctls.read(key) == before
    kernel.close()


@pytest.mark.parametrize("name", BY_HAND)
def test_what_someone_did_by_hand_is_named_and_mended(way: str, name: str) -> None:
    run(way, by_hand, *BY_HAND[name])


def by_hand(netns: str, command: str, sentence: str) -> None:
    kernel, ops = default_lab()
    if "PORT" in command:
        port, mac = next((op.peer_device, op.mac) for op in ops if isinstance(op, Veth) and op.netns == CLIENT)
        command, sentence = command.replace("PORT", port).replace("MAC", mac), sentence.replace("PORT", port)
    program(kernel, netns, *command.split())
    drift = verify.drift(paths(kernel), ops)
    assert any(found.startswith(f"{netns}: ") and sentence in found for found, _ in drift), drift
    mend(kernel, ops, [identity for _, identity in drift if identity is not None])
    assert sentences(kernel, ops) == []
    assert reaches(kernel, CLIENT, "pod/default/kubia-b", "10.244.2.2")


def mend(kernel: Kernel, ops: Sequence[Op], identities: Sequence[Identity]) -> None:
    known = {op.identity: op for op in ops}
    kernel.repair([known[one] for one in identities if one in known], [one for one in identities if one not in known])


def test_what_the_kernel_makes_for_itself_is_no_drift(way: str) -> None:
    run(way, own_doings)


def own_doings() -> None:
    kernel, ops = default_lab()
    program(kernel, NODE, "iptables", "-L")
    program(kernel, NODE, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
    program(kernel, NODE, "ip", "neigh", "add", "192.168.0.77", "lladdr", "02:00:00:00:00:77", "dev", "eth0", "nud", "reachable")
    assert sentences(kernel, ops) == []


# ---------------------------------------------------------------- reading back


def test_lists_say_what_ip_says(way: str) -> None:
    run(way, same_as_ip)


def same_as_ip() -> None:
    kernel, _ = default_lab()
    program(kernel, NODE, "ip", "route", "add", "unreachable", "9.0.0.0/8", "metric", "7")
    program(kernel, NODE, "ip", "route", "add", "8.0.0.0/8", "nexthop", "via", "192.168.0.1", "nexthop", "via", "192.168.0.171")
    program(kernel, NODE, "sysctl", "-qw", "net.ipv6.conf.eth0.disable_ipv6=0")
    program(kernel, NODE, "ip", "address", "add", "fd00::1/64", "dev", "eth0", "nodad")
    for netns in (NODE, CLIENT, "router/router", "lan/lan"):
        path = paths(kernel)[netns]
        for what, commands in (
            ("links", ["-d -j link"]),
            ("addresses", ["-j address"]),
            ("routes", ["-4 -j route", "-6 -j route"]),
            ("neighbours", ["-j neigh"]),
        ):
            theirs = [row for one in commands for row in json.loads(program(kernel, netns, "ip", *one.split()) or "[]")]
            ours = observe.read(path, what)
            assert len(ours) == len(theirs), (netns, what)
            for mine, other in zip(sorted(ours, key=_order), sorted(theirs, key=_order), strict=True):
                _included(mine, other, (netns, what))


def _order(row: dict[str, Any]) -> str:
    return str(row.get("ifname") or [row["dst"], row.get("dev")])


def _included(mine: dict[str, Any], other: dict[str, Any], place: tuple[str, str]) -> None:
    for key, value in mine.items():
        if key == "linkinfo":
            assert key not in other or value["info_kind"] == other[key]["info_kind"]  # ip shows it with -d only
        elif key == "addr_info":
            for one, their in zip(value, other[key], strict=True):
                _included(one, their, place)
        elif key == "nexthops":
            assert [hop["gateway"] for hop in value] == [hop["gateway"] for hop in other[key]]
        elif key == "broadcast" and key not in other:
            continue
        else:
            assert value == other.get(key), (place, key, mine, other)
