"""Both proxy modes: where does the first packet of a connection land, and does it keep its source? One row a behaviour."""

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from netlab import proxy
from netlab.errors import InputError
from netlab.model import Cluster, Endpoint, LoadBalancerIngress, Meta, Protocol, Service, ServicePort, ServiceType, SlicePort
from netlab.ops import Listener, Sysctl
from netlab.proxy import iptables, nftables
from netlab.ruleset import Ruleset
from tests.proxy_support import (
    LEAVING,
    NODE,
    NODE_2,
    OTHER_POD,
    OUTSIDE,
    POD,
    cluster,
    everything,
    local,
    remote,
    ruleset,
    service,
    slice_of,
)
from tests.proxy_walk import outcome, packet

MODES = {"iptables": iptables, "nftables": nftables}
LAYOUTS = (*MODES, "maps")
"""Modes, and nftables again with the flat layout."""
VIP, EXTERNAL_IP, CLUSTER_IP = "203.0.113.200", "192.0.2.33", "10.96.0.10"
LOCAL, REMOTE = "10.244.1.5:8080", "10.244.2.5:8080"


def rules(given: Cluster, mode: str) -> Ruleset:
    if mode == "maps":
        topology = given.topology
        proxy_ = replace(topology.cluster.proxy, mode="nftables", layout="maps")
        given = given.with_(topology=replace(topology, cluster=replace(topology.cluster, proxy=proxy_)))
    return ruleset(MODES["nftables" if mode == "maps" else mode].plan(given, given.nodes["node-a"]))


def web(*endpoints: Endpoint, proxy: dict[str, Any] | None = None, zone_a: str = "zone-a", **fields: Any) -> Cluster:
    """One Service with a ClusterIP, a NodePort 30080, a load-balancer IP and an external IP."""
    ports = (ServicePort(80, "http", node_port=30080),)
    fields = {"ports": ports, "vips": (VIP,), "external_ips": (EXTERNAL_IP,)} | fields
    return cluster((service(**fields),), (slice_of("web", *endpoints),), zone_a=zone_a, **(proxy or {}))


BOTH = (local(), remote())


# ---------------------------------------------------------------- the verdict table of kube-proxy's own tests

SENDERS = {"pod": POD, "node": NODE, "external": OUTSIDE}
FRONTENDS = {"ClusterIP": (CLUSTER_IP, 80), "NodePort": (NODE, 30080), "LoadBalancer IP": (VIP, 80)}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "eTP Local": {"external_traffic_policy": "Local"},
    "iTP Local": {"internal_traffic_policy": "Local"},
}
# L: only the local endpoint; B: both. m: masqueraded. In the order of KINDS.
TABLE = {
    ("pod", "ClusterIP"): "B- B- L-",
    ("pod", "NodePort"): "Bm B- Bm",
    ("pod", "LoadBalancer IP"): "Bm B- Bm",
    ("node", "ClusterIP"): "Bm Bm Lm",
    ("node", "NodePort"): "Bm Bm Bm",
    ("node", "LoadBalancer IP"): "Bm Bm Bm",
    ("external", "ClusterIP"): "Bm Bm Lm",
    ("external", "NodePort"): "Bm L- Bm",
    ("external", "LoadBalancer IP"): "Bm L- Bm",
}
SETTINGS: dict[str, dict[str, Any]] = {
    "ClusterCIDR": {},
    "no detector": {"detect_local": "none"},
    "masqueradeAll": {"masquerade_all": True},
    "masqueradeAll, no detector": {"masquerade_all": True, "detect_local": "none"},
}


def verdict(sender: str, frontend: str, kind: str, setting: str) -> str:
    row = dict(zip(KINDS, TABLE[sender, frontend].split(), strict=True))[kind]
    everything_masqueraded, detector = setting.startswith("masqueradeAll"), not setting.endswith("no detector")
    if frontend == "ClusterIP":
        masqueraded = everything_masqueraded or (detector and sender != "pod")
        return row[0] + ("m" if masqueraded else "-")
    if sender == "pod" and kind == "eTP Local" and not detector:
        return "L-"
    return row


@pytest.mark.parametrize("mode", LAYOUTS)
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sender", "frontend"), TABLE, ids=" to ".join)
def test_verdict_table(sender: str, frontend: str, kind: str, setting: str, mode: str) -> None:
    given = web(*BOTH, proxy=SETTINGS[setting], **KINDS[kind])
    expected = verdict(sender, frontend, kind, setting)
    backends = [LOCAL] if expected[0] == "L" else [LOCAL, REMOTE]
    seen = outcome(rules(given, mode), packet(SENDERS[sender], *FRONTENDS[frontend]))
    assert seen == ("endpoints", dict.fromkeys(backends, expected[1] == "m"))


# ---------------------------------------------------------------- rows

ALL = ("endpoints", {LOCAL: True, REMOTE: True})
KEPT = ("endpoints", {LOCAL: False, REMOTE: False})
ONE, FAR = ("endpoints", {LOCAL: False}), ("endpoints", {REMOTE: False})
REJECT, DROP, PASSED = ("reject", dict[str, bool]()), ("drop", dict[str, bool]()), ("not-handled", dict[str, bool]())
Expected = tuple[str, dict[str, bool]]
UDP = (SlicePort("http", 8080, Protocol.UDP),)
LOCAL_POLICY: dict[str, Any] = {"external_traffic_policy": "Local"}
RANGES: dict[str, Any] = {"source_ranges": ("203.0.113.0/25",)}
NODE_RANGE: dict[str, Any] = {"source_ranges": ("198.51.100.0/24", "192.168.50.0/24")}
LAN_2 = {"node_port_addresses": (ip_network("192.168.51.0/24"),)}
EVERYWHERE = {"node_port_addresses": (ip_network("0.0.0.0/0"),)}

# name: (cluster, source, destination, port, expected of iptables, expected of nftables)
ROWS: dict[str, tuple[Cluster, str, str, int, Expected, Expected]] = {
    "undeclared port of a ClusterIP": (web(*BOTH), POD, CLUSTER_IP, 81, PASSED, REJECT),
    "unallocated Service address": (web(*BOTH), POD, "10.96.7.7", 80, PASSED, DROP),
    "undeclared port, from the node": (web(*BOTH), NODE, CLUSTER_IP, 81, PASSED, REJECT),
    "address outside every CIDR": (web(*BOTH), POD, "192.0.2.99", 80, PASSED, PASSED),
    "pod of another node": (web(*BOTH), OTHER_POD, CLUSTER_IP, 80, KEPT, KEPT),
    "NodePort number on another host": (web(*BOTH), POD, "192.168.50.11", 30080, PASSED, PASSED),
    "NodePort on the second address": (web(*BOTH), OUTSIDE, NODE_2, 30080, ALL, PASSED),
    "the same with nodePortAddresses": (web(*BOTH, proxy=LAN_2), OUTSIDE, NODE_2, 30080, ALL, ALL),
    "NodePort where nodePortAddresses is not": (web(*BOTH, proxy=LAN_2), OUTSIDE, NODE, 30080, PASSED, PASSED),
    "every address asked for": (web(*BOTH, proxy=EVERYWHERE), OUTSIDE, NODE_2, 30080, ALL, ALL),
    "primary only": (web(*BOTH, proxy={"node_port_addresses": "primary"}), OUTSIDE, NODE_2, 30080, PASSED, PASSED),
    "NodePort on localhost": (web(*BOTH), "127.0.0.1", "127.0.0.1", 30080, ALL, PASSED),
    "the same, switched off": (
        web(*BOTH, proxy={"localhost_node_ports": False}), "127.0.0.1", "127.0.0.1", 30080, PASSED, PASSED,
    ),
    "localhost where every address is asked for": (
        web(*BOTH, proxy=EVERYWHERE), "127.0.0.1", "127.0.0.1", 30080, ALL, PASSED,
    ),
    "localhost from the LAN": (web(*BOTH), "192.168.50.99", "127.0.0.1", 8080, DROP, PASSED),
    "externalIP": (web(*BOTH), OUTSIDE, EXTERNAL_IP, 80, ALL, ALL),
    "externalIP with policy Local": (web(*BOTH, **LOCAL_POLICY), OUTSIDE, EXTERNAL_IP, 80, ONE, ONE),
    "policy Local, none here": (web(remote(), **LOCAL_POLICY), OUTSIDE, NODE, 30080, DROP, DROP),
    "policy Local, none here, vip": (web(remote(), **LOCAL_POLICY), OUTSIDE, VIP, 80, DROP, DROP),
    "policy Local, none here, from a pod": (web(remote(), **LOCAL_POLICY), POD, VIP, 80, FAR, FAR),
    "policy Local, none anywhere": (web(**LOCAL_POLICY), OUTSIDE, VIP, 80, REJECT, REJECT),
    "internal policy Local, none here": (web(remote(), internal_traffic_policy="Local"), POD, CLUSTER_IP, 80, DROP, DROP),
    "no endpoints, ClusterIP": (web(), POD, CLUSTER_IP, 80, REJECT, REJECT),
    "no endpoints, ClusterIP, from outside": (web(), OUTSIDE, CLUSTER_IP, 80, REJECT, REJECT),
    "no endpoints, NodePort": (web(), OUTSIDE, NODE, 30080, REJECT, REJECT),
    "no endpoints, NodePort, from the node": (web(), NODE, NODE, 30080, REJECT, REJECT),
    # kube-proxy's OUTPUT chain has no jump to KUBE-EXTERNAL-SERVICES.
    "no endpoints, externalIP, from the node": (web(), NODE, EXTERNAL_IP, 80, PASSED, REJECT),
    "not ready": (web(local(ready=False, serving=False)), POD, CLUSTER_IP, 80, REJECT, REJECT),
    "serving, not ready, not leaving": (web(local(ready=False, serving=True)), POD, CLUSTER_IP, 80, REJECT, REJECT),
    "ready wins over leaving": (web(local(**LEAVING), remote()), POD, CLUSTER_IP, 80, FAR, FAR),
    "only leaving ones": (web(local(**LEAVING), remote(**LEAVING)), POD, CLUSTER_IP, 80, KEPT, KEPT),
    "Local falls back by itself": (web(local(**LEAVING), remote(), **LOCAL_POLICY), OUTSIDE, VIP, 80, ONE, ONE),
    "ready although leaving": (web(local(ready=True, terminating=True), remote()), POD, CLUSTER_IP, 80, KEPT, KEPT),
    "source in a range": (web(*BOTH, **RANGES), OUTSIDE, VIP, 80, ALL, ALL),
    "source in no range": (web(*BOTH, **RANGES), "198.51.100.7", VIP, 80, DROP, DROP),
    "ranges do not filter NodePorts": (web(*BOTH, **RANGES), "198.51.100.7", NODE, 30080, ALL, ALL),
    "ranges do not filter externalIPs": (web(*BOTH, **RANGES), "198.51.100.7", EXTERNAL_IP, 80, ALL, ALL),
    "ranges do not filter ClusterIPs": (web(*BOTH, **RANGES), "198.51.100.7", CLUSTER_IP, 80, ALL, ALL),
    "ranges filter pods": (web(*BOTH, **RANGES), POD, VIP, 80, DROP, DROP),
    "a range with the node allows the vip": (web(*BOTH, **NODE_RANGE), VIP, VIP, 80, ALL, ALL),
    "without it the vip is no source": (web(*BOTH, source_ranges=("198.51.100.0/24",)), VIP, VIP, 80, DROP, DROP),
    "a range of all": (web(*BOTH, source_ranges=("198.51.100.0/24", "0.0.0.0/0")), OUTSIDE, VIP, 80, ALL, ALL),
    "blocked, without endpoints": (web(**RANGES), "198.51.100.7", VIP, 80, REJECT, DROP),
    "zone hints": (web(local(zone_hints=("zone-a",)), remote(zone_hints=("zone-b",))), POD, CLUSTER_IP, 80, ONE, ONE),
    "zone hints, one missing": (web(local(zone_hints=("zone-a",)), remote()), POD, CLUSTER_IP, 80, KEPT, KEPT),
    "zone hints, none for this zone": (
        web(local(zone_hints=("zone-c",)), remote(zone_hints=("zone-b",))), POD, CLUSTER_IP, 80, KEPT, KEPT,
    ),
    "zone hints, node without a zone": (
        web(local(zone_hints=("zone-a",)), remote(zone_hints=("zone-b",)), zone_a=""), POD, CLUSTER_IP, 80, KEPT, KEPT,
    ),
    "zone hints of leaving ones do not count": (
        web(local(zone_hints=("zone-a",)), remote(zone_hints=("zone-b",)), remote("10.244.2.6", **LEAVING)),
        POD, CLUSTER_IP, 80, ONE, ONE,
    ),
    "node hints before zone hints": (
        web(local(node_hints=("node-b",), zone_hints=("zone-a",)), remote(node_hints=("node-a",), zone_hints=("zone-b",))),
        POD, CLUSTER_IP, 80, FAR, FAR,
    ),
    "hints do not shrink Local": (
        web(local(zone_hints=("zone-b",)), remote(zone_hints=("zone-a",)), **LOCAL_POLICY), OUTSIDE, VIP, 80, ONE, ONE,
    ),
    "NodeCIDR: pod of this node": (web(*BOTH, proxy={"detect_local": "NodeCIDR"}), POD, CLUSTER_IP, 80, KEPT, KEPT),
    "NodeCIDR: pod of another": (web(*BOTH, proxy={"detect_local": "NodeCIDR"}), OTHER_POD, CLUSTER_IP, 80, ALL, ALL),
    "BridgeInterface: pod": (web(*BOTH, proxy={"detect_local": "BridgeInterface"}), POD, CLUSTER_IP, 80, KEPT, KEPT),
    "BridgeInterface: node": (web(*BOTH, proxy={"detect_local": "BridgeInterface"}), NODE, CLUSTER_IP, 80, ALL, ALL),
    "InterfaceNamePrefix: pod": (
        web(*BOTH, proxy={"detect_local": "InterfaceNamePrefix", "interface_name_prefix": "cni"}),
        POD, CLUSTER_IP, 80, KEPT, KEPT,
    ),
    "InterfaceNamePrefix: outside": (
        web(*BOTH, proxy={"detect_local": "InterfaceNamePrefix"}), OUTSIDE, CLUSTER_IP, 80, ALL, ALL,
    ),
    "headless": (cluster((service(headless=True),), (slice_of("web", *BOTH),)), POD, CLUSTER_IP, 80, PASSED, DROP),
    "ExternalName with a clusterIP": (
        cluster((service(type=ServiceType.EXTERNAL_NAME),), (slice_of("web", *BOTH),)), POD, CLUSTER_IP, 80, PASSED, DROP,
    ),
    "ipMode Proxy": (
        cluster(
            (Service(Meta("web", "default"), ServiceType.LOAD_BALANCER, service().cluster_ips, ports=service().ports,
                     load_balancer=(LoadBalancerIngress(service(vips=(VIP,)).load_balancer[0].ip, ip_mode="Proxy"),)),),
            (slice_of("web", *BOTH),),
        ),
        OUTSIDE, VIP, 80, PASSED, PASSED,
    ),
    "UDP port, TCP packet": (
        cluster((service(ports=(ServicePort(80, "http", Protocol.UDP),)),), (slice_of("web", *BOTH, ports=UDP),)),
        POD, CLUSTER_IP, 80, PASSED, REJECT,
    ),
}  # fmt: skip


@pytest.mark.parametrize("mode", LAYOUTS)
@pytest.mark.parametrize("name", ROWS)
def test_row(name: str, mode: str) -> None:
    given, source, to, port, of_iptables, of_nftables = ROWS[name]
    expected = of_iptables if mode == "iptables" else of_nftables
    fields: dict[str, Any] = {"device": ""} if source == VIP else {}
    assert outcome(rules(given, mode), packet(source, to, port, **fields)) == expected


@pytest.mark.parametrize("mode", LAYOUTS)
def test_protocols_are_separate(mode: str) -> None:
    found = rules(everything(), mode)
    udp = packet(OUTSIDE, NODE, 30053, Protocol.UDP)
    assert outcome(found, udp) == ("endpoints", {"10.244.1.5:5353": True, "10.244.2.5:5353": True})
    assert outcome(found, packet(POD, "10.96.0.12", 53)) == ("endpoints", {"10.244.1.5:5354": False, "10.244.2.5:5354": False})
    assert outcome(found, packet(POD, "10.96.0.12", 53, Protocol.SCTP))[0] == "reject"
    assert outcome(found, packet(OUTSIDE, NODE, 30053))[0] == "not-handled"


@pytest.mark.parametrize("mode", LAYOUTS)
def test_hairpin_is_masqueraded_only_to_itself(mode: str) -> None:
    seen = outcome(rules(web(*BOTH), mode), packet("10.244.1.5", CLUSTER_IP))
    assert seen == ("endpoints", {LOCAL: True, REMOTE: False})


@pytest.mark.parametrize("mode", LAYOUTS)
def test_affinity_keeps_a_client_with_its_endpoint_whatever_the_frontend(mode: str) -> None:
    found = rules(web(*BOTH, session_affinity="ClientIP", affinity_timeout_s=60), mode)
    assert outcome(found, packet(POD, CLUSTER_IP)) == KEPT
    table = next(table for table in found.tables if table.name in ("nat", "kube-proxy"))
    names = [chain.name for chain in table.chains if chain.name.startswith(("KUBE-SEP-", "endpoint-"))]
    lists = [name.replace("endpoint-", "affinity-") for name in names]
    by_list = [outcome(found, packet(POD, CLUSTER_IP, recent=frozenset({one}))) for one in lists]
    assert sorted(map(str, by_list)) == sorted(map(str, (ONE, FAR)))
    through_vip = [outcome(found, packet(OUTSIDE, VIP, recent=frozenset({one})))[1] for one in lists]
    assert [list(one) for one in through_vip] == [list(one) for _, one in by_list]


def test_localhost_node_ports_need_a_sysctl_only_where_they_work() -> None:
    def localnet(mode: str, **config: Any) -> list[str]:
        given = web(*BOTH, proxy=config)
        ops = MODES[mode].plan(given, given.nodes["node-a"])
        return [op.value for op in ops if isinstance(op, Sysctl) and op.key == "net/ipv4/conf/all/route_localnet"]

    assert localnet("iptables") == ["1"]
    assert localnet("iptables", localhost_node_ports=False) == ["0"]
    assert localnet("iptables", node_port_addresses="primary") == ["0"]
    assert localnet("nftables") == ["0"]


def test_every_rule_of_a_service_names_its_owner() -> None:
    for mode in MODES:
        given = everything()
        chains = [chain for table in rules(given, mode).tables for chain in table.chains]
        own = [one for one in chains if "/" in one.name or one.name.startswith(("KUBE-SVC-", "KUBE-SEP-", "KUBE-EXT-"))]
        assert own
        for chain in own:
            owners = {rule.owner for rule in chain.rules}
            assert len(owners) == 1, chain.name
            assert owners <= {one.ref for one in given.services.values()}


def test_plan_covers_every_node_in_the_mode_asked_for() -> None:
    assert {"iptables", "nftables"} <= set(proxy.modes())
    for mode in MODES:
        given = everything(mode=mode)
        ops = [op for op in proxy.plan(given) if op.identity[0] == "ruleset"]
        assert [op.identity for op in ops] == [("ruleset", f"node/{name}", mode) for name in given.nodes]
        one_by_one = tuple(op for node in given.nodes.values() for op in MODES[mode].plan(given, node))
        assert tuple(op for op in proxy.plan(given) if not isinstance(op, Listener)) == one_by_one
    with pytest.raises(InputError, match=r"ebpf.*iptables, ipvs, nftables"):
        proxy.plan(everything(mode="ebpf"))
