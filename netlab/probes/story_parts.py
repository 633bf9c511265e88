"""What a packet's story is made of: stays, events, routes. Values and small functions; story.py puts them in order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from netlab.model import Flow
from netlab.probes.witnessed import RuleMet, Shown, Sighting

Event = dict[str, Any]
BEFORE_ROUTING = ("prerouting", "output")
SIGHTING = "packet socket on {}, time stamp of the kernel"
TRACE = "the kernel's nftables trace of {}"


@dataclass(slots=True)
class Stay:
    """A part of the way in one namespace: sightings coming in, rules, sightings going out."""

    netns: str
    arrivals: list[Sighting] = field(default_factory=list)
    rules: list[RuleMet] = field(default_factory=list)
    departures: list[Sighting] = field(default_factory=list)
    accepted: Shown | None = None
    sent: Shown | None = None
    """The packet as the sender made it, where the way begins."""

    @property
    def entered(self) -> Shown | None:
        if self.sent is not None:
            return self.sent
        seen = self.arrivals or self.rules or self.departures
        return seen[0].packet if seen else self.accepted

    @property
    def left(self) -> Shown | None:
        if self.departures:
            return self.departures[-1].packet
        return self.accepted or (self.rules[-1].packet if self.rules else self.entered)


def stamp_of(stay: Stay) -> int:
    """When the packet met the namespace's stack: its coming in by the last interface, or its leaving; 0 when it did neither."""
    seen = [one for one in stay.arrivals if one.device != "lo"][-1:] or stay.departures or stay.arrivals
    return seen[0].at if seen else 0


def past(stay: Stay) -> bool:
    return any(rule.hook not in BEFORE_ROUTING for rule in stay.rules if rule.in_device != "lo")


def decisive(rules: Sequence[RuleMet], own: Sequence[bool]) -> list[bool]:
    """Which rules did something, jumps counting where something happened in the chain that they lead to."""
    found = list(own)
    for number, rule in enumerate(rules):
        if not own[number]:
            continue
        chain, run = rule.chain, rule.run
        for before in range(number - 1, -1, -1):
            caller = rules[before]
            if caller.run != run or caller.part != rule.part:
                break
            if caller.verdict in ("jump", "goto") and caller.target == chain:
                found[before], chain = True, caller.chain
    return found


def replace_destination(was: Shown, now: Shown) -> Shown:
    """The packet when its destination is rewritten and its source not yet."""
    return was._replace(dst=now.dst, dport=now.dport)


def end_of(address: str, port: int) -> str:
    """`10.0.0.1:80`, `[fd00::1]:80`; an address alone where the protocol has no ports."""
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def best_route(rows: Iterable[Mapping[str, Any]], destination: str) -> Mapping[str, Any] | None:
    """The route that the kernel takes: the longest prefix, then the lowest metric."""
    goal = ip_address(destination)
    fitting: list[tuple[int, int, int, Mapping[str, Any]]] = []
    for row in rows:
        everywhere = "::/0" if ":" in str(row.get("gateway", "" if goal.version == 4 else ":")) else "0.0.0.0/0"
        network = ip_network(everywhere if row["dst"] == "default" else row["dst"])
        if network.version == goal.version and goal in network:
            fitting.append((-network.prefixlen, int(row.get("metric", 0)), len(fitting), row))
    return min(fitting)[3] if fitting else None


def route_words(row: Mapping[str, Any]) -> str:
    """The route as ip(8) prints it."""
    kind = f"{row['type']} " if "type" in row else ""
    via = f" via {row['gateway']}" if "gateway" in row else ""
    if row.get("nexthops"):  # which of them, a hash of the packet says: the next sighting shows it
        via = f" via one of {', '.join(str(hop.get('gateway', hop.get('dev', ''))) for hop in row['nexthops'])}"
    return f"{kind}{row['dst']}{via}{' dev ' + row['dev'] if 'dev' in row else ''}"


def shown(flow: Flow) -> dict[str, Any]:
    """The packet as it is sent."""
    return as_json(Shown(str(flow.source), str(flow.destination), flow.source_port, flow.port, str(flow.protocol)))


def as_json(shown: Shown) -> dict[str, Any]:
    return shown._asdict()


def event_of(
    at: int, netns: str, device: str, direction: str, packet: Shown, event: str, text: str, evidence: list[str], part: str
) -> Event:
    return {
        "at": at, "netns": netns, "device": device, "direction": direction, "packet": as_json(packet), "event": event,
        "text": text, "table": None, "chain": None, "rule": None, "owner": None, "evidence": evidence,
        **({"part": part} if part else {}),
    }  # fmt: skip
