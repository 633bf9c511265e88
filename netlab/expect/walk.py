"""A flow's walk through the lab: every branch of it, and for each the answer's way back.

It decides what the client sees of each backend. It refuses to know routes (places.py) and policies (policy.py).
"""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from netlab.expect.claims import own_addresses
from netlab.expect.deciding import decide
from netlab.expect.health import checks_health
from netlab.expect.nat import translated, translates
from netlab.expect.places import ROUTER, Arrived, Hop, Lab, Lost, is_bgp, next_place, next_places
from netlab.expect.policy import Decision, Packet, local_addresses
from netlab.images import probed_ports, runs_program
from netlab.ingresses import ADMIN_PORT, HTTP_PORT, HTTPS_PORT, flavour_of
from netlab.model import Address, Backend, Key, OutcomeKind, Pod, Protocol, Ref

DELIVERED, REJECTED, DROPPED, NOT_HANDLED = OutcomeKind
MAX_HOPS = 32
DIALS_S = (0.25, 0.5, 1.0, 2.0)
"""How long the proxy process of mode userspace waits for each endpoint that it tries."""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What conntrack remembers at a node: the packet as it came and as it left."""

    node: Ref
    before: Packet
    after: Packet


class Trail(NamedTuple):
    """The walk so far. `sources`: which addresses the source may have become, where that is more than one."""

    sender: Ref
    first: Packet
    rewrites: tuple[Rewrite, ...] = ()
    forwarders: tuple[Ref, ...] = ()
    masqueraded: bool = False
    sources: tuple[Address, ...] = ()
    affinity: bool = False
    spread: Literal["random", "turns", "any"] = "random"
    patience_s: float = 1.0


@dataclass(frozen=True, slots=True)
class End:
    """How one branch ends. `backend` is None where no rewriting and no arrival names one."""

    fate: OutcomeKind | None
    backend: Backend | None
    why: str = ""
    affinity: bool = False
    spread: Literal["random", "turns", "any"] = "random"


def send(lab: Lab, sender: Ref, packet: Packet, patience_s: float) -> Iterator[End]:
    trail = Trail(sender, packet, sources=(packet.source,), patience_s=patience_s)
    if sender.kind == "node":
        # A local packet is routed before it meets OUTPUT: without a route the send call itself fails.
        hop = next_place(lab, sender, packet.destination)
        if isinstance(hop, Lost) and hop.fate is REJECTED:
            return iter((_lost(trail, packet, hop.fate, hop.why),))
        return _at_node(lab, sender, "", packet, trail)
    return _forward(lab, sender, packet, trail)


def _forward(
    lab: Lab, place: Ref, packet: Packet, trail: Trail, note: str = "no rule handles it", through: bool = False
) -> Iterator[End]:
    """The packet leaves `place` by its routes, or is for `place` itself.

    `note`: what else is said if it is lost. `through`: it came from elsewhere, and `place` is a node, which tracks it.
    """
    if place == ROUTER and translates(lab):
        after = translated(lab, packet)
        if isinstance(after, str):
            yield _lost(trail, packet, DROPPED, after if trail.rewrites else f"{note}; {after}")
            return
        packet, trail = _translated(packet, after, trail)
    hops = next_places(lab, place, packet.destination)
    if len(hops) == 1:
        yield from _to(lab, place, packet, trail, hops[0], note, through)
        return
    ways = [tuple(_to(lab, place, packet, trail, hop, note, through)) for hop in hops]
    # Each way chooses for itself: backends are equally likely only if all choose from the same, and none keeps turns or clients.
    chosen = {tuple(sorted((end.backend.address, end.backend.port) for end in way if end.backend)) for way in ways}
    uneven = len(chosen) > 1 or any(end.affinity or end.spread != "random" for way in ways for end in way)
    for end in (end for way in ways for end in way):
        yield replace(end, affinity=False, spread="any") if uneven else end


def _translated(packet: Packet, after: Packet, trail: Trail) -> tuple[Packet, Trail]:
    """The router rewrote the packet, and must see the answer."""
    if after == packet:
        return packet, trail
    rewrites = (*trail.rewrites, Rewrite(ROUTER, packet, after))
    if after.source == packet.source:
        return after, trail._replace(rewrites=rewrites)
    return after, trail._replace(rewrites=rewrites, masqueraded=True, sources=(after.source,))


def _to(lab: Lab, place: Ref, packet: Packet, trail: Trail, hop: Hop | Lost | Arrived, note: str, through: bool) -> Iterator[End]:
    """The packet takes one of its ways."""
    match hop:
        case Arrived():
            yield _arrived(lab, place, packet, trail)
        case Lost(fate, why):
            problem = _way_back(lab, place, packet, trail, REJECTED) if fate is REJECTED else ""
            why = why if trail.rewrites else f"{note}; {why}"
            yield _lost(trail, packet, DROPPED if problem else fate, f"{why}; {problem}" if problem else why)
        case Hop(to, device):
            if through:
                trail = trail._replace(forwarders=(*trail.forwarders, place))
            if len(trail.forwarders) > MAX_HOPS:
                yield _lost(trail, packet, DROPPED, "it goes round in circles")
            elif to.kind == "node":
                yield from _at_node(lab, to, device, packet, trail)
            elif to.kind == "host" and lab.owners.get(packet.destination) != to:
                yield _lost(trail, packet, DROPPED, f"{to} does not forward")
            else:
                yield from _forward(lab, to, packet, trail, note)


def _at_node(lab: Lab, place: Ref, device: str, packet: Packet, trail: Trail) -> Iterator[End]:
    node = lab.node(place)
    own = packet.source in own_addresses(lab.cluster, node).all or packet.source in lab.virtual.get(place.name, ())
    if device != "" and own:
        yield _lost(trail, packet, DROPPED, f"{place} discards a packet that comes with its own address as source")
        return
    decision = decide(lab.cluster.as_known_to(node.meta.name), node, packet, device)
    if decision.relayed:
        yield from _relayed(lab, place, packet, decision, trail)
        return
    match decision.kind:
        case OutcomeKind.DELIVERED:
            for backend in decision.backends:
                rewritten, further = _rewrite(lab, place, packet, backend, trail)
                further = further._replace(affinity=trail.affinity or decision.affinity, spread=decision.spread)
                route = next_place(lab, place, backend.address)
                if decision.virtual and isinstance(route, Lost) and route.fate is REJECTED:
                    yield _lost(further, rewritten, DROPPED, f"IPVS finds that {route.why}")
                    continue
                yield from _forward(lab, place, rewritten, further, through=device != "")
        case OutcomeKind.NOT_HANDLED if device != "" and _would_circle(lab, packet):
            yield _lost(trail, packet, DROPPED, f"{decision.why}; {place} drops it, because the router would send it back")
        case OutcomeKind.NOT_HANDLED:
            if decision.marked:
                trail = trail._replace(masqueraded=True, sources=local_addresses(lab.cluster, node))
            yield from _forward(lab, place, packet, trail, decision.why, through=device != "")
        case refusal:
            route = next_place(lab, place, packet.destination)
            unroutable = decision.routed and isinstance(route, Lost) and route.fate is REJECTED
            told = refusal is REJECTED or unroutable
            problem = _way_back(lab, place, packet, trail, REJECTED) if told else ""
            why = f"{decision.why}; {problem}" if problem else decision.why
            yield _lost(trail, packet, REJECTED if told and not problem else DROPPED, why)


def _would_circle(lab: Lab, packet: Packet) -> bool:
    """With BGP the router sends what is for a Service network or a pool to a node: a node forwards none of it."""
    if not is_bgp(lab.cluster):
        return False
    config = lab.cluster.topology.cluster
    pool = config.load_balancer
    services = any(packet.destination in cidr for cidr in config.service_cidrs)
    return services or (pool is not None and packet.destination in pool)


def _relayed(lab: Lab, place: Ref, packet: Packet, decision: Decision, trail: Trail) -> Iterator[End]:
    """The node's proxy process takes the flow, and calls endpoints in turn from the node's address.

    Over TCP it tries four. The turns go on for all clients together, so that a client with others beside it may get any of them
    at each try.
    """
    taken = replace(packet, destination=local_addresses(lab.cluster, lab.node(place))[0])
    problem = _way_back(lab, place, taken, trail._replace(rewrites=(*trail.rewrites, Rewrite(place, packet, taken))), DELIVERED)
    if problem:
        yield End(DROPPED, None, problem)
        return
    if packet.protocol is Protocol.TCP and not _is_own(lab, trail):
        why = f"the proxy process' part of the handshake goes to whoever has {trail.first.source}: no connection is made"
        yield End(DROPPED, None, why)
        return
    if not decision.backends:
        yield End(decision.kind, None, decision.why)
        return
    calls = [_called(lab, place, packet.protocol, backend, decision.affinity) for backend in decision.backends]
    if packet.protocol is not Protocol.TCP:
        yield from (_datagram(call) for call in calls)
        return
    spread: Literal["random", "turns", "any"] = "turns" if all(call.fate in (DELIVERED, None) for call in calls) else "any"
    good = [call for call in calls if call.fate in (DELIVERED, None)]
    yield from (replace(call, spread=spread) for call in good)
    bad = [call for call in calls if call.fate not in (DELIVERED, None)]
    for fate in _in_vain({call.fate for call in bad}, trail.patience_s) if bad else ():
        yield End(fate, None, f"the proxy process reaches no endpoint ({bad[0].why})", spread=spread)


def _in_vain(fates: Set[OutcomeKind | None], patience_s: float) -> Iterator[OutcomeKind]:
    """How it may end for a client whose tries all fail: it is told once all four have, if it still waits by then."""
    waits_for_all = DROPPED in fates and patience_s <= sum(DIALS_S)
    if REJECTED in fates or not waits_for_all:
        yield REJECTED
    if waits_for_all:
        yield DROPPED


def _called(lab: Lab, place: Ref, protocol: Protocol, backend: Backend, affinity: bool) -> End:
    """The process' own flow to an endpoint."""
    hop = next_place(lab, place, backend.address)
    leaving = hop.source if isinstance(hop, Hop) else backend.address if isinstance(hop, Arrived) else None
    sources = (leaving,) if leaving is not None else local_addresses(lab.cluster, lab.node(place))
    out = Packet(sources[0], backend.address, backend.port, protocol)
    (end,) = _forward(lab, place, out, Trail(place, out, masqueraded=True, sources=sources))
    return End(end.fate, Backend(backend.address, backend.port, True, end.fate, sources), end.why, affinity, "turns")


def _datagram(call: End) -> End:
    """The refusal of a datagram is told to the process and goes no further."""
    if call.fate is not REJECTED or call.backend is None:
        return call
    return replace(call, fate=DROPPED, backend=replace(call.backend, fate=DROPPED))


def _rewrite(lab: Lab, place: Ref, packet: Packet, backend: Backend, trail: Trail) -> tuple[Packet, Trail]:
    """The packet with its new destination and, if masqueraded, the address of the interface that it leaves through."""
    rewritten = replace(packet, destination=backend.address, port=backend.port)
    sources, masqueraded = trail.sources, trail.masqueraded
    hop = next_place(lab, place, backend.address)
    # Without a route it ends before POSTROUTING.
    if backend.masqueraded and not (isinstance(hop, Lost) and hop.fate is REJECTED):
        leaving = hop.source if isinstance(hop, Hop) else None
        sources = (leaving,) if leaving is not None else local_addresses(lab.cluster, lab.node(place))
        rewritten, masqueraded = replace(rewritten, source=sources[0]), True
    rewrites = (*trail.rewrites, Rewrite(place, packet, rewritten))
    return rewritten, trail._replace(rewrites=rewrites, masqueraded=masqueraded, sources=sources)


def _lost(trail: Trail, packet: Packet, fate: OutcomeKind, why: str) -> End:
    """Nothing arrives. Behind a Service, the backend that was chosen in vain is named."""
    backend = _backend(trail, packet, fate) if trail.rewrites else None
    return End(
        fate, backend, why if backend is None else f"{packet.destination}:{packet.port}: {why}", trail.affinity, trail.spread
    )


def _backend(trail: Trail, packet: Packet, fate: OutcomeKind | None) -> Backend:
    return Backend(packet.destination, packet.port, trail.masqueraded, fate, trail.sources)


def _arrived(lab: Lab, place: Ref, packet: Packet, trail: Trail) -> End:
    fate, why = _answer(lab, place, packet, trail)
    if fate is not DROPPED:
        problem = _way_back(lab, place, packet, trail, fate)
        if problem:
            fate, why = DROPPED, problem
    label = f"{packet.destination}:{packet.port}: {why}" if why else ""
    return End(fate, _backend(trail, packet, fate), label, trail.affinity, trail.spread)


def _answer(lab: Lab, place: Ref, packet: Packet, trail: Trail) -> tuple[OutcomeKind | None, str]:
    """What the owner of the address makes of the packet."""
    if (trail.forwarders or place != trail.sender) and packet.source in _addresses(lab, place):
        return DROPPED, f"{place} discards a packet that comes with its own address as source"
    if packet.protocol is Protocol.ICMP:
        return DELIVERED, ""
    if place.kind == "node" and checks_health(lab.cluster, lab.node(place), packet):
        return DELIVERED, ""
    asked = (place, packet.port, packet.protocol)
    answer = lab.listening.get(asked)
    if answer is None:
        answer = lab.listening[asked] = _listens(lab, place, packet)
    return answer


def _listens(lab: Lab, place: Ref, packet: Packet) -> tuple[OutcomeKind | None, str]:
    match place.kind:
        case "pod" if Key(place.namespace, place.name) in lab.cluster.ending:
            return REJECTED, f"{place} is gone, finishes what it was asked, and takes no new connection"
        case "pod":
            return _listening(_at_work(lab, (lab.pod(place),)), packet)
        case "node":
            sharing = [p for p in lab.cluster.pods.values() if p.spec.host_network and p.node == place.name]
            return _listening(_at_work(lab, sharing), packet)
        case _:
            return REJECTED, f"{place} listens on nothing"


def _addresses(lab: Lab, place: Ref) -> tuple[Address, ...]:
    match place.kind:
        case "pod":
            return lab.pod(place).addresses
        case "node":
            return local_addresses(lab.cluster, lab.node(place))
        case _:
            return tuple(address for address, owner in lab.owners.items() if owner == place)


def _at_work(lab: Lab, pods: Iterable[Pod]) -> list[Pod]:
    """Those whose programs run: none on a node that was killed."""
    outages = lab.cluster.outages
    return [pod for pod in pods if not (pod.node in outages and outages[pod.node].killed)]


def _listening(pods: list[Pod], packet: Packet) -> tuple[OutcomeKind | None, str]:
    """The built-in responder listens on every declared containerPort, and where its container is probed, for as long as the
    container runs; what a command listens on, nobody can tell.
    """
    containers = [(pod, container) for pod in pods for container, _ in pod.running()]
    wanted = (packet.port, packet.protocol)
    proxies = any(flavour_of(container) is not None for _, container in containers)
    if proxies and packet.protocol is Protocol.TCP and packet.port in (HTTP_PORT, ADMIN_PORT):
        return DELIVERED, ""
    if proxies and packet.protocol is Protocol.TCP and packet.port == HTTPS_PORT:
        return None, "an Ingress controller listens there as soon as it has a certificate"
    answered = [container for _, container in containers if not runs_program(container) and flavour_of(container) is None]
    if any((port.port, port.protocol) == wanted for container in answered for port in container.ports):
        return DELIVERED, ""
    if packet.protocol is Protocol.TCP and any(packet.port in probed_ports(container) for container in answered):
        return DELIVERED, ""
    own = next((pod for pod, container in containers if runs_program(container) and flavour_of(container) is None), None)
    if own is not None:
        return None, f"{own.ref} runs a command of its own; whether it listens is not known"
    return REJECTED, "nobody listens there"


def _way_back(lab: Lab, place: Ref, packet: Packet, trail: Trail, fate: OutcomeKind | None) -> str:
    """'' when the answer reaches the client as an answer to what it sent; else why not."""
    if not _is_own(lab, trail):
        return ""  # the answer to a foreign source goes to whoever has that address: all that can be known is that it leaves
    source, destination = packet.destination, packet.source
    pending, passed = list(trail.rewrites), set[Ref]()
    for hops in range(MAX_HOPS):
        while pending and pending[-1].node == place and _answers(pending[-1].after, source, destination):
            undone = pending.pop().before
            source, destination = undone.destination, undone.source
        hop = next_place(lab, place, destination)
        match hop:
            case Lost(_, why):
                return f"the answer is lost: {why}"
            case Arrived():
                if place != trail.sender:
                    return f"the answer goes to {place}"
                if pending:
                    return f"the answer does not pass {pending[-1].node}, which rewrote the packet: the client cannot tell it"
                return _one_way(lab, packet.protocol, trail, passed, fate)
            case Hop(to, _):
                if to.kind == "host" and lab.owners.get(destination) != to:
                    return f"the answer is lost: {to} does not forward"
                if hops and place.kind == "node":
                    passed.add(place)
                place = to
    return "the answer goes round in circles"


def _is_own(lab: Lab, trail: Trail) -> bool:
    """Whether the flow's source address is its sender's own."""
    return trail.first.source in _addresses(lab, trail.sender) or trail.first.source.is_loopback


def _answers(sent: Packet, source: Address, destination: Address) -> bool:
    return sent.destination == source and sent.source == destination


def _one_way(lab: Lab, protocol: Protocol, trail: Trail, back: set[Ref], fate: OutcomeKind | None) -> str:
    """With kube-proxy's rule for INVALID packets, a node that sees only one direction of a TCP connection breaks it."""
    proxy = lab.cluster.topology.cluster.proxy
    if proxy.mode != "iptables" or proxy.conntrack_tcp_be_liberal or protocol is not Protocol.TCP:
        return ""
    there = set(trail.forwarders)
    blind = sorted(back - there) or (sorted(there - back) if fate is not REJECTED else [])
    return f"{blind[0]} sees one direction only: conntrack calls the connection invalid, and a rule drops that" if blind else ""
