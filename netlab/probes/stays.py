"""The way that a packet took, namespace by namespace: sightings and rules put together into stays. Pure.

Decides which sightings belong to one stay, which rules stand behind which sighting (story.py has the theory), and which sightings
are copies that a switch flooded. Refuses to know what it means.
"""

from collections.abc import Mapping, Sequence

from netlab.ops import Veth
from netlab.plan import Plan
from netlab.probes.story_parts import Stay, past
from netlab.probes.witnessed import RuleMet, Shown, Sighting, Witnessed

Ends = Mapping[tuple[str, str], tuple[str, str]]
"""(namespace, device) -> the other end of that link."""


def links(plan: Plan) -> Ends:
    found: dict[tuple[str, str], tuple[str, str]] = {}
    for op in plan.ops.values():
        if isinstance(op, Veth):
            near, far = (op.netns, op.device), (op.peer_netns, op.peer_device)
            found |= {near: far, far: near}
    return found


class Ways:
    """Both ways of one packet. `flooded`: what they left out."""

    def __init__(self, seen: Witnessed, peers: Ends, sender: str) -> None:
        self._seen, self._peers, self._sender = seen, peers, sender
        self.flooded: list[Sighting] = []

    def stays(self, parts: tuple[str, ...]) -> list[Stay]:
        """The way in one direction, namespace by namespace."""
        waiting: dict[str, list[RuleMet]] = {}
        for rule in self._seen.rules:
            if rule.part in parts:
                waiting.setdefault(rule.netns, []).append(rule)
        accepted = {netns: packet for netns, part, packet in self._seen.accepted if part in parts}
        stays: list[Stay] = []
        for one in self._own(parts):
            stay = stays[-1] if stays and self._goes_on(stays[-1], one) else None
            if stay is None:
                stay = Stay(one.netns)
                stays.append(stay)
            queue = waiting.get(one.netns, [])
            if one.leaving:
                while queue and queue[0].hook in ("output", "postrouting"):
                    stay.rules.append(queue.pop(0))
                stay.departures.append(one)
            else:
                stay.arrivals.append(one)
                self._take(stay, queue, one.device)
        self._leftovers(stays, waiting)
        if "request" in parts:
            if not stays or stays[0].netns != self._sender:
                stays.insert(0, Stay(self._sender))
            flow = self._seen.flow
            if not stays[0].arrivals or stays[0].arrivals[0].device == "lo":
                stays[0].sent = Shown(str(flow.source), str(flow.destination), flow.source_port, flow.port, str(flow.protocol))
                if not flow.port:
                    stays[0].sent = stays[0].sent._replace(sport=0)
        for netns, packet in accepted.items():
            there = [stay for stay in stays if stay.netns == netns]
            if not there:
                stays.append(Stay(netns))
                there = stays[-1:]
            there[-1].accepted = packet
        return stays

    def _own(self, parts: tuple[str, ...]) -> list[Sighting]:
        """Sightings without what a switch flooded to machines that ignored it."""
        own, ignored = self.divided([one for one in self._seen.sightings if one.part in parts])
        self.flooded += ignored
        return own

    def divided(self, mine: Sequence[Sighting]) -> tuple[list[Sighting], list[Sighting]]:
        """What was for those that got it, and the copies."""
        ignored: set[int] = set()
        for number, one in enumerate(mine):
            if one.foreign and not one.port:
                ignored.add(number)
                sent = self._peers.get((one.netns, one.device))
                behind = [at for at in range(number) if mine[at].leaving and (mine[at].netns, mine[at].device) == sent]
                ignored |= set(behind[-1:])
        own = [one for number, one in enumerate(mine) if number not in ignored]
        return own, [mine[number] for number in sorted(ignored)]

    def _goes_on(self, stay: Stay, one: Sighting) -> bool:
        """Whether the sighting belongs to the same stay: out of lo, and in again, is one."""
        if stay.netns != one.netns:
            return False
        return one.leaving or not stay.departures or one.device == "lo"

    def _take(self, stay: Stay, queue: list[RuleMet], device: str) -> None:
        """The rules that follow the packet's coming in through the device."""
        through = bool(stay.rules and stay.rules[-1].hook != "output" and stay.rules[-1].hook != "postrouting")
        while queue and queue[0].hook != "output":
            if queue[0].hook == "prerouting" and (queue[0].in_device != device or (through and past(stay))):
                return
            stay.rules.append(queue.pop(0))

    def _leftovers(self, stays: list[Stay], waiting: Mapping[str, list[RuleMet]]) -> None:
        """Rules of packets that no packet socket saw: those that the sender's own output ended."""
        for netns, rules in waiting.items():
            if not rules:
                continue
            there = next((stay for stay in reversed(stays) if stay.netns == netns), None)
            if there is None:
                there = Stay(netns)
                stays.insert(0, there)
            there.rules += rules
            rules.clear()
