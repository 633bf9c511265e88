"""What a worker process does for probes: keeps one Prober, and carries out what the lab asks of it."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from netlab.model import Observation
from netlab.probes.values import ProbeRequest
from netlab.probes.witnessed import Errand, Witnessed


class Worker:
    """The probing half of a worker. The prober is made at the first probe: it imports scapy.

    `own`: the upper byte of its tokens (lab/ranges.py).
    """

    def __init__(self, own: int) -> None:
        self._own = own
        self._prober: Any = None

    def methods(self) -> Mapping[str, Callable[..., Any]]:
        """Those for which it is worth that something stays open."""
        return {"probe": self.probe, "probe_many": self.probe_many}

    def probe(self, request: ProbeRequest) -> Any:
        """An Observation; for a request with `http`, an HttpResult around one."""
        self.prober().begin([request])
        if request.relayed:
            from netlab.probes import relayed

            return relayed.probe_all(self.prober(), [request])[0]
        if request.http is not None:
            from netlab.probes import http

            return http.probe(self.prober(), request)
        return self.prober().probe(request)

    def probe_many(self, requests: Sequence[ProbeRequest]) -> list[Observation]:
        """All of them side by side."""
        self.prober().begin(requests)
        if not any(request.relayed for request in requests):
            return list(self.prober().probe_all(requests))
        plain = iter(self.prober().probe_all([request for request in requests if not request.relayed]))
        from netlab.probes import relayed

        through = iter(relayed.probe_all(self.prober(), [request for request in requests if request.relayed]))
        found = (next(through if request.relayed else plain) for request in requests)
        return [one if isinstance(one, Observation) else one.observation for one in found]

    def explain(self, errand: Errand) -> Witnessed:
        """One packet, followed; needs no prober, and so no scapy."""
        from netlab.probes import witness

        return witness.follow(errand, self._own)

    def prober(self) -> Any:
        if self._prober is None:
            from netlab.probes.prober import Prober

            self._prober = Prober(lambda path: os.open(path, os.O_RDONLY | os.O_CLOEXEC), identify=os.stat, own=self._own)
        return self._prober

    def rest(self) -> None:
        """Close what is kept open for the next probe: there was none for a while, or there is something else to do."""
        if self._prober is not None:
            self._prober.spaces.close()
