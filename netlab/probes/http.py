"""HTTP probes: real requests by real clients, side by side, and the backends that the receiving side showed.

Decides what counts as delivered: a whole HTTP response, of any status. Evidence about connections that were never made comes
from a few packets of the ordinary probe on the same flow.
"""

from dataclasses import replace

from netlab.model import OutcomeKind, Protocol
from netlab.probes import evidence
from netlab.probes.clients import Client, exchange
from netlab.probes.flows import observation
from netlab.probes.prober import Prober, check
from netlab.probes.values import HttpResult, ProbeRequest

AT_ONCE = 256


def probe(prober: Prober, request: ProbeRequest) -> HttpResult:
    """`count` requests of `request.http`, each on a connection of its own, and what became of them."""
    check(request)
    finished: list[Client] = []
    with exchange(prober, request) as watching:
        left = request.count
        while left > 0:
            clients = watching.connect(min(left, AT_ONCE))
            left -= AT_ONCE
            try:
                watching.run_until_done(clients, prober.clock() + request.timeout_s)
                watching.follow(clients)
            finally:
                for client in clients:
                    client.sock.close()
            finished += clients
        blind = watching.blind()
        batch = watching.batch
    lost = [flow for flow in batch.flows if flow.outcome is None and not flow.arrivals]
    said = evidence.sentences(batch.flows)
    control = not blind
    if lost:
        packet = replace(request.flow, protocol=Protocol.TCP)
        trace = prober.probe(
            replace(request, flow=packet, http=None, count=min(len(lost), 4), timeout_s=min(request.timeout_s, 0.2))
        )
        said += tuple(sentence for sentence in trace.evidence if sentence not in said)
        control = bool(trace.control)
    unseen = sum(flow.outcome is OutcomeKind.DELIVERED and not flow.arrivals for flow in batch.flows)
    if unseen:
        blind.append(f"{unseen} answered requests were seen to arrive at no watched namespace")
    return HttpResult(observation(batch, said, tuple(blind), control), tuple(client.response() for client in finished))
