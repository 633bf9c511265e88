"""The prober: sends the packets of many flows side by side, watches where they arrive, and says what it saw.

Decides which flows go together, and what silence is worth: flows that got no answer are sent once more, a few of each kind, with
every interface tapped (too dear for every probe, see packet_sockets). That tells where such packets are lost, and counts for
nothing else. How one round goes stands in rounds.py. Refuses to judge.
"""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from netlab.errors import InputError
from netlab.kernel import packet_sockets
from netlab.model import FrozenDict, Observation, Protocol
from netlab.probes import filters
from netlab.probes.rounds import Chunk, Round
from netlab.probes.spaces import Spaces
from netlab.probes.values import FIRST_PORT, PORTS, ProbeRequest

FLOWS_AT_ONCE, TCP_AT_ONCE = 2048, 16384
"""In one round, before which every namespace's sockets prove themselves. A SYN costs receivers nothing but the kernel's answer;
other packets wait in the buffers of programs.
"""
TRACED, TRACED_EACH, TRACE_S = 48, 4, 0.2
"""At most so many requests, and so many flows of each, are sent again to find out where they get lost; how long that waits."""


class Prober:
    """Probes of one lab. `open_netns` gives a new descriptor of a namespace, which the prober closes; with `identify`, which says
    what file it would open, what is open in namespaces stays so (spaces.py). `own`: the upper byte of its tokens, 1 to 254, which
    no other prober of the lab may have at the same time (lab/ranges.py); where there is none, a random one.
    """

    def __init__(
        self,
        open_netns: Callable[[str], int],
        random: Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        identify: Callable[[str], os.stat_result] | None = None,
        own: int | None = None,
    ) -> None:
        self.spaces = Spaces(open_netns, identify)
        self._random = random or Random(os.urandom(8))
        self.clock = clock
        self._own = self._random.randrange(1, 0xFF) if own is None else own
        self._round = self._random.randrange(0x100)
        self._kept = packet_sockets.program(filters.token_filter(self._own << 8, every_run=True))
        self._next_port: dict[str, int] = {}
        self._stamps = packet_sockets.stamped_time()

    def probe(self, request: ProbeRequest) -> Observation:
        """What became of the request's flows."""
        return self.probe_all((request,))[0]

    def probe_all(self, requests: Sequence[ProbeRequest]) -> tuple[Observation, ...]:
        """What became of each request's flows; all of them under way at the same time."""
        for request in requests:
            check(request)
        parts: list[list[Observation]] = [[] for _ in requests]
        silent: Chunk = []
        for chunk in _chunks(requests):
            run = self._run()
            for (number, request, _), seen in zip(chunk, run.go(chunk), strict=True):
                parts[number].append(seen)
                if seen.dropped and not run.tapped and len(silent) < TRACED:
                    again = replace(request, control=None, timeout_s=min(request.timeout_s, TRACE_S))
                    silent.append((number, again, min(seen.dropped, TRACED_EACH)))
        observations = [_merged(seen) for seen in parts]
        if silent:
            for (number, _, _), (sentences, left) in zip(silent, self._run(tapped=True).trace(silent), strict=True):
                seen = observations[number]
                told = seen.evidence + tuple(f"sent again: {sentence}" for sentence in sentences)
                control = seen.control if requests[number].control is not None else bool(seen.control and left)
                observations[number] = replace(seen, evidence=tuple(dict.fromkeys(told)), control=control)
        return tuple(observations)

    def _run(self, tapped: bool = False) -> Round:
        return Round(self.spaces, self.clock, self.token(), self.ports, self._kept, tapped)

    def token(self) -> int:
        """A number for one round of packets: the prober's own above one that comes again after 256 rounds."""
        self._round = (self._round + 1) % 0x100
        return self._own << 8 | self._round

    def begin(self, requests: Sequence[ProbeRequest]) -> None:
        """Of each namespace, go on with the source ports that the first of these requests was given."""
        for request in reversed(requests):
            if request.first_port:
                self._next_port[request.netns] = request.first_port - FIRST_PORT

    def ports(self, netns: str, count: int) -> list[int]:
        """Source ports that no recent flow of this namespace used: the range is gone round once in 20,000 flows."""
        start = self._next_port.get(netns)
        if start is None:
            start = self._random.randrange(PORTS)
        self._next_port[netns] = (start + count) % PORTS
        return [FIRST_PORT + (start + number) % PORTS for number in range(count)]


def check(request: ProbeRequest) -> None:
    """Raises InputError for what cannot be probed."""
    flow = request.flow
    if flow.source.version != flow.destination.version:
        raise InputError(f"probe from {flow.source} to {flow.destination}: a packet has addresses of one family")
    if request.count < 1:
        raise InputError(f"probe: count {request.count}: at least one packet is needed")


def _chunks(requests: Sequence[ProbeRequest]) -> Iterable[Chunk]:
    """(number of the request, request, how many of its flows), at most FLOWS_AT_ONCE (TCP_AT_ONCE) flows together."""
    chunk: Chunk = []
    most = TCP_AT_ONCE if all(request.flow.protocol is Protocol.TCP for request in requests) else FLOWS_AT_ONCE
    room = most
    for number, request in enumerate(requests):
        left = request.count
        while left:
            taken = min(left, room)
            chunk.append((number, request, taken))
            left -= taken
            room -= taken + 1
            if room <= 0:
                yield chunk
                chunk, room = [], most
    if chunk:
        yield chunk


def _merged(parts: Sequence[Observation]) -> Observation:
    """The parts of one request that was too large for one round."""
    first = parts[0]
    for part in parts[1:]:
        first = Observation(
            sent=first.sent + part.sent,
            delivered=first.delivered + part.delivered,
            rejected=first.rejected + part.rejected,
            dropped=first.dropped + part.dropped,
            backends=_sum(first.backends, part.backends),
            sources=_sum(first.sources, part.sources),
            arrivals=_sum(first.arrivals, part.arrivals),
            evidence=tuple(dict.fromkeys(first.evidence + part.evidence)),
            blind=tuple(dict.fromkeys(first.blind + part.blind)),
            control=first.control and part.control,
        )
    return first


def _sum(left: Mapping[Any, int], right: Mapping[Any, int]) -> FrozenDict:
    return FrozenDict(Counter(left) + Counter(right))
