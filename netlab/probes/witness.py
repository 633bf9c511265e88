"""Following one packet: sends it, and collects what every interface, every rule and every table of the lab knows of it.

Decides what is watched and when the story is over. What it means is told by story.py. Refuses to know the plan.

Order of things: a packet socket on all interfaces of every namespace, the kernel's nftables trace in each that has rules, the
sockets that show what a stack accepts; all are bound before the packet leaves, so that nothing has to be waited for. It carries
the token of probes/packets.py, by which it is known whatever NAT does; answers in UDP, which carry none, are known by their
addresses; live.py says by what a program's packet is known. The end is the answer that the sender accepts, a drop, or silence.

Over 400 lines: one watch, from opening its sockets to closing them, and all of it reads and writes the same state.
"""

import errno
import os
import random
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cmp_to_key
from typing import Any

from netlab.errors import KernelError, MissingEvidence, NetlabError
from netlab.kernel import libnftables, listing, nft_trace, observe, packet_sockets, rule_listing
from netlab.kernel import netlink as nl
from netlab.kernel.namespaces import entered
from netlab.kernel.packet_sockets import OUTGOING, Delivered, Frame, Tap
from netlab.model import Flow, Protocol
from netlab.probes import envelopes, filters, live, packets, reading, stamps, telling
from netlab.probes.packets import Kind
from netlab.probes.plain import number_of
from netlab.probes.values import FIRST_PORT, PORTS
from netlab.probes.witnessed import Errand, RuleMet, Shown, Sighting, Witnessed

PARTS = {Kind.REQUEST: "request", Kind.REPLY: "reply", Kind.REFUSAL: "refusal", Kind.ICMP_ERROR: "icmp-error"}
FOREIGN = 3
INDEX = 7
KEPT_NS = 2_000_000_000
KEPT_TAKEN = 1000
"""How much of strangers' packets is kept while a real program's is waited for."""
AFTER_DROP_S = 0.02
"""How long an ICMP error may take after a rule has ended the packet: it is sent from within the rule."""


@dataclass(slots=True, eq=False)
class _Place:
    """One namespace under watch."""

    name: str
    fd: int
    links: dict[int, listing.Link] = field(default_factory=dict)
    tap: Tap | None = None
    accepted: list[Delivered] = field(default_factory=list)
    trace: nft_trace.Trace | None = None
    told: list[nft_trace.Told] = field(default_factory=list)
    first: list[nft_trace.Told] = field(default_factory=list)
    """What the tracing table itself told: packets before any other rule."""

    def device(self, index: int) -> str:
        return self.links[index].name if index in self.links else f"if{index}" if index else ""


def follow(errand: Errand, own: int) -> Witnessed:
    """Send the packet and say what was seen of it. `own`: the upper byte of its token. Raises KernelError."""
    with ExitStack() as stack:
        return _Following(errand, own << 8 | random.randrange(0x100)).go(stack)


@dataclass(slots=True)
class _Following:
    errand: Errand
    run: int
    places: dict[str, _Place] = field(default_factory=dict)
    frames: list[tuple[_Place, Frame]] = field(default_factory=list)
    taken: list[tuple[_Place, bytes]] = field(default_factory=list)
    blind: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    requests: set[Shown] = field(default_factory=set)
    index: int = INDEX
    envelopes: list[Sighting] = field(default_factory=list)
    mark: live.Datagram | None = None
    """By what a real program's datagram is known."""

    @property
    def family(self) -> str:
        """The packet's, as nftables calls it."""
        return "ip" if self.errand.flow.destination.version == 4 else "ip6"

    def go(self, stack: ExitStack) -> Witnessed:
        errand = self.errand
        flow = replace(errand.flow, source_port=errand.flow.source_port or random.randrange(FIRST_PORT, FIRST_PORT + PORTS))
        for name, path in errand.places.items():
            self.places[name] = _Place(name, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            stack.callback(os.close, self.places[name].fd)
        sender = self.places[errand.sender]
        # Any namespace will do (the switch is the machine's), but one without rules, whose counters would move.
        quiet = next((place for place in self.places.values() if place.name.startswith("lan/")), sender)
        stack.enter_context(stamps.switched_on(quiet.fd))
        stack.callback(self._close)
        for place in self.places.values():
            self._open(place, place is sender)
        traced = self._trace()
        refused = ""
        if errand.live:
            flow = self._await(sender)
        else:
            refused = self._send(sender, flow, stack)
        self._wait(sender, refused)
        self._read()
        sightings = self._sightings()
        rules = self._rules()
        accepted = self._accepted()
        met = {one.netns for one in sightings} | {one.netns for one in rules} | {errand.sender}
        routes, neighbours, tracked = self._tables(met)
        crossed: dict[str, set[str]] = {}
        for one in sightings:
            crossed.setdefault(one.netns, set()).add(one.device)
        return Witnessed(
            flow,
            sightings,
            rules,
            accepted,
            traced,
            routes,
            neighbours,
            tracked,
            refused,
            tuple(dict.fromkeys(self.blind)),
            tuple(self.notes),
            errand.live,
            tuple(sorted(self.envelopes, key=cmp_to_key(stamps.order))),
            {name: reading.settings(self.places[name].fd, crossed.get(name, set()), flow.destination.version) for name in met},
        )

    # ---------------------------------------------------------------- before

    def _open(self, place: _Place, sender: bool) -> None:
        udp = self.errand.flow.protocol is Protocol.UDP
        if self.errand.live:
            program = live.filter_for(self.errand.flow.protocol, self.run)
        else:
            program = filters.token_filter(self.run, any_udp=udp, tunnel=self.errand.tunnel)
        wanted = {self.errand.flow.protocol} | ({Protocol.ICMP} if sender else set())
        try:
            with entered(place.fd):
                place.tap = packet_sockets.tap(program)
                ip = self.errand.flow.destination.version
                aimed = packet_sockets.program(program)
                place.accepted = [packet_sockets.delivered(number_of(one, ip), aimed, ip) for one in sorted(wanted)]
                with nl.Socket() as sock:
                    place.links = {link.ifindex: link for link in listing.links(sock)}
        except (OSError, NetlabError) as error:
            self.blind.append(f"{place.name} cannot be watched: {error}")

    def _trace(self) -> tuple[str, ...]:
        """Have the kernel tell of the packet wherever there are rules."""
        found: list[str] = []
        untold: list[str] = []
        version = self.errand.flow.destination.version
        protocol = self.errand.flow.protocol
        if self.errand.live:
            asked = live.matches(protocol, version)
        else:
            own, late = telling.matches(protocol, self.run, version)
            tunnel = self.errand.tunnel
            asked = [*own, *(envelopes.matches(protocol, self.run, tunnel, version) if tunnel else ())], late
        for place in self.places.values():
            legacy = rule_listing.legacy_tables(place.fd, self.family)
            if legacy:
                untold.append(place.name)
            if not any(family in (self.family, "inet") for family, _ in rule_listing.nft_tables(place.fd)):
                continue
            if not libnftables.available():
                self.notes.append("libnftables.so.1 is missing, so the kernel's trace cannot be asked: apt install libnftables1")
                break
            try:
                place.trace = nft_trace.Trace(place.fd, self.run, *asked, self.family)
                found.append(place.name)
            except NetlabError as error:
                self.blind.append(f"{place.name}: {error}")
        if untold:
            self.notes.append(
                f"rules of iptables-legacy in {', '.join(untold)}, of which the kernel has no "
                "trace: which rule did what is the offline trace's word, the rest rests on packets, routes and conntrack"
            )
        return tuple(found)

    def _send(self, sender: _Place, flow: Flow, stack: ExitStack) -> str:
        """Send it; in words why the sender's kernel refused to ('' if it did not)."""
        packet = packets.packet(self.run, flow.protocol, flow.source, flow.destination, flow.port, INDEX, flow.source_port)
        self.requests.add(Shown(str(flow.source), str(flow.destination), flow.source_port, flow.port, str(flow.protocol)))
        with entered(sender.fd):
            version = flow.destination.version
            injector = stack.enter_context(packet_sockets.injector(version))
            if flow.protocol is Protocol.UDP:  # else the sender's kernel answers the answer with an ICMP error
                holding = stack.enter_context(
                    socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
                )
                with suppress(OSError):
                    holding.bind((str(flow.source), flow.source_port))
        try:
            injector.sendto(packet, (str(flow.destination), 0))
        except OSError as error:
            words = os.strerror(error.errno or 0)
            return f"{words} (its own rules discarded it)" if error.errno == errno.EPERM else words
        return ""

    # ---------------------------------------------------------------- under way

    def _await(self, sender: _Place) -> Flow:
        """The flow of the first packet that opens what was asked for; from then on it is known by its number or its data.

        Where the sender has rules, only the kernel's trace shows what was asked for. Raises MissingEvidence when none comes.
        """
        wanted, sources = self.errand.flow, {one.packed for one in self.errand.sources}
        self._read()  # what passed while witnesses were still being placed is not whole
        ready = time.time_ns()
        deadline = time.monotonic() + self.errand.live_s
        marks = {name: len(place.told) for name, place in self.places.items()}
        with self._poller([sender.tap.fileno()] if sender.tap is not None else []) as poller:
            while (left := deadline - time.monotonic()) > 0:
                self._forget(marks)
                poller.poll(left)
                self._read()
                frames = [
                    frame.data
                    for place, frame in self.frames
                    if place is sender and frame.pkttype == OUTGOING and frame.time_ns > ready
                ]
                for data in (*(one.packet for one in sender.first), *frames):
                    if (found := live.opening(data, wanted, sources)) is not None:
                        self.run, self.index, self.mark = found.run, found.number, found.mark
                        flow = found.flow
                        self.requests.add(
                            Shown(str(flow.source), str(flow.destination), flow.source_port, flow.port, str(flow.protocol))
                        )
                        return flow
        what = live.WORDS[wanted.protocol]
        port = f" port {wanted.port}" if wanted.port else ""
        raise MissingEvidence(
            f"no {what} from {sender.name} to {wanted.destination}{port} was seen within {self.errand.live_s:g} s: "
            "start the program while `explain --live` waits, or let it wait longer (--wait SECONDS)"
        )

    def _forget(self, marks: dict[str, int]) -> None:
        """Strangers' packets of the time before the last look, so that a long wait in a busy lab does not fill the memory.

        What was read at the last look is kept: it may belong to a packet whose beginning is read at the next.
        """
        old = time.time_ns() - KEPT_NS
        self.frames = [pair for pair in self.frames if pair[1].time_ns > old]
        self.taken = self.taken[-KEPT_TAKEN:]
        for place in self.places.values():
            place.first = []
            place.told = place.told[marks[place.name] :]
            marks[place.name] = len(place.told)

    @contextmanager
    def _poller(self, more: list[int]) -> Iterator[select.epoll]:
        """Readable when a stack accepts something, or a trace tells of something."""
        with select.epoll() as poller:
            for place in self.places.values():
                for fd in (*(raw.fileno() for raw in place.accepted), *([place.trace.fileno()] if place.trace else [])):
                    poller.register(fd, select.EPOLLIN)
            for fd in more:
                poller.register(fd, select.EPOLLIN)
            yield poller

    def _wait(self, sender: _Place, refused: str) -> None:
        """Until the sender accepts an answer, a rule has ended it, or the time is over."""
        deadline = time.monotonic() + (AFTER_DROP_S if refused else self.errand.timeout_s)
        ended = False
        with self._poller([]) as poller:
            while (left := deadline - time.monotonic()) > 0:
                if any(place is sender and self._part(data) not in ("", "request") for place, data in self.taken):
                    return
                poller.poll(left)
                self._read()
                if any(place is sender and self._part(data) not in ("", "request") for place, data in self.taken):
                    return
                if not ended and self._dropped():
                    ended, deadline = True, min(deadline, time.monotonic() + AFTER_DROP_S)

    def _dropped(self) -> bool:
        for place in self.places.values():
            numbers = {one.number for one in place.told if one.packet and self._part(one.packet)}
            if any(one.verdict == "drop" and one.number in numbers for one in place.told):
                return True
        return False

    def _read(self) -> None:
        for place in self.places.values():
            if place.trace is not None:
                try:
                    for one in place.trace.told():
                        (place.first if one.table.startswith(nft_trace.TABLE) else place.told).append(one)
                except KernelError as error:
                    self.blind.append(f"{place.name}: {error}")
            for raw in place.accepted:
                self.taken += ((place, data) for data in raw.new())
            if place.tap is not None:
                self.frames += ((place, frame) for frame in place.tap.new())

    # ---------------------------------------------------------------- what it was

    def _seen(self, data: bytes) -> tuple[str, Shown] | None:
        """Which part of the story these bytes are, and how the packet looks."""
        if self.mark is not None:
            return live.part(data, self.mark, self.requests)
        seen = packets.seen(data, self.run)
        if seen is not None:
            if seen.number != self.index:
                return None
            shown = live.plain_shown(data)
            if seen.kind is Kind.REQUEST:
                self.requests.add(shown)
            return PARTS[seen.kind], shown
        ip = packets.header(data) if len(data) >= 28 and data[0] >> 4 in (4, 6) else None
        if ip is None or len(data) < ip.length + 8:
            return None
        error = data[ip.length] in live.ERRORS.get(ip.protocol, ())
        if error and len(data) <= ip.length + 20:
            return PARTS[Kind.ICMP_ERROR], live.plain_shown(data)  # the trace shows too little of it for the token; it is our own
        if ip.protocol == live.UDP:
            shown = live.plain_shown(data)
            back = Shown(shown.dst, shown.src, shown.dport, shown.sport, shown.proto)
            if back in self.requests:
                return PARTS[Kind.REPLY], shown
        return None

    def _carried(self, data: bytes) -> tuple[str, Shown] | None:
        """What part of the story a datagram of the overlay carries, and how it looks itself."""
        inner = envelopes.carried(data, self.errand.tunnel) if self.errand.tunnel else None
        told = self._seen(inner) if inner is not None else None
        return None if told is None else (told[0], live.plain_shown(data))

    def _told(self, data: bytes) -> tuple[str, Shown] | None:
        """The same of what the kernel's trace shows, which is too little of an envelope to look into."""
        told = self._seen(data)
        if told is not None or len(data) < 28 or not self.envelopes:
            return told
        shown = live.plain_shown(data)
        part = next((one.part for one in self.envelopes if one.packet == shown), "")
        return (envelopes.CARRIED + part, shown) if part else None

    def _part(self, data: bytes) -> str:
        found = self._seen(data)
        return found[0] if found else ""

    def _sightings(self) -> tuple[Sighting, ...]:
        found: list[Sighting] = []
        # By time, so that an answer in UDP comes after the request whose addresses it turns round.
        for place, frame in sorted(self.frames, key=lambda pair: pair[1].time_ns):
            told, into = self._seen(frame.data), found
            if told is not None and told[0] == PARTS[Kind.REQUEST]:
                self.requests.add(told[1])
            if told is None:
                told, into = self._carried(frame.data), self.envelopes
            if told is None:
                continue
            link = next((link for link in place.links.values() if link.name == frame.device), None)
            into.append(
                Sighting(
                    frame.time_ns, place.name, frame.device, frame.pkttype == OUTGOING, *told, frame.pkttype == FOREIGN,
                    link is not None and link.kind == "bridge", link is not None and bool(link.master),
                )
            )  # fmt: skip
        return tuple(sorted(found, key=cmp_to_key(stamps.order)))

    def _accepted(self) -> tuple[tuple[str, str, Shown], ...]:
        told = ((place.name, self._seen(data)) for place, data in self.taken)
        return tuple(dict.fromkeys((name, *found) for name, found in told if found is not None))

    def _rules(self) -> tuple[RuleMet, ...]:
        found: list[RuleMet] = []
        for place in self.places.values():
            if place.trace is not None and place.told:
                found += telling.Telling(place, self._told, self.errand.flow.destination.version).rules()
        return tuple(found)

    def _tables(self, met: set[str]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Routes, neighbours and this packet's conntrack entries of the namespaces that it met."""
        routes: dict[str, Any] = {}
        neighbours: dict[str, Any] = {}
        tracked: dict[str, Any] = {}
        tuples = {(one.src, one.dst, one.sport, one.dport) for one in self.requests}
        for name in met:
            fd = self.places[name].fd
            try:
                routes[name] = tuple(observe.read(fd, "routes"))
                neighbours[name] = tuple(observe.read(fd, "neighbours"))
                if self.places[name].trace is None and not rule_listing.legacy_tables(fd, self.family):
                    continue
                rows = observe.read(fd, "conntrack")
            except (OSError, NetlabError) as error:
                self.blind.append(f"{name}: {error}")
                continue
            tracked[name] = tuple(row for row in rows if reading.original(row) in tuples)
        return routes, neighbours, tracked

    def _close(self) -> None:
        """Side by side: closing waits for the kernel's grace periods."""
        from concurrent.futures import ThreadPoolExecutor

        traces = [place.trace for place in self.places.values() if place.trace is not None]
        with ThreadPoolExecutor(max(1, min(8, len(traces)))) as pool:
            done = [pool.submit(trace.close) for trace in traces]
            packet_sockets.close_taps([place.tap for place in self.places.values() if place.tap is not None])
            for one in done:
                one.result()
        for place in self.places.values():
            for raw in place.accepted:
                raw.close()
