"""Mode ipvs offline: virtual servers, weights, sets and their texts, broken plans, and settings that no case has.

The table of cases and the verdict table ask this mode too: tests/test_expect_spec.py and tests/test_agreement.py.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from netlab import ops, proxy
from netlab.controllers import initial
from netlab.differences import known
from netlab.errors import InputError
from netlab.expect import expect
from netlab.lab.inputs import read_inputs
from netlab.model import Cluster, Endpoint, Flow, Key, Meta, OutcomeKind, Pod, PodSpec, Protocol, Ref, ServicePort
from netlab.plan import build, build_nothing, diff, plan_of, text, text_diff
from netlab.proxy import ipvs
from netlab.proxy.ipvs_sets import TYPES, name_of
from netlab.rendering import ipset, iptables
from netlab.ruleset import InSet, IpSet, Rule
from netlab.trace import Tracer
from tests import mutations, spec
from tests.mutations import Mutation, caught
from tests.proxy_support import cluster, dual_stack, everything, local, remote, service, slice_of

ROOT = Path(__file__).parents[1]
VIP = "203.0.113.200"


def planned(given: Cluster, node: str = "node-a") -> tuple[ops.Op, ...]:
    return ipvs.plan(given, given.nodes[node])


def servers(given: Cluster) -> dict[tuple[str, int, str], ops.VirtualServer]:
    found = (op for op in planned(given) if isinstance(op, ops.VirtualServer))
    return {(str(op.address), op.port, str(op.protocol)): op for op in found}


def real(given: Cluster, address: str, port: int, protocol: str = "TCP") -> list[str]:
    return [f"{one.address}:{one.port}" for one in servers(given)[address, port, protocol].real_servers]


def ruleset(given: Cluster) -> ops.Ruleset:
    (found,) = (op for op in planned(given) if isinstance(op, ops.Ruleset))
    return found


def web(*endpoints: Endpoint, proxy: dict[str, Any] | None = None, **fields: Any) -> Cluster:
    fields = {"ports": (ServicePort(80, "http", node_port=30080),), "vips": (VIP,)} | fields
    return cluster((service(**fields),), (slice_of("web", *endpoints),), **({"mode": "ipvs"} | (proxy or {})))


# ---------------------------------------------------------------- what is planned


def test_every_service_address_is_the_nodes_own_but_those_that_it_has_already() -> None:
    given = web(local(), vips=(VIP, "192.168.51.10"))
    bound = [str(op.address) for op in planned(given) if isinstance(op, ops.DeviceAddress)]
    assert bound == ["10.96.0.10", VIP]
    assert ("192.168.51.10", 80, "TCP") in servers(given)


def test_node_ports_are_served_everywhere_but_on_localhost() -> None:
    assert {address for address, port, _ in servers(web(local())) if port == 30080} == {
        "192.168.50.10",
        "192.168.51.10",
        "10.244.1.1",
    }
    one = web(local(), proxy={"node_port_addresses": (ip_network("192.168.51.0/24"), ip_network("127.0.0.0/8"))})
    assert {address for address, port, _ in servers(one) if port == 30080} == {"192.168.51.10"}


@pytest.mark.parametrize(
    ("fields", "endpoints", "inside", "outside"),
    [
        ({}, (local(), remote()), "LR", "LR"),
        ({"external_traffic_policy": "Local"}, (local(), remote()), "LR", "L"),
        ({"external_traffic_policy": "Local"}, (remote(),), "R", "R"),
        ({"internal_traffic_policy": "Local"}, (local(), remote()), "L", "LR"),
        ({"internal_traffic_policy": "Local"}, (remote(),), "R", "R"),
        ({}, (), "", ""),
    ],
    ids=["Cluster", "eTP Local", "eTP Local, none here", "iTP Local", "iTP Local, none here", "none"],
)
def test_policies(fields: dict[str, Any], endpoints: tuple[Endpoint, ...], inside: str, outside: str) -> None:
    given = web(*endpoints, **fields)
    names = {"L": "10.244.1.5:8080", "R": "10.244.2.5:8080"}
    assert real(given, "10.96.0.10", 80) == [names[one] for one in inside]
    for address, port in ((VIP, 80), ("192.168.50.10", 30080)):
        assert real(given, address, port) == [names[one] for one in outside]


def test_what_only_local_policies_ask_for_has_no_fall_back() -> None:
    given = web(remote(), internal_traffic_policy="Local", ports=(ServicePort(80, "http"),), vips=())
    assert real(given, "10.96.0.10", 80) == []


def test_affinity_is_persistence() -> None:
    given = web(local(), session_affinity="ClientIP", affinity_timeout_s=600)
    assert {op.persistence_s for op in servers(given).values()} == {600}
    assert {op.persistence_s for op in servers(web(local())).values()} == {None}


def weighed(said: str) -> Cluster:
    given = web(replace(local(), target=Ref("pod", "default", "heavy")), remote())
    return given.with_(
        pods={Key("default", "heavy"): Pod(Meta("heavy", "default", annotations={ipvs.WEIGHT: said}), PodSpec(()))}
    )


def test_weights_come_from_pods() -> None:
    found = servers(weighed("7"))["10.96.0.10", 80, "TCP"].real_servers
    assert [one.weight for one in found] == [7, 1]


@pytest.mark.parametrize("said", ["seven", "-1", "65536", "1.5"])
def test_what_is_no_weight_is_told(said: str) -> None:
    with pytest.raises(InputError, match=r"pod/default/heavy: annotation netlab/ipvs-weight: .* is no weight"):
        planned(weighed(said))


def test_sysctls_and_strict_arp() -> None:
    def keys(given: Cluster) -> dict[str, str]:
        return {op.key.rpartition("/")[2]: op.value for op in planned(given) if isinstance(op, ops.Sysctl)}

    plain = {"conntrack": "1", "expire_nodest_conn": "1", "expire_quiescent_template": "1", "route_localnet": "0"}
    assert keys(web(local())) == plain
    assert keys(web(local(), proxy={"strict_arp": True})) == plain | {"arp_ignore": "1", "arp_announce": "2"}


# ---------------------------------------------------------------- sets and texts


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_names_of_sets_fit_and_differ(family: Any) -> None:
    names = [name_of(family, which) for which in TYPES]
    assert len(set(names)) == len(names) == 17
    assert all(len(name) <= 31 for name in names)


def test_every_set_that_a_rule_asks_is_there_in_both_families() -> None:
    value = ruleset(dual_stack(mode="ipvs")).value
    for family in ("ip", "ip6"):
        there = {one.name for one in value.ipsets if one.family == family}
        asked = {
            match.set_name
            for table in value.tables
            if table.family == family
            for chain in table.chains
            for rule in chain.rules
            for match in rule.matches
            if isinstance(match, InSet)
        }
        assert asked <= there
        assert len(asked) > 5


def test_the_number_of_rules_does_not_grow_with_services() -> None:
    def rules(number: int) -> list[Rule]:
        some = tuple(service(f"web-{at}", f"10.96.1.{at + 1}") for at in range(number))
        tables = ruleset(cluster(some, (), mode="ipvs")).value.tables
        return [rule for table in tables for chain in table.chains for rule in chain.rules]

    assert rules(1) == rules(50)


def test_elements_are_spelled_as_ipset_does() -> None:
    key = (ip_address("203.0.113.200"), Protocol.TCP, 80, ip_network("198.51.100.7/32"))
    assert ipset.element(key) == "203.0.113.200,tcp:80,198.51.100.7"
    assert ipset.element((*key[:3], ip_network("198.51.100.0/24"))) == "203.0.113.200,tcp:80,198.51.100.0/24"
    assert ipset.element((ip_address("fd00::1"), Protocol.SCTP, 9)) == "fd00::1,sctp:9"
    assert ipset.element((30080,)) == "30080"


def test_sets_change_by_the_difference_and_before_or_after_the_rules() -> None:
    def one(*ports: int) -> dict[str, ipset.Listed]:
        return ipset.listed([IpSet("ip", "KUBE-NODE-PORT-TCP", "bitmap:port", tuple((port,) for port in ports))])

    assert ipset.before(one(1, 2), one(2, 3)) == "add KUBE-NODE-PORT-TCP 1\n"
    assert ipset.after(one(1, 2), one(2, 3)) == "del KUBE-NODE-PORT-TCP 3\n"
    assert ipset.before(one(1), {}).splitlines() == [
        "create KUBE-NODE-PORT-TCP bitmap:port range 0-65535",
        "add KUBE-NODE-PORT-TCP 1",
    ]
    assert ipset.after({}, one(1)) == "destroy KUBE-NODE-PORT-TCP\n"
    saved = ipset.parsed("create A hash:ip family inet hashsize 64 maxelem 9 bucketsize 12 initval 0x1\nadd A 10.0.0.1\n")
    assert saved["A"].elements == {"10.0.0.1"}
    assert ipset.same_kind(saved["A"], ipset.Listed("hash:ip family inet hashsize 1024 maxelem 65536", frozenset()))
    assert not ipset.same_kind(saved["A"], ipset.Listed("hash:ip family inet6", frozenset()))


def test_rules_are_spelled_as_kube_proxys() -> None:
    lines = [line for rows in iptables.lines(ruleset(everything(mode="ipvs")).value).values() for line in rows]
    comment = '-m comment --comment "Kubernetes nodeport TCP port for masquerade purpose"'
    assert f"-A KUBE-NODE-PORT -p tcp {comment} -m set --match-set KUBE-NODE-PORT-TCP dst -j KUBE-MARK-MASQ" in lines
    asks = "-m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst"
    assert f"-A KUBE-IPVS-FILTER {asks} -j REJECT --reject-with icmp-port-unreachable" in lines
    guarded = ruleset(web(local(), source_ranges=("203.0.113.0/24",)))
    rows = [line for rows in iptables.lines(guarded.value).values() for line in rows]
    assert f"-A KUBE-IPVS-OUT-FILTER -s {VIP}/32 -m ipvs --vproto 6 --vaddr {VIP} --vport 80 -j DROP" in rows


def test_one_endpoint_less_changes_one_virtual_server() -> None:
    before, after = everything(mode="ipvs"), everything(mode="ipvs")
    key = Key("default", "plain-1")
    shrunk = replace(after.slices[key], endpoints=after.slices[key].endpoints[:-1])
    after = after.with_(slices={**after.slices, key: shrunk})
    change = diff(plan_of(planned(before)), plan_of(planned(after)))
    assert [type(op) for op in change.added] == [ops.VirtualServer]
    assert "-  -> 10.244.2.6:8080 weight 1" in text_diff(change)
    assert not change.removed
    assert diff(build_nothing(), plan_of(planned(before))).added[-1] == ruleset(before)


def test_modes_are_told_apart_by_name() -> None:
    assert proxy.modes() == ("iptables", "ipvs", "nftables", "userspace")
    assert proxy.variants() == ("iptables", "ipvs", "nftables", "nftables-maps", "userspace")


# ---------------------------------------------------------------- flows that no case has


def outcomes(given: Cluster, flow: Flow) -> tuple[Any, Any]:
    """The trace's and the oracle's."""

    def told(one: Any) -> tuple[Any, ...]:
        return one.kind, one.backends, one.affinity

    return told(Tracer(build(given)).trace(flow).outcome), told(expect(given, flow))


def a_case(name: str, **settings: Any) -> tuple[Cluster, Flow]:
    case = next(case for case in spec.load_cases() if case.id == name)
    return mutations.proxy(**settings)(spec.cluster_of(case, "ipvs")), spec.flow_of(case.packets[0], case)


NODE = Ref("node", "", "node-a")


@pytest.mark.parametrize(("source", "kind"), [(VIP, OutcomeKind.DROPPED), ("192.168.50.10", OutcomeKind.DELIVERED)])
def test_source_ranges_of_what_the_node_sends(source: str, kind: OutcomeKind) -> None:
    """kubernetes/kubernetes#119656: only a process that has the load balancer's address as source is stopped."""
    given, flow = a_case("lbsr-03")
    away = (ip_network("198.51.100.0/24"),)
    given = mutations.services(lambda one: replace(one, source_ranges=away))(given)
    flow = replace(flow, sender=NODE, source=ip_address(source))
    traced, expected = outcomes(given, flow)
    assert traced[0] is expected[0] is kind  # what is stopped has its real server already, which nobody needs to know
    assert [one.row for one in known(given, flow) if one.apart == {"ipvs"}] == [18]


def test_without_a_detector_a_node_that_sends_from_the_clusterip_is_masqueraded() -> None:
    given, flow = a_case("cip-01", detect_local="none")
    own = replace(flow, sender=NODE, source=flow.destination)
    traced, expected = outcomes(given, own)
    assert traced == expected
    assert [backend.masqueraded for backend in traced[1]] == [True]
    assert 36 in [one.row for one in known(given, own)]
    other = replace(flow, sender=NODE, source=ip_address("192.168.50.10"))
    traced, expected = outcomes(given, other)
    assert traced == expected
    assert [backend.masqueraded for backend in traced[1]] == [False]


def test_what_comes_from_localhost_does_not_leave() -> None:
    given, flow = a_case("cip-01")
    own = replace(flow, sender=NODE, source=ip_address("127.0.0.1"))
    traced, expected = outcomes(given, own)
    assert traced[0] is expected[0] is OutcomeKind.DROPPED
    assert 35 in [one.row for one in known(given, own)]


def test_an_undeclared_port_of_a_load_balancers_address_is_refused() -> None:
    given, flow = a_case("lbsr-01")
    traced, expected = outcomes(given, replace(flow, port=81))
    assert traced == expected
    assert traced[0] is OutcomeKind.REJECTED


def test_weights_are_shares_of_wrr_alone() -> None:
    given = mutations.proxy(scheduler="wrr")(spec.cluster_of(next(c for c in spec.load_cases() if c.id == "cip-03"), "ipvs"))
    case = next(c for c in spec.load_cases() if c.id == "cip-03")
    sound = build(given)
    heavy = plan_of(
        replace(op, real_servers=tuple(replace(one, weight=at + 1) for at, one in enumerate(op.real_servers)))
        if isinstance(op, ops.VirtualServer)
        else op
        for op in sound.ops.values()
    )
    weights = sorted(Tracer(heavy).trace(spec.flow_of(case.packets[0], case)).weights.values())
    assert [float(weight) for weight in weights] == pytest.approx([1 / 3, 2 / 3])


# ---------------------------------------------------------------- plans broken on purpose


def each_server(change: Callable[[ops.VirtualServer], ops.VirtualServer]) -> Callable[[Cluster, Any], Any]:
    return lambda _, whole: plan_of(change(op) if isinstance(op, ops.VirtualServer) else op for op in whole.ops.values())


def without(kind: type) -> Callable[[Cluster, Any], Any]:
    return lambda _, whole: plan_of(op for op in whole.ops.values() if not isinstance(op, kind))


def emptied(which: str) -> Callable[[Cluster, Any], Any]:
    def of_op(op: ops.Op) -> ops.Op:
        if not isinstance(op, ops.Ruleset):
            return op
        kept = tuple(replace(one, elements=()) if one.name == f"KUBE-{which}" else one for one in op.value.ipsets)
        return replace(op, value=replace(op.value, ipsets=kept))

    return lambda _, whole: plan_of(map(of_op, whole.ops.values()))


def moved(one: ops.RealServer) -> ops.RealServer:
    return replace(one, address=one.address + 1)


BROKEN: dict[str, Callable[[Cluster, Any], Any]] = {
    "no virtual servers": without(ops.VirtualServer),
    "no kube-ipvs0 addresses": lambda _, whole: plan_of(
        op for op in whole.ops.values() if not (isinstance(op, ops.DeviceAddress) and op.device == ipvs.DEVICE)
    ),
    "one real server is left out": each_server(lambda op: replace(op, real_servers=op.real_servers[1:])),
    "real servers have no weight": each_server(
        lambda op: replace(op, real_servers=tuple(replace(one, weight=0) for one in op.real_servers))
    ),
    "real servers are their neighbours": each_server(lambda op: replace(op, real_servers=tuple(map(moved, op.real_servers)))),
    "real servers have the wrong port": each_server(
        lambda op: replace(op, real_servers=tuple(replace(one, port=one.port + 1) for one in op.real_servers))
    ),
    "clients are not kept": each_server(lambda op: replace(op, persistence_s=None)),
    "every client is kept": each_server(lambda op: replace(op, persistence_s=10800)),
    "TCP taken for UDP": each_server(
        lambda op: replace(op, protocol=Protocol.UDP) if op.protocol is Protocol.TCP and op.port != 53 else op
    ),
    **{
        f"KUBE-{which} is empty": emptied(which)
        for which in (
            "LOOP-BACK", "CLUSTER-IP", "EXTERNAL-IP", "LOAD-BALANCER", "LOAD-BALANCER-FW", "LOAD-BALANCER-LOCAL",
            "LOAD-BALANCER-SOURCE-CIDR", "NODE-PORT-TCP", "NODE-PORT-LOCAL-TCP", "NODE-PORT-UDP",
            "NODE-PORT-LOCAL-UDP", "NODE-PORT-SCTP-HASH", "IPVS-IPS",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plan_is_told(name: str) -> None:
    assert caught(Mutation(name, BROKEN[name], ("ipvs",)), "ipvs"), "no flow tells this broken plan from a sound one"


# ---------------------------------------------------------------- the page


def test_the_page_shows_a_real_plan() -> None:
    """docs/mode-ipvs.md: every line under `<!-- plan -->` is a line of node-170's plan, in the plan's order within its block."""
    page = (ROOT / "docs" / "mode-ipvs.md").read_text()
    blocks = re.findall(r"<!-- plan -->\n```\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 7
    topology, objects, _ = read_inputs(ROOT / "topologies" / "plain.yaml", [str(ROOT / "manifests" / "shop.yaml")], proxy="ipvs")
    whole = text(build(initial(topology, objects)))
    own = re.search(r"^node/node-170\n(.*?)^\S", whole, re.DOTALL | re.MULTILINE)
    assert own is not None
    there = {line.strip() for line in own[1].splitlines()}
    for block in blocks:
        assert [line for line in block.splitlines() if line.strip() not in there] == []
