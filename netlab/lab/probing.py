"""Probes as the API serves them: resolve, expect, trace, let a worker send and watch, judge, and put it into the contract's
words.

The three answers for one flow meet here. What a worker saw is an Observation, and nothing of the plan reaches it but where
to look.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from netlab import differences
from netlab.differences import Difference
from netlab.errors import InputError
from netlab.expect import expect
from netlab.expect.http import controller_at
from netlab.judge import judge
from netlab.lab import by_arrival, routing_http
from netlab.lab.holder import Lab
from netlab.lab.ranges import SPARE
from netlab.lab.receiving import Names, name_of, receivers
from netlab.lab.verbs import alive
from netlab.memory import last_kept
from netlab.model import Address, Cluster, Flow, Observation, Outcome, Protocol, Ref
from netlab.ops import Relay
from netlab.plan import Plan
from netlab.probes.values import HttpRequest, ProbeRequest, Watched, place
from netlab.targets import Destination, netns_of, resolve_destination, resolve_sender, shared_netns, source_address
from netlab.trace import trace

Body = Mapping[str, Any]
Later = Callable[[bool, Any], None]
MAXIMUM_COUNT = 20_000
MAXIMUM_TIMEOUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """One probe, resolved: what is asked of the kernel."""

    sender: Ref
    destination: Destination
    flow: Flow
    count: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Question:
    """The same with what the oracle and the offline walk say."""

    sender: Ref
    destination: Destination
    flow: Flow
    count: int
    timeout_s: float
    expected: Outcome
    traced: Outcome
    known: tuple[Difference, ...] = ()


def probe(lab: Lab, body: Body, later: Later) -> None:
    """{"from", "to", "count", "protocol", "source", "source_port", "timeout_s", "namespace"} -> a probe result."""
    asked = resolved(lab, body)
    names, watched = receivers(lab.cluster), watch_list(lab)
    questions: list[Question] = []
    answers: list[tuple[bool, Any]] = []

    def met() -> None:
        for question, (ok, answer) in zip(questions, answers, strict=False):  # one of each, once both are there
            later(ok, result(lab, question, answer, names) if ok else answer)

    def seen(ok: bool, answer: Any) -> None:
        answers.append((ok, answer))
        met()

    lab.agents.work(seen, "probe", request(lab, asked, names, watched))
    # What must become of the flow is worked out here while a worker sends it and watches.
    questions.append(answered(lab, asked))
    met()


def ask(lab: Lab, body: Body) -> Question:
    """A request resolved against the cluster as it is now, and what must become of it. Raises InputError."""
    return answered(lab, resolved(lab, body))


def answered(lab: Lab, asked: Asked) -> Question:
    """With what the oracle and the offline walk of the rules say."""
    expected, traced, known = _answers(lab.cluster, lab.plan)(asked.flow, asked.timeout_s)
    return Question(asked.sender, asked.destination, asked.flow, asked.count, asked.timeout_s, expected, traced, known)


Answers = tuple[Outcome, Outcome, tuple[Difference, ...]]


@last_kept
def _answers(cluster: Cluster, plan: Plan) -> Callable[[Flow, float], Answers]:
    """What oracle, offline walk and known differences say of a flow; while the lab does not change, of the last ones at once."""
    return lru_cache(maxsize=256)(
        lambda flow, patience_s: (
            expect(cluster, flow, patience_s),
            trace(plan, flow, patience_s, shared_netns(cluster, flow.sender)).outcome,
            differences.known(cluster, flow),
        )
    )


def resolved(lab: Lab, body: Body) -> Asked:
    """What a request means in the cluster as it is now. Raises InputError."""
    cluster, namespace = lab.cluster, body.get("namespace") or "default"
    sender = alive(lab, resolve_sender(cluster, body["from"], namespace))
    protocol, http = _protocol(body.get("protocol"))
    destination = resolve_destination(cluster, body["to"], namespace, protocol, sender)
    if http and not destination.url_host:
        destination = replace(destination, url_host=place(destination.address, destination.port), path="/")
    source = _address(body["source"]) if body.get("source") else source_address(cluster, sender, destination.address)
    count = int(body.get("count") or 1)
    if not 1 <= count <= MAXIMUM_COUNT:
        raise InputError(f"count {count}: send between 1 and {MAXIMUM_COUNT} flows")
    flow = Flow(
        sender, source, destination.address, destination.port, destination.protocol, _source_port(body.get("source_port"))
    )
    return Asked(sender, destination, flow, count, waiting_s(body))


def waiting_s(body: Body) -> float:
    """How long an answer is waited for: `timeout_s` of the request, a second unless told. Raises InputError."""
    given = body.get("timeout_s")
    seconds = 1.0 if given is None else float(given)
    if not 0 < seconds <= MAXIMUM_TIMEOUT_S:
        raise InputError(f"timeout {seconds:g} s: wait more than 0 and at most {MAXIMUM_TIMEOUT_S:g} seconds")
    return seconds


def _protocol(text: str | None) -> tuple[Protocol | None, bool]:
    match (text or "").lower():
        case "":
            return None, False
        case "http":
            return Protocol.TCP, True
        case name if name.upper() in Protocol.__members__:
            return Protocol[name.upper()], False
        case name:
            raise InputError(f"unknown protocol {name!r}: tcp, udp, sctp, icmp or http")


def _source_port(value: Any) -> int:
    port = int(value or 0)
    if not 0 <= port <= 65535:
        raise InputError(f"source port {port}: a port is a number from 1 to 65535")
    return port


def _address(text: str) -> Address:
    from ipaddress import ip_address

    try:
        return ip_address(text)
    except ValueError:
        raise InputError(f"source {text!r} is no address") from None


# ---------------------------------------------------------------- the worker's part


def watch_list(lab: Lab) -> tuple[Watched, ...]:
    """Every namespace of the lab: pods, nodes and hosts may receive, switches and routers only give evidence."""
    cluster = lab.cluster
    addresses: dict[str, tuple[Address, ...]] = {
        str(pod.ref): pod.addresses for pod in (*cluster.ending.values(), *cluster.pods.values()) if not pod.spec.host_network
    }
    addresses |= {f"node/{node.meta.name}": node.addresses for node in cluster.nodes.values()}
    addresses |= {f"host/{host.name}": host.addresses for host in cluster.topology.hosts}
    passing = {op.netns: frozenset(port.port for port in op.ports) for op in lab.plan.ops.values() if isinstance(op, Relay)}
    return tuple(
        Watched(lab.netns_path(netns), netns, addresses.get(netns, ()), netns in addresses, passing.get(netns, frozenset()))
        for netns in lab.kernel.fds
    )


def request(lab: Lab, question: Asked | Question, names: Names, watched: tuple[Watched, ...]) -> ProbeRequest:
    """What a worker is asked."""
    http = HttpRequest(question.destination.path, question.destination.url_host) if question.destination.url_host else None
    userspace = lab.cluster.topology.cluster.proxy.mode == "userspace"
    # An Ingress controller says the request again, on a connection of its own: only what is said can be followed there, too.
    passing = http is not None and controller_at(lab.cluster, question.flow.destination, question.flow.port) is not None
    home = netns_of(lab.cluster, question.sender)
    return ProbeRequest(
        netns=lab.netns_path(home),
        flow=question.flow,
        count=question.count,
        timeout_s=question.timeout_s,
        watched=watched,
        names=names,
        http=http,
        relayed=(userspace or passing) and question.flow.protocol is Protocol.TCP,
        first_port=0 if question.flow.source_port else lab.ports.take(home, question.count + SPARE),
    )


# ---------------------------------------------------------------- the contract's words


def result(lab: Lab, question: Question, answer: Any, names: Names) -> dict[str, Any]:
    """The probe result document of the contract. `answer` is an Observation, or an HttpResult around one."""
    seen: Observation = getattr(answer, "observation", answer)
    seen, behind = routing_http.split(lab.cluster, question.destination, seen, names)
    exact = {(one.address, one.port): name_of(one.address, one.port, names) for one in question.expected.backends}
    unseen = by_arrival.unseen_refusal(question.expected, seen)
    verdict = unseen or judge(question.expected, question.traced, seen, source=question.flow.source, names=exact)
    document: dict[str, Any] = {
        "from": str(question.sender),
        "to": question.destination.label,
        **lab.cluster.topology.cluster.proxy.told,
        "sent": seen.sent,
        "outcomes": {"delivered": seen.delivered, "rejected": seen.rejected, "dropped": seen.dropped},
        "backends": dict(seen.backends),
        "sources": dict(seen.sources),
        "distribution": None if verdict.p is None else {"test": "chi-square", "p": verdict.p, "alpha": verdict.alpha},
        "expected": expectation(question.expected, names),
        "verdict": str(verdict.judgement),
        "why": list(verdict.why),
    }
    if notes := by_arrival.notes(seen):
        document["notes"] = list(notes)
    if question.known:
        document["differences"] = [{"row": d.row, "text": d.text, "apart": sorted(d.apart)} for d in question.known]
    responses: Sequence[Any] = getattr(answer, "responses", ())
    if responses:
        document["http"] = [
            {"status": one.status, "headers": dict(one.headers), "body": one.body, "problem": one.problem} for one in responses
        ]
    if not verdict.why and seen.evidence and not seen.delivered:
        document["why"] = list(seen.evidence)
    return routing_http.told(lab.cluster, document, question.destination, responses, behind, names)


def expectation(expected: Outcome, names: Names) -> dict[str, Any]:
    """What the oracle said. `masqueraded` is one truth value, or one a backend where they differ."""
    flags = {name_of(one.address, one.port, names): one.masqueraded for one in expected.backends}
    values = set(flags.values())
    document: dict[str, Any] = {
        "outcome": "dropped" if expected.kind == "not-handled" else str(expected.kind),
        "backends": list(flags),
        "masqueraded": values.pop() if len(values) == 1 else False if not values else flags,
    }
    if expected.spread != "random":
        document["spread"] = expected.spread
    if expected.also:
        document["also"] = [str(kind) for kind in expected.also]
    if expected.why:
        document["why"] = expected.why
    return document
