"""The cluster's names: the zone as a value, and what is answered from it, without a socket."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netlab import controllers, discovery, images
from netlab import dns as names
from netlab.agents.dns_answers import EDNS_BYTES, MOST_ORDERS, NEGATIVE_TTL_S, UDP_BYTES, Resolver
from netlab.dns import Record
from netlab.manifest import Source, adapt_topology, default_topology, read_objects, read_topology
from netlab.model import Cluster, Key, Protocol
from netlab.ops import Listener
from netlab.plan import build
from tests import clusters
from tests.dns_cases import ALL, CASES, MANIFEST, Case


def made(text: str = MANIFEST, topology: str = "") -> Cluster:
    objects = read_objects((Source("cases.yaml", text.encode()),)).objects
    return controllers.initial(read_topology(Source("topology.yaml", topology.encode())), objects)


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    return made()


def resolver(cluster: Cluster) -> Resolver:
    found = Resolver()
    found.update(names.changes(names.Zone(), names.zone(cluster)))
    return found


@pytest.fixture(scope="module")
def served(cluster: Cluster) -> Resolver:
    return resolver(cluster)


def ask(served: Resolver, name: str, kind: str = "A", stream: bool = False, **options: Any) -> dns.message.Message:
    query = dns.message.make_query(name, kind, **options)
    wire = served.answer(query.to_wire(), stream)
    assert wire is not None
    answer = dns.message.from_wire(wire)
    assert query.is_response(answer)
    return answer


def answers(message: dns.message.Message) -> tuple[str, ...]:
    return tuple(sorted(f"{dns.rdatatype.to_text(rrset.rdtype)} {data}" for rrset in message.answer for data in rrset))


def listed(cluster: Cluster, name: str) -> set[Record]:
    return {record for records in names.zone(cluster).origins.values() for record in records if record.name == name}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.row)
@pytest.mark.parametrize("stream", [False, True], ids=["udp", "tcp"])
def test_every_kind_of_record(served: Resolver, case: Case, stream: bool) -> None:
    message = ask(served, case.name, case.type, stream)
    assert answers(message) == case.answers
    assert dns.rcode.to_text(message.rcode()) == case.status


@pytest.mark.parametrize(
    "case", [case for case in CASES if not case.answers and "outside" not in case.row], ids=lambda case: case.row
)
def test_every_denial_has_a_soa_with_the_negative_ttl(served: Resolver, case: Case) -> None:
    (authority,) = ask(served, case.name, case.type).authority
    assert authority.rdtype == dns.rdatatype.SOA
    apex = "in-addr.arpa." if case.name.endswith("arpa") else "cluster.local."
    assert str(authority.name) == apex
    assert authority.ttl == NEGATIVE_TTL_S
    assert authority[0].minimum == NEGATIVE_TTL_S


def test_outside_the_zone_nothing_is_claimed(served: Resolver) -> None:
    message = ask(served, "www.example.com")
    assert not message.flags & dns.flags.AA
    assert not message.authority
    assert ask(served, f"web.{ALL}").flags & dns.flags.AA


def test_the_zone_is_a_value_of_records(cluster: Cluster) -> None:
    assert listed(cluster, f"web.{ALL}") == {Record(f"web.{ALL}", "A", "10.96.0.80")}
    assert listed(cluster, f"_http._tcp.web.{ALL}") == {Record(f"_http._tcp.web.{ALL}", "SRV", f"web.{ALL}", 80)}
    assert names.zone(cluster) == names.zone(cluster)


def test_a_dual_stack_service_has_both() -> None:
    service = clusters.service("web", "10.96.0.80", (80, 8080))
    both = replace(service, cluster_ips=(*service.cluster_ips, clusters.address("fd00:96::80")))
    served = resolver(clusters.cluster([], [both]))
    assert answers(ask(served, f"web.{ALL}", "A")) == ("A 10.96.0.80",)
    assert answers(ask(served, f"web.{ALL}", "AAAA")) == ("AAAA fd00:96::80",)
    pointer = clusters.address("fd00:96::80").reverse_pointer
    assert answers(ask(served, pointer, "PTR")) == (f"PTR web.{ALL}.",)


def test_srv_brings_the_addresses_along(served: Resolver) -> None:
    extra = ask(served, f"_http._tcp.pets.{ALL}", "SRV").additional
    assert {str(rrset.name) for rrset in extra} == {f"rex.pets.{ALL}.", f"10-244-2-21.pets.{ALL}."}


# ---------------------------------------------------------------- changes


def test_only_what_changed_is_sent(cluster: Cluster) -> None:
    before = names.zone(cluster)
    assert names.changes(before, names.zone(cluster, before)) == {}
    scaled = controllers.scale(cluster, "Deployment", Key("default", "herd"), 3)
    after = names.zone(scaled, before)
    assert set(names.changes(before, after)) == {Key("default", "herd")}
    assert after.origins[Key("default", "web")] is before.origins[Key("default", "web")]
    assert after == names.zone(scaled)


def test_a_deleted_service_leaves_no_name(cluster: Cluster) -> None:
    before = names.zone(cluster)
    gone = controllers.delete(cluster, "Service", Key("default", "web"))
    served = resolver(cluster)
    assert ask(served, f"web.{ALL}").rcode() == dns.rcode.NOERROR
    served.update(names.changes(before, names.zone(gone, before)))
    for name in (f"web.{ALL}", f"_http._tcp.web.{ALL}", f"_tcp.web.{ALL}", "80.0.96.10.in-addr.arpa"):
        assert ask(served, name).rcode() == dns.rcode.NXDOMAIN, name
    assert ask(served, f"bare.{ALL}").rcode() == dns.rcode.NOERROR


def test_the_serial_grows_with_every_change(cluster: Cluster) -> None:
    served = resolver(cluster)
    before = ask(served, "cluster.local", "SOA").answer[0][0].serial
    served.update({Key("default", "new"): (Record(f"new.{ALL}", "A", "10.96.0.99"),)})
    assert ask(served, "cluster.local", "SOA").answer[0][0].serial == before + 1


def test_the_last_of_two_services_that_select_a_pod_keeps_its_name(cluster: Cluster) -> None:
    served = resolver(cluster)
    pointer = "9.1.244.10.in-addr.arpa"
    served.update({Key("default", name): (Record(pointer, "PTR", f"a.{name}"),) for name in ("one", "two")})
    assert answers(ask(served, pointer, "PTR")) == ("PTR a.one.", "PTR a.two.")
    served.update({Key("default", "one"): ()})
    assert answers(ask(served, pointer, "PTR")) == ("PTR a.two.",)


# ---------------------------------------------------------------- packets


def many(count: int) -> Resolver:
    served = Resolver()
    served.update(
        {Key("default", "many"): tuple(Record(f"many.{ALL}", "A", f"10.244.{i // 256}.{i % 256}") for i in range(count))}
    )
    return served


@pytest.mark.parametrize(
    ("count", "options", "cut", "most"),
    [
        (20, {}, False, UDP_BYTES),
        (60, {}, True, UDP_BYTES),
        (60, {"use_edns": 0, "payload": 4096}, False, EDNS_BYTES),
        (60, {"use_edns": 0, "payload": 600}, True, 600),
        (60, {"use_edns": 0, "payload": 100}, True, UDP_BYTES),
        (200, {"use_edns": 0, "payload": 4096}, True, EDNS_BYTES),
    ],
)
def test_an_answer_that_does_not_fit_is_cut_and_whole_over_tcp(count: int, options: dict[str, Any], cut: bool, most: int) -> None:
    served = many(count)
    wire = served.answer(dns.message.make_query(f"many.{ALL}", "A", **options).to_wire())
    assert wire is not None
    assert len(wire) <= most
    message = dns.message.from_wire(wire)
    assert bool(message.flags & dns.flags.TC) == cut
    assert len(answers(message)) == (0 if cut else count)
    assert (message.edns >= 0) == ("use_edns" in options)
    assert len(answers(ask(served, f"many.{ALL}", stream=True))) == count


def test_records_come_in_turn() -> None:
    served = many(3)
    firsts = {str(ask(served, f"many.{ALL}").answer[0][0]) for _ in range(2 * MOST_ORDERS)}
    assert firsts == {"10.244.0.0", "10.244.0.1", "10.244.0.2"}


def test_the_question_is_repeated_as_it_was_asked(served: Resolver) -> None:
    name = dns.name.from_text(f"WeB.{ALL}")
    (rrset,) = ask(served, str(name)).answer
    assert rrset.name.labels[0] == b"WeB"


def test_an_alias_of_itself_ends() -> None:
    served = Resolver()
    served.update({Key("default", "loop"): (Record(f"loop.{ALL}", "CNAME", f"loop.{ALL}"),)})
    assert ask(served, f"loop.{ALL}").answer


def test_what_is_no_question_of_ours() -> None:
    served = many(1)
    query = dns.message.make_query(f"many.{ALL}", "A")
    assert ask(served, f"many.{ALL}", "AXFR", stream=True).rcode() == dns.rcode.REFUSED
    chaos = dns.message.make_query("version.bind", "TXT", "CH")
    assert dns.message.from_wire(served.answer(chaos.to_wire()) or b"").rcode() == dns.rcode.REFUSED
    query.set_opcode(dns.opcode.STATUS)
    assert (served.answer(query.to_wire()) or b"")[3] & 0xF == dns.rcode.NOTIMP
    newer = dns.message.make_query(f"many.{ALL}", "A", use_edns=1)
    assert dns.message.from_wire(served.answer(newer.to_wire()) or b"").rcode() == dns.rcode.BADVERS
    assert served.answer(b"short") is None
    answer = served.answer(dns.message.make_query(f"many.{ALL}", "A").to_wire()) or b""
    assert served.answer(answer) is None  # two servers must never answer each other


QUESTION = dns.message.make_query(f"pets.{ALL}", "A", use_edns=0, payload=1232).to_wire()


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good question with some bytes changed, and its end cut off or made longer."""
    packet = bytearray(QUESTION)
    for _ in range(draw(st.integers(0, 6))):
        packet[draw(st.integers(0, len(packet) - 1))] = draw(st.integers(0, 255))
    return bytes(packet[: draw(st.integers(0, len(packet)))]) + draw(st.binary(max_size=8))


@settings(deadline=None)  # a loaded machine is no mistake of the server
@given(st.one_of(st.binary(max_size=600), damaged(), st.binary(min_size=1, max_size=200).map(lambda end: QUESTION[:12] + end)))
def test_no_packet_is_too_much(packet: bytes) -> None:
    served = many(2)
    for stream in (False, True):
        answer = served.answer(packet, stream)
        assert answer is None or (answer[:2] == packet[:2] and answer[2] & 0x80)
    assert answers(ask(served, f"many.{ALL}")) == ("A 10.244.0.0", "A 10.244.0.1")


# ---------------------------------------------------------------- the pods behind it


def servers(cluster: Cluster) -> list[tuple[str, Protocol, int]]:
    ops = build(cluster).ops.values()
    return [(op.netns, op.protocol, op.port) for op in ops if isinstance(op, Listener) and op.persona == names.PERSONA]


def test_two_pods_on_the_control_plane_behind_the_tenth_address() -> None:
    cluster = controllers.initial(default_topology(), ())
    service = cluster.services[names.SERVICE]
    assert [str(address) for address in service.cluster_ips] == ["10.96.0.10"]
    pods = [pod for pod in cluster.pods.values() if names.is_server(pod.meta.namespace, pod.meta.labels)]
    assert [pod.node for pod in pods] == ["node-169", "node-169"]
    assert len(servers(cluster)) == 4
    assert {(port.name, port.port, str(port.protocol)) for port in service.ports} == {
        ("dns", 53, "UDP"), ("dns-tcp", 53, "TCP"), ("metrics", 9153, "TCP")
    }  # fmt: skip


def test_with_and_without_dns_everything_else_lies_the_same() -> None:
    three = "nodes: {node-169: {}, node-170: {}, node-171: {}}\n"
    for topology in ("", three):
        plain = "cluster: {dns: false}\n" + topology
        ours, none = made(topology=topology), made(topology=plain)
        assert names.SERVICE not in none.services
        for key, pod in none.pods.items():
            assert (ours.pods[key].node, ours.pods[key].addresses) == (pod.node, pod.addresses)
        assert {key: one.cluster_ips for key, one in none.services.items()}.items() <= {
            key: one.cluster_ips for key, one in ours.services.items()
        }.items()


OWN = """
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec: {clusterIP: 10.96.0.53, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: coredns-abc, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  nodeName: node-171
  containers:
  - name: coredns
    image: example.org/mirror/coredns:v1.11.1
    args: [-conf, /etc/coredns/Corefile]
    ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: dns-tcp, containerPort: 53}]
    readinessProbe: {httpGet: {path: /ready, port: 8181}}
"""


def test_a_dumps_own_dns_is_used() -> None:
    cluster = made(OWN)
    assert servers(cluster) == [
        ("pod/kube-system/coredns-abc", Protocol.TCP, 53),
        ("pod/kube-system/coredns-abc", Protocol.UDP, 53),
    ]
    assert [str(address) for address in discovery.name_servers(cluster)] == ["10.96.0.53"]
    listeners = {op.port: op.persona for op in build(cluster).ops.values() if isinstance(op, Listener)}
    assert listeners[8181] == "coredns"  # its readiness probe asks there


@pytest.mark.parametrize("dump", sorted((Path(__file__).parent / "dumps").glob("*.yaml")), ids=lambda dump: dump.stem)
def test_dns_of_real_dumps(dump: Path) -> None:
    objects = read_objects((Source(dump.name, dump.read_bytes()),)).objects
    cluster = controllers.initial(adapt_topology(None, objects), objects)
    pods = {str(pod.ref) for pod in cluster.pods.values() if names.is_server(pod.meta.namespace, pod.meta.labels)}
    assert {netns for netns, _, port in servers(cluster) if port == 53} == pods != set()
    service = names.service_of(cluster)
    assert service is not None
    assert discovery.name_servers(cluster) == service.cluster_ips


@pytest.mark.parametrize(
    ("image", "is_dns"),
    [
        ("coredns", True),
        ("mirrored-coredns-coredns", True),
        ("k8s-dns-kube-dns-amd64", True),
        ("mycorednslike", False),
        ("nginx", False),
    ],
)
def test_images_that_the_server_stands_in_for(image: str, is_dns: bool) -> None:
    assert images.is_dns(image) == is_dns


def test_a_service_without_pods_gets_some() -> None:
    assert len(servers(made(OWN.partition("---")[0]))) == 4


@pytest.mark.parametrize(
    ("topology", "text"),
    [
        ("cluster: {dns: false}", ""),
        ("cluster: {serviceCIDR: 10.96.0.0/29}", ""),
        ("", "{apiVersion: v1, kind: Service, metadata: {name: mine}, spec: {clusterIP: 10.96.0.10, ports: [{port: 53}]}}"),
    ],
    ids=["switched off", "no tenth address", "tenth address taken"],
)
def test_no_dns_where_none_is_wanted_or_fits(topology: str, text: str) -> None:
    assert servers(made(text, topology)) == []


def test_resolv_conf() -> None:
    def text(cluster: Cluster) -> str:
        return next(op.text for op in discovery.plan(cluster) if op.path == "pod/default/client/resolv.conf")

    search = "search default.svc.cluster.local svc.cluster.local cluster.local\n"
    assert text(made()) == f"{search}nameserver 10.96.0.10\noptions ndots:5\n"
    assert text(made(topology="cluster: {dns: false}")) == f"{search}options ndots:5\n"


def test_what_is_told_before_new_pods_answer() -> None:
    """Services at once, of a headless one's endpoints those that go; those that come wait until they are there."""
    text = """
apiVersion: v1
kind: Service
metadata: {name: pets}
spec: {clusterIP: None, selector: {app: pets}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: pets}
spec:
  replicas: 2
  selector: {matchLabels: {app: pets}}
  template: {metadata: {labels: {app: pets}}, spec: {containers: [{name: m, image: i}]}}
"""
    service = "{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {clusterIP: 10.96.0.80, ports: [{port: 80}]}}"
    before = made(text)
    known = names.zone(before)
    pets, web = Key("default", "pets"), Key("default", "web")
    more = controllers.scale(before, "Deployment", pets, 3)
    more = controllers.apply(more, read_objects((Source("web.yaml", service.encode()),)).objects)
    early = names.without_new_endpoints(known, names.zone(more, known))
    assert set(names.changes(known, early)) == {web}, "a third pet is not there yet"
    assert set(names.changes(early, names.zone(more, early))) == {pets}, "and is told when it is"
    fewer = controllers.scale(before, "Deployment", pets, 1)
    early = names.without_new_endpoints(known, names.zone(fewer, known))
    assert set(names.changes(known, early)) == {pets}, "who goes is no longer told at once"
    assert names.changes(early, names.zone(fewer, early)) == {}
