"""A flow's walk over a plan: from the sender through hooks, routes and links, along every branch, and the answer back.

Decides: in which order a packet meets routing decisions and hooks, what ends its way, and whether an answer can come back.
Refuses to know: Kubernetes. Nothing is read but the plan's ops.

Theory. A local packet is routed, meets OUTPUT, and is routed again if that rewrote its destination; one that comes in meets
PREROUTING and is then routed: to INPUT when the address is local, else to FORWARD. Everything that goes out meets POSTROUTING.
What goes out of lo comes in again with its conntrack entry, so nat chains do not see it twice. A new namespace knows neither
mark nor connection. Where a namespace has virtual servers, IPVS takes their packets late in INPUT (what came in) or early in
OUTPUT (its own) and sends them on itself.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, NamedTuple

from netlab.model import Address, Backend, Flow, OutcomeKind, Protocol
from netlab.ops import RelayPort
from netlab.ruleset import Hook
from netlab.trace.packets import CERTAIN, Branch, Met, Packet
from netlab.trace.paths import Hop, Path
from netlab.trace.relayed import relayed
from netlab.trace.rules import EVERY
from netlab.trace.world import Place, Way, World

MAX_HOPS = 64
BEFORE_IPVS, BEYOND_IPVS, BEFORE_LOCAL_IPVS = range(EVERY.start, 99), range(99, EVERY.stop), range(EVERY.start, -98)
"""Priorities of the hooks on either side of IPVS: at 99 in INPUT, at -98 in OUTPUT (net/netfilter/ipvs/ip_vs_core.c)."""
WEIGHTED = ("wrr", "wlc", "sed", "nq")
"""Schedulers that ask for weights; to the others a weight only says whether a server takes connections at all."""


class _Trail(NamedTuple):
    """The walk so far: finished hops, and the stay in the present namespace."""

    sender: str
    first: Packet
    entered: Packet
    in_device: str = ""
    hops: tuple[Hop, ...] = ()
    met: tuple[Met, ...] = ()
    route: str = ""
    probability: Fraction = CERTAIN
    looped: bool = False

    def after(self, branch: Branch) -> "_Trail":
        if branch.probability is CERTAIN:
            return self._replace(met=self.met + branch.met) if branch.met else self
        return self._replace(probability=self.probability * branch.probability, met=self.met + branch.met)


def walk(world: World, sender: str, flow: Flow, patience_s: float) -> Iterator[Path]:
    """Every path of the flow's first packet; their probabilities add up to one. Raises: KeyError for an unknown namespace."""
    packet = Packet(flow.source, flow.destination, flow.protocol, flow.port, flow.source_port)
    yield from _Walk(world, patience_s).output(world.places[sender], packet, _Trail(sender, packet, packet))


_Stage = Callable[[Place, Packet, _Trail], Iterator[Path]]


@dataclass(frozen=True, slots=True)
class _Walk:
    world: World
    patience_s: float

    # ------------------------------------------------------------ the stages of one namespace

    def output(self, place: Place, packet: Packet, trail: _Trail) -> Iterator[Path]:
        if not place.virtual_servers:
            yield from self._output(place, packet, trail)
            return
        way = place.any_way(packet.destination)
        if isinstance(way, str):
            yield self._lost(place, packet, trail, way, _unroutable(way))
        else:
            for branch in self._at(Hook.OUTPUT, place, packet, priorities=BEFORE_LOCAL_IPVS):
                if branch.verdict != "accept":
                    yield self._judged(place, branch, trail.after(branch))
                else:
                    yield from self._scheduled(place, branch.packet, trail.after(branch), self._output)

    def _output(self, place: Place, packet: Packet, trail: _Trail) -> Iterator[Path]:
        """Through OUTPUT and on. Not met again by what IPVS took from INPUT: the routing decision that the packet came with."""
        way = place.any_way(packet.destination)
        if isinstance(way, str):
            yield self._lost(place, packet, trail, way, _unroutable(way))
            return
        for branch in self._at(Hook.OUTPUT, place, packet):
            further, now = trail.after(branch), branch.packet
            if branch.verdict != "accept":
                yield self._judged(place, branch, further)
                continue
            again = way if now.destination == packet.destination else place.any_way(now.destination)
            if isinstance(again, str):
                yield self._lost(place, now, further, again, _unroutable(again))
            elif now.source.is_loopback and again.device != "lo" and not _takes_localhost(place, again.device):
                yield self._lost(place, now, further, "a packet from 127.0.0.1 may not leave without route_localnet")
            else:
                yield from self._postrouting(place, now, again, further)

    def _receive(self, place: Place, device: str, packet: Packet, trail: _Trail) -> Iterator[Path]:
        packet = packet if packet.in_device == device else packet._replace(in_device=device)
        way = place.any_way(packet.destination)
        if (isinstance(way, str) or way.device != "lo") and place.rules(packet.destination.version).pass_by(packet):
            yield from self._passed_by(place, device, packet, trail)
            return
        for branch in self._at(Hook.PREROUTING, place, packet):
            further, now = trail.after(branch), branch.packet
            martian = _martian(place, device, now)
            if branch.verdict != "accept":
                yield self._judged(place, branch, further)
            elif martian:
                yield self._lost(place, now, further, martian)
            elif place.is_local(now.destination):
                yield from self._input(place, now, further)
            else:
                yield from self._forward(place, now, further)

    def _passed_by(self, place: Place, device: str, packet: Packet, trail: _Trail) -> Iterator[Path]:
        """Forwarded, and untouched by rules: most packets at most nodes."""
        martian = _martian(place, device, packet)
        if martian:
            yield self._lost(place, packet, trail, martian)
            return
        passed = place.rules(packet.destination.version).passed_by(packet)
        for way, further in self._ways(place, passed, trail):
            if isinstance(way, Path):
                yield way
            else:
                yield from self._leave(place, passed, way, further)

    def _forward(self, place: Place, packet: Packet, trail: _Trail) -> Iterator[Path]:
        for way, further in self._ways(place, packet, trail):
            if isinstance(way, Path):
                yield way
                continue
            for branch in self._at(Hook.FORWARD, place, packet):
                if branch.verdict != "accept":
                    yield self._judged(place, branch, further.after(branch))
                else:
                    yield from self._postrouting(place, branch.packet, way, further.after(branch))

    def _ways(self, place: Place, packet: Packet, trail: _Trail) -> Iterator[tuple[Way | Path, _Trail]]:
        """Where a packet that came in goes out, each way with its share; or how it ends here."""
        way = place.any_way(packet.destination)
        if not place.on("net/ipv4/ip_forward" if packet.destination.version == 4 else "net/ipv6/conf/all/forwarding"):
            yield (
                self._lost(place, packet, trail, f"{packet.destination} is not an address of it, and it does not forward"),
                trail,
            )
        elif isinstance(way, str):
            yield self._lost(place, packet, trail, way, _unroutable(way)), trail
        elif len(trail.hops) >= MAX_HOPS:
            yield self._lost(place, packet, trail, "it goes round in circles until its TTL is used up"), trail
        elif not way.others:
            yield way, trail
        else:
            shared = trail._replace(probability=trail.probability / (1 + len(way.others)))
            yield from ((one, shared) for one in (replace(way, others=()), *way.others))

    def _postrouting(self, place: Place, packet: Packet, way: Way, trail: _Trail) -> Iterator[Path]:
        for branch in self._at(Hook.POSTROUTING, place, packet, way):
            if branch.verdict != "accept":
                yield self._judged(place, branch, trail.after(branch))
            else:
                yield from self._leave(place, branch.packet, way, trail.after(branch))

    def _leave(self, place: Place, packet: Packet, way: Way, trail: _Trail) -> Iterator[Path]:
        route = way.route
        if way.device == "lo":
            yield from self._receive(place, "lo", packet, trail._replace(route=route, looped=True))
            return
        stop = self.world.next_stop((place.name, way.device), way.hop)
        if isinstance(stop, str):
            yield self._lost(place, packet, trail._replace(route=route), stop)
            return
        (netns, device), through = stop
        hop = Hop(place.name, trail.in_device, way.device, trail.entered, packet, trail.met, route, through)
        fresh = packet.entering(device)
        further = _Trail(trail.sender, trail.first, fresh, device, (*trail.hops, hop), probability=trail.probability)
        yield from self._receive(self.world.places[netns], device, fresh, further)

    # ------------------------------------------------------------ IPVS

    def _input(self, place: Place, packet: Packet, trail: _Trail) -> Iterator[Path]:
        if not place.virtual_servers or packet.virtual is not None:
            yield from self._delivered(place, packet, trail)
            return
        for branch in self._at(Hook.INPUT, place, packet, priorities=BEFORE_IPVS):
            if branch.verdict != "accept":
                yield self._judged(place, branch, trail.after(branch))
            else:
                yield from self._scheduled(place, branch.packet, trail.after(branch), self._delivered)

    def _scheduled(self, place: Place, packet: Packet, trail: _Trail, otherwise: "_Stage") -> Iterator[Path]:
        """IPVS takes the packet if a virtual server is there for it: to each of the real servers, or refused when there is none.

        What it sends on goes through OUTPUT, and never through FORWARD; to an address of the machine itself it goes on in place.
        """
        at = (packet.destination, packet.protocol, packet.port)
        server = place.virtual_servers.get(at)
        if server is None or packet.virtual is not None:
            yield from otherwise(place, packet, trail)
            return
        real = [one for one in server.real_servers if one.weight > 0]
        if not real:
            why = f"virtual server {packet.destination}:{packet.port} has no real server"
            yield self._lost(place, packet, trail, why, OutcomeKind.REJECTED)
            return
        whole = sum(one.weight for one in real) if server.scheduler in WEIGHTED else len(real)
        hook = Hook.INPUT if packet.in_device else Hook.OUTPUT
        for one in real:
            share = Fraction(one.weight if server.scheduler in WEIGHTED else 1, whole)
            affinity = packet.affinity or server.persistence_s is not None
            sent = packet._replace(destination=one.address, port=one.port, virtual=at, affinity=affinity)
            did = f"destination = {one.address}:{one.port}"
            met = Met(hook, "ipvs", f"virtual server {at[0]}:{at[2]}/{at[1].lower()}", 0, did, server.scheduler, server.owner)
            further = trail._replace(probability=trail.probability * share, met=(*trail.met, met))
            if place.is_local(one.address):
                yield from otherwise(place, sent, further)
            elif isinstance(way := place.way(one.address), str):
                yield self._lost(place, sent, further, f"IPVS finds {way}")
            else:
                yield from self._output(place, sent, further)

    def _delivered(self, place: Place, packet: Packet, trail: _Trail) -> Iterator[Path]:
        """Through INPUT to whoever listens. What IPVS has seen here has passed the filter table before."""
        again = BEYOND_IPVS if packet.virtual is not None and packet.in_device else EVERY
        for branch in self._at(Hook.INPUT, place, packet, priorities=again):
            if branch.verdict != "accept":
                yield self._judged(place, branch, trail.after(branch))
            else:
                relay = place.relays.get((branch.packet.protocol, branch.packet.port, branch.packet.destination.version))
                if relay is None:
                    yield self._arrived(place, branch.packet, trail.after(branch))
                else:
                    yield from self._relayed(place, branch.packet, trail.after(branch), relay)

    def _at(
        self, hook: Hook, place: Place, packet: Packet, way: Way | None = None, priorities: range = EVERY
    ) -> tuple[Branch, ...]:
        rules = place.rules(packet.destination.version)
        return rules.at(hook, packet, priorities, (way.device, way.hop) if way is not None else None)

    # ------------------------------------------------------------ ends

    def _judged(self, place: Place, branch: Branch, trail: _Trail) -> Path:
        rule = branch.met[-1] if branch.met else None
        where = f"{rule.table} {rule.chain}{f' ({rule.comment})' if rule.comment else ''}" if rule else "a chain's policy"
        if branch.verdict == "drop":
            return self._lost(place, branch.packet, trail, f"dropped by {where}")
        return self._lost(place, branch.packet, trail, f"rejected by {where}", OutcomeKind.REJECTED)

    def _lost(self, place: Place, packet: Packet, trail: _Trail, why: str, kind: OutcomeKind = OutcomeKind.DROPPED) -> Path:
        """Nothing arrives. Behind a rewriting, the backend that was chosen in vain is named."""
        hops = (*trail.hops, self._last(place, packet, trail))
        sentence = f"{place.name}: {why}"
        back: tuple[str, ...] = ()
        if kind is OutcomeKind.REJECTED:
            back, problem = self._back(place, packet, trail.sender, hops)
            kind, sentence = (OutcomeKind.DROPPED, f"{sentence}; {problem}") if problem else (kind, sentence)
        rewritten = (packet.destination, packet.port) != (trail.first.destination, trail.first.port)
        backend = self._backend(packet, trail, kind) if rewritten else None
        return Path(trail.probability, kind, hops, backend, sentence, back)

    def _arrived(self, place: Place, packet: Packet, trail: _Trail) -> Path:
        hops = (*trail.hops, self._last(place, packet, trail))
        taker = place.answers(packet.protocol, packet.port, packet.destination)
        kind: OutcomeKind | None = OutcomeKind.DELIVERED if taker else OutcomeKind.REJECTED
        why = f"{place.name}: taken by {taker}" if taker else f"{place.name}: nobody listens on {packet.protocol} {packet.port}"
        if taker.startswith("a program"):
            kind = None
        back, problem = self._back(place, packet, trail.sender, hops, kind)
        if problem:
            kind, why = OutcomeKind.DROPPED, f"{why}; {problem}"
        return Path(trail.probability, kind, hops, self._backend(packet, trail, kind), why, back)

    def _relayed(self, place: Place, packet: Packet, trail: _Trail, relay: RelayPort) -> Iterator[Path]:
        """The node's proxy process takes the flow, and makes one of its own to an endpoint: relay.py says how."""
        hops = (*trail.hops, self._last(place, packet, trail))
        first = Path(trail.probability, None, hops, None, f"{place.name}: taken by its proxy process for {relay.name}")
        back, problem = self._back(place, packet, trail.sender, hops, OutcomeKind.DELIVERED)
        if packet.protocol is Protocol.TCP and not self.world.places[trail.sender].is_local(hops[0].entered.source):
            problem = "its part of the handshake does not go to the sender, and no connection is made"
        if problem:
            yield replace(first, kind=OutcomeKind.DROPPED, why=f"{first.why}; {problem}", back=back)
            return
        calls = [call for address, port in relay.endpoints for call in self._calls(place, packet, address, port, relay)]
        yield from relayed(replace(first, back=back), relay, calls, self.patience_s)

    def _calls(self, place: Place, packet: Packet, address: Address, port: int, relay: RelayPort) -> Iterator[Path]:
        way = place.any_way(address)
        source = address if isinstance(way, str) or way.source is None else way.source
        out = Packet(source, address, packet.protocol, port, affinity=relay.affinity_s is not None, masqueraded=True)
        for path in self.output(place, out, _Trail(place.name, out, out)):
            yield replace(path, backend=Backend(address, port, True, path.kind, (path.hops[0].entered.source,)))

    def _last(self, place: Place, packet: Packet, trail: _Trail) -> Hop:
        return Hop(place.name, trail.in_device, "lo" if trail.looped else "", trail.entered, packet, trail.met, trail.route)

    def _backend(self, packet: Packet, trail: _Trail, kind: OutcomeKind | None) -> Backend:
        return Backend(packet.destination, packet.port, packet.masqueraded, kind, (packet.source,))

    # ------------------------------------------------------------ the answer

    def _back(
        self, place: Place, packet: Packet, sender: str, hops: tuple[Hop, ...], kind: OutcomeKind | None = OutcomeKind.REJECTED
    ) -> tuple[tuple[str, ...], str]:
        """The namespaces that the answer passes, and why the client cannot use it ('' if it can)."""
        if not self.world.places[sender].is_local(hops[0].entered.source):
            return (), ""  # a foreign source: its answer goes to whoever has that address, not to the sender
        source, destination = packet.destination, packet.source
        pending = [hop for hop in hops if _rewrote(hop)]
        passed: list[str] = []
        for _ in range(MAX_HOPS):
            while pending and pending[-1].netns == place.name and _answers(pending[-1].left, source, destination):
                undone = pending.pop().entered
                source, destination = undone.destination, undone.source
            passed.append(place.name)
            way = place.any_way(destination)
            if isinstance(way, str):
                return tuple(passed), f"the answer is lost in {place.name}: {way}"
            if way.device == "lo":
                return tuple(passed), self._recognised(place, sender, pending, hops, passed, packet.protocol, kind)
            if len(passed) > 1 and not place.on(
                "net/ipv4/ip_forward" if destination.version == 4 else "net/ipv6/conf/all/forwarding"
            ):
                return tuple(passed), f"the answer is lost in {place.name}, which does not forward"
            stop = self.world.next_stop((place.name, way.device), way.hop)
            if isinstance(stop, str):
                return tuple(passed), f"the answer is lost in {place.name}: {stop}"
            place = self.world.places[stop[0][0]]
        return tuple(passed), "the answer goes round in circles"

    def _recognised(
        self,
        place: Place,
        sender: str,
        pending: list[Hop],
        hops: tuple[Hop, ...],
        passed: list[str],
        protocol: Protocol,
        kind: OutcomeKind | None,
    ) -> str:
        if place.name != sender:
            return f"the answer goes to {place.name}"
        if pending:
            return (
                f"the answer does not pass {pending[-1].netns}, which rewrote the packet: the client cannot tell what it answers"
            )
        if protocol is not Protocol.TCP:
            return ""
        there = {hop.netns for hop in hops if hop.in_device and hop.out_device not in ("", "lo")}
        blind = sorted(set(passed[1:-1]) - there) or (sorted(there - set(passed)) if kind is not OutcomeKind.REJECTED else [])
        for netns in blind:
            if self._discards_invalid(self.world.places[netns], hops[0].entered):
                return f"{netns} sees one direction only: conntrack calls the connection invalid, and a rule drops that"
        return ""

    def _discards_invalid(self, place: Place, packet: Packet) -> bool:
        branches = self._at(Hook.FORWARD, place, packet._replace(state="invalid"))
        return any(branch.verdict == "drop" for branch in branches)


def _unroutable(why: str) -> Literal[OutcomeKind.REJECTED, OutcomeKind.DROPPED]:
    """A missing route is told to the sender (network unreachable); a blackhole is silent."""
    return OutcomeKind.REJECTED if why.startswith("no route") else OutcomeKind.DROPPED


def _takes_localhost(place: Place, device: str) -> bool:
    """Whether addresses of 127.0.0.0/8 may pass this device: route_localnet is on for it or for all."""
    return any(place.on(f"net/ipv4/conf/{name}/route_localnet") for name in ("all", device))


def _martian(place: Place, device: str, packet: Packet) -> str:
    """Why the kernel refuses the packet by its addresses alone (ip_route_input_slow); '' when it does not."""
    if device == "lo":
        return ""
    foreign = place.foreign(packet.source)
    if foreign == "own":
        return f"a packet from outside with its own address {packet.source} as source is discarded"
    if (foreign == "loopback" or packet.destination.is_loopback) and not _takes_localhost(place, device):
        return "a packet from outside with a 127.0.0.0/8 address is discarded"
    return ""


def _rewrote(hop: Hop) -> bool:
    return (hop.entered.source, hop.entered.destination, hop.entered.port) != (
        hop.left.source,
        hop.left.destination,
        hop.left.port,
    )


def _answers(sent: Packet, source: Address, destination: Address) -> bool:
    return sent.destination == source and sent.source == destination
