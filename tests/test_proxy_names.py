"""Names and texts that readers know from real nodes: they must be the very same."""

import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from netlab.model import Cluster, Key, Meta, Protocol, ServicePort, ServiceType, SlicePort
from netlab.proxy import iptables as iptables_mode
from netlab.proxy import nftables as nftables_mode
from netlab.proxy.iptables_service import ServiceRules, service_rules
from netlab.proxy.nftables_service import ServiceParts, service_parts
from netlab.proxy.port_blocks import every_port
from netlab.proxy.service_ports import Chosen, Frontend, Target
from netlab.proxy.settings import Policy
from netlab.rendering import iptables, nftables
from netlab.ruleset import Ruleset, SetDef
from tests.proxy_support import cluster, dual_stack, everything, local, ruleset, service, slice_of

GOLDEN = Path(__file__).parent / "golden" / "proxy"


def front(namespace: str, name: str, port: str, protocol: Protocol = Protocol.TCP) -> Frontend:
    one = service(name, ports=(ServicePort(80, port, protocol),))
    meta = Meta(name, namespace)
    given = cluster((type(one)(meta, cluster_ips=one.cluster_ips, ports=one.ports),))
    return every_port(given)["ip"][0].front


def ipt(given: Frontend, *targets: Target) -> ServiceRules:
    return service_rules(given, Chosen(targets, (), targets, True), Policy(False, None, None), False, False)


def nft(given: Frontend, *targets: Target) -> ServiceParts:
    return service_parts(given, Chosen(targets, (), targets, True), Policy(False, None, None), False)


@pytest.mark.parametrize(
    ("given", "chain"),
    [
        (front("default", "kubernetes", "https"), "KUBE-SVC-NPX46M4PTMTKRN6Y"),
        (front("kube-system", "kube-dns", "dns", Protocol.UDP), "KUBE-SVC-TCOU7JCQXEZGVUNU"),
        (front("kube-system", "kube-dns", "dns-tcp"), "KUBE-SVC-ERIFXISQEP7F7OF4"),
    ],
    ids=["kubernetes", "dns", "dns-tcp"],
)
def test_iptables_chain_names_are_those_of_every_cluster(given: Frontend, chain: str) -> None:
    assert ipt(given, Target(ip_address("10.0.0.1"), 80)).chains[0].name == chain


def test_nftables_chain_names_are_those_of_the_real_proxy() -> None:
    (chain,) = nft(front("ns1", "svc1", "p80"), Target(ip_address("10.180.0.1"), 80)).chains
    assert chain.name == "service-ULMVA6XW-ns1/svc1/tcp/p80"


def test_nftables_names_are_cut_to_what_the_kernel_takes() -> None:
    long = "n" * 63
    (chain,) = nft(front(long, long, long), Target(ip_address("10.180.0.1"), 80)).chains
    assert chain.name.endswith(f"/{long}") and len(chain.name) < 256
    (element,) = service_parts(front(long, long, long), Chosen(), Policy(False, None, None), False).no_endpoint_services
    assert len(element.comment) == 128


def test_port_without_a_name() -> None:
    given = front("default", "web", "")
    assert given.name == "default/web"
    (chain,) = nft(given, Target(ip_address("10.0.0.1"), 80)).chains
    assert chain.name.endswith("-default/web/tcp/")


def test_ipv6_gets_tables_of_its_own() -> None:
    given = dual_stack()
    node = given.nodes["node-a"]
    assert [(t.family, t.name) for t in ruleset(nftables_mode.plan(given, node)).tables] == [
        ("ip", "kube-proxy"),
        ("ip6", "kube-proxy"),
    ]
    assert [(t.family, t.name) for t in ruleset(iptables_mode.plan(given, node)).tables] == [
        ("ip", "filter"),
        ("ip", "nat"),
        ("ip6", "filter"),
        ("ip6", "nat"),
    ]


def _rules(given: Cluster, mode: str) -> Ruleset:
    planner = iptables_mode if mode == "iptables" else nftables_mode
    return ruleset(planner.plan(given, given.nodes["node-a"]))


def small() -> Cluster:
    """What the golden texts show: a NodePort Service, one with affinity, one without endpoints."""
    services = (
        service(type=ServiceType.NODE_PORT, ports=(ServicePort(80, "http", node_port=30001),)),
        service("sticky", "10.96.0.11", session_affinity="ClientIP"),
        service("empty", "10.96.0.12"),
    )
    endpoints = (local(), local("10.244.1.6"), local("10.244.1.7"))
    return cluster(services, (slice_of("web", *endpoints), slice_of("sticky", *endpoints[:2])))


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_golden_text(mode: str) -> None:
    """NETLAB_GOLDEN=1 rewrites the file; look at the difference before you commit it."""
    rules = _rules(small(), mode)
    text = iptables.text(rules) if mode == "iptables" else nftables.text(rules)
    path = GOLDEN / f"{mode}.txt"
    if os.environ.get("NETLAB_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert text == path.read_text()


def test_affinity_sets_have_the_timeout() -> None:
    (table,) = _rules(everything(), "nftables").tables
    assert {one.timeout_s for one in table.sets if one.name.startswith("affinity-")} == {600}
    assert all(isinstance(one, SetDef) and not one.elements for one in table.sets if one.name.startswith("affinity-"))


def test_slices_of_another_port_name_do_not_count() -> None:
    given = cluster((service(),), (slice_of("web", local(), ports=(SlicePort("other", 1),)),))
    assert every_port(given)["ip"][0].endpoints == ()
    assert Key("default", "web") in given.services
