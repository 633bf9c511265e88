"""One round of probing: eyes open, every eye proves itself, flows leave in small groups, answers and arrivals are taken in.

Decides the order of things and when the wait ends: when every flow has its answer, or the time is over. Deliveries thus take
milliseconds and only silence takes the whole timeout. Refuses to know how many rounds there are, and to judge.
"""

import errno
import os
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain

from netlab.errors import NetlabError
from netlab.kernel import packet_sockets
from netlab.kernel.features import has_sctp
from netlab.kernel.namespaces import entered
from netlab.kernel.packet_sockets import OUTGOING, Program
from netlab.model import Address, Flow, Observation, OutcomeKind, Protocol
from netlab.probes import evidence, filters, packets, plain, watching
from netlab.probes.flows import Batch, Sent, observation
from netlab.probes.packets import OWN_TEST, Kind
from netlab.probes.spaces import Spaces
from netlab.probes.values import ProbeRequest, Watched
from netlab.probes.watching import Eye

GROUP, TCP_GROUP = 64, 128
"""So many packets leave before answers are taken in: a SYN asks no program, and waits in no buffer but ours."""
HELD_UDP_PORTS = 512
TURNS = 10
"""A wait for answers is so many waits of this process: one alone may be over without anybody else having run."""
_NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES)
ReplyKey = tuple[str, bytes, int, bytes, int]
Chunk = list[tuple[int, ProbeRequest, int]]
"""Number of the request, request, how many of its flows."""


@dataclass(slots=True)
class Round:
    """One round of sending and watching."""

    spaces: Spaces
    clock: Callable[[], float]
    run: int
    ports: Callable[[str, int], list[int]]
    kept: Program
    tapped: bool = False
    flows: list[Sent] = field(default_factory=list)
    eyes: dict[str, Eye] = field(default_factory=dict)
    held: list[socket.socket] = field(default_factory=list)
    replies: dict[ReplyKey, list[Sent]] = field(default_factory=dict)
    trails: dict[int, list[evidence.Sighting]] = field(default_factory=dict)
    local: dict[tuple[str, Address], bool] = field(default_factory=dict)
    pending: int = 0
    has_sctp: bool = True
    poller: select.epoll = field(default_factory=select.epoll)
    by_fd: dict[int, tuple[Eye, packet_sockets.Delivered]] = field(default_factory=dict)

    def go(self, chunk: Chunk) -> list[Observation]:
        """Send the flows of each entry, watch, and count."""
        with self._watching(chunk) as tests:
            batches = [self._prepare(request, count) for _, request, count in chunk]
            self._transfer()
            self._drain_all()
            notes, blind = self._prove(tests)
            if self.tapped:
                self._read_taps()
            for eye in self.eyes.values():
                blind += [f"{eye.label}: {problem}" for problem in (*eye.problems, *watching.lost(eye))]
            self._end_foreign()
            return [self._observation(batch, control, tuple(blind), tuple(notes)) for batch, control in batches]

    def trace(self, chunk: Chunk) -> list[tuple[tuple[str, ...], bool]]:
        """For each entry: sentences about where its flows were last seen, and whether they were seen to leave the sender."""
        with self._watching(chunk):
            batches = [self._prepare(request, count)[0] for _, request, count in chunk]
            self._transfer()
            self._drain_all()
            self._read_taps()
            self._end_foreign()
            return [
                (
                    evidence.trail_sentences(batch.flows, self.trails),
                    all(flow.left or flow.arrivals or flow.outcome for flow in batch.flows),
                )
                for batch in batches
            ]

    @contextmanager
    def _watching(self, chunk: Chunk) -> Iterator[list[watching.OwnTest]]:
        """Every eye open and tested; everything that was opened is closed in the end."""
        flows = [flow for _, request, _ in chunk for flow in _flows_of(request)]
        spoken = tuple(dict.fromkeys((flow.destination.version, flow.protocol) for flow in flows))
        tests = [watching.OwnTest(version, packets.own_test(self.run, protocol, version)) for version, protocol in spoken]
        self.has_sctp = all(protocol is not Protocol.SCTP for _, protocol in spoken) or has_sctp()
        self._learn_local(chunk)
        self.tapped |= not all(self.local.values())
        plan = watching.Plan(
            program=filters.token_filter(self.run),
            udp_program=filters.token_filter(self.run, any_udp=True),
            protocols=spoken,
            senders=frozenset(request.netns for _, request, _ in chunk),
            tapped=self.tapped,
            kept=self.kept,
        )
        with watching.eyes(self.spaces, watched_of([request for _, request, _ in chunk]), plan) as self.eyes, self.poller:
            try:
                for eye in self.eyes.values():
                    self.by_fd.update({raw.fileno(): (eye, raw) for raw in eye.raw})
                for fd in self.by_fd:
                    self.poller.register(fd, select.EPOLLIN)
                for eye in self.eyes.values():
                    watching.send_own_tests(eye, tests, eye.addresses)
                yield tests
            finally:
                for sock in self.held:
                    sock.close()

    def _learn_local(self, chunk: Chunk) -> None:
        """Which source addresses are their senders' own. A sender that cannot be entered is reported by its eye."""
        for _, request, _ in chunk:
            for flow in _flows_of(request):
                if (request.netns, flow.source) not in self.local:
                    with suppress(OSError, NetlabError):
                        space = self.spaces.take(request.netns)
                        try:
                            self.local[request.netns, flow.source] = watching.holds(space.fd, flow.source)
                        finally:
                            self.spaces.give_back(space)

    # ---------------------------------------------------------------- before

    def _prepare(self, request: ProbeRequest, count: int) -> tuple[Batch, Batch | None]:
        batch = self._batch(request, request.flow, count)
        return batch, self._batch(request, request.control, 1) if request.control is not None else None

    def _batch(self, request: ProbeRequest, flow: Flow, count: int) -> Batch:
        source, destination = flow.source, flow.destination
        eye = self.eyes[request.netns]
        template = packets.template(self.run, flow.protocol, source, destination, flow.port, count)
        batch = Batch(request.netns, eye.label, flow, request, template, self.local.get((eye.netns, source), True))
        batch.arrival_suffices = flow.protocol is Protocol.SCTP and not self.has_sctp
        ports = [flow.source_port] * count if flow.source_port else self.ports(request.netns, count)
        if eye.space is None:
            ports = ports[:0]
        if flow.protocol is Protocol.UDP and batch.local:
            self._hold(eye.fd, source, ports)
        for port in ports:
            sent = Sent(batch, len(self.flows), port)
            self.flows.append(sent)
            batch.flows.append(sent)
            if flow.protocol is Protocol.UDP:
                key = (request.netns, destination.packed, flow.port, source.packed, port)
                self.replies.setdefault(key, []).append(sent)
        return batch

    def _hold(self, fd: int, source: Address, ports: list[int]) -> None:
        """Own the source ports while answers come, so that the sender's kernel does not answer them with ICMP errors."""
        family = socket.AF_INET if source.version == 4 else socket.AF_INET6
        with entered(fd):
            for place, port in enumerate(ports):
                if len(self.held) >= HELD_UDP_PORTS:
                    return
                sock = socket.socket(family, socket.SOCK_DGRAM)
                self.held.append(sock)
                try:
                    sock.bind((str(source), port))
                except OSError:  # in use: the program that has it would get our answers
                    sock.bind((str(source), 0))
                    ports[place] = sock.getsockname()[1]

    # ---------------------------------------------------------------- under way

    def _transfer(self) -> None:
        self.pending = len(self.flows)
        foreign = not all(flow.batch.local for flow in self.flows)
        passing = any(eye.passing for eye in self.eyes.values())
        group = TCP_GROUP if all(flow.batch.flow.protocol is Protocol.TCP for flow in self.flows) else GROUP
        for start in range(0, len(self.flows), group):
            for flow in self.flows[start : start + group]:
                self._send(flow)
            self._drain(0.0)
            if passing:
                self._let_through(start + group)
            if self.tapped:
                self._read_taps()
        for turn_s in turns(max((flow.batch.request.timeout_s for flow in self.flows), default=0.0), self.clock):
            if self.pending <= 0:
                break
            self._drain(min(turn_s, 0.002) if foreign else turn_s)
            if foreign:
                self._read_taps()

    def _let_through(self, sent: int) -> None:
        """A proxy process has a buffer of some 200 datagrams: wait (not for long) for most of what was sent."""
        end = self.clock() + 0.05
        while sent - (len(self.flows) - self.pending) > GROUP and (left := end - self.clock()) > 0:
            self._drain(min(left, 0.005))

    def _send(self, flow: Sent) -> None:
        batch = flow.batch
        packet = batch.template.fill(flow.index, flow.source_port)
        try:
            for attempt in range(4):
                try:
                    self._injector(batch).sendto(packet, (str(batch.flow.destination), 0))
                    return
                except OSError as error:
                    if error.errno != errno.ENOBUFS or attempt == 3:
                        raise
                    time.sleep(0.001)  # the device's queue is full: let it run
        except OSError as error:
            self._not_sent(flow, error)

    def _injector(self, batch: Batch) -> socket.socket:
        space = self.eyes[batch.netns].space
        assert space is not None, "flows have ports only where their sender could be entered"
        return space.injector(batch.flow.source.version)

    def _not_sent(self, flow: Sent, error: OSError) -> None:
        words = os.strerror(error.errno or 0)
        if error.errno in _NO_WAY:
            flow.outcome, flow.detail = OutcomeKind.REJECTED, f"refused: {flow.batch.label} has no way to {flow.asked} ({words})"
            flow.left = True
            self.pending -= 1
        elif error.errno == errno.EPERM:  # a rule of the sender's own OUTPUT; a reject still answers with ICMP
            flow.left = True
            flow.stray = f"not sent: the sender's own rules discard such packets ({words})"
        else:
            flow.stray = f"not sent: the sender's kernel refused it ({words})"

    def _drain(self, timeout_s: float) -> None:
        for fd, _ in self.poller.poll(timeout_s, 256):
            eye, raw = self.by_fd[fd]
            for data in raw.new(4096):
                self._received(eye, data)

    def _received(self, eye: Eye, data: bytes) -> None:
        """A packet that the stack of the eye's namespace accepted."""
        seen = packets.seen(data, self.run)
        ip = packets.header(data)
        if eye.sender and ip.protocol == 17 and self._udp_answer(eye, data, ip):
            return
        if seen is None:
            return
        if seen.number == OWN_TEST:
            if seen.kind is Kind.REQUEST:
                version = data[0] >> 4
                eye.proved.add((version, ip.protocol, seen.destination != eye.addresses[version].packed))
            return
        if seen.number >= len(self.flows):
            return
        flow = self.flows[seen.number]
        open_before = flow.outcome is None
        if seen.kind is Kind.REQUEST:
            if seen.destination_port in eye.passing:
                flow.passed = True
            elif eye.receiver:
                flow.arrived(eye.netns, seen)
        elif eye.netns == flow.batch.netns:
            flow.answered(seen)
        self.pending -= open_before and flow.outcome is not None

    def _udp_answer(self, eye: Eye, data: bytes, ip: packets.Header) -> bool:
        start = ip.length
        ports = int.from_bytes(data[start : start + 2], "big"), int.from_bytes(data[start + 2 : start + 4], "big")
        waiting = self.replies.get((eye.netns, ip.source, ports[0], ip.destination, ports[1]))
        for flow in waiting or ():
            if flow.outcome is None:
                flow.outcome = OutcomeKind.DELIVERED
                self.pending -= 1
                return True
        return waiting is not None

    def _read_taps(self) -> None:
        """Take what passed the interfaces into the trails; answers to foreign source addresses conclude their flows here."""
        for eye in self.eyes.values():
            if eye.tap is None:
                continue
            for order, frame in enumerate(eye.tap.new()):
                seen = packets.seen(frame.data, self.run)
                if seen is None or seen.number >= len(self.flows):
                    continue
                sighting = (frame.time_ns, order, eye, frame.device, frame.pkttype, frame.data, seen)
                self.trails.setdefault(seen.number, []).append(sighting)
                self._passed(eye, frame.pkttype == OUTGOING, self.flows[seen.number], seen)

    def _passed(self, eye: Eye, outgoing: bool, flow: Sent, seen: packets.Seen) -> None:
        if seen.kind is Kind.REQUEST:
            flow.left |= outgoing and eye.netns == flow.batch.netns
            return
        arrived_here = any(netns == eye.netns for netns, *_ in flow.arrivals)
        if not flow.batch.local and outgoing and (arrived_here or seen.kind is Kind.ICMP_ERROR) and flow.outcome is None:
            flow.left_a_receiver(seen)
            self.pending -= flow.outcome is not None

    # ---------------------------------------------------------------- after

    def _drain_all(self) -> None:
        for eye, raw in self.by_fd.values():
            for data in raw.new():
                self._received(eye, data)

    def _prove(self, tests: Sequence[watching.OwnTest]) -> tuple[list[str], list[str]]:
        """Sentences about namespaces that lack their address, and about eyes that did not see their own test packet."""
        notes, blind = [], []
        eyes = [eye for eye in self.eyes.values() if eye.fd >= 0 and not eye.problems]
        doubtful = [eye for eye in eyes if eye.tests_seen(loopback=False) < len(tests)]
        for eye in doubtful:
            watching.send_own_tests(eye, tests, packets.LOOPBACK)
        deadline = self.clock() + 0.1
        while self.clock() < deadline and any(eye.tests_seen(loopback=True) < len(tests) for eye in doubtful):
            self._drain(0.01)
        for eye in doubtful:
            if eye.tests_seen(loopback=True) < len(tests):
                blind.append(f"{eye.label}: the watcher did not see its own test packet")
                continue
            for version in dict.fromkeys(test.version for test in tests):
                wanted, address = sum(test.version == version for test in tests), eye.addresses[version]
                if address != packets.LOOPBACK[version] and eye.tests_seen(False, (version,)) < wanted:
                    notes.append(f"{eye.label} does not hold its address {address}")
        return notes, blind

    def _end_foreign(self) -> None:
        """Reset the half-open connections that carry a foreign source address; the sender's kernel resets its own."""
        for flow in self.flows:
            kind = flow.batch.flow
            if flow.batch.local or kind.protocol is not Protocol.TCP or flow.outcome is not OutcomeKind.DELIVERED:
                continue
            packet = plain.reset(self.run, kind.source, kind.destination, kind.port, flow.index, flow.source_port)
            try:
                self._injector(flow.batch).sendto(packet, (str(kind.destination), 0))
            except OSError:
                return

    def _observation(self, batch: Batch, control: Batch | None, blind: tuple[str, ...], notes: tuple[str, ...]) -> Observation:
        answered = [flow for flow in batch.flows if flow.outcome is OutcomeKind.DELIVERED and not flow.arrivals]
        # A proxy process' own kernel answers a SYN; a datagram is answered by whoever it reached.
        unseen = sum(not flow.passed or batch.flow.protocol is not Protocol.TCP for flow in answered)
        if unseen:
            blind += (f"{unseen} answered flows were seen to arrive at no watched namespace",)
        if not batch.flows:
            blind += (f"{batch.label}: no packet could be sent",)
        said = evidence.sentences(batch.flows)
        if self.tapped:
            said += evidence.trail_sentences([flow for flow in batch.flows if flow.outcome is None], self.trails)
        if batch.arrival_suffices:
            said += (evidence.unanswered_protocol(batch.flow.protocol),)
        proved = not blind
        if control is not None:
            proved = all(flow.arrivals for flow in control.flows) and bool(control.flows)
        elif self.tapped:
            proved = proved and all(flow.left or flow.arrivals or flow.outcome for flow in batch.flows)
        return observation(batch, said + notes, blind, proved)


def turns(timeout_s: float, clock: Callable[[], float]) -> Iterator[float]:
    """Spend the time in turns, each the seconds that it may take: what a turn takes beyond that counts not.

    Where this process does not get to run, neither do the kernel's threads that carry packets on: silence then says nothing.
    """
    left = timeout_s
    while left > 1e-6:
        begun, turn = clock(), min(left, timeout_s / TURNS)
        yield turn
        left -= min(turn, clock() - begun)


def _flows_of(request: ProbeRequest) -> tuple[Flow, ...]:
    return (request.flow,) if request.control is None else (request.flow, request.control)


def watched_of(requests: Sequence[ProbeRequest]) -> dict[str, Watched]:
    """Namespace -> what to watch there; senders too, as witnesses where nobody asked for more."""
    watched: dict[str, Watched] = {}
    lists = {id(request.watched): request.watched for request in requests}  # thousands share one
    for what in chain.from_iterable(lists.values()):
        watched.setdefault(what.netns, what)
    for request in requests:
        watched.setdefault(request.netns, Watched(request.netns, receiver=False))
    return watched
