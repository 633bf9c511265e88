"""Dumps of live clusters, as kubectl prints them: they load without errors and keep what the cluster decided."""

from collections import Counter
from ipaddress import ip_network
from pathlib import Path

import pytest

from netlab.manifest import Loaded, adapt_topology, read_objects, read_paths
from netlab.model import Endpoints, EndpointSlice, Key, Node, Pod, Service, Topology

DUMPS = Path(__file__).parent / "dumps"


def load(name: str) -> tuple[Loaded, Topology]:
    loaded = read_objects(read_paths([str(DUMPS / f"{name}.yaml")], lambda: b""))
    return loaded, adapt_topology(None, loaded.objects)


def _no_stdin() -> bytes:
    return b""


CLUSTERS = [
    ("kubeadm", ("10.244.0.0/16", "10.96.0.0/12", "192.168.56.0/24"), {"cp-1": True, "worker-1": False, "worker-2": False}),
    ("k3s", ("10.42.0.0/16", "10.43.0.0/16", "192.168.1.0/24"), {"k3s-server": False, "k3s-agent-1": False}),
    (
        "article",
        ("10.244.0.0/16", "10.254.0.0/16", "192.168.0.0/24"),
        {"192.168.0.169": True, "192.168.0.170": False, "192.168.0.171": False},
    ),
]


@pytest.mark.parametrize(("name", "cidrs", "nodes"), CLUSTERS, ids=[row[0] for row in CLUSTERS])
def test_a_dump_brings_its_nodes_and_cidrs(name: str, cidrs: tuple[str, str, str], nodes: dict[str, bool]) -> None:
    loaded, topology = load(name)
    pods, services, lan = (ip_network(text) for text in cidrs)
    assert (topology.cluster.pod_cidrs, topology.cluster.service_cidrs) == ((pods,), (services,))
    assert [network.cidr for network in topology.networks] == [lan]
    assert {node.name: node.control_plane for node in topology.nodes} == nodes
    objects = [entry for entry in loaded.objects if isinstance(entry, Node)]
    assert {entry.meta.name: (entry.addresses, entry.pod_cidrs) for entry in objects} == {
        node.name: (node.addresses, node.pod_cidrs) for node in topology.nodes
    }


@pytest.mark.parametrize("name", [row[0] for row in CLUSTERS])
def test_every_pod_keeps_its_place_and_addresses(name: str) -> None:
    loaded, topology = load(name)
    cidrs = {node.name: node.pod_cidrs[0] for node in topology.nodes}
    pods = [entry for entry in loaded.objects if isinstance(entry, Pod)]
    assert pods
    for pod in pods:
        assert pod.node in cidrs
        assert pod.spec.host_network or pod.addresses[0] in cidrs[pod.node]
        assert pod.meta.owner is None
        assert all(container.command == () and container.readiness is None for container in pod.spec.containers)


@pytest.mark.parametrize("name", [row[0] for row in CLUSTERS])
def test_services_keep_addresses_and_node_ports(name: str) -> None:
    loaded, topology = load(name)
    services = {entry.meta.key: entry for entry in loaded.objects if isinstance(entry, Service)}
    first = services[Key("default", "kubernetes")]
    assert first.cluster_ips[0] == topology.cluster.service_cidrs[0].network_address + 1
    assert all(address in topology.cluster.service_cidrs[0] for entry in services.values() for address in entry.cluster_ips)


def test_kubeadm_in_detail() -> None:
    loaded, _ = load("kubeadm")
    services = {entry.meta.name: entry for entry in loaded.objects if isinstance(entry, Service)}
    assert services["web"].ports[0].node_port == 31080
    assert services["web-headless"].headless
    assert services["db"].external_name == "db.example.com"
    assert (services["edge"].health_check_node_port, services["edge"].external_traffic_policy) == (32411, "Local")
    assert (services["sticky"].session_affinity, services["sticky"].affinity_timeout_s) == ("ClientIP", 10800)
    pods = {entry.meta.name: entry for entry in loaded.objects if isinstance(entry, Pod)}
    assert (pods["cart-0"].ready, pods["cart-1"].ready) == (True, False)
    assert next(pod for name, pod in pods.items() if name.startswith("migrate")).phase == "Succeeded"
    assert sum(pod.spec.host_network for pod in pods.values()) == 4


def test_slices_of_the_clusters_controller_go_on_being_managed() -> None:
    loaded, _ = load("kubeadm")
    slices = [entry for entry in loaded.objects if isinstance(entry, EndpointSlice)]
    assert Counter(entry.managed for entry in slices) == {True: 5, False: 1}
    alone = read_objects(read_paths([str(DUMPS / "kubeadm.yaml")], _no_stdin))
    assert next(entry for entry in slices if not entry.managed).meta.name == "kubernetes"
    assert alone == loaded


def test_slices_without_their_pods_are_kept_as_given(tmp_path: Path) -> None:
    import yaml

    dump = yaml.safe_load((DUMPS / "kubeadm.yaml").read_text())
    dump["items"] = [item for item in dump["items"] if item["kind"] in ("Service", "EndpointSlice")]
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(dump))
    loaded = read_objects(read_paths([str(tmp_path)], _no_stdin))
    assert not any(entry.managed for entry in loaded.objects if isinstance(entry, EndpointSlice))
    assert adapt_topology(None, loaded.objects).nodes[0].name == "node-169"


def test_the_article_has_endpoints_instead_of_slices(tmp_path: Path) -> None:
    loaded, _ = load("article")
    endpoints = {entry.meta.name: entry for entry in loaded.objects if isinstance(entry, Endpoints)}
    assert "kubia" not in endpoints, "they follow from the selector and the pods: the lab makes its own"
    assert endpoints["kubernetes"].subsets[0][1][0].port == 6443
    import yaml

    dump = yaml.safe_load((DUMPS / "article.yaml").read_text())
    dump["items"] = [item for item in dump["items"] if item["kind"] in ("Service", "Endpoints")]
    (tmp_path / "part.yaml").write_text(yaml.safe_dump(dump))
    part = {
        one.meta.name: one for one in read_objects(read_paths([str(tmp_path)], _no_stdin)).objects if isinstance(one, Endpoints)
    }
    assert len(part["kubia"].subsets[0][0]) == 3


def test_a_terminating_pod_of_a_dump_is_terminating() -> None:
    loaded, _ = load("k3s")
    assert sum(entry.terminating for entry in loaded.objects if isinstance(entry, Pod)) == 1
