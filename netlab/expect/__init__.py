"""The oracle: what Kubernetes says must become of a flow. It reads the Cluster and knows no rule of any proxy mode.

Two questions. `expect_at`: what one node's Service proxy does with a packet (as the behaviour table puts it). `expect`: what
becomes of a flow in the whole lab, the way there and the answer's way back included. It refuses to know plans, chains and maps,
and imports no planner and no tracer: what those get wrong must show against it.

How `expect` thinks. Places (pods, nodes, hosts, the router) forward to each other along the topology (places.py). At each node
the packet meets the Service proxy once (policy.py, or ipvs.py and userspace.py for these modes); a Service sends it to one of
several backends, so the walk branches (walk.py). A branch ends at an address that answers, refuses, or does not exist. An
answer must then find its way back, and must pass every node that rewrote the packet, or the client does not recognise it: with
the source kept, the answer of a pod on another node takes its own way.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from netlab.expect.deciding import decide
from netlab.expect.places import lab_of, place_of
from netlab.expect.policy import Packet, device_of_pods
from netlab.expect.walk import send
from netlab.model import Backend, Cluster, Flow, Outcome, OutcomeKind

Origin = Literal["pod", "node", "external"]


def expect_at(cluster: Cluster, node_name: str, flow: Flow, origin: Origin) -> Outcome:
    """What the Service proxy of one node does with a packet that enters there: from a pod of it, from itself, or from outside.

    DELIVERED with every endpoint that may be chosen, REJECTED, DROPPED, or NOT_HANDLED (no rule matches). Whether the
    endpoints exist and listen, and what the rest of the lab does, is not asked. Raises: KeyError for an unknown node.
    """
    device = {"pod": device_of_pods(cluster), "node": "", "external": "eth0"}[origin]
    packet = Packet(flow.source, flow.destination, flow.port, flow.protocol)
    decision = decide(cluster, cluster.nodes[node_name], packet, device)
    spread = "turns" if decision.relayed else decision.spread
    return Outcome(decision.kind, decision.backends, decision.affinity, decision.why, spread)


def expect(cluster: Cluster, flow: Flow, patience_s: float = 1.0) -> Outcome:
    """What becomes of a flow in the lab: its sender's packet, every branch, and the answer. Never NOT_HANDLED.

    `patience_s`: how long the sender waits; it counts where a proxy process tries endpoints that do not answer.
    Raises: KeyError when the sender does not exist or has no address yet.
    """
    lab = lab_of(cluster)
    packet = Packet(flow.source, flow.destination, flow.port, flow.protocol)
    ends = tuple(send(lab, place_of(lab, flow.sender), packet, patience_s))
    fates = {end.fate for end in ends}
    if fates & {OutcomeKind.DELIVERED, None}:
        kind = OutcomeKind.DELIVERED
    else:
        kind = OutcomeKind.REJECTED if OutcomeKind.REJECTED in fates else OutcomeKind.DROPPED
    backends = _merged(end.backend for end in ends if end.backend is not None)
    reasons = dict.fromkeys(end.why for end in ends if end.why)
    spreads = {end.spread for end in ends}
    spread: Literal["random", "turns", "any"] = "any" if "any" in spreads else "turns" if "turns" in spreads else "random"
    alone = {end.fate for end in ends if end.backend is None and end.fate is not None}
    also = tuple(sorted(alone - (set() if backends else {kind})))
    return Outcome(kind, backends, any(end.affinity for end in ends), "; ".join(reasons), spread, also)


def _merged(backends: Iterable[Backend]) -> tuple[Backend, ...]:
    """Each backend once, with all the sources that it may see: it may be reached through several nodes."""
    given = tuple(backends)
    if len(given) < 2:
        return given
    found: dict[Backend, Backend] = {}
    for one in given:
        known = found.get(one)
        sources = one.sources if known is None else tuple(dict.fromkeys((*known.sources, *one.sources)))
        found[one] = replace(known or one, sources=sources)
    return tuple(sorted(found.values()))
