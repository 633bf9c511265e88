"""One probe's flows: what each packet that was seen makes of its flow, and the Observation in the end.

Decides when a flow counts as delivered (the sender's stack accepted an answer from the address that it had asked), rejected (RST
or ICMP unreachable, or the sender had no route) or dropped. Arrivals are kept apart from that: they are what receivers saw. Where
the source address is not the sender's own, the answer goes elsewhere: then an answer seen to leave a receiver counts.
Refuses to know sockets and time.
"""

from collections import Counter
from dataclasses import dataclass, field

from netlab.model import Address, Flow, FrozenDict, Observation, OutcomeKind, Protocol
from netlab.probes.packets import UNREACHABLE, Kind, Seen, Template, address
from netlab.probes.values import ProbeRequest, name_of, place

Arrival = tuple[str, bytes, int, bytes]
"""Namespace, destination address and port after all rewriting, source address as seen there."""


@dataclass(slots=True, eq=False)
class Batch:
    """All flows of one request (or of its control). `local`: the source address is the sender's own."""

    netns: str
    label: str
    flow: Flow
    request: ProbeRequest
    template: Template
    local: bool
    arrival_suffices: bool = False
    flows: "list[Sent]" = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Sent:
    """One flow. `detail` says how an outcome came about, `stray` what came that was no answer. `passed`: a proxy
    process took it.
    """

    batch: Batch
    index: int
    source_port: int
    outcome: OutcomeKind | None = None
    detail: str = ""
    stray: str = ""
    left: bool = False
    passed: bool = False
    arrivals: list[Arrival] = field(default_factory=list)

    def arrived(self, netns: str, seen: Seen) -> None:
        """A receiver's stack accepted the flow's packet."""
        arrival = (netns, seen.destination, seen.destination_port, seen.source)
        if arrival not in self.arrivals:
            self.arrivals.append(arrival)
        if self.batch.arrival_suffices and self.outcome is None:
            self.outcome = OutcomeKind.DELIVERED

    def answered(self, seen: Seen) -> None:
        """The sender's stack accepted a packet that concerns the flow."""
        if self.outcome is not None:
            return
        if seen.kind is Kind.ICMP_ERROR:
            self._refused_by_icmp(seen, strict=True)
        elif self._from_whom_was_asked(seen):
            self._conclude(seen)
        else:
            origin = place(address(seen.source), seen.source_port)
            self.stray = f"an answer came from {origin} instead of {self.asked}, which a client discards"

    def left_a_receiver(self, seen: Seen) -> None:
        """For a source address that is not the sender's: an answer was seen to leave a receiver, or an ICMP error anywhere."""
        if self.outcome is not None:
            return
        if seen.kind is Kind.ICMP_ERROR:
            self._refused_by_icmp(seen, strict=False)
        else:
            self._conclude(seen)

    @property
    def asked(self) -> str:
        flow = self.batch.flow
        return place(flow.destination, flow.port)

    def _from_whom_was_asked(self, seen: Seen) -> bool:
        flow = self.batch.flow
        if (seen.source, seen.destination) != (flow.destination.packed, flow.source.packed):
            return False
        return flow.protocol is Protocol.ICMP or (seen.source_port, seen.destination_port) == (flow.port, self.source_port)

    def _conclude(self, seen: Seen) -> None:
        if seen.kind is Kind.REFUSAL:
            self.outcome = OutcomeKind.REJECTED
            word = "ABORT" if self.batch.flow.protocol is Protocol.SCTP else "RST"
            self.detail = f"refused by a {word} from {place(address(seen.source), seen.source_port)}"
        else:
            self.outcome = OutcomeKind.DELIVERED

    def _refused_by_icmp(self, seen: Seen, strict: bool) -> None:
        assert seen.error is not None
        kind, code, source, destination, source_port, destination_port = seen.error
        flow, origin = self.batch.flow, address(seen.source)
        quoted = (source, destination, source_port, destination_port)
        if strict and quoted != (flow.source.packed, flow.destination.packed, self.source_port, flow.port):
            ports = flow.protocol is Protocol.ICMP
            if not (ports and quoted[:2] == (flow.source.packed, flow.destination.packed)):
                asked = place(address(destination), destination_port)
                self.stray = f"an ICMP error from {origin} quotes {asked}, which was not asked"
                return
        if kind == 3 and code != 4:
            self.outcome = OutcomeKind.REJECTED
            self.detail = f"refused by ICMP {UNREACHABLE.get(code, f'code {code}')} unreachable from {origin}"
        elif kind == 11:
            self.stray = f"ICMP time exceeded from {origin}: a routing loop"


def observation(
    batch: Batch, evidence: tuple[str, ...], blind: tuple[str, ...], control: bool | None, extra: tuple[Batch, ...] = ()
) -> Observation:
    """The batch's flows counted. `extra`: further batches of the same request."""
    flows = [flow for part in (batch, *extra) for flow in part.flows]
    outcomes = Counter(flow.outcome or OutcomeKind.DROPPED for flow in flows)
    arrivals: Counter[tuple[Address, int, Address]] = Counter()
    for flow in flows:
        arrivals.update({(address(to), port, address(source)): 1 for _, to, port, source in flow.arrivals})
    backends: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    for (to, port, source), number in sorted(arrivals.items(), key=lambda item: (int(item[0][0]), item[0][1], int(item[0][2]))):
        backends[name_of(batch.request.names, to, port)] += number
        sources[str(source)] += number
    return Observation(
        sent=len(flows),
        delivered=outcomes[OutcomeKind.DELIVERED],
        rejected=outcomes[OutcomeKind.REJECTED],
        dropped=outcomes[OutcomeKind.DROPPED],
        backends=FrozenDict(backends),
        sources=FrozenDict(sources),
        arrivals=FrozenDict(arrivals),
        evidence=evidence,
        blind=blind,
        control=control,
    )
