"""Topology files: every default, every mistake; topologies that fit a dump."""

import re
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from netlab import manifest
from netlab.errors import InputError
from netlab.lab.inputs import read_inputs, unused
from netlab.manifest import Source, adapt_topology, default_topology, own_fields, read_objects, read_topology
from netlab.manifest.unused import KNOWN_IN
from netlab.model import Impairment, Lan, NodeSpec, Topology

TOPOLOGIES = Path(__file__).parent.parent / "topologies"


def read(text: str) -> Topology:
    return read_topology(Source("t.yaml", text.encode()))


def test_the_default_topology_is_the_contracts() -> None:
    topology = default_topology()
    assert topology.networks == (Lan("lan", ip_network("192.168.0.0/24"), ip_address("192.168.0.1")),)
    assert [(node.name, str(node.addresses[0]), str(node.pod_cidrs[0]), node.control_plane) for node in topology.nodes] == [
        ("node-169", "192.168.0.169", "10.244.0.0/24", True),
        ("node-170", "192.168.0.170", "10.244.1.0/24", False),
        ("node-171", "192.168.0.171", "10.244.2.0/24", False),
    ]
    (client,) = topology.hosts
    assert (client.name, str(client.addresses[0])) == ("client", "192.168.0.100")
    assert [(str(network), str(gateway)) for network, gateway in client.routes] == [
        ("10.96.0.0/12", "192.168.0.169"),
        ("10.244.0.0/16", "192.168.0.169"),
    ]
    cluster = topology.cluster
    assert (str(cluster.pod_cidrs[0]), str(cluster.service_cidrs[0]), cluster.cidrs_given) == (
        "10.244.0.0/16",
        "10.96.0.0/12",
        False,
    )
    assert (cluster.proxy.mode, cluster.fabric, cluster.routing, cluster.neighbours) == (
        "iptables",
        "bridge",
        "static",
        "permanent",
    )


def test_the_file_of_the_default_topology_is_the_default_topology() -> None:
    path = TOPOLOGIES / "default.yaml"
    assert read_topology(Source(str(path), path.read_bytes())) == default_topology()


@pytest.mark.parametrize("path", sorted(TOPOLOGIES.glob("*.yaml")), ids=lambda path: path.stem)
def test_topologies_that_come_along_are_right(path: Path) -> None:
    assert read_topology(Source(str(path), path.read_bytes())).name == path.stem


def test_two_lans() -> None:
    path = TOPOLOGIES / "two-lans.yaml"
    topology = read_topology(Source(str(path), path.read_bytes()))
    assert topology.cluster.cidrs_given
    assert topology.cluster.proxy.node_port_addresses == (ip_network("192.168.50.0/24"),)
    assert topology.nodes[0].addresses == (ip_address("192.168.50.10"), ip_address("192.168.51.10"))
    assert topology.nodes[0].labels["topology.kubernetes.io/zone"] == "zone-a"
    (link,) = topology.links
    both = Impairment(rate_bps=100_000_000)
    assert (link.end, link.lan, link.out, link.into) == ("client", "lan-a", both, both)


def test_a_number_of_nodes() -> None:
    topology = read("nodes: 10")
    assert [node.name for node in topology.nodes] == [f"node-{number}" for number in range(1, 11)]
    assert topology.nodes[0].addresses == (ip_address("192.168.0.2"),)
    assert topology.nodes[9].pod_cidrs == (ip_network("10.244.9.0/24"),)
    assert topology.hosts == ()


def test_many_nodes_share_a_small_pod_cidr() -> None:
    topology = read("nodes: 30\ncluster: {podCIDR: 10.9.0.0/22}")
    assert topology.nodes[29].pod_cidrs == (ip_network("10.9.3.160/27"),)


def test_addresses_and_pod_cidrs_are_given_around_what_is_taken() -> None:
    topology = read(
        """
networks: {a: {cidr: 10.1.0.0/29}}
nodes: {x: , y: {addresses: 10.1.0.2, podCIDR: 10.244.0.0/24}, z: {}}
hosts: {h: {addresses: [10.1.0.1]}}
"""
    )
    assert [str(node.addresses[0]) for node in topology.nodes] == ["10.1.0.3", "10.1.0.2", "10.1.0.4"]
    assert [str(node.pod_cidrs[0]) for node in topology.nodes] == ["10.244.1.0/24", "10.244.0.0/24", "10.244.2.0/24"]
    assert str(topology.networks[0].router) == "10.1.0.5"


def test_a_router_can_be_left_out() -> None:
    assert read("networks: {lan: {cidr: 192.168.0.0/24, router: none}}").networks[0].router is None


def test_only_a_cluster_section_keeps_nodes_and_client() -> None:
    topology = read("cluster: {serviceCIDR: 10.254.0.0/16, proxy: {mode: nftables}}")
    assert len(topology.nodes) == 3
    assert [str(network) for network, _ in topology.hosts[0].routes] == ["10.254.0.0/16", "10.244.0.0/16"]


def test_both_families() -> None:
    topology = read('cluster: {podCIDR: "10.244.0.0/16,fd00:10::/56", serviceCIDR: [10.96.0.0/16, "fd00:20::/112"]}\nnodes: 2')
    assert [str(network) for network in topology.nodes[1].pod_cidrs] == ["10.244.1.0/24", "fd00:10:0:1::/64"]


@pytest.mark.parametrize(
    ("text", "wanted"), [("primary", "primary"), ("[primary]", "primary"), ("[10.0.0.0/8]", (ip_network("10.0.0.0/8"),))]
)
def test_node_port_addresses(text: str, wanted: object) -> None:
    assert read(f"cluster: {{proxy: {{nodePortAddresses: {text}}}}}").cluster.proxy.node_port_addresses == wanted


def test_settings_of_ipvs() -> None:
    proxy = read("cluster: {proxy: {mode: ipvs, scheduler: wlc, strictARP: true, syncPeriod: 1m}}").cluster.proxy
    assert (proxy.mode, proxy.scheduler, proxy.strict_arp, proxy.sync_period_s) == ("ipvs", "wlc", True, 60)
    plain = read("cluster: {proxy: {mode: ipvs}}").cluster.proxy
    assert (plain.scheduler, plain.strict_arp, plain.sync_period_s) == ("rr", False, 30)


LAN = "networks: {lan: {cidr: 192.168.0.0/24}}\n"
MISTAKES = [
    ("unknown key", "nodse: 3", "t.yaml:1:1: nodse: unknown field; did you mean nodes?"),
    ("unknown mode", "cluster: {proxy: {mode: iptable}}", 'cluster.proxy.mode: "iptable" is not one of iptables, nftables'),
    ("unknown scheduler", "cluster: {proxy: {scheduler: wr}}", "did you mean wrr?"),
    ("scheduler of no kube-proxy", "cluster: {proxy: {scheduler: round}}", "is not one of rr, wrr, lc, wlc, sh, dh, sed, nq"),
    ("syncPeriod without a unit", "cluster: {proxy: {syncPeriod: soon}}", "cluster.proxy.syncPeriod"),
    ("strictArp", "cluster: {proxy: {strictArp: true}}", "did you mean strictARP?"),
    ("routing of a later version", "cluster: {routing: rip}", "static, vxlan"),
    ("unknown fabric", "cluster: {fabric: bridged}", "did you mean bridge?"),
    ("detectLocal in small letters", "cluster: {proxy: {detectLocal: clustercidr}}", "did you mean ClusterCIDR?"),
    ("host bits", "cluster: {podCIDR: 10.244.0.1/16}", "did you mean 10.244.0.0/16?"),
    ("a netmask", "cluster: {podCIDR: 10.244.0.0/255.255.0.0}", "is no CIDR"),
    ("a zone index", "nodes: {a: {addresses: ['fe80::1%eth0']}}", "is no IP address"),
    ("no CIDR", "cluster: {podCIDR: 10.244.0.0}", "is no CIDR"),
    ("two CIDRs of a family", "cluster: {podCIDR: [10.1.0.0/16, 10.2.0.0/16]}", "two CIDRs of the same family"),
    ("overlap", "cluster: {serviceCIDR: 10.244.0.0/20}", "serviceCIDR 10.244.0.0/20 overlaps podCIDR 10.244.0.0/16"),
    ("a network among the pods", "networks: {lan: {cidr: 10.244.7.0/24}}", "network lan 10.244.7.0/24 overlaps podCIDR"),
    (
        "networks that overlap",
        "networks: {a: {cidr: 10.1.0.0/16}, b: {cidr: 10.1.2.0/24}}",
        "network b 10.1.2.0/24 overlaps network a",
    ),
    ("a network without a CIDR", "networks: {lan: {}}", "networks.lan.cidr: required"),
    (
        "a router elsewhere",
        "networks: {lan: {cidr: 10.1.0.0/24, router: 10.2.0.1}}",
        "is no address for a machine in 10.1.0.0/24",
    ),
    (
        "an address twice",
        "nodes: {a: {addresses: [192.168.0.5]}, b: {addresses: [192.168.0.5]}}",
        "192.168.0.5 is also the address of a",
    ),
    ("the router's address", LAN[:-3] + ", router: 192.168.0.1}}\nnodes: {a: {addresses: 192.168.0.1}}", "the router of lan"),
    ("the broadcast address", "nodes: {a: {addresses: [192.168.0.255]}}", "broadcast address"),
    ("a node elsewhere", "nodes: {a: {addresses: [10.7.0.1]}}", "must lie in one of the networks"),
    ("a host elsewhere", "hosts: {a: {addresses: [203.0.113.1]}}", "at least one address must lie in one of the networks"),
    ("a host among the pods", "hosts: {a: {addresses: [192.168.0.9, 10.244.0.9]}}", "lies in the cluster's podCIDR"),
    ("a podCIDR outside", "nodes: {a: {podCIDR: 10.9.0.0/24}}", "10.9.0.0/24 lies outside the cluster's podCIDR 10.244.0.0/16"),
    ("podCIDRs that overlap", "nodes: {a: {podCIDR: 10.244.0.0/23}, b: {podCIDR: 10.244.1.0/24}}", "overlaps 10.244.0.0/23 of a"),
    ("a gateway out of reach", "hosts: {a: {routes: {10.96.0.0/12: 10.1.2.3}}}", "10.1.2.3 is out of reach"),
    ("a route that is no CIDR", "hosts: {a: {routes: {10.96.0.0: 192.168.0.169}}}", "is no CIDR"),
    ("a gateway that is the host", "hosts: {a: {addresses: 192.168.0.9, routes: {10.96.0.0/12: 192.168.0.9}}}", "is a itself"),
    ("a reserved name", "nodes: {router: {}}", "the name router is taken"),
    ("one name for two", "nodes: {a: {}}\nhosts: {a: {}}", "there is a node of the same name"),
    ("a name with capitals", "nodes: {Node_A: {}}", "did you mean node-a?"),
    ("a name too long", f"nodes: {{{'a' * 64}: {{}}}}", "at most 63 characters"),
    ("no room for pods", "nodes: 20\ncluster: {podCIDR: 10.9.0.0/26}", "10.9.0.0/26 has no room for a podCIDR"),
    ("no room in the LAN", "nodes: 300", "192.168.0.0/24 has no room for 300 more addresses"),
    ("too many nodes", "nodes: 1000000", "must be between 1 and 2000"),
    ("no nodes", "nodes: 0", "must be between 1 and 2000"),
    ("a list of nodes", "nodes: [a, b]", "a number or a mapping"),
    ("a link of nobody", "links: {cleint/lan: {delay: 1ms}}", 'there is no node or host "cleint"; did you mean client?'),
    ("a link to nowhere", "links: {client/lam: {delay: 1ms}}", "did you mean lan?"),
    ("a link without a network", "links: {client: {delay: 1ms}}", "END/NETWORK is wanted"),
    ("a rate without a unit", "links: {client/lan: {rate: 100}}", "must be a rate like 100mbit"),
    ("a loss in words", "links: {client/lan: {loss: some}}", "must be a share like 1%"),
    (
        "a manifest",
        "apiVersion: v1\nkind: Service\n",
        'a Topology is wanted, not "Service"; Kubernetes objects are given with -f',
    ),
    ("two documents", "nodes: 1\n---\nnodes: 2\n", "a topology is one document"),
    ("another version", "apiVersion: netlab/v2\nkind: Topology\n", "must be netlab/v1"),
    ("a list", "- a", "a topology is wanted, not a list"),
]


@pytest.mark.parametrize(("text", "wanted"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_named_with_its_place(text: str, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text)
    assert wanted in str(caught.value)
    assert all(problem.line for problem in caught.value.problems)
    assert len(caught.value.problems) == 1


# ---------------------------------------------------------------- a topology for objects


def adapted(text: str, topology: Topology | None = None) -> Topology:
    return adapt_topology(topology, read_objects([Source("f.yaml", text.encode())]).objects)


def _service(name: str, address: str) -> str:
    return (
        f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{clusterIP: {address}, ports: [{{port: 80}}]}}\n"
    )


def _node(name: str, address: str, cidr: str = "") -> str:
    spec = f"{{podCIDR: {cidr}}}" if cidr else "{}"
    status = f"{{addresses: [{{type: InternalIP, address: {address}}}]}}"
    return f"---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {spec}\nstatus: {status}\n"


def test_without_anything_special_it_is_the_default_topology() -> None:
    assert adapted(_service("web", "10.96.7.7")) == default_topology()
    assert adapt_topology(None, ()) == default_topology()


SERVICE_CIDRS = [
    ("article", ["10.254.0.1", "10.254.143.41"], "10.254.0.0/16"),
    ("k3s", ["10.43.0.1", "10.43.0.10"], "10.43.0.0/16"),
    ("EKS", ["172.20.0.1", "172.20.33.4"], "172.20.0.0/16"),
    ("GKE", ["34.118.224.1", "34.118.230.9"], "34.118.224.0/20"),
    ("MicroK8s", ["10.152.183.1"], "10.152.183.0/24"),
    ("kubespray", ["10.233.0.1", "10.233.20.2"], "10.233.0.0/18"),
    ("kubeadm", ["10.96.0.1", "10.111.255.1"], "10.96.0.0/12"),
    ("one's own", ["10.55.16.1", "10.55.17.2"], "10.55.16.0/20"),
    ("a wide one", ["10.64.0.1", "10.65.3.4"], "10.64.0.0/15"),
]


@pytest.mark.parametrize(("addresses", "cidr"), [row[1:] for row in SERVICE_CIDRS], ids=[row[0] for row in SERVICE_CIDRS])
def test_the_service_cidr_is_inferred(addresses: list[str], cidr: str) -> None:
    names = ["kubernetes", *(f"svc-{number}" for number in range(len(addresses) - 1))]
    topology = adapted("".join(_service(name, address) for name, address in zip(names, addresses, strict=True)))
    assert topology.cluster.service_cidrs == (ip_network(cidr),)
    assert topology.hosts[0].routes[0] == (ip_network(cidr), ip_address("192.168.0.169"))


def test_a_dumps_nodes_replace_the_default_ones() -> None:
    text = _node("a", "10.0.12.4", "10.42.0.0/24") + _node("b", "10.0.77.9", "10.42.1.0/24")
    topology = adapted(text)
    assert [(node.name, str(node.addresses[0]), str(node.pod_cidrs[0])) for node in topology.nodes] == [
        ("a", "10.0.12.4", "10.42.0.0/24"),
        ("b", "10.0.77.9", "10.42.1.0/24"),
    ]
    assert topology.cluster.pod_cidrs == (ip_network("10.42.0.0/16"),)
    assert topology.networks == (Lan("lan", ip_network("10.0.0.0/17"), ip_address("10.0.0.1")),)
    assert topology.hosts[0].routes == (
        (ip_network("10.96.0.0/12"), ip_address("10.0.12.4")),
        (ip_network("10.42.0.0/16"), ip_address("10.0.12.4")),
    )


def test_nodes_far_apart_get_a_network_each() -> None:
    topology = adapted(_node("a", "10.1.0.4", "10.244.0.0/24") + _node("b", "172.16.3.9", "10.244.1.0/24"))
    assert [str(lan.cidr) for lan in topology.networks] == ["10.1.0.0/24", "172.16.3.0/24"]


def test_nodes_are_known_from_the_pods_of_a_dump() -> None:
    pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p{0}}}\n"
    pod += "spec: {{nodeName: n{0}, containers: [{{name: a, image: b}}]}}\n"
    pod += "status: {{phase: Running, hostIP: 10.9.9.{0}, podIP: 10.42.{0}.5}}\n"
    topology = adapted(pod.format(1) + pod.format(2))
    assert [(node.name, str(node.addresses[0])) for node in topology.nodes] == [("n1", "10.9.9.1"), ("n2", "10.9.9.2")]
    assert topology.cluster.pod_cidrs == (ip_network("10.42.0.0/16"),)


def test_pods_among_the_nodes_as_clouds_have_them() -> None:
    pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p}\n"
    pod += "spec: {nodeName: a, containers: [{name: a, image: b}]}\nstatus: {phase: Running, podIP: 10.0.12.99}\n"
    topology = adapted(_node("a", "10.0.12.4") + _node("b", "10.0.150.9") + pod + _service("kubernetes", "172.20.0.1"))
    assert [str(lan.cidr) for lan in topology.networks] == ["10.0.0.0/16"]
    assert (str(topology.cluster.pod_cidrs[0]), str(topology.cluster.service_cidrs[0])) == ("10.244.0.0/16", "172.20.0.0/16")
    assert topology.cluster.proxy.detect_local == "none"


def test_nodes_written_by_hand_get_addresses() -> None:
    topology = adapted("apiVersion: v1\nkind: Node\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Node\nmetadata: {name: b}\n")
    assert [str(node.addresses[0]) for node in topology.nodes] == ["192.168.0.2", "192.168.0.3"]
    assert [str(node.pod_cidrs[0]) for node in topology.nodes] == ["10.244.0.0/24", "10.244.1.0/24"]


def test_a_given_topology_keeps_its_own_and_gains_the_objects_nodes() -> None:
    given = read("nodes: 2")
    topology = adapted(_node("node-2", "192.168.0.77", "10.244.9.0/24") + _node("x", "192.168.0.78"), given)
    assert topology.nodes[0] == given.nodes[0]
    assert (topology.nodes[1].name, str(topology.nodes[1].addresses[0]), str(topology.nodes[1].pod_cidrs[0])) == (
        "node-2",
        "192.168.0.77",
        "10.244.9.0/24",
    )
    added = topology.nodes[2]
    assert isinstance(added, NodeSpec)
    assert (added.name, str(added.pod_cidrs[0])) == ("x", "10.244.1.0/24")


def test_cidrs_that_a_file_gives_are_not_overridden() -> None:
    given = read("cluster: {serviceCIDR: 10.96.0.0/16}")
    assert adapted(_service("web", "10.96.3.3"), given) == given
    with pytest.raises(InputError, match=r"10\.254\.0\.9 of the objects lies outside 10\.96\.0\.0/16"):
        adapted(_service("web", "10.254.0.9"), given)


def test_cidrs_that_a_file_leaves_open_are_inferred() -> None:
    topology = adapted(_service("kubernetes", "10.254.0.1"), read("nodes: 2"))
    assert topology.cluster.service_cidrs == (ip_network("10.254.0.0/16"),)
    assert len(topology.nodes) == 2


# ---------------------------------------------------------------- options of another mode

OPTIONS = """cluster:
  proxy:
    mode: {mode}
    layout: maps
    scheduler: wrr
    backend: legacy
    syncPeriod: 5s
    bridgeInterface: br0
    localhostNodePorts: true
    masqueradeAll: true
    conntrackTCPBeLiberal: false
"""


@pytest.mark.parametrize(
    ("mode", "lines"),
    [
        ("iptables", {4, 5, 7, 8}),
        ("nftables", {5, 6, 7, 8, 9}),
        ("ipvs", {4, 8, 9}),
        ("userspace", {4, 5, 7, 8, 9, 10}),
    ],
)
def test_options_that_the_mode_does_not_know_get_a_warning(tmp_path: Path, mode: str, lines: set[int]) -> None:
    path = tmp_path / "t.yaml"
    path.write_text(OPTIONS.format(mode=mode))
    _, _, warnings = read_inputs(path, ())
    assert {int(text.removeprefix(f"{path}:").partition(":")[0]) for text in warnings} == lines
    assert all(
        text.startswith(f"{path}:{text.removeprefix(f'{path}:').partition(':')[0]}:5: cluster.proxy.") for text in warnings
    )
    if 4 in lines:
        assert warnings[0] == f"{path}:4:5: cluster.proxy.layout: has no effect in mode {mode}, only in nftables"


def test_options_are_judged_in_the_mode_that_is_run(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("cluster: {proxy: {mode: iptables, scheduler: sh, detectLocal: BridgeInterface, bridgeInterface: cni0}}")
    config = manifest.read_topology(manifest.Source(str(path), path.read_bytes())).cluster.proxy
    assert read_inputs(path, (), proxy="ipvs")[2] == ()
    assert unused(path, [config, config.as_variant("ipvs")]) == ()
    assert unused(path, [config, config.as_variant("nftables")]) == (
        f"{path}:1:35: cluster.proxy.scheduler: has no effect in mode iptables or nftables, only in ipvs",
    )
    path.write_text("cluster: {proxy: {mode: nftables, layout: maps, localhostNodePorts: false, scheduler: null}}")
    value, _, warnings = read_inputs(path, (), proxy="nftables-maps")
    assert (value.cluster.proxy.variant, warnings) == ("nftables-maps", ())
    value, _, warnings = read_inputs(path, (), proxy="nftables")
    assert (value.cluster.proxy.variant, warnings) == ("nftables-maps", ()), "the mode was named, and nothing else"
    value, _, (warning,) = read_inputs(path, (), proxy="nftables-chains")
    assert value.cluster.proxy.variant == "nftables" and "`--proxy nftables-maps` is layout maps" in warning
    assert read_inputs(None, ())[2] == ()


def test_the_table_of_options_in_the_docs_is_complete_and_right() -> None:
    text = (Path(__file__).parent.parent / "docs" / "planning.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| ([\w, ]*)\|$", text, re.MULTILINE))
    fields = own_fields.TABLES["ProxyConfig"].split()
    assert rows.keys() == {one.partition(":")[0] for one in fields}
    assert {name: modes.strip() for name, modes in rows.items()} == {
        name: ", ".join(KNOWN_IN.get(name, ())) or ("" if name == "mode" else "all") for name in rows
    }
