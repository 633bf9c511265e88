"""`explain` as the API serves it: one packet, what the oracle and the offline trace say of it, what was witnessed, the story.

The document is described in docs/explain.md; its names are stable.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from ipaddress import ip_address
from typing import Any

from netlab import overlay
from netlab.errors import InputError
from netlab.expect import expect
from netlab.judge import judge
from netlab.lab import by_arrival, explaining_relays, probing, routing_http
from netlab.lab.holder import Lab
from netlab.lab.naming import Names, names_of
from netlab.lab.probing import Body, Later, Question
from netlab.lab.receiving import Names as Receivers
from netlab.lab.receiving import name_of, receivers
from netlab.model import Backend, Cluster, Judgement, Observation, OutcomeKind, Verdict
from netlab.observe.remedies import Death, remedies
from netlab.ops import RelayPort
from netlab.plan import Plan
from netlab.probes import agreement, live, story, story_parts
from netlab.probes.planned_rules import PlannedRules
from netlab.probes.witnessed import Errand, Witnessed
from netlab.targets import addresses_of, netns_of, shared_netns
from netlab.trace import Trace, Tracer

TIMEOUT_S = 0.3
CONNECTION_S = 1.0
LIVE_S = 300.0
UNPLANNED = "the kernel did otherwise than planned: `netlab verify` says what differs, `netlab verify --repair` mends it"


def explain(lab: Lab, body: Body, later: Later) -> None:
    """{"from", "to", "protocol", "source", "source_port", "timeout_s", "live_s", "namespace"} -> the packet's story.

    `live_s`: no packet is sent, one of a program of the sender's is waited for so long. `check`: {"from", "to", "what"} at
    once, what would be sent or waited for.
    """
    timeout_s = TIMEOUT_S if body.get("timeout_s") is None else body["timeout_s"]
    question = probing.ask(lab, {**body, "count": 1, "timeout_s": timeout_s})
    live_s = _live_s(body, question)
    sender = netns_of(lab.cluster, question.sender)
    if body.get("check"):
        what = live.WORDS.get(question.flow.protocol)
        later(True, {"from": str(question.sender), "to": question.destination.label, "what": what})
        return
    cluster, plan = lab.cluster, lab.plan
    places = {netns: lab.netns_path(netns) for netns in lab.kernel.fds}

    def seen(ok: bool, answer: Any) -> None:
        if not ok:
            return later(False, answer)
        asked = question if not live_s else of_live(cluster, plan, question, answer)
        found, taken = document(cluster, plan, asked, sender, answer)
        if taken is None:
            return later(True, found)
        names = receivers(cluster)

        def connected(ok: bool, answer: Any) -> None:
            if not ok:
                return later(False, answer)
            result = probing.result(lab, whole, answer, names)
            return later(True, explaining_relays.joined(found, result, taken, cluster, question.flow))

        # A port of its own: the packet's connection may still be remembered at its old one.
        whole = replace(question, flow=replace(question.flow, source_port=0), timeout_s=CONNECTION_S)
        return lab.agents.work(connected, "probe", probing.request(lab, whole, names, probing.watch_list(lab)))

    sources = (question.flow.source,) if body.get("source") else addresses_of(cluster, question.sender)
    tunnel = overlay.PORT if overlay.is_used(cluster) else 0
    own = replace(question.flow, source_port=question.flow.source_port or (0 if live_s else lab.ports.take(sender, 1)))
    lab.agents.work(seen, "explain", Errand(sender, own, places, question.timeout_s, live_s, sources, tunnel))


def _live_s(body: Body, question: Question) -> float:
    """How long a real program's packet is waited for; 0: one is sent. Raises InputError."""
    if body.get("live_s") is None:
        return 0.0
    live_s = float(body["live_s"])
    if not 0 < live_s <= LIVE_S:
        raise InputError(f"live: {live_s:g} s: wait more than 0 and at most {LIVE_S:g} seconds")
    if question.flow.protocol not in live.FOLLOWED:
        raise InputError(
            f"live: a TCP connection, a UDP datagram or a ping can be waited for, not {question.flow.protocol}; "
            "without live a packet is sent"
        )
    return live_s


def of_live(cluster: Cluster, plan: Plan, question: Question, seen: Witnessed) -> Question:
    """The question as the program that was watched asked it: its own source address and port."""
    flow, patience_s = seen.flow, question.timeout_s
    traced = Tracer(plan).trace(flow, shared_netns(cluster, flow.sender), patience_s)
    return replace(question, flow=flow, expected=expect(cluster, flow, patience_s), traced=traced.outcome)


def _death(told: story.Story, agreed: agreement.Agreement) -> Death | None:
    """Where and how the packet ended, when it did not arrive or its answer did not come back."""
    if told.outcome == "delivered":
        return None
    end = told.hops[-1]
    killer = next((one for one in (*told.hops, *told.reply) if one["event"] in ("dropped", "rejected")), end)
    return Death(
        killer["netns"], told.outcome, killer["chain"] is not None, killer.get("planned", True) is not False,
        end["event"] == "delivered", ip_address(end["packet"]["dst"]), end["packet"]["dport"],
        agreed.path is not None and agreed.path.why.endswith(" is down"), told.answer,
    )  # fmt: skip


def _choice(told: story.Story, traced: Trace, names: Receivers) -> dict[str, Any] | None:
    """The balancing decision: its rule, whose it is, its odds, and the backend that was chosen. None where there was none."""
    choice = told.choice
    if choice is None:
        return None
    rule = (choice["chain"], choice["rule"])
    owners = (one["owner"] for one in told.hops if one["event"] == "rule" and (one["chain"], one["rule"]) == rule)
    owner = choice["owner"] if choice["owner"] is not None else next(owners, None)
    end = told.hops[-1]
    return choice | {"owner": owner, "odds": odds(traced.weights, end, choice["backends"]), "chosen": receiver(end, names)}


def document(
    cluster: Cluster, plan: Plan, question: Question, sender: str, seen: Witnessed
) -> tuple[dict[str, Any], RelayPort | None]:
    """What `explain` answers; the port of a proxy process, where that is as far as this packet went."""
    names = receivers(cluster)
    source = source_of(cluster, question)
    told, silent = by_arrival.told(story.tell(seen, plan, sender, source), question.flow.protocol)
    traced = Tracer(plan).trace(question.flow, sender, question.timeout_s)
    taken = explaining_relays.taken_by(plan, told)
    if taken is not None:
        traced = explaining_relays.first_half(traced, told, taken)
    agreed = agreement.compare(traced, told, seen, PlannedRules(plan, question.flow.destination.version))
    observation = observed(told, seen, names)
    if silent:
        observation = replace(observation, evidence=(by_arrival.SILENT,))
    verdict = _verdict(question, observation, agreed, names)
    why, advice = _reasons(cluster, question, told, agreed)
    asked = Namer(names_of(cluster))
    for event in (*told.hops, *told.reply):
        asked.name(event)
    end = told.hops[-1]
    found = {
        "from": str(question.sender),
        "to": question.destination.label,
        **cluster.topology.cluster.proxy.told,
        "verdict": str(verdict.judgement),
        "outcome": told.outcome,
        "arrived_at": receiver(end, names) if end["event"] == "delivered" else None,
        "packet": story_parts.shown(replace(question.flow, source_port=seen.flow.source_port)),
        "hops": told.hops,
        "nat": told.nat,
        "conntrack": {netns: list(rows) for netns, rows in seen.conntrack.items() if rows},
        "choice": _choice(told, traced, names),
        "reply": told.reply,
        "flooded": told.flooded,
        "carried": told.envelopes,
        "why": [*why, *(line for line in verdict.why if line not in why and verdict.judgement is not Judgement.PASS)],
        "remedies": advice,
        "expected": probing.expectation(question.expected, names),
        "trace_agrees": not agreed.differences,
        "disagreements": list(agreed.differences),
        "traced": list(seen.traced),
        "notes": [
            *seen.notes,
            *borrowed(cluster, question, source),
            *flow_notes(told, seen),
            *silent,
            *routing_http.passing(cluster, question.destination, question.flow.port),
        ],
        "names": {str(address): name for (address, _), name in names.items()},
    }
    return found, taken


def _verdict(question: Question, seen: Observation, agreed: agreement.Agreement, names: Receivers) -> Verdict:
    """As a probe's; and what the rules did otherwise than the offline trace says is a failure, too."""
    exact = {(one.address, one.port): name_of(one.address, one.port, names) for one in question.expected.backends}
    unseen = by_arrival.unseen_refusal(question.expected, seen)
    verdict = unseen or judge(question.expected, question.traced, seen, source=question.flow.source, names=exact)
    if agreed.differences and verdict.judgement is Judgement.PASS:
        return replace(verdict, judgement=Judgement.FAIL)
    return verdict


def _reasons(cluster: Cluster, question: Question, told: story.Story, agreed: agreement.Agreement) -> tuple[list[str], list[str]]:
    """Why the packet did not arrive, or its answer not come back; and what would mend that."""
    why = [told.where] if told.where else []
    death = _death(told, agreed)
    if death is None:
        return why, []
    if told.culprit is None and not death.arrived and agreed.path is not None and agreed.path.why:
        why.append(f"the offline trace: {agreed.path.why}")
    advice = list(remedies(cluster, question.flow, death))
    if agreed.differences and not any("netlab verify" in line for line in advice):
        advice.append(UNPLANNED)
    return why, advice


def source_of(cluster: Cluster, question: Question) -> story.Source:
    address = question.flow.source
    if address in addresses_of(cluster, question.sender) or address.is_loopback:
        return story.Source.OWN
    return story.Source.ANOTHERS if names_of(cluster).owner(address) else story.Source.NOBODYS


def borrowed(cluster: Cluster, question: Question, source: story.Source) -> Iterator[str]:
    """What a source address that is not the sender's means for the answer."""
    address = question.flow.source
    match source:
        case story.Source.OWN:
            pass
        case story.Source.ANOTHERS:
            owner = names_of(cluster).owner(address)
            yield f"{address} is no address of {question.sender}: the answer goes to {owner}, and counts when it gets there"
        case story.Source.NOBODYS:
            yield f"{address} is nobody's in this lab: the answer leads nowhere, and that there is one counts"


def flow_notes(told: story.Story, seen: Witnessed) -> Iterator[str]:
    """What is peculiar to a packet in the middle of a flow, or to a program's that nobody answers."""
    if told.remembered:
        yield f"a packet of this flow passed {', '.join(told.remembered)} before: it met NAT rules, which chose the endpoint"
    if told.outcome == "delivered" and story.unanswered(seen):
        yield "no answer was seen; that the datagram arrived counts, for not every program wants an answer"


@dataclass(frozen=True, slots=True)
class Namer:
    """Rules that serve every Service at once (flat maps) are there for the one that the packet was sent to when it met them."""

    names: Names

    def name(self, event: story_parts.Event) -> None:
        if event["event"] == "rule" and event["owner"] is None and event["decisive"] and event["did"].startswith("destination "):
            packet = event["packet"]
            found = self.names.destination(ip_address(packet["dst"]), packet["dport"], packet["proto"].lower())
            if found.startswith("svc/"):
                event["owner"] = found.removesuffix(" (node port)").rpartition(":")[0]


def receiver(end: Mapping[str, Any], names: Receivers) -> str:
    address, port = ip_address(end["packet"]["dst"]), end["packet"]["dport"]
    return name_of(address, port, names)


def odds(weights: Mapping[Backend, Fraction], end: Mapping[str, Any], count: int) -> str:
    """The plan's exact probability of this endpoint; where the trace does not know it, one in so many."""
    for backend, weight in weights.items():
        if str(backend.address) == end["packet"]["dst"] and backend.port == end["packet"]["dport"]:
            return str(weight)
    return str(Fraction(1, count))


def observed(told: story.Story, seen: Witnessed, names: Receivers) -> Observation:
    """The one packet as a probe would report it."""
    kind = OutcomeKind(told.outcome)
    end = told.hops[-1]
    backends: dict[str, int] = {}
    sources: dict[str, int] = {}
    arrivals: dict[Any, int] = {}
    if end["event"] == "delivered":
        packet = end["packet"]
        backends[receiver(end, names)] = 1
        sources[packet["src"]] = 1
        arrivals[ip_address(packet["dst"]), packet["dport"], ip_address(packet["src"])] = 1
    left = bool(seen.sightings) or bool(seen.rules) or bool(seen.refused)
    return Observation(
        1, int(kind is OutcomeKind.DELIVERED), int(kind is OutcomeKind.REJECTED), int(kind is OutcomeKind.DROPPED),
        backends, sources, arrivals, (told.where,) if told.where else (), seen.blind, left and not seen.blind,
    )  # fmt: skip
