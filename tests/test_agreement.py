"""Two of the three answers to every packet of the behaviour table: what Kubernetes says (expect), what our rules say (trace).

They share no code. Where they differ, a planner, the oracle or the tracer is wrong. Both modes, both fabrics.
"""

from functools import cache
from random import Random

import pytest

from netlab.model import Outcome, OutcomeKind
from netlab.trace import Trace
from tests import spec
from tests.agreeing import answers, assert_agree, assert_lands

CASES = (*spec.load_cases(), *spec.load_verdicts(), *spec.load_combined())
FABRICS = ("bridge", "routed")
ASKED = [case for case in CASES if case.packets]
SINGLE = [case for case in (*spec.load_cases(), *spec.load_verdicts()) if case.single]


@cache
def traces(case_id: str, mode: str, fabric: str) -> tuple[tuple[Trace, Outcome], ...]:
    case = next(case for case in CASES if case.id == case_id)
    return answers(spec.cluster_of(case, mode, fabric), case)


@pytest.mark.parametrize("fabric", FABRICS)
@pytest.mark.parametrize("mode", (*spec.MODES, spec.MAPS))
@pytest.mark.parametrize("case", ASKED, ids=lambda case: case.id)
def test_trace_agrees_with_the_oracle(case: spec.Case, mode: str, fabric: str) -> None:
    for traced, expected in traces(case.id, mode, fabric):
        if (case.id, mode, expected.kind) == ("i-lb-node", "ipvs", OutcomeKind.DROPPED):
            # What ipvs has rewritten already is dropped: the walk names the backend, the oracle none.
            assert traced.outcome.kind is expected.kind, (traced.outcome.why, expected.why)
            continue
        assert_agree(traced.outcome, expected)
        assert traced.even


@pytest.mark.parametrize("mode", (*spec.MODES, spec.MAPS))
@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.id)
def test_trace_sends_packets_where_the_table_says(case: spec.Case, mode: str) -> None:
    ((traced, _),) = traces(case.id, mode, "bridge")
    assert_lands(traced, spec.expected_of(case.steps[0], mode))


POOL = ("192.0.2.33", "203.0.113.200", "203.0.113.201", "192.168.50.10", "10.96.0.10", "192.168.51.10")
"""External addresses, of the node and of a Service's own among them, few enough to be had by several Services."""
RANGES = (["203.0.113.50/32"], ["10.244.0.0/16"], ["192.168.50.0/24"])
STATES: tuple[spec.Raw, ...] = (
    {},
    {},
    {"ready": False, "serving": True, "terminating": True},
    {"ready": False, "serving": False},
)
SETTINGS: tuple[spec.Raw, ...] = (
    {},
    {"detectLocal": "none"},
    {"masqueradeAll": True},
    {"nodePortAddresses": ["192.168.51.0/24"]},
)
SENDERS = (("pod-on-node", "10.244.1.9"), ("node", "192.168.50.10"), ("external", "203.0.113.50"), ("external", "198.51.100.7"))


def sharing(random: Random) -> spec.Case:
    """Two or three Services that share addresses and ports, and packets to all of them."""
    services, endpoints, steps = [], [], []
    for number, name in enumerate(random.sample(["aaa", "mmm", "zzz"], random.randint(2, 3))):
        kind = random.choice(["ClusterIP", "NodePort", "LoadBalancer"])
        port = {"name": "a", "port": random.choice([80, 80, 30080]), "targetPort": 8080, "protocol": "TCP"}
        service = {"name": name, "type": kind, "clusterIP": f"10.96.0.1{number}", "ports": [port]}
        service |= {"externalIPs": random.sample(POOL, 2), "internalTrafficPolicy": random.choice(["Cluster", "Local"])}
        service["externalTrafficPolicy"] = random.choice(["Cluster", "Local"])
        if kind != "ClusterIP":
            port["nodePort"] = 30080 + number
        if kind == "LoadBalancer":
            service["loadBalancerIPs"] = [{"ip": random.choice(POOL[:4])}]
            service["loadBalancerSourceRanges"] = random.choice(RANGES)
        services.append(service)
        for address in random.sample(["10.244.1.5", "10.244.2.5"], random.randint(0, 2)):
            node = "node-a" if address.startswith("10.244.1.") else "node-b"
            endpoints.append({"service": name, "ip": address, "node": node, **random.choice(STATES)})
    for address in ("10.96.0.11", *POOL):
        for wanted in (80, 30080):
            for kind, source in SENDERS:
                packet = {"from": kind, "srcIP": source, "to": address, "port": wanted, "proto": "TCP"}
                steps.append({"packet": packet})
    return spec.Case("shared", "", tuple(services), tuple(endpoints), random.choice(SETTINGS), tuple(steps))


@pytest.mark.parametrize("seed", range(24))
def test_services_that_share_addresses(seed: int) -> None:
    case = sharing(Random(seed))
    for mode in (*spec.CHAINS, spec.MAPS):
        for traced, expected in answers(spec.cluster_of(case, mode, "bridge"), case):
            assert_agree(traced.outcome, expected)


def test_every_case_with_a_packet_is_asked() -> None:
    assert len(ASKED) >= 170
