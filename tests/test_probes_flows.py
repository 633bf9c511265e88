"""What a packet makes of its flow: the table of answers that count, and of those that do not."""

from ipaddress import IPv4Address

import pytest

from netlab.model import Flow, Observation, OutcomeKind, Protocol, Ref
from netlab.probes.evidence import sentences
from netlab.probes.flows import Batch, Sent, observation
from netlab.probes.packets import Kind, Seen, Template
from netlab.probes.rounds import TURNS, turns
from netlab.probes.values import ProbeRequest

CLIENT, SERVICE, POD = IPv4Address("10.0.0.2"), IPv4Address("10.96.0.80"), IPv4Address("10.244.1.5")
FLOW = Flow(Ref("pod", "default", "client"), CLIENT, SERVICE, 80)
DELIVERED, REJECTED = OutcomeKind.DELIVERED, OutcomeKind.REJECTED


def sent(local: bool = True, protocol: Protocol = Protocol.TCP) -> Sent:
    flow = Flow(FLOW.sender, CLIENT, SERVICE, 0 if protocol is Protocol.ICMP else 80, protocol)
    request = ProbeRequest("client", flow, names={(POD, 0): "pod/default/a"})
    batch = Batch("client", "pod/default/client", flow, request, Template(lambda index, port: b""), local)
    batch.flows.append(Sent(batch, 0, 4000))
    return batch.flows[0]


def answer(kind: Kind, source: IPv4Address = SERVICE, port: int = 80, to: IPv4Address = CLIENT, to_port: int = 4000) -> Seen:
    return Seen(kind, 0, source.packed, to.packed, port, to_port)


def error(kind: int, code: int, to: IPv4Address = SERVICE, port: int = 80) -> Seen:
    quoted = (kind, code, CLIENT.packed, to.packed, 4000, port)
    return Seen(Kind.ICMP_ERROR, 0, IPv4Address("10.0.0.1").packed, CLIENT.packed, 0, 0, quoted)


@pytest.mark.parametrize(
    ("name", "seen", "outcome", "words"),
    [
        ("an answer from whom was asked", answer(Kind.REPLY), DELIVERED, ""),
        ("an answer from the backend itself", answer(Kind.REPLY, POD, 8080), None, "10.244.1.5:8080 instead of 10.96.0.80:80"),
        ("an answer from another port", answer(Kind.REPLY, port=81), None, "10.96.0.80:81 instead"),
        ("an answer to another port", answer(Kind.REPLY, to_port=4001), None, "instead of"),
        ("a reset from whom was asked", answer(Kind.REFUSAL), REJECTED, "RST from 10.96.0.80:80"),
        ("a reset from the backend itself", answer(Kind.REFUSAL, POD, 8080), None, "instead of"),
        ("port unreachable", error(3, 3), REJECTED, "ICMP port unreachable from 10.0.0.1"),
        ("host unreachable", error(3, 1), REJECTED, "ICMP host unreachable"),
        ("prohibited", error(3, 13), REJECTED, "administratively prohibited"),
        ("fragmentation needed", error(3, 4), None, ""),
        ("an error about what was not asked", error(3, 3, POD, 8080), None, "which was not asked"),
        ("time exceeded", error(11, 0), None, "routing loop"),
    ],
)
def test_answers_at_the_sender(name: str, seen: Seen, outcome: OutcomeKind | None, words: str) -> None:
    flow = sent()
    flow.answered(seen)
    assert flow.outcome is outcome
    assert words in flow.detail + flow.stray


@pytest.mark.parametrize(
    ("name", "seen", "outcome"),
    [
        ("an answer leaves the receiver", answer(Kind.REPLY, POD, 8080), DELIVERED),
        ("a reset leaves the receiver", answer(Kind.REFUSAL, POD, 8080), REJECTED),
        ("an ICMP error", error(3, 3), REJECTED),
    ],
)
def test_answers_to_a_foreign_source(name: str, seen: Seen, outcome: OutcomeKind) -> None:
    flow = sent(local=False)
    flow.left_a_receiver(seen)
    assert flow.outcome is outcome


def test_the_first_answer_counts() -> None:
    flow = sent()
    flow.answered(answer(Kind.REFUSAL))
    flow.answered(answer(Kind.REPLY))
    assert flow.outcome is REJECTED


def test_arrivals_are_counted_once_and_apart_from_answers() -> None:
    flow = sent()
    arrival = Seen(Kind.REQUEST, 0, CLIENT.packed, POD.packed, 4000, 8080)
    flow.arrived("pod-a", arrival)
    flow.arrived("pod-a", arrival)
    seen: Observation = observation(flow.batch, (), (), None)
    assert (seen.sent, seen.delivered, seen.dropped) == (1, 0, 1)
    assert (seen.backends, seen.sources) == ({"pod/default/a": 1}, {str(CLIENT): 1})
    assert seen.arrivals == {(POD, 8080, CLIENT): 1}
    assert sentences((flow,)) == ("arrived at pod/default/a (10.244.1.5:8080), but no answer came back",)


def test_a_receiver_without_a_name_is_named_by_address_and_port() -> None:
    flow = sent()
    flow.arrived("node", Seen(Kind.REQUEST, 0, CLIENT.packed, IPv4Address("192.168.0.170").packed, 4000, 30001))
    assert observation(flow.batch, (), (), None).backends == {"192.168.0.170:30001": 1}


def test_one_flow_that_arrives_twice_is_told() -> None:
    flow = sent()
    flow.arrived("pod-a", Seen(Kind.REQUEST, 0, CLIENT.packed, POD.packed, 4000, 8080))
    flow.arrived("node", Seen(Kind.REQUEST, 0, CLIENT.packed, SERVICE.packed, 4000, 80))
    flow.answered(answer(Kind.REPLY))
    assert sentences((flow,))[0].startswith("arrived more than once: pod/default/a (10.244.1.5:8080), 10.96.0.80:80")


@pytest.mark.parametrize(
    ("share", "late_s", "number", "took_s"),
    [
        (1.0, 0.0, TURNS, 0.2),  # silence on an idle machine: the timeout and no more
        (1.0, 1.0, TURNS, 0.2 + TURNS),  # each turn is overslept by a second: there are as many all the same
        (0.5, 0.0, TURNS, 0.2),  # arrivals cut turns short: no time is lost
    ],
)
def test_a_wait_counts_turns_of_this_process(share: float, late_s: float, number: int, took_s: float) -> None:
    times = [0.0]
    waits = []
    for turn in turns(0.2, lambda: times[-1]):
        waits.append(turn)
        times.append(times[-1] + turn * (share if len(waits) < 5 else 1.0) + late_s)
    assert len(waits) in (number, number + 2)  # four halves are two more
    assert times[-1] == pytest.approx(took_s)
