"""The offline suite of flows: every packet of the spec's cases and of the verdict table, and more to the same Services.

`problems` compares the tracer's answer with the oracle's, word by word. Shared by the suites that break plans on purpose.
"""

from collections.abc import Iterator
from functools import cache
from ipaddress import ip_address

from netlab.model import Flow, Outcome, Protocol, Ref
from netlab.trace import Trace
from tests import spec

CASES = tuple(case for case in (*spec.load_cases(), *spec.load_verdicts()) if case.services)
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
