"""Mode userspace offline: its rules, its ports, and the table of cases with what the old proxier made of them.

DIFFERENT lists every case in which it did otherwise than today's modes, with the reason; that the list is neither too long nor
too short is tested too. Elsewhere the case's own word holds, but that every pod sees the node's address.
"""

from dataclasses import replace

import pytest

from netlab import ops, proxy
from netlab.errors import InputError
from netlab.expect import expect, expect_at
from netlab.model import Backend, Cluster, OutcomeKind, Protocol
from netlab.plan import build, plan_of, text
from netlab.proxy import userspace
from netlab.proxy.port_blocks import every_port
from netlab.ruleset import Dnat, Redirect
from netlab.trace import Tracer
from tests import spec
from tests.agreeing import answers, assert_agree
from tests.spec import Case

V4_CASES = (*spec.load_cases(), *spec.load_verdicts())
CASES = (*V4_CASES, *map(spec.in_ipv6, V4_CASES))
SINGLE = [case for case in CASES if case.single]
FABRICS = ("bridge", "routed")

POLICIES = "it knows no traffic policies"
TERMINATING = "it knows ready endpoints only"
RANGES = "it knows no loadBalancerSourceRanges"
HINTS = "it knows no topology hints"
DIFFERENT = {
    **dict.fromkeys(("etpl-01", "etpl-03", "etpl-11", "etpl-13", "itpl-01", "itpl-03", "itpl-07", "itpl-09"), POLICIES),
    **dict.fromkeys(("topo-07", "term-05"), POLICIES),
    **dict.fromkeys(("term-03", "term-09"), TERMINATING),
    **dict.fromkeys(("lbsr-03", "lbsr-05"), RANGES),
    **dict.fromkeys(("topo-01", "topo-05", "topo-09"), HINTS),
}
FOREIGN = {
    "cip-17": "a sender with an address that is not its own gets no answer, so no connection is made with the proxy process"
}
UDP = "a UDP client keeps its endpoint until it was silent for 0.25 s, whatever became of the endpoint"
NOT_ASKED = {
    "tcp-01": "a connection held open across changes: tests/test_relay.py",
    "hc-01": "the old proxier answered no health checks",
    "hc-03": "the old proxier answered no health checks",
    "udp-01": UDP,
    "udp-03": UDP,
}
"""Cases in steps that do not apply."""
"""Single cases; of the verdict table every row of a service with a Local policy may differ (`is_different`)."""


def in_mode(case: Case, fabric: str = "bridge") -> Cluster:
    return spec.cluster_of(case, "userspace", fabric)


def is_different(case: Case) -> bool:
    if case.id == "np-07" and case.ipv6:
        return True  # today's modes never serve node ports at ::1
    return case.id in DIFFERENT or case.id.endswith(("/itp-local", "/etp-local"))


def name_of(case: Case) -> str:
    return f"{case.id}-v6" if case.ipv6 else case.id


def wanted(case: Case) -> tuple[OutcomeKind, frozenset[Backend]]:
    """The case's own word, every pod seeing the node's address."""
    said = spec.expected_of(case.steps[0], "iptables")
    return said.kind, frozenset(replace(backend, masqueraded=True) for backend in said.backends)


@pytest.mark.parametrize("case", [case for case in SINGLE if not is_different(case)], ids=name_of)
def test_case(case: Case) -> None:
    cluster, packet = in_mode(case), case.packets[0]
    outcome = expect_at(cluster, spec.NODE, spec.flow_of(packet, case), spec.origin_of(packet))
    kind, backends = wanted(case)
    if kind is OutcomeKind.REJECTED and packet["proto"] == "UDP":
        kind = OutcomeKind.DROPPED
    assert outcome.kind is kind, outcome
    assert frozenset(outcome.backends) == backends
    traced = Tracer(build(cluster)).trace(spec.flow_of(packet, case)).outcome
    if case.id in FOREIGN:
        assert traced.kind is OutcomeKind.DROPPED
        return
    if kind is not OutcomeKind.NOT_HANDLED:
        assert traced.kind is kind, traced
    assert backends <= frozenset(traced.backends)


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("name", DIFFERENT)
def test_a_case_listed_as_different_is(name: str, ipv6: bool) -> None:
    (case,) = (case for case in SINGLE if case.id == name and case.ipv6 is ipv6)
    packet = case.packets[0]
    outcome = expect_at(in_mode(case), spec.NODE, spec.flow_of(packet, case), spec.origin_of(packet))
    assert (outcome.kind, frozenset(outcome.backends)) != wanted(case)


@pytest.mark.parametrize("fabric", FABRICS)
@pytest.mark.parametrize("case", [case for case in CASES if case.packets], ids=name_of)
def test_trace_agrees_with_the_oracle(case: Case, fabric: str) -> None:
    for traced, expected in answers(in_mode(case, fabric), case):
        assert_agree(traced.outcome, expected)


def relay(cluster: Cluster) -> ops.Relay:
    (found,) = (op for op in proxy.plan(cluster) if isinstance(op, ops.Relay) and op.netns == f"node/{spec.NODE}")
    return found


def ruleset(cluster: Cluster) -> ops.Ruleset:
    (found,) = (op for op in proxy.plan(cluster) if isinstance(op, ops.Ruleset) and op.netns == f"node/{spec.NODE}")
    return found


def a_case(name: str) -> Case:
    return next(case for case in CASES if case.id == name)


@pytest.mark.parametrize(("fabric", "statement"), [("bridge", Redirect), ("routed", Dnat)])
def test_rules_lead_to_ports_that_the_process_serves(fabric: str, statement: type) -> None:
    """Pods without a bridge come in through interfaces that have no address, and REDIRECT would drop them."""
    cluster = in_mode(a_case("np-01"), fabric)
    served = {port.port for port in relay(cluster).ports}
    (nat,) = (table for table in ruleset(cluster).value.tables if table.name == "nat")
    chains = {chain.name: [rule.statements[0] for rule in chain.rules] for chain in nat.chains}
    for name in ("KUBE-PORTALS-CONTAINER", "KUBE-NODEPORT-CONTAINER"):
        assert chains[name]
        assert all(isinstance(one, statement) for one in chains[name])
    for name in ("KUBE-PORTALS-HOST", "KUBE-NODEPORT-HOST"):
        assert chains[name]
        assert all(isinstance(one, Dnat) for one in chains[name])
    assert {one.port for found in chains.values() for one in found if isinstance(one, Redirect | Dnat)} <= served


def test_a_port_stays_when_other_services_come() -> None:
    fronts = [port.front for port in every_port(in_mode(a_case("np-01")))["ip"]]
    (before,) = (userspace.proxy_ports(fronts[:1]).items(),)
    others = [replace(fronts[0], port_name=f"other-{number}") for number in range(50)]
    after = userspace.proxy_ports([*fronts[:1], *others])
    assert len(set(after.values())) == 51
    assert all(61000 <= number < 65500 for number in after.values())
    assert dict(before).items() <= after.items()


def test_more_service_ports_than_ports_are_refused() -> None:
    front = every_port(in_mode(a_case("np-01")))["ip"][0].front
    with pytest.raises(InputError, match="4500"):
        userspace.proxy_ports([replace(front, port_name=str(number)) for number in range(4501)])


def test_sctp_is_left_alone() -> None:
    case = a_case("np-01")
    raw = dict(case.services[0], ports=[dict(case.services[0]["ports"][0], protocol="SCTP")])
    cluster = in_mode(replace(case, services=(raw,)))
    assert relay(cluster).ports == ()
    flow = replace(spec.flow_of(case.packets[0], case), protocol=Protocol.SCTP)
    assert expect_at(cluster, spec.NODE, flow, "external").kind is OutcomeKind.NOT_HANDLED


def test_the_plan_shows_whose_turn_it_is() -> None:
    shown = text(plan_of(op for op in proxy.plan(in_mode(a_case("np-01"))) if isinstance(op, ops.Relay)))
    assert "proxy process for 1 Service ports" in shown
    assert "in turn" in shown


# ---------------------------------------------------------------- plans broken on purpose


def without_endpoint(op: ops.Op) -> ops.Op:
    if not isinstance(op, ops.Relay):
        return op
    return replace(op, ports=tuple(replace(port, endpoints=port.endpoints[1:]) for port in op.ports))


def without_ports(op: ops.Op) -> ops.Op:
    return replace(op, ports=()) if isinstance(op, ops.Relay) else op


def without_chain(name: str, op: ops.Op) -> ops.Op:
    if not isinstance(op, ops.Ruleset) or op.value.dialect != "iptables":
        return op
    tables = tuple(
        replace(table, chains=tuple(replace(chain, rules=()) if chain.name == name else chain for chain in table.chains))
        for table in op.value.tables
    )
    return replace(op, value=replace(op.value, tables=tables))


BROKEN = {
    "an endpoint is missing": ("np-01", without_endpoint),
    "the process serves nothing": ("np-01", without_ports),
    "no node ports from outside": ("np-01", lambda op: without_chain("KUBE-NODEPORT-CONTAINER", op)),
    "no clusterIPs from pods": ("cip-03", lambda op: without_chain("KUBE-PORTALS-CONTAINER", op)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plan_is_told(name: str) -> None:
    case_id, broken = BROKEN[name]
    case = a_case(case_id)
    cluster, flow = in_mode(case), spec.flow_of(case.packets[0], case)
    plan = build(cluster)
    wrong = Tracer(plan_of(broken(op) for op in plan.ops.values())).trace(flow).outcome
    expected = expect(cluster, flow)
    assert (wrong.kind, wrong.backends) != (expected.kind, expected.backends)
