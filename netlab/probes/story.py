"""A packet's story, told from what was witnessed: events in order, address translation, the end, and who made which rule.

Pure. Decides the order of events within a namespace, how it ended, and on what each statement rests. Refuses to judge (lab does),
and to guess: where nothing was seen, it says so.

Theory. Sightings carry time stamps, trace messages do not; but those of one namespace are in the kernel's order, and name the
hook. So a rule of prerouting, input, forward or postrouting stands behind the sighting of the packet coming in through the device
that it names, one of output before the packet's leaving. Its `at` is the stamp of the sighting beside it. Routing decides between
prerouting (or output) and what follows; translation shows in the packet before and after.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from netlab.model import NOTHING, Protocol
from netlab.plan import Plan
from netlab.probes import summaries
from netlab.probes.envelopes import CARRIED
from netlab.probes.planned_rules import Known, PlannedRules
from netlab.probes.stays import Ends, Ways, links
from netlab.probes.story_parts import (
    BEFORE_ROUTING,
    SIGHTING,
    TRACE,
    Event,
    Stay,
    as_json,
    best_route,
    decisive,
    end_of,
    event_of,
    replace_destination,
    route_words,
    stamp_of,
)
from netlab.probes.suspects import suspicion
from netlab.probes.witnessed import RuleMet, Shown, Sighting, Witnessed


class Source(Enum):
    """Whose the source address is, and so where answers go."""

    OWN = 1
    ANOTHERS = 2
    NOBODYS = 3


@dataclass(frozen=True, slots=True)
class Story:
    """What `explain` reports but for verdict and reasons. `culprit`: the rule that ended the packet."""

    hops: list[Event]
    reply: list[Event]
    stays: list[Stay]
    outcome: str
    culprit: RuleMet | None
    nat: dict[str, Any] | None
    choice: dict[str, Any] | None
    where: str
    """In a sentence where it ended, and by what."""
    flooded: list[Event] = field(default_factory=list)
    """Copies that a switch sent to machines which ignored them; not part of the way."""
    envelopes: list[Event] = field(default_factory=list)
    """Sightings of the datagrams that carried the packet and its answers between nodes."""
    answer: Literal["none", "lost", "stranger"] = "none"
    """Of a packet that arrived and brought the sender nothing: there was no answer, it was lost, or came from another address."""
    remembered: tuple[str, ...] = ()
    """The namespaces whose conntrack rewrote the packet as an earlier one of its flow, without asking a rule."""


def tell(seen: Witnessed, plan: Plan, sender: str, source: Source = Source.OWN) -> Story:
    """The story of a packet that `sender` (a namespace) sent."""
    planned = PlannedRules(plan, seen.flow.destination.version)
    peers = links(plan)
    teller, ways = _Teller(seen, planned, peers, sender), Ways(seen, peers, sender)
    stays = ways.stays(("request",))
    back = ways.stays(("reply", "refusal", "icmp-error"))
    culprit = _killer(stays)
    outcome = _outcome(seen, sender, source)
    hops = [event for stay in stays for event in teller.events(stay, back=False)]
    reply = [event for stay in back for event in teller.events(stay, back=True)]
    known = planned.find(culprit) if culprit else None
    if culprit is not None:
        hops.append(teller.ended(next(stay for stay in stays if culprit in stay.rules), culprit, known))
    elif not any(one["event"] == "delivered" for one in hops):
        hops.append(teller.lost(stays, outcome))
    if culprit is None and reply and not any(one["event"] == "delivered" for one in reply):
        killer = _killer(back)
        reply.append(
            teller.lost(back, "dropped") if killer is None
            else teller.ended(next(stay for stay in back if killer in stay.rules), killer, planned.find(killer))
        )  # fmt: skip
    if seen.refused and culprit is None:
        hops[-1]["text"] = f"{sender} did not send it: {seen.refused}"
    where = "" if outcome == "delivered" else _where(hops, reply, outcome)
    sums = summaries.nat(stays), summaries.choice(stays, planned)
    flooded = [teller.sighting(one) for one in ways.flooded]
    carriers = [teller.sighting(one) for one in ways.divided(seen.envelopes)[0]]
    remembered = tuple(stay.netns for stay in stays if teller.remembered(stay))
    return Story(hops, reply, stays, outcome, culprit, *sums, where, flooded, carriers, _answer(hops, reply), remembered)


def _killer(stays: Sequence[Stay]) -> RuleMet | None:
    """The rule that ended the packet."""
    return next((rule for stay in stays for rule in stay.rules if rule.verdict == "drop"), None)


def _outcome(seen: Witnessed, sender: str, source: Source) -> str:
    """What the client saw of it."""
    answers = [(part, packet) for netns, part, packet in seen.accepted if netns == sender and part != "request"]
    asked = (str(seen.flow.destination), seen.flow.port)
    for part, packet in answers:
        if part == "icmp-error":
            return "rejected"
        if (packet.src, packet.sport) == asked or not seen.flow.port:
            return "delivered" if part == "reply" else "rejected"
    if source is not Source.OWN:
        taken = {part for _, part, packet in seen.accepted if part != "request" and packet.dst == str(seen.flow.source)}
        if source is Source.NOBODYS:  # that there is an answer is as much as can be had
            taken = {one.part for one in seen.sightings if one.part != "request"}
        back = any(one.part == "reply" and one.netns == sender and not one.foreign for one in seen.sightings)
        if back or "reply" in taken:
            return "delivered"
        if taken:
            return "rejected"
    if seen.refused and "discarded" not in seen.refused:
        return "rejected"
    taken = {part for _, part, _ in seen.accepted}
    return "delivered" if unanswered(seen) and taken == {"request"} else "dropped"


def unanswered(seen: Witnessed) -> bool:
    """A real program's datagram of which no answer was seen: many want none, so that silence says nothing of the way back."""
    return seen.live and seen.flow.protocol is Protocol.UDP and not any(one.part != "request" for one in seen.sightings)


def _where(hops: Sequence[Event], reply: Sequence[Event], outcome: str) -> str:
    last = hops[-1]
    if last["event"] != "delivered":
        return str(last["text"])
    if outcome == "rejected":
        return f"it arrived in {last['netns']}, where nobody listens on port {last['packet']['dport']}: the answer is a refusal"
    if not reply:
        return f"it arrived in {last['netns']}, which sent no answer"
    answer = _answer(hops, reply)
    if answer == "lost" and reply[-1]["event"] != "delivered":
        return f"it arrived in {last['netns']}, and its answer did not get back: {reply[-1]['text']}"
    if answer == "stranger":
        came, asked = reply[-1]["packet"], hops[0]["packet"]
        return (
            f"it arrived in {last['netns']}, but the answer came from {end_of(came['src'], came['sport'])} and not from "
            f"{end_of(asked['dst'], asked['dport'])}: the sender knows of no such connection"
        )
    return f"it arrived in {last['netns']}, but the answer was last seen {_place(reply[-1])}"


def _answer(hops: Sequence[Event], reply: Sequence[Event]) -> Literal["none", "lost", "stranger"]:
    """Where the sender got no answer that it takes for one."""
    if not reply:
        return "none"
    return "stranger" if reply[-1]["event"] == "delivered" and reply[-1]["netns"] == hops[0]["netns"] else "lost"


def _place(event: Event) -> str:
    device = f" on {event['device']}" if event["device"] else ""
    return f"{'leaving' if event['direction'] == 'out' else 'in'} {event['netns']}{device}"


def by_rule(rule: RuleMet) -> str:
    by = f"rule {rule.position + 1} of {rule.chain}" if rule.position >= 0 else f"the policy of {rule.chain}"
    return f"{by} (table {rule.table})"


def named_rule(rule: RuleMet, planned: PlannedRules) -> Event:
    """The keys of an event that say which rule it was."""
    known = planned.find(rule)
    return {
        "hook": rule.hook, "table": rule.table, "chain": rule.chain, "rule": rule.text or None,
        "position": rule.position if rule.position >= 0 else None, "handle": rule.handle or None, "verdict": rule.verdict,
        "did": known.did if known is not None else rule.verdict,
        "planned": known is not None or (rule.position < 0 and planned.policy(rule)),
    }  # fmt: skip


class _Teller:
    def __init__(self, seen: Witnessed, planned: PlannedRules, peers: Ends, sender: str) -> None:
        self._seen, self._planned, self._peers, self._sender = seen, planned, peers, sender

    # ---------------------------------------------------------------- events

    def events(self, stay: Stay, back: bool) -> list[Event]:
        """The stay's events in order."""
        out: list[Event] = [self.sighting(one) for one in stay.arrivals if one.device != "lo"]
        looped = [one for one in stay.arrivals if one.device == "lo"]
        stamp = stamp_of(stay)
        before = [rule for rule in stay.rules if rule.hook in BEFORE_ROUTING]
        out += self._rules(before, stamp)
        entered, left = stay.entered, stay.left
        if entered is not None and left is not None and (entered.dst, entered.dport) != (left.dst, left.dport):
            middle = replace_destination(entered, left)
            out.append(self._nat(stay, stamp, entered, middle, "destination", back))
        if (route := self._route(stay, stamp)) is not None:
            out.append(route)
        out += self._rules([rule for rule in stay.rules if rule.hook not in BEFORE_ROUTING], stamp)
        if entered is not None and left is not None and (entered.src, entered.sport) != (left.src, left.sport):
            out.append(self._nat(stay, stamp, replace_destination(entered, left), left, "source", back))
        out += [self.sighting(one) for one in [*(d for d in stay.departures), *looped]]
        if stay.accepted is not None:
            out.append(self._accepted(stay, out[-1]["at"] if out else stamp, back))
        return out

    def sighting(self, one: Sighting) -> Event:
        word = "leaves" if one.leaving else "enters"
        return event_of(
            one.at, one.netns, one.device, "out" if one.leaving else "in", one.packet, "sent" if one.leaving else "received",
            f"{word} {one.netns} through {one.device}", [SIGHTING.format(one.device)], part=one.part,
        )  # fmt: skip

    def _rules(self, rules: Sequence[RuleMet], stamp: int) -> list[Event]:
        matters_too = decisive(rules, [self._matters(rule) for rule in rules])
        return [self._rule(rule, stamp, matters, self.owner(rules, number)) for number, (rule, matters) in
                enumerate(zip(rules, matters_too, strict=True))]  # fmt: skip

    def owner(self, rules: Sequence[RuleMet], number: int) -> str | None:
        """For which object the rule is there, or, where it serves all, for which one it was called."""
        rule, known = rules[number], self._planned.find(rules[number])
        if known is None or known.owner is not None:
            return str(known.owner) if known is not None else None
        for before in range(number - 1, -1, -1):
            caller = rules[before]
            if (caller.run, caller.part) != (rule.run, rule.part):
                return None
            if caller.verdict in ("jump", "goto") and caller.target == rule.chain:
                return self.owner(rules, before)
        return None

    def _matters(self, rule: RuleMet) -> bool:
        """Whether it did something by itself: not jumping, returning, accepting or the policy."""
        known = self._planned.find(rule)
        if rule.verdict == "drop":
            return True
        return known.effect or known.choice > 0 or known.remembered if known is not None else rule.position >= 0

    def _rule(self, rule: RuleMet, stamp: int, matters: bool, owner: str | None) -> Event:
        known = self._planned.find(rule)
        if rule.position < 0:
            text = f"{rule.chain}: no more rules, the chain's policy is {rule.verdict}"
        elif known is None:
            target = f" {rule.target}" if rule.target else ""
            text = f"{rule.chain}: a rule that is not netlab's ({rule.verdict}{target})"
        else:
            text = f"{rule.chain}: {known.did or rule.verdict}"
        event = event_of(
            stamp, rule.netns, rule.in_device, "in" if rule.hook in ("prerouting", "input") else "out", rule.packet, "rule",
            text, [TRACE.format(rule.netns)], part=rule.part,
        )  # fmt: skip
        return event | named_rule(rule, self._planned) | {"owner": owner, "decisive": matters}

    def _nat(self, stay: Stay, stamp: int, was: Shown, now: Shown, half: str, back: bool) -> Event:
        """`half`: destination or source. Of an answer, conntrack puts back what it had rewritten."""
        old, new = (end_of(was.dst, was.dport), end_of(now.dst, now.dport)) if half == "destination" else (
            end_of(was.src, was.sport), end_of(now.src, now.sport))  # fmt: skip
        word = "puts back" if back else "rewrites"
        evidence = ["the packet before and after"]
        if not back and self.remembered(stay):
            word = "conntrack, which remembers the flow, rewrites"
        server = self._planned.virtual_server(stay.netns, was) if half == "destination" and not back else None
        owner = str(server.owner) if server is not None and server.owner is not None else None
        if server is not None:
            word = f"IPVS (virtual server {old}, {server.scheduler}) rewrites"
            evidence.append("the virtual server of the plan")
        if self._seen.conntrack.get(stay.netns):
            evidence.append(f"conntrack entry of {stay.netns}")
        text = f"{word} the {half}: {old} -> {new}"
        event = event_of(stamp, stay.netns, "", "", now, "nat", text, evidence, part="")
        if owner is not None:
            event |= {"owner": owner}
        return event | {"half": half, "before": as_json(was), "after": as_json(now), "undone": back}

    def remembered(self, stay: Stay) -> bool:
        """Whether the packet was rewritten because an earlier one of its flow had been: NAT rules see only a flow's first."""
        was, now = stay.entered, stay.left
        if was is None or now is None or was == now or stay.netns not in self._seen.traced:
            return False
        if self._planned.virtual_server(stay.netns, was) is not None:
            return False
        return not any(rule.position >= 0 and self._matters(rule) for rule in stay.rules)

    def _route(self, stay: Stay, stamp: int) -> Event | None:
        """The kernel's route for where the packet goes after any rewriting; None where no route is asked for."""
        goal = stay.left
        asked = stay.departures or stay.accepted is not None or any(rule.hook in BEFORE_ROUTING for rule in stay.rules)
        asked = asked or bool(stay.arrivals) or bool(stay.rules)
        if goal is None or stay.netns.startswith("lan/") or not asked:
            return None
        if any(rule.verdict == "drop" and rule.hook in ("prerouting",) for rule in stay.rules):
            return None
        # What IPVS takes from INPUT goes on to where it sends it.
        taken = stay.entered is not None and self._planned.virtual_server(stay.netns, stay.entered) is not None
        inward = any(rule.hook == "input" for rule in stay.rules) and not (taken and goal != stay.entered)
        if stay.accepted is not None or inward:
            text = f"{goal.dst} is an address of {stay.netns}"
            why = "it met the input hook" if inward else f"the stack of {stay.netns} accepted it"
            return event_of(stamp, stay.netns, "", "", goal, "route", text, [why], part="") | {"route": f"local {goal.dst}"}
        row = best_route(self._seen.routes.get(stay.netns, ()), goal.dst)
        if row is None:
            return event_of(
                stamp, stay.netns, "", "", goal, "route", f"no route to {goal.dst}", [f"route table of {stay.netns}"], part=""
            ) | {"route": ""}
        words = route_words(row)
        hop = str(row.get("gateway") or goal.dst)
        evidence = [f"route table of {stay.netns}"]
        neighbour = next((one for one in self._seen.neighbours.get(stay.netns, ()) if one["dst"] == hop), None)
        text = f"route {words}"
        if neighbour is not None and "lladdr" in neighbour:
            text += f"; {hop} is {neighbour['lladdr']}"
            evidence.append("neighbour table")
        return event_of(stamp, stay.netns, str(row.get("dev", "")), "", goal, "route", text, evidence, part="") | {"route": words}

    def _accepted(self, stay: Stay, stamp: int, back: bool) -> Event:
        assert stay.accepted is not None
        text = f"{stay.netns} takes the answer" if back else f"{stay.netns} takes the packet"
        evidence = [f"raw socket in {stay.netns}: its stack accepted the packet, after every rewriting"]
        return event_of(stamp, stay.netns, "", "in", stay.accepted, "delivered", text, evidence, part="")

    def ended(self, stay: Stay, culprit: RuleMet, known: Known | None) -> Event:
        """The end by a rule."""
        owner = self.owner(stay.rules, stay.rules.index(culprit))
        rejects = "reject" in culprit.text.lower() or (known is not None and "rejected" in known.did)
        word = "rejected" if rejects else "dropped"
        made = f", for {owner}" if owner else ""
        text = f"{word} in {culprit.netns} at hook {culprit.hook} by {by_rule(culprit)}{made}"
        return self._rule(culprit, stamp_of(stay), True, owner) | {"event": word, "text": text}

    def lost(self, stays: Sequence[Stay], outcome: str) -> Event:
        """The end without a rule: no route, a blackhole, a dead link, or nothing that was seen."""
        last = stays[-1] if stays else Stay(self._sender)
        packet = last.left or Shown(str(self._seen.flow.source), str(self._seen.flow.destination), 0, self._seen.flow.port, "")
        stamps = [one.at for one in (*last.arrivals, *last.departures)]
        culprit: RuleMet | None = None
        evidence = [f"no packet socket saw it after {last.netns}"]
        if last.departures:
            device = last.departures[-1].device
            far = self._peers.get((last.netns, device))
            to = f" to {far[1]} of {far[0]}" if far else ""
            text = f"lost behind {last.netns}: it left through {device}, and nothing came in{to}"
            text, culprit = self._lost_envelope(last.netns, text, last.departures[-1].part)
        else:
            text, more = self._no_way(last, packet)
            evidence += more
        word = "rejected" if outcome == "rejected" and self._seen.refused else "dropped"
        event = event_of(max(stamps, default=0), last.netns, "", "", packet, word, text, evidence, part="request")
        return event if culprit is None else event | named_rule(culprit, self._planned)

    def _lost_envelope(self, netns: str, text: str, part: str) -> tuple[str, RuleMet | None]:
        """`text`, with what became of the datagram that carried the packet on, and the rule that dropped that."""
        seen = [one for one in self._seen.envelopes if one.part == part]
        if not seen:
            return text, None
        packet, last = seen[-1].packet, self.sighting(seen[-1])
        to = end_of(packet.dst, packet.dport)
        text = f"lost behind {netns}: carried on in UDP from {packet.src} to {to}, last seen {_place(last)}"
        rules = (one for one in self._seen.rules if one.part == CARRIED + part and one.verdict == "drop")
        if (culprit := next(rules, None)) is None:
            return text, None
        return f"{text}; dropped in {culprit.netns} at hook {culprit.hook} by {by_rule(culprit)}", culprit

    def _no_way(self, last: Stay, packet: Shown) -> tuple[str, list[str]]:
        if last.netns.startswith("lan/"):
            return f"lost in the switch {last.netns}: it has no port that leads on to {packet.dst}", []
        row = best_route(self._seen.routes.get(last.netns, ()), packet.dst)
        table = [f"route table of {last.netns}"]
        if row is None:
            return f"{last.netns} has no route to {packet.dst}", table
        if row.get("type") in ("blackhole", "unreachable", "prohibit"):
            return f"dropped in {last.netns}: its route for {packet.dst} is `{route_words(row)}`", table
        came = [one.device for one in last.arrivals if one.device != "lo"]
        if came:
            mine = any(rule.hook == "input" for rule in last.rules)
            settings = self._seen.settings.get(last.netns, NOTHING)
            why = suspicion(last.netns, packet, came[-1], settings, self._seen.routes.get(last.netns, ()), mine)
            if why:
                return why, [*table, f"settings of {last.netns}"]
        hop = str(row.get("gateway") or packet.dst)
        found = next((one for one in self._seen.neighbours.get(last.netns, ()) if one["dst"] == hop), None)
        states = found["state"] if found is not None else []
        if {"FAILED", "INCOMPLETE"} & set(states):
            asked = "neighbour solicitation" if ":" in hop else "ARP request"
            why = f"{last.netns} found nobody who has {hop} behind {row.get('dev')}: no answer to its {asked}"
            return why, [f"neighbour table of {last.netns}: {hop} is {' '.join(states)}"]
        return f"{last.netns} took it in and did not pass it on; no rule, route or setting that netlab knows of says so", []
