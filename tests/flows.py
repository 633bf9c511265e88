"""The offline suite of flows: every packet of the spec's cases and of the verdict table, and more to the same Services.

`problems` compares the tracer's answer with the oracle's, word by word. Shared by the suites that break plans on purpose.
"""

from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address

from netlab.model import Flow, Outcome, Protocol, Ref
from netlab.trace import Trace
from tests import spec

PLAIN = {"ready": True, "serving": True, "terminating": False}
MANY = spec.Case(
    "three-endpoints",
    "TCP, UDP and SCTP on one port, three endpoints each; ExternalName and a guarded node address beside it",
    (
        {
            "name": "web",
            "type": "NodePort",
            "clusterIP": "10.96.0.10",
            "externalTrafficPolicy": "Local",
            "ports": [
                {"name": proto.lower(), "port": 80, "targetPort": 8080 + at, "protocol": proto, "nodePort": 30080}
                for at, proto in enumerate(("TCP", "UDP", "SCTP"))
            ],
        },
        {
            "name": "away",
            "type": "ExternalName",
            "clusterIP": "10.96.0.11",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
        {
            "name": "guarded",
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.12",
            "ports": [{"name": "http", "port": 81, "targetPort": 8080, "protocol": "TCP"}],
            "loadBalancerIPs": [{"ip": "192.168.51.10"}],
            "loadBalancerSourceRanges": ["198.51.100.0/24"],
        },
    ),
    tuple(
        {"service": service, "ip": address, "node": node, **PLAIN}
        for service, address, node in (
            ("web", "10.244.1.5", "node-a"),
            ("web", "10.244.1.6", "node-a"),
            ("web", "10.244.2.5", "node-b"),
            ("away", "10.244.1.5", "node-a"),
            ("guarded", "10.244.1.5", "node-a"),
        )
    ),
    {"nodePortAddresses": ["0.0.0.0/0"]},
    tuple(
        {"packet": {"from": "pod-on-node", "srcIP": "10.244.1.9", "to": to, "port": port, "proto": proto}}
        for proto in ("TCP", "UDP", "SCTP")
        for to, port in (
            ("10.96.0.10", 80),
            ("10.96.0.11", 80),
            ("192.168.51.10", 81),
            ("192.168.50.10", 30080),
            ("192.168.50.11", 30080),
            ("192.168.50.100", 30080),
        )
    ),
)
"""A case of our own, for what none of the file has: other protocols, more endpoints, other machines' node ports."""

OPEN = spec.Case(
    "node-ports-of-every-protocol",
    "NodePorts of TCP, UDP and SCTP with policy Cluster",
    tuple(
        {
            "name": f"open-{proto.lower()}",
            "type": "NodePort",
            "clusterIP": f"10.96.0.{20 + at}",
            "ports": [{"name": "x", "port": 80, "targetPort": 8080, "protocol": proto, "nodePort": 30090 + at}],
        }
        for at, proto in enumerate(("TCP", "UDP", "SCTP"))
    ),
    tuple(
        {"service": f"open-{proto}", "ip": f"10.244.{node}.{5 + at}", "node": f"node-{'ab'[node - 1]}", **PLAIN}
        for at, proto in enumerate(("tcp", "udp", "sctp"))
        for node in (1, 2)
    ),
    {"nodePortAddresses": ["192.168.50.0/24"]},
    tuple(
        {"packet": {"from": "external", "srcIP": "203.0.113.50", "to": to, "port": 30090 + at, "proto": proto}}
        for at, proto in enumerate(("TCP", "UDP", "SCTP"))
        for to in ("192.168.50.10", "192.168.51.10")
    ),
)
"""NodePorts that every protocol has, and an address of the node that does not serve them."""

CASES = (*(case for case in (*spec.load_cases(), *spec.load_verdicts()) if case.services), MANY, OPEN)
NODE, HOST = Ref("node", "", "node-a"), Ref("host", "", "client")
UNALLOCATED = "10.96.77.7"


@cache
def flows_of(case_id: str) -> tuple[Flow, ...]:
    """The case's own packets; and, for the cases of the file, other senders, ports and addresses."""
    case = next(case for case in CASES if case.id == case_id)
    flows = dict.fromkeys(spec.flow_of(packet, case) for packet in case.packets)
    if "/" not in case_id:
        flows |= dict.fromkeys(_more(case, tuple(flows)))
    return tuple(flows)


def _more(case: spec.Case, own: tuple[Flow, ...]) -> Iterator[Flow]:
    for flow in own:
        for sender, source in ((NODE, "192.168.50.10"), (HOST, "203.0.113.50"), (flow.sender, str(flow.source))):
            for address, port in (
                (str(flow.destination), flow.port),
                (str(flow.destination), flow.port + 1),
                (UNALLOCATED, flow.port),
                ("192.168.51.10", flow.port),
                ("127.0.0.1", flow.port),
            ):
                if sender.kind != "pod" or address != "127.0.0.1":
                    yield Flow(sender, ip_address(source), ip_address(address), port, flow.protocol)
    for service in case.services:
        if service.get("healthCheckNodePort"):
            for address in ("192.168.50.10", "192.168.51.10"):
                yield Flow(HOST, ip_address("203.0.113.50"), ip_address(address), service["healthCheckNodePort"], Protocol.TCP)


def problem(expected: Outcome, traced: Trace) -> str:
    """'' when the rules do what Kubernetes says; else the first difference."""
    outcome = traced.outcome
    if outcome.kind is not expected.kind:
        return f"{outcome.kind}, expected {expected.kind}"
    if outcome.backends != expected.backends:
        return f"to {_listed(outcome)}, expected {_listed(expected)}"
    if [one.fate for one in outcome.backends] != [one.fate for one in expected.backends]:
        return "a backend has another fate than expected"
    if outcome.affinity != expected.affinity:
        return f"session affinity {outcome.affinity}, expected {expected.affinity}"
    return "" if traced.even else "the backends are not equally likely"


def _listed(outcome: Outcome) -> str:
    return ", ".join(f"{b.address}:{b.port}{' masqueraded' if b.masqueraded else ''}" for b in outcome.backends) or "nothing"
