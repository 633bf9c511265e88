"""`explain` in mode userspace: the packet ends at a node's proxy process, which opens a connection of its own.

One packet makes no connection that the process would take, so its story is told up to there, and a real connection is sent right
after it: which endpoint answers is the next in turn. Each half is judged by what was seen of it.
"""

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from netlab.model import Cluster, OutcomeKind, Protocol
from netlab.observe.remedies import Death, remedies
from netlab.ops import Relay, RelayPort
from netlab.plan import Plan
from netlab.probes.story import Story
from netlab.probes.story_parts import event_of
from netlab.probes.witnessed import Shown
from netlab.trace import Trace


def taken_by(plan: Plan, told: Story) -> RelayPort | None:
    """The port of a proxy process at which a TCP packet ended; None for any other end."""
    end = told.hops[-1]
    if end["event"] != "delivered" or end["packet"]["proto"] != "TCP":
        return None
    version = ip_address(end["packet"]["dst"]).version
    for op in plan.ops.values():
        if isinstance(op, Relay) and op.netns == end["netns"]:
            for port in op.ports:
                if (port.protocol, port.port, port.version) == (Protocol.TCP, end["packet"]["dport"], version):
                    return port
    return None


def first_half(traced: Trace, told: Story, port: RelayPort) -> Trace:
    """The offline trace as far as the process: what this packet can have done."""
    netns = told.hops[-1]["netns"]
    paths = []
    for path in traced.paths:
        ends = [at for at, hop in enumerate(path.hops) if hop.netns == netns and hop.left.port == port.port]
        if ends:
            paths.append(replace(path, hops=path.hops[: ends[0] + 1], kind=OutcomeKind.DELIVERED, backend=None))
    return replace(traced, paths=tuple(paths) or traced.paths)


def joined(
    document: Mapping[str, Any], result: Mapping[str, Any], port: RelayPort, cluster: Cluster, flow: Any
) -> dict[str, Any]:
    """The document with its second half: the probe `result` of a connection through the same process."""
    end = document["hops"][-1]
    outcome = next((word for word, number in result["outcomes"].items() if number), "dropped")
    owner = f"svc/{port.name.partition(':')[0]}"
    where = next(iter(result["backends"]), None)
    many = f"one of {len(port.endpoints)} endpoints, in turn" if len(port.endpoints) > 1 else "its only endpoint"
    said = f"opens its own to {where}, {many}" if where else "closes it: there is no endpoint that answers"
    text = f"the proxy process of {end['netns']} takes the connection for {owner} and {said}"
    evidence = ["a connection through the same process right after this packet, watched where it arrived"]
    packet = Shown(*(end["packet"][key] for key in ("src", "dst", "sport", "dport", "proto")))
    event = event_of(end["at"], end["netns"], "", "", packet, "relayed", text, evidence, part="request") | {"owner": owner}
    failed = result["verdict"] != "pass" or document["disagreements"]
    verdict = "fail" if document["disagreements"] and result["verdict"] == "pass" else result["verdict"]
    why = list(result["why"]) if failed else [text]
    advice: list[str] = []
    if outcome != "delivered":
        death = Death(end["netns"], outcome, False, True, False, flow.destination, flow.port)
        advice = list(remedies(cluster, flow, death))
    choice = {"backends": len(port.endpoints), "how": "in turn", "at": end["netns"], "chain": None, "rule": None, "owner": owner,
              "odds": f"1/{len(port.endpoints)}", "chosen": where} if port.endpoints else None  # fmt: skip
    return {
        **document, "verdict": verdict, "outcome": outcome, "arrived_at": where, "expected": result["expected"],
        "hops": [*document["hops"], event], "choice": choice, "relayed": dict(result), "remedies": advice,
        "why": why if failed or outcome != "delivered" else [],
    }  # fmt: skip
