"""Two families in one cluster: topologies, addresses of everything, ipFamilyPolicy and ipFamilies, and packets of both."""

import struct
from ipaddress import IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoRequest, ICMPv6TimeExceeded, IPv6

from netlab import controllers, manifest, plan
from netlab.controllers import objects
from netlab.errors import InputError
from netlab.expect import expect
from netlab.manifest.schemas import schema
from netlab.model import Cluster, Flow, Key, Lan, OutcomeKind, Protocol, Ref, Topology
from netlab.ops import DeviceAddress, Neighbour, Route
from netlab.probes import packets, plain
from netlab.probes.packets import Kind
from netlab.targets import resolve_destination, source_address
from netlab.trace import trace

ROOT = Path(__file__).parent.parent
DUAL = (ROOT / "topologies" / "dual-stack.yaml").read_text()
OBJECTS = (ROOT / "manifests" / "dual-stack.yaml").read_text()
PLAIN = "cluster: {podCIDR: 10.244.0.0/16}\n"
SIX = 'cluster: {podCIDR: "fd00:10:244::/56"}\n'


def topology(text: str) -> Topology:
    return manifest.read_topology(manifest.Source("t.yaml", text.encode()))


def started(text: str, objects: str = "") -> Cluster:
    loaded = manifest.read_objects([manifest.Source("o.yaml", objects.encode())]).objects if objects else ()
    return controllers.initial(manifest.adapt_topology(topology(text), loaded), loaded)


def service(spec: str, name: str = "web") -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}], {spec}}}\n"


# ---------------------------------------------------------------- topologies


def test_cidrs_of_both_families_give_everything_two_addresses() -> None:
    """As kubeadm writes podSubnet: the rest has defaults."""
    found = topology('cluster: {podCIDR: "10.244.0.0/16,fd00:10:244::/56"}')
    assert list(map(str, found.cluster.service_cidrs)) == ["10.96.0.0/12", "fd00:10:96::/112"]
    (lan,) = found.networks
    assert (list(map(str, lan.cidrs)), list(map(str, lan.routers))) == (
        ["192.168.0.0/24", "fd00:192:168::/64"],
        ["192.168.0.1", "fd00:192:168::1"],
    )
    assert [list(map(str, node.addresses)) for node in found.nodes] == [
        [f"192.168.0.{number}", f"fd00:192:168::{number}"] for number in (169, 170, 171)
    ]
    assert [list(map(str, node.pod_cidrs)) for node in found.nodes][1] == ["10.244.1.0/24", "fd00:10:244:1::/64"]
    (client,) = found.hosts
    assert list(map(str, client.addresses)) == ["192.168.0.100", "fd00:192:168::100"]
    assert {(str(to), str(via)) for to, via in client.routes} == {
        ("10.96.0.0/12", "192.168.0.169"),
        ("10.244.0.0/16", "192.168.0.169"),
        ("fd00:10:96::/112", "fd00:192:168::169"),
        ("fd00:10:244::/56", "fd00:192:168::169"),
    }


def test_ipv6_alone_and_ipv6_first() -> None:
    alone = topology(SIX)
    assert [str(lan.cidr) for lan in alone.networks] == ["fd00:192:168::/64"]
    assert [str(node.addresses[0]) for node in alone.nodes] == [f"fd00:192:168::{number}" for number in (169, 170, 171)]
    first = topology('cluster: {serviceCIDR: ["fd00:10:96::/112", 10.96.0.0/16]}')
    assert [str(network) for network in first.cluster.pod_cidrs] == ["fd00:10:244::/56", "10.244.0.0/16"]
    assert [str(address) for address in first.nodes[0].addresses] == ["fd00:192:168::169", "192.168.0.169"]


def test_old_files_mean_what_they_meant() -> None:
    (lan,) = topology("networks: {lan: {cidr: 10.1.0.0/24}}\nnodes: 1").networks
    assert lan == Lan("lan", ip_network("10.1.0.0/24"), ip_address("10.1.0.1"))
    assert (len(lan.cidrs), len(lan.routers)) == (1, 1)


@pytest.mark.parametrize(
    ("network", "routers"),
    [
        ('cidr: [10.1.0.0/24, "fd01::/64"]', ["10.1.0.1", "fd01::1"]),
        ('cidr: "10.1.0.0/24,fd01::/64"', ["10.1.0.1", "fd01::1"]),
        ('cidr: [10.1.0.0/24, "fd01::/64"], router: 10.1.0.9', ["10.1.0.9", "fd01::1"]),
        ('cidr: [10.1.0.0/24, "fd01::/64"], router: "fd01::9"', ["10.1.0.1", "fd01::9"]),
        ('cidr: ["fd01::/64", 10.1.0.0/24], router: [10.1.0.9, "fd01::9"]', ["fd01::9", "10.1.0.9"]),
        ('cidr: [10.1.0.0/24, "fd01::/64"], router: none', []),
    ],
)
def test_networks_of_two_families(network: str, routers: list[str]) -> None:
    (lan,) = topology(f"networks: {{lan: {{{network}}}}}\nnodes: {{a: {{addresses: [10.1.0.5, 'fd01::5']}}}}").networks
    assert list(map(str, lan.routers)) == routers
    assert ip_address("fd01::77") in lan and ip_address("10.1.0.77") in lan and ip_address("10.2.0.1") not in lan


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("networks: {lan: {cidr: [10.1.0.0/24, 10.2.0.0/24]}}", "two CIDRs of the same family"),
        ('networks: {lan: {cidr: ["fd01::/64"], router: 10.1.0.1}}', "10.1.0.1 is no address for a machine in fd01::/64"),
        ('networks: {lan: {cidr: [10.1.0.0/24, "fd01::/64"], router: [10.1.0.1, 10.1.0.2]}}', "two addresses of the same family"),
        ('networks: {a: {cidr: [10.1.0.0/24, "fd01::/64"]}, b: {cidr: "fd01::/48"}}', "overlaps"),
        ('networks: {lan: {cidr: [10.1.0.0/24, "fd01::/127"]}}', "too small for a network"),
    ],
)
def test_mistakes(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        topology(text)


def test_the_schema_takes_lists() -> None:
    lan = schema("topology")["properties"]["networks"]["additionalProperties"]["anyOf"][0]["properties"]
    assert "array" in lan["cidr"]["type"] and "array" in lan["router"]["type"]


# ---------------------------------------------------------------- services


@pytest.mark.parametrize(
    ("where", "spec", "families", "policy"),
    [
        (DUAL, "", ("IPv4",), "SingleStack"),
        (DUAL, "ipFamilies: [IPv6]", ("IPv6",), "SingleStack"),
        (DUAL, "ipFamilyPolicy: PreferDualStack", ("IPv4", "IPv6"), "PreferDualStack"),
        (DUAL, "ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6]", ("IPv6", "IPv4"), "PreferDualStack"),
        (DUAL, "ipFamilyPolicy: RequireDualStack", ("IPv4", "IPv6"), "RequireDualStack"),
        (DUAL, "ipFamilies: [IPv6, IPv4]", ("IPv6", "IPv4"), "RequireDualStack"),
        (DUAL, 'clusterIP: "fd00:10:96::77"', ("IPv6",), "SingleStack"),
        (DUAL, "clusterIP: None", ("IPv4", "IPv6"), "RequireDualStack"),
        (DUAL, "clusterIP: None, selector: {app: web}", ("IPv4",), "SingleStack"),
        (PLAIN, "ipFamilyPolicy: PreferDualStack", ("IPv4",), "PreferDualStack"),
        (SIX, "", ("IPv6",), "SingleStack"),
        (SIX, "ipFamilyPolicy: PreferDualStack", ("IPv6",), "PreferDualStack"),
    ],
)
def test_families(where: str, spec: str, families: tuple[str, ...], policy: str) -> None:
    found = started(where, service(spec)).services[Key("default", "web")]
    assert (found.ip_families, found.ip_family_policy) == (families, policy)
    if not found.headless:
        assert tuple(f"IPv{address.version}" for address in found.cluster_ips) == families


@pytest.mark.parametrize(
    ("where", "spec", "words"),
    [
        (PLAIN, "ipFamilyPolicy: RequireDualStack", "this cluster is not configured for dual-stack services"),
        (PLAIN, "ipFamilies: [IPv6]", '"IPv6": not configured on this cluster'),
        (SIX, "ipFamilies: [IPv4]", '"IPv4": not configured on this cluster'),
        (DUAL, "ipFamilies: [IPv4], clusterIP: 'fd00:10:96::77'", "expected an IPv4 value"),
        (DUAL, "ipFamilyPolicy: SingleStack, ipFamilies: [IPv4, IPv6]", "must not be SingleStack"),
    ],
)
def test_families_that_are_refused(where: str, spec: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        started(where, service(spec))


def test_a_service_becomes_dual_stack_and_single_again() -> None:
    cluster = started(DUAL, service("selector: {app: web}"))
    (first,) = cluster.services[Key("default", "web")].cluster_ips
    both = _applied(cluster, service("selector: {app: web}, ipFamilyPolicy: PreferDualStack"))
    addresses = both.services[Key("default", "web")].cluster_ips
    assert addresses[0] == first and [address.version for address in addresses] == [4, 6]
    assert sorted(one.address_type for one in both.slices.values() if one.service.name == "web") == ["IPv4", "IPv6"]
    again = _applied(both, service("selector: {app: web}, ipFamilyPolicy: SingleStack"))
    assert again.services[Key("default", "web")].cluster_ips == (first,)
    assert [one.address_type for one in again.slices.values() if one.service.name == "web"] == ["IPv4"]


def _applied(cluster: Cluster, text: str) -> Cluster:
    return controllers.apply(cluster, manifest.read_objects([manifest.Source("o.yaml", text.encode())]).objects)


def test_slices_of_both_address_types_and_what_get_shows() -> None:
    cluster = started(DUAL, OBJECTS)
    types = {name: set[str]() for name in ("single", "prefer", "require", "six", "empty")}
    for one in cluster.slices.values():
        types.setdefault(one.service.name, set()).add(one.address_type)
        assert {f"IPv{address.version}" for end in one.endpoints for address in end.addresses} <= {one.address_type}
    assert types == {
        "kubernetes": {"IPv4"},
        "single": {"IPv4"},
        "prefer": {"IPv4", "IPv6"},
        "require": {"IPv4", "IPv6"},
        "six": {"IPv6"},
        "empty": {"IPv6"},
    }
    pod = next(iter(cluster.pods.values()))
    shown = manifest.to_json(pod, cluster)["status"]
    assert [entry["ip"] for entry in shown["podIPs"]] == list(map(str, pod.addresses)) and len(pod.addresses) == 2
    assert len(shown["hostIPs"]) == 2
    spec = manifest.to_json(cluster.services[Key("default", "require")], cluster)["spec"]
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv6", "IPv4"], "RequireDualStack")
    assert [ip_address(text).version for text in spec["clusterIPs"]] == [6, 4] and spec["clusterIP"] == spec["clusterIPs"][0]


DUMP = """
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Node
  metadata: {name: cp, uid: a}
  spec: {podCIDR: 10.200.0.0/24, podCIDRs: [10.200.0.0/24, "fd00:200::/64"]}
  status: {addresses: [{type: InternalIP, address: 172.18.0.3}, {type: InternalIP, address: "fc00:f853::3"}]}
- apiVersion: v1
  kind: Node
  metadata: {name: worker, uid: b}
  spec: {podCIDR: 10.200.1.0/24, podCIDRs: [10.200.1.0/24, "fd00:200:0:1::/64"]}
  status: {addresses: [{type: InternalIP, address: 172.18.0.2}, {type: InternalIP, address: "fc00:f853::2"}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: default, uid: c, labels: {app: web}}
  spec: {nodeName: worker, containers: [{name: web, image: kubia, ports: [{containerPort: 8080}]}]}
  status: {phase: Running, podIP: 10.200.1.7, podIPs: [{ip: 10.200.1.7}, {ip: "fd00:200:0:1::7"}]}
- apiVersion: v1
  kind: Service
  metadata: {name: web, namespace: default, uid: d}
  spec:
    clusterIP: 10.99.0.7
    clusterIPs: [10.99.0.7, "fd00:99::7"]
    ipFamilies: [IPv4, IPv6]
    ipFamilyPolicy: PreferDualStack
    selector: {app: web}
    ports: [{port: 80, targetPort: 8080}]
"""


def test_a_dump_of_a_dual_stack_cluster() -> None:
    """As `kubectl get nodes,pods,svc -o yaml` of a cluster made by kind or kubeadm."""
    loaded = manifest.read_objects([manifest.Source("dump.yaml", DUMP.encode())]).objects
    cluster = controllers.initial(manifest.adapt_topology(None, loaded), loaded)
    (lan,) = cluster.topology.networks
    assert [ip_address("172.18.0.2") in lan, ip_address("fc00:f853::2") in lan, len(lan.routers)] == [True, True, 2]
    assert [len(host.addresses) for host in cluster.topology.hosts] == [2]
    built = plan.build(cluster)
    for sender in (Ref("node", "", "cp"), Ref("host", "", "client")):
        for text in ("10.99.0.7", "fd00:99::7"):
            flow = Flow(sender, source_address(cluster, sender, ip_address(text)), ip_address(text), 80)
            traced, expected = trace(built, flow).outcome, expect(cluster, flow)
            assert expected.kind is OutcomeKind.DELIVERED, expected.why
            assert (traced.kind, traced.backends) == (expected.kind, expected.backends)


# ---------------------------------------------------------------- plans


def test_a_plan_has_both_families_and_no_learned_neighbours() -> None:
    ops = plan.build(started(DUAL, OBJECTS)).ops.values()
    pod = "pod/default/client"
    addresses = [op for op in ops if isinstance(op, DeviceAddress) and op.netns == pod]
    routes = [op for op in ops if isinstance(op, Route) and op.netns == pod]
    neighbours = [op for op in ops if isinstance(op, Neighbour) and op.netns == pod]
    for found in ([op.address for op in addresses], [op.destination for op in routes], [op.address for op in neighbours]):
        assert {one.version for one in found} == {4, 6}
    assert not [op for op in plan.build(started(PLAIN)).ops.values() if isinstance(op, Route) and op.destination.version == 6]


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
@pytest.mark.parametrize("sender", ["pod/default/client", "node/node-a", "node/node-b", "host/client"])
def test_trace_agrees_with_the_oracle_in_both_families(sender: str, mode: str) -> None:
    cluster = started(DUAL.replace("cluster:\n", f"cluster:\n  proxy: {{mode: {mode}}}\n"), OBJECTS)
    built = plan.build(cluster)
    kind, *names = sender.split("/")
    ref = Ref(kind, *names) if len(names) == 2 else Ref(kind, "", names[0])
    asked = [(address, 80) for one in cluster.services.values() for address in one.cluster_ips]
    asked += [(address, 30080) for node in cluster.nodes.values() for address in node.addresses]
    asked += [(address, 8080) for pod in cluster.pods.values() for address in pod.addresses]
    for address, port in asked:
        flow = Flow(ref, source_address(cluster, ref, address), address, port)
        traced, expected = trace(built, flow).outcome, expect(cluster, flow)
        assert (traced.kind, traced.backends) == (expected.kind, expected.backends), (flow, traced.why, expected.why)
    assert {address.version for address, _ in asked} == {4, 6}


def test_an_ipv4_host_in_a_dual_stack_network_has_no_way_to_ipv6() -> None:
    text = DUAL.replace('[192.168.0.100, "fd00:192:168::100"]', "[192.168.0.100]")
    text = "\n".join(line for line in text.splitlines() if not line.strip().startswith("fd00:10:"))
    cluster = started(text, OBJECTS)
    host = Ref("host", "", "client")
    with pytest.raises(InputError, match="has no IPv6 address"):
        source_address(cluster, host, IPv6Address("fd00:10:96::1"))
    flow = Flow(host, IPv6Address("fd00:192:168::100"), IPv6Address("fd00:10:96::1"), 443)
    assert expect(cluster, flow).kind is trace(plan.build(cluster), flow).outcome.kind is OutcomeKind.REJECTED


def test_destinations() -> None:
    cluster = started(DUAL, OBJECTS)
    assert resolve_destination(cluster, "svc/require").address.version == 6
    assert resolve_destination(cluster, "[fd00:10:96::77]:80").label == "[fd00:10:96::77]:80/tcp"


# ---------------------------------------------------------------- packets

SOURCE, DESTINATION, RUN = IPv6Address("fd00:10:244::3"), IPv6Address("fd00:10:96::80"), 0xBEEF


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize(("index", "source_port"), [(0, 1), (1, 10_000), (0xFFEF, 65535), (0x1234, 40000)])
def test_filled_templates_have_right_checksums_and_are_known_again(protocol: Protocol, index: int, source_port: int) -> None:
    data = packets.template(RUN, protocol, SOURCE, DESTINATION, 80).fill(index, source_port)
    packet = IPv6(data)
    assert (packet.src, packet.dst, packet.plen) == (str(SOURCE), str(DESTINATION), len(data) - 40)
    again = packet.copy()
    if protocol in (Protocol.TCP, Protocol.UDP):
        again[1].chksum = None
        assert (packet[1].sport, packet[1].dport) == (source_port, 80)
    elif protocol is Protocol.ICMP:
        again[1].cksum = None
        assert isinstance(packet[1], ICMPv6EchoRequest)
    assert bytes(again) == data
    seen = packets.seen(data, RUN)
    assert seen is not None and (seen.kind, seen.number) == (Kind.REQUEST, index)
    assert (seen.source, seen.destination) == (SOURCE.packed, DESTINATION.packed)


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP, Protocol.ICMP])
def test_own_tests_have_right_checksums(protocol: Protocol) -> None:
    for text in ("::1", "fd00:10:244::3", "ffff:fffe::1"):
        data = packets.own_test(RUN, protocol, 6)(IPv6Address(text))
        again = IPv6(data)
        again[1].cksum = again[1].chksum = None
        assert (again.src, again.dst) == (str(IPv6Address(text)), str(IPv6Address(text)))
        assert bytes(again) == data


@pytest.mark.parametrize("protocol", list(Protocol))
@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ICMPv6DestUnreach(code=4), (3, 3)),
        (ICMPv6DestUnreach(code=0), (3, 0)),
        (ICMPv6DestUnreach(code=1), (3, 13)),
        (ICMPv6TimeExceeded(code=0), (11, 0)),
    ],
    ids=["port", "no route", "prohibited", "time"],
)
def test_icmpv6_errors_quote_the_flow(protocol: Protocol, error: ICMPv6DestUnreach, kind: tuple[int, int]) -> None:
    quoted = packets.template(RUN, protocol, SOURCE, DESTINATION, 80).fill(5, 4000)
    data = bytes(IPv6(src="fd00:10:244::1", dst=str(SOURCE)) / error / quoted)
    seen = packets.seen(data, RUN)
    assert seen is not None and seen.error is not None
    assert (seen.kind, seen.number, seen.error[:2]) == (Kind.ICMP_ERROR, 5, kind)
    assert seen.error[2:4] == (SOURCE.packed, DESTINATION.packed)
    for length in range(len(data)):
        packets.seen(data[:length], RUN)  # must not raise


def test_the_reset_ends_what_the_syn_began() -> None:
    data = plain.reset(RUN, SOURCE, DESTINATION, 80, 5, 4000)
    assert struct.unpack_from("!I", data, 44) == ((RUN << 16 | 5) + 1,)
    again = IPv6(data)
    assert again[TCP].flags == "R"
    again[TCP].chksum = None
    assert bytes(again) == data
    assert packets.seen(bytes(IPv6() / UDP() / b"netlzzzz0001"), RUN) is None


# ---------------------------------------------------------------- Endpoints


def old_addresses(cluster: Cluster, name: str) -> list[list[str]]:
    """The addresses of each subset of the v1 Endpoints object."""
    found = objects.find(cluster, "Endpoints", Key("default", name))
    subsets = manifest.to_json(found, cluster).get("subsets", []) if found is not None else []
    return [[one["ip"] for key in ("addresses", "notReadyAddresses") for one in subset.get(key, ())] for subset in subsets]


def test_the_endpoints_object_has_the_first_family_only() -> None:
    """EndpointSlices hold both: kubernetes pkg/controller/endpoint/endpoints_controller.go, podToEndpointAddressForService."""
    sixes = service("selector: {app: web}, ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6, IPv4]", "sixes")
    cluster = started(DUAL, OBJECTS + "---\n" + sixes)
    families = {one.address_type for one in cluster.slices.values() if one.service == Key("default", "prefer")}
    assert families == {"IPv4", "IPv6"}
    for name, version in (("prefer", 4), ("single", 4), ("sixes", 6)):
        subsets = old_addresses(cluster, name)
        assert subsets and all({ip_address(text).version for text in subset} == {version} for subset in subsets), name
        assert all(len(subset) == 2 for subset in subsets), name


def test_the_endpoints_object_leaves_out_what_terminates_and_has_a_subset_for_each_set_of_ports() -> None:
    slices = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-{number}, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: "", port: 8080}}]
endpoints:
- {{addresses: [10.244.1.{number}], conditions: {{ready: true}}}}
- {{addresses: [10.244.1.1{number}], conditions: {{ready: false, serving: true, terminating: true}}}}
"""
    parts = [slices.format(number=number) for number in (9, 8)]
    selecting = started(PLAIN, "---".join([service("clusterIP: 10.96.0.80, selector: {of: a-dump}"), *parts]))
    assert old_addresses(selecting, "web") == [["10.244.1.8", "10.244.1.9"]]
    by_hand = started(PLAIN, "---".join([service("clusterIP: 10.96.0.80"), *parts]))
    assert objects.find(by_hand, "Endpoints", Key("default", "web")) is None, "nobody mirrors slices that were made by hand"
    assert objects.find(by_hand, "Endpoints", Key("default", "kubernetes")) is not None
