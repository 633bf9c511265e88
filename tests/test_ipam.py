"""Addresses, MACs and names: always the lowest that is free, the same every time, none too long."""

from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import islice

import pytest

from netlab import ipam
from netlab.errors import InputError
from netlab.model import ClusterConfig, Lan, Topology
from tests import clusters


def config(pods: str = "10.244.0.0/16", services: str = "10.96.0.0/12") -> ClusterConfig:
    return ClusterConfig((ip_network(pods),), (ip_network(services),))


def test_pod_addresses_start_after_the_gateway_and_fill_gaps() -> None:
    cluster = clusters.default()
    node = cluster.nodes["node-170"]
    assert str(ipam.gateway(node)) == "10.244.1.1"
    assert [str(a) for a in islice(ipam.free_pod_addresses(cluster, node), 2)] == ["10.244.1.4", "10.244.1.5"]
    without_client = cluster.with_(pods={k: p for k, p in cluster.pods.items() if k.name != "client"})
    assert str(next(ipam.free_pod_addresses(without_client, node))) == "10.244.1.2"


def test_a_full_pod_cidr_has_no_free_address() -> None:
    cluster = clusters.default()
    small = replace(cluster.nodes["node-170"], pod_cidrs=(ip_network("10.244.1.0/30"),))
    assert [str(a) for a in ipam.free_pod_addresses(cluster, small)] == []


def test_cluster_ips_come_from_the_upper_band_and_then_from_the_lower() -> None:
    cluster = clusters.default()
    assert str(ipam.cluster_ip(cluster)) == "10.96.1.1"
    small = replace(cluster, topology=replace(cluster.topology, cluster=config(services="10.96.0.0/24")))
    found = [str(a) for a in ipam.free_cluster_ips(small)]
    assert found[0] == "10.96.0.17"
    assert found[-16:][0] == "10.96.0.254" or found[-1] == "10.96.0.16"
    assert "10.96.0.1" not in found
    assert "10.96.0.10" not in found
    assert "10.96.0.80" not in found
    assert len(found) == 254 - 3


def test_node_ports_come_from_the_upper_band_first() -> None:
    cluster = clusters.default()
    assert ipam.node_port(cluster) == 30086
    ports = list(ipam.free_node_ports(cluster))
    assert len(ports) == len(set(ports)) == 2768
    assert ports[-1] == 30085


@pytest.mark.parametrize(
    ("pods", "taken", "expected"),
    [
        ("10.244.0.0/16", (), "10.244.0.0/24"),
        ("10.244.0.0/16", ("10.244.0.0/24", "10.244.2.0/24"), "10.244.1.0/24"),
        ("10.244.0.0/16", ("10.244.0.0/23",), "10.244.2.0/24"),
        ("10.1.0.0/22", (), "10.1.0.0/26"),
        ("10.1.1.0/24", ("10.1.1.0/28",), "10.1.1.16/28"),
        ("fd00::/56", (), "fd00::/64"),
    ],
)
def test_pod_cidrs(pods: str, taken: tuple[str, ...], expected: str) -> None:
    family: ipam.Family = "IPv6" if ":" in pods else "IPv4"
    assert str(ipam.pod_cidr(config(pods), map(ip_network, taken), family)) == expected


def test_no_pod_cidr_left() -> None:
    with pytest.raises(InputError, match=r"10\.1\.0\.0/24"):
        ipam.pod_cidr(config("10.1.0.0/24"), [ip_network("10.1.0.0/24")])


def test_attachments_follow_the_order_of_the_networks() -> None:
    lans = (Lan("a", ip_network("192.168.50.0/24")), Lan("b", ip_network("192.168.51.0/24"), ip_address("192.168.51.1")))
    topology = Topology(networks=lans)
    addresses = tuple(map(ip_address, ("192.168.51.7", "203.0.113.50", "192.168.50.7", "192.168.50.8")))
    found = ipam.attachments(topology, addresses)
    assert [(a.lan, a.device, [str(x) for x in a.addresses]) for a in found] == [
        ("a", "eth0", ["192.168.50.7", "192.168.50.8"]),
        ("b", "eth1", ["192.168.51.7"]),
    ]
    assert [str(a) for a in ipam.off_lan(topology, addresses)] == ["203.0.113.50"]
    assert [(a.lan, a.device) for a in ipam.router_attachments(topology)] == [("b", "eth0")]


LONG = "ip-10-0-100-100.eu-central-1.compute.internal"


@pytest.mark.parametrize("end", ["node/node-170", "router/router", f"node/{LONG}", f"host/{LONG}", "node/a.b", "node/n" * 9])
def test_names_fit_into_an_interface_name(end: str) -> None:
    name = ipam.lan_port(end)
    assert 0 < len(name) <= 15
    assert not set(name) & set("/. :")
    assert len(ipam.host_device(f"pod/default/{end}")) == 12


def test_names_differ() -> None:
    ends = [f"{kind}/{name}{i}" for kind in ("node", "host") for name in ("n", LONG, LONG[:14]) for i in range(50)]
    assert len({ipam.lan_port(end) for end in ends}) == len(ends)
    assert len({ipam.host_device(end) for end in ends}) == len(ends)
    assert len({ipam.mac(end, "eth0") for end in ends}) == len(ends)


def test_macs_are_unicast_and_locally_administered() -> None:
    mac = ipam.mac("pod/default/a", "eth0")
    assert mac == ipam.mac("pod/default/a", "eth0")
    assert int(mac[:2], 16) & 0b11 == 0b10
