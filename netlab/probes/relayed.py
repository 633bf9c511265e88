"""TCP probes in a lab whose nodes proxy in user space: what leaves the client is not the connection that reaches the pod.

A packet's numbers do not survive a proxy process, and a finished handshake proves only that the process is there. So a real
client says something: a request that carries a token, and the receiving side's stack is watched for it. A flow is delivered when
the answer came or, where HTTP was not asked for, when its token was seen to arrive (data arrives only on a connection that works
both ways). A connection that is accepted and then closed before its token arrived anywhere is a refusal. Decides nothing else.
"""

import contextlib
import re
import select
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import h11

from netlab.kernel.namespaces import entered
from netlab.kernel.packet_sockets import Delivered
from netlab.model import Observation, OutcomeKind, Protocol
from netlab.probes import evidence, filters, packets, watching
from netlab.probes.clients import Client
from netlab.probes.flows import Batch, Sent, observation
from netlab.probes.packets import OWN_TEST, Kind, Seen, Template
from netlab.probes.prober import TRACE_S, TRACED, TRACED_EACH, Prober, check
from netlab.probes.rounds import watched_of
from netlab.probes.values import HttpRequest, HttpResult, ProbeRequest
from netlab.probes.watching import Eye

AT_ONCE = 256
QUIET_S = 0.1
"""How long a server that has the token may think about an answer, where no answer was asked for."""
DEADLINE = "no answer before the deadline"
HEADER = "X-Netlab-Flow"
_TOKEN = re.compile(rb"^x-netlab-flow: ([0-9a-f]{4})([0-9a-f]{8})\r?$", re.IGNORECASE | re.MULTILINE)


def probe_all(prober: Prober, requests: Sequence[ProbeRequest]) -> list[Observation | HttpResult]:
    """What became of each request's connections: an HttpResult where HTTP was asked for, else an Observation."""
    for request in requests:
        check(request)
    run = prober.token()
    program = filters.greeting_filter(run)
    versions = tuple(sorted({request.flow.destination.version for request in requests}))
    spoken = tuple((version, Protocol.TCP) for version in versions)
    plan = watching.Plan(program, program, spoken, frozenset(request.netns for request in requests), False)
    with watching.eyes(prober.spaces, watched_of(requests), plan) as eyes:
        for eye in eyes.values():
            watching.send_own_tests(eye, _own_tests(run, versions), eye.addresses)
        flight = Flight(prober, run, eyes, versions)
        batches = [flight.batch(request) for request in requests]
        wanted = [batch for batch in batches for _ in range(batch.request.count)]
        clients = [
            client for start in range(0, len(wanted), AT_ONCE) for client in flight.exchange(wanted[start : start + AT_ONCE])
        ]
        blind = flight.blind()
    return _results(prober, batches, clients, tuple(blind), frozenset(flight.foreign))


@dataclass(slots=True)
class Flight:
    """Eyes on every watched namespace, and the clients under way. `versions`: of IP.

    `foreign`: batches (by id) whose source is not the sender's.
    """

    prober: Prober
    run: int
    eyes: dict[str, Eye]
    versions: tuple[int, ...]
    flows: list[Sent] = field(default_factory=list)
    foreign: set[int] = field(default_factory=set)

    def batch(self, request: ProbeRequest) -> Batch:
        label = self.eyes[request.netns].label
        return Batch(request.netns, label, request.flow, request, Template(lambda index, port: b""), True)

    def exchange(self, wanted: Sequence[Batch]) -> list[Client]:
        """One connection for each entry, from its beginning to its end."""
        clients = [client for batch in wanted for client in self._client(batch)]
        deadline = self.prober.clock() + max((batch.request.timeout_s for batch in wanted), default=0.0)
        try:
            self._serve(clients, deadline)
        finally:
            for client in clients:
                client.sock.close()
        for client in clients:
            self._conclude(client)
        return clients

    def _client(self, batch: Batch) -> list[Client]:
        eye, flow = self.eyes[batch.netns], batch.flow
        if eye.fd < 0:
            return []
        port = flow.source_port or self.prober.ports(batch.netns, 1)[0]
        with entered(eye.fd):
            sock = socket.socket(socket.AF_INET if flow.destination.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sent = Sent(batch, len(self.flows), port)
        asked = batch.request.http or HttpRequest()
        asked = replace(asked, headers=(*asked.headers, (HEADER, f"{self.run:04x}{sent.index:08x}")))
        client = Client(sent, sock, asked, h11.Connection(h11.CLIENT))
        self.flows.append(sent)
        batch.flows.append(sent)
        try:
            _bind(sock, str(flow.source), port)
        except OSError as error:
            self.foreign.add(id(batch))
            client.finished(f"no connection from {flow.source}: {error.strerror}")
            return [client]
        sent.source_port = sock.getsockname()[1]
        try:
            sock.connect((str(flow.destination), flow.port))
        except BlockingIOError:
            pass
        except OSError as error:
            client.failed(error)
        return [client]

    def _serve(self, clients: Sequence[Client], deadline: float) -> None:
        with select.epoll() as poller:
            by_fd = {client.sock.fileno(): client for client in clients if not client.done}
            for fd in by_fd:
                poller.register(fd, select.EPOLLOUT)
            raws = {raw.fileno(): (eye, raw) for eye in self.eyes.values() for raw in eye.raw}
            for fd in raws:
                poller.register(fd, select.EPOLLIN)
            pending, last = set(by_fd.values()), self.prober.clock()
            while pending and (left := deadline - self.prober.clock()) > 0:
                if all(client.sent.arrivals and client.sent.batch.request.http is None for client in pending):
                    left = min(left, last + QUIET_S - self.prober.clock())
                    if left <= 0:
                        break
                for fd, _ in poller.poll(left, 256):
                    last = self.prober.clock()
                    if fd in raws:
                        self._watch(*raws[fd])
                        continue
                    client = by_fd[fd]
                    connecting = not client.connected
                    client.ready()
                    if client.done:
                        poller.unregister(fd)
                        pending.discard(client)
                    elif connecting and client.connected:
                        poller.modify(fd, select.EPOLLIN)
            for eye, raw in raws.values():
                self._watch(eye, raw)
        for client in clients:
            if not client.done:
                client.finished(DEADLINE)

    def _watch(self, eye: Eye, raw: Delivered) -> None:
        for data in raw.new():
            version = data[0] >> 4
            start = (data[0] & 15) * 4 if version == 4 else 40
            if len(data) < start + 20 or data[9 if version == 4 else 6] != 6:
                continue
            ports, sequence = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "big")
            if data[start + 13] & 0x02:
                if sequence == self.run << 16 | OWN_TEST:
                    eye.proved.add((version, 6, False))
                continue
            token = _TOKEN.search(data, start + (data[start + 12] >> 4) * 4)
            if token is None or int(token[1], 16) != self.run or int(token[2], 16) >= len(self.flows):
                continue
            port = int.from_bytes(ports[2:], "big")
            if eye.receiver and port not in eye.passing:
                source, destination = (data[12:16], data[16:20]) if version == 4 else (data[8:24], data[24:40])
                seen = Seen(Kind.REQUEST, 0, source, destination, int.from_bytes(ports[:2], "big"), port)
                self.flows[int(token[2], 16)].arrived(eye.netns, seen)

    def _conclude(self, client: Client) -> None:
        sent = client.sent
        if sent.outcome is not None or not client.connected:
            return
        if sent.arrivals:
            if sent.batch.request.http is None:
                sent.outcome = OutcomeKind.DELIVERED
        elif client.problem != DEADLINE:
            sent.outcome, sent.detail = OutcomeKind.REJECTED, f"the connection was accepted, and closed: {client.problem}"
        else:
            sent.stray = "the connection was accepted, but what was said on it arrived at no watched place"

    def blind(self) -> list[str]:
        """Sentences about eyes that did not see."""
        found = []
        for eye in self.eyes.values():
            found += [f"{eye.label}: {problem}" for problem in (*eye.problems, *watching.lost(eye))]
            if not eye.problems and len(eye.proved) < len(self.versions):
                watching.send_own_tests(eye, _own_tests(self.run, self.versions), packets.LOOPBACK)
                for raw in eye.raw:
                    self._watch(eye, raw)
                if len(eye.proved) < len(self.versions):
                    found.append(f"{eye.label}: the watcher did not see its own test packet")
        return found


def _bind(sock: socket.socket, source: str, port: int) -> None:
    with contextlib.suppress(OSError):
        sock.bind((source, port))
        return
    sock.bind((source, 0))  # the port is in use


def _results(
    prober: Prober, batches: Sequence[Batch], clients: Sequence[Client], blind: tuple[str, ...], foreign: frozenset[int]
) -> list[Observation | HttpResult]:
    traced = _traced(prober, batches, foreign)
    results: list[Observation | HttpResult] = []
    for batch in batches:
        if id(batch) in foreign:  # no client can have this address: packets can
            results.append(prober.probe(replace(batch.request, http=None, relayed=False)))
            continue
        unseen = sum(flow.outcome is OutcomeKind.DELIVERED and not flow.arrivals for flow in batch.flows)
        here = blind
        if unseen:
            here += (f"{unseen} answered connections were seen to arrive at no watched namespace",)
        said = evidence.sentences(batch.flows)
        control = not here
        again = traced.get(id(batch))
        if again is not None:
            said += tuple(sentence for sentence in again.evidence if sentence not in said)
            control = bool(again.control) and control
        seen = observation(batch, said, here, control)
        if batch.request.http is None:
            results.append(seen)
        else:
            results.append(HttpResult(seen, tuple(client.response() for client in clients if client.sent.batch is batch)))
    return results


def _traced(prober: Prober, batches: Sequence[Batch], foreign: frozenset[int]) -> dict[int, Observation]:
    """Where packets like those of flows that came to nothing get lost; also the proof that the sender sends."""
    lost = {id(batch): sum(flow.outcome is None for flow in batch.flows) for batch in batches}
    silent = [batch for batch in batches if lost[id(batch)] and id(batch) not in foreign][:TRACED]
    again = [
        replace(
            batch.request,
            http=None,
            relayed=False,
            count=min(lost[id(batch)], TRACED_EACH),
            timeout_s=min(batch.request.timeout_s, TRACE_S),
        )
        for batch in silent
    ]
    found = prober.probe_all(again) if again else ()
    return {id(batch): seen for batch, seen in zip(silent, found, strict=True)}


def _own_tests(run: int, versions: tuple[int, ...]) -> tuple[watching.OwnTest, ...]:
    return tuple(watching.OwnTest(version, packets.own_test(run, Protocol.TCP, version)) for version in versions)
