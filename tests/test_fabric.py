"""What the fabrics plan: namespaces, links, addresses, routes, neighbours and sysctls, as anyone would check them by hand."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from netlab import discovery, fabric, ops, programs, routing, variables
from netlab.errors import InputError
from netlab.model import Cluster, HostSpec, Lan, Meta, Node, Protocol
from netlab.ops import Bridge, DeviceAddress, Listener, Neighbour, Netns, Op, Process, Route, Sysctl, Veth
from netlab.plan import line
from tests import clusters
from tests.clusters import pod

FABRICS = ("bridge", "routed")


def lines(found: tuple[Op, ...], netns: str, *kinds: type) -> list[str]:
    return [line(op) for op in found if isinstance(op, kinds) and not isinstance(op, ops.File) and op_netns(op) == netns]


def op_netns(op: Op) -> str:
    return op.name if isinstance(op, Netns) else "" if isinstance(op, ops.File) else op.netns


def all_of(cluster: Cluster) -> tuple[Op, ...]:
    return (*fabric.plan(cluster), *routing.plan(cluster))


def test_bridge_pod_has_no_connected_route() -> None:
    found = all_of(clusters.default())
    assert lines(found, "pod/default/client", DeviceAddress, Route) == [
        "address 10.244.1.2/24 dev eth0 noprefixroute",
        "route 10.244.1.1/32 dev eth0",
        "route 10.244.1.0/24 via 10.244.1.1 dev eth0",
        "route 0.0.0.0/0 via 10.244.1.1 dev eth0",
    ]
    assert lines(found, "node/node-170", DeviceAddress) == ["address 192.168.0.170/24 dev eth0", "address 10.244.1.1/24 dev cni0"]


def test_routed_pod_has_a_link_local_gateway_and_its_node_a_route() -> None:
    found = all_of(clusters.default(fabric="routed"))
    assert lines(found, "pod/default/client", DeviceAddress, Route) == [
        "address 10.244.1.2/32 dev eth0",
        "route 169.254.1.1/32 dev eth0",
        "route 0.0.0.0/0 via 169.254.1.1 dev eth0",
    ]
    assert not [op for op in found if isinstance(op, Bridge) and op.netns.startswith("node/")]
    (route,) = [op for op in found if isinstance(op, Route) and str(op.destination) == "10.244.1.2/32"]
    assert (route.netns, str(route.source), route.device[:4]) == ("node/node-170", "192.168.0.170", "veth")


@pytest.mark.parametrize("kind", FABRICS)
def test_neighbours_are_known_both_ways(kind: str) -> None:
    """Each neighbour entry has the MAC of the device on the same link that has (or stands for) the address."""
    found = fabric.plan(clusters.default(fabric=kind))
    macs = {op.mac for op in found if isinstance(op, Bridge)}
    macs |= {mac for op in found if isinstance(op, Veth) for mac in (op.mac, op.peer_mac)}
    entries = {(op.netns, str(op.address)): op.mac for op in found if isinstance(op, Neighbour)}
    assert set(entries.values()) <= macs
    legs = {"192.168.0.1", "192.168.0.169", "192.168.0.170", "192.168.0.171", "192.168.0.100"}
    assert {a for netns, a in entries if netns == "host/client"} == legs - {"192.168.0.100"}
    assert {a for netns, a in entries if netns == "node/node-171" and a.startswith("10.")} == {"10.244.2.2", "10.244.2.3"}
    gateway = "10.244.2.1" if kind == "bridge" else "169.254.1.1"
    assert [a for netns, a in entries if netns == "pod/default/kubia-b"] == [gateway]


def test_neighbours_grow_with_pods_and_not_with_their_square() -> None:
    many = [pod(f"p{i}", "node-169", f"10.244.0.{i + 2}") for i in range(200)]
    few, all_ = (
        len([op for op in fabric.plan(clusters.cluster(pods)) if isinstance(op, Neighbour)]) for pods in (many[:100], many)
    )
    assert all_ - few == 200


def test_learned_neighbours_leave_only_the_gateway_that_nobody_has() -> None:
    for kind, expected in (("bridge", 0), ("routed", 4 * 2)):
        cluster = clusters.default(fabric=kind)
        config = replace(cluster.topology.cluster, neighbours="learned")
        learned = cluster.with_(topology=replace(cluster.topology, cluster=config))
        assert len([op for op in fabric.plan(learned) if isinstance(op, Neighbour)]) == expected


def test_static_routes() -> None:
    found = all_of(clusters.default())
    assert lines(found, "node/node-170", Route) == [
        "route 10.244.0.0/24 via 192.168.0.169 dev eth0  # node/node-169",
        "route 10.244.2.0/24 via 192.168.0.171 dev eth0  # node/node-171",
        "route 0.0.0.0/0 via 192.168.0.1 dev eth0",
    ]
    assert lines(found, "host/client", Route) == [
        "route 10.96.0.0/12 via 192.168.0.169 dev eth0  # host/client",
        "route 10.244.0.0/16 via 192.168.0.169 dev eth0  # host/client",
        "route 0.0.0.0/0 via 192.168.0.1 dev eth0",
    ]
    assert lines(found, "router/router", Route) == ["route blackhole 0.0.0.0/0"]


def two_lans() -> Cluster:
    lans = (
        Lan("a", ip_network("192.168.50.0/24"), ip_address("192.168.50.1")),
        Lan("b", ip_network("192.168.51.0/24"), ip_address("192.168.51.1")),
    )
    hosts = (HostSpec("client", tuple(map(ip_address, ("192.168.50.100", "203.0.113.50")))),)
    base = clusters.cluster()
    nodes = (
        clusters.node("node-a", ["192.168.50.10", "192.168.51.10"], "10.244.1.0/24"),
        clusters.node("node-b", ["192.168.51.11"], "10.244.2.0/24"),
    )
    return base.with_(topology=replace(base.topology, networks=lans, hosts=hosts), nodes={n.meta.name: n for n in nodes})


def test_two_lans_and_an_address_in_neither() -> None:
    found = all_of(two_lans())
    assert lines(found, "node/node-a", DeviceAddress)[:2] == [
        "address 192.168.50.10/24 dev eth0",
        "address 192.168.51.10/24 dev eth1",
    ]
    assert lines(found, "host/client", DeviceAddress) == ["address 192.168.50.100/24 dev eth0", "address 203.0.113.50/32 dev lo"]
    assert lines(found, "router/router", DeviceAddress, Route) == [
        "address 192.168.50.1/24 dev eth0",
        "address 192.168.51.1/24 dev eth1",
        "route 203.0.113.50/32 via 192.168.50.100 dev eth0  # host/client",
        "route blackhole 0.0.0.0/0",
    ]
    assert lines(found, "node/node-a", Route) == [
        "route 10.244.2.0/24 via 192.168.51.11 dev eth1  # node/node-b",
        "route 203.0.113.50/32 via 192.168.50.100 dev eth0  # host/client",
        "route 0.0.0.0/0 via 192.168.50.1 dev eth0",
    ]
    assert lines(found, "node/node-b", Route) == [
        "route 10.244.1.0/24 via 192.168.51.10 dev eth0  # node/node-a",
        "route 0.0.0.0/0 via 192.168.51.1 dev eth0",
    ]


def test_a_gateway_outside_the_hosts_networks_is_an_error() -> None:
    cluster = clusters.cluster()
    host = HostSpec("client", (ip_address("192.168.0.100"),), ((ip_network("10.0.0.0/8"), ip_address("172.16.0.1")),))
    with pytest.raises(InputError, match=r"172\.16\.0\.1"):
        routing.plan(cluster.with_(topology=replace(cluster.topology, hosts=(host,))))


@pytest.mark.parametrize("netns", ["node/node-170", "router/router", "host/client", "pod/default/client", "lan/lan"])
def test_sysctls_that_packets_depend_on(netns: str) -> None:
    found = fabric.plan(clusters.default())
    values = {op.key: op.value for op in found if isinstance(op, Sysctl) and op.netns == netns}
    keys = list(values)
    kind = netns.partition("/")[0]
    if kind == "lan":
        assert values["net/bridge/bridge-nf-call-iptables"] == "0"
        return
    assert values["net/ipv4/ip_forward"] == ("1" if kind in ("node", "router") else "0")
    assert keys[0] == "net/ipv4/ip_forward", "it rewrites accept_redirects, so it must come first"
    assert values["net/ipv4/icmp_ratemask"] == "0"
    assert values["net/ipv6/conf/default/disable_ipv6"] == "1"
    for device in ("all", "default") if kind != "pod" else ():
        for key in ("rp_filter", "send_redirects", "accept_redirects"):
            assert values[f"net/ipv4/conf/{device}/{key}"] == "0"
    if kind != "router":
        assert values["net/ipv4/ping_group_range"] == "0 0"
        assert values["net/ipv4/ip_unprivileged_port_start"] == "0"
    if kind == "node":
        assert values["net/netfilter/nf_conntrack_tcp_be_liberal"] == "1"


def test_conntrack_is_strict_on_request() -> None:
    found = fabric.plan(clusters.default(conntrack_tcp_be_liberal=False))
    assert {op.value for op in found if isinstance(op, Sysctl) and op.key.endswith("tcp_be_liberal")} == {"0"}


def test_pods_without_a_namespace() -> None:
    done = replace(pod("done", "node-170", "10.244.1.8"), phase="Succeeded")
    waiting = pod("waiting", "", "")
    hosted = pod("hosted", "node-170", "192.168.0.170", 9100, host_network=True)
    found = fabric.plan(clusters.cluster([done, waiting, hosted]))
    assert not [op for op in found if isinstance(op, Netns) and op.name.startswith("pod/")]


@pytest.mark.parametrize("kind", FABRICS)
def test_a_pod_outside_its_podcidr_gets_routes_of_its_own(kind: str) -> None:
    """A dump of a cloud's cluster: addresses from the cloud's network, nodes perhaps without a podCIDR."""
    stray = pod("stray", "node-170", "10.9.9.9", 80)
    cluster = clusters.cluster([stray, pod("client", "node-170", "10.244.1.2")], fabric=kind)
    bare = replace(cluster.nodes["node-171"], pod_cidrs=())
    found = all_of(cluster.with_(nodes={**cluster.nodes, "node-171": bare}))
    assert "route 10.9.9.9/32 via 192.168.0.170 dev eth0  # node/node-170" in lines(found, "node/node-169", Route)
    assert any(text.startswith("route 10.9.9.9/32 dev veth") for text in lines(found, "node/node-170", Route))
    assert "route 169.254.1.1/32 dev eth0" in lines(found, "pod/default/stray", Route)


def test_links_down_are_set_down_on_the_end_that_is_named() -> None:
    cluster = clusters.default().with_(links_down=frozenset({("node/node-170", "eth0"), ("lan/lan", "h-client")}))
    down = {(op.netns, op.up, op.peer_up) for op in fabric.plan(cluster) if isinstance(op, Veth) and not (op.up and op.peer_up)}
    assert down == {("node/node-170", False, True), ("host/client", True, False)}


def test_unknown_fabric_and_routing() -> None:
    with pytest.raises(InputError, match="there is bridge, routed"):
        fabric.plan(clusters.default(fabric="token-ring"))
    cluster = clusters.default()
    config = replace(cluster.topology.cluster, routing="rip")
    with pytest.raises(InputError, match="static"):
        routing.plan(cluster.with_(topology=replace(cluster.topology, cluster=config)))


# ---------------------------------------------------------------- what runs in a pod, and what it is told


def program_ops(*pods: object, **more: object) -> tuple[Op, ...]:
    cluster = clusters.cluster(pods, **more)  # type: ignore[arg-type]
    return programs.plan(cluster, lambda pod, one: variables.resolved(cluster, pod, one, discovery.environment(cluster, pod)))


def test_responders_listen_where_the_containers_say() -> None:
    web = pod("web", "node-170", "10.244.1.2", 80, 80, 81, image="docker.io/library/nginx:1.25@sha256:0a")
    hosted = pod("hosted", "node-170", "192.168.0.170", 9100, image="registry:5000/exporter", host_network=True)
    found = [(op.netns, op.port, op.protocol, op.persona) for op in program_ops(web, hosted) if isinstance(op, Listener)]
    assert found == [
        ("pod/default/web", 80, Protocol.TCP, "nginx"),
        ("pod/default/web", 81, Protocol.TCP, "nginx"),
        ("node/node-170", 9100, Protocol.TCP, "exporter"),
    ]
    assert program_ops(replace(web, phase="Pending")) == ()


def test_a_command_is_a_process_with_the_pods_variables() -> None:
    old = clusters.service("my-svc", "10.96.0.80", (80, 8080))
    new = replace(clusters.service("new", "10.96.0.81", (80, 8080)), meta=Meta("new", "default", created=9.0))
    far = clusters.service("far", "10.96.0.82", (80, 8080), namespace="shop")
    kubernetes = clusters.service("kubernetes", "10.96.0.1", (443, 6443))
    loop = pod("loop", "node-170", "10.244.1.2", 80, command=("curl", "-s"))
    (op,) = program_ops(loop, services=[old, new, far, kubernetes])
    assert isinstance(op, Process)
    told = dict(op.env)
    assert op.command == ("curl", "-s")
    assert told["HOSTNAME"] == op.hostname == "loop"
    assert told["MY_SVC_SERVICE_HOST"] == "10.96.0.80"
    assert told["MY_SVC_PORT_80_TCP"] == told["MY_SVC_PORT"] == "tcp://10.96.0.80:80"
    assert told["KUBERNETES_SERVICE_PORT"] == "443"
    assert not [name for name in told if name.startswith(("NEW_", "FAR_"))]
    (bare,) = program_ops(replace(loop, spec=replace(loop.spec, service_links=False)), services=[old, kubernetes])
    assert isinstance(bare, Process)
    assert {name.partition("_")[0] for name, _ in bare.env} == {"HOSTNAME", "KUBERNETES"}


def test_files_of_a_pod() -> None:
    mine = pod("web-0", "node-170", "10.244.1.2", hostname="web", subdomain="stable")
    services = [
        clusters.service("kubia", "10.96.0.80", (80, 8080)),
        clusters.service("kube-dns", "10.96.0.10", (53, 53), namespace="kube-system"),
    ]
    files = {file.path: file.text for file in discovery.plan(clusters.cluster([mine], services))}
    assert files["pod/default/web-0/hostname"] == "web\n"
    hosts = files["pod/default/web-0/hosts"].splitlines()
    assert "10.244.1.2\tweb.stable.default.svc.cluster.local\tweb" in hosts
    assert not any("kubia" in line or "far" in line for line in hosts), "Services are DNS' business"
    assert files["pod/default/web-0/resolv.conf"] == (
        "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )
    assert "hosts: files dns" in files["pod/default/web-0/nsswitch.conf"]


def test_nodes_of_other_names_do_not_matter() -> None:
    """A node in no LAN is wired nowhere but exists."""
    lost = Node(Meta("lost"), (ip_address("172.16.0.9"),), ())
    cluster = clusters.cluster()
    found = all_of(cluster.with_(nodes={**cluster.nodes, "lost": lost}))
    assert lines(found, "node/lost", DeviceAddress, Veth) == ["address 172.16.0.9/32 dev lo"]
