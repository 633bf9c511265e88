"""TCP connections that a probe holds open, to see whether they outlive a change of the lab.

Decides what "the same" means: the peer answers `GET /hostname` on the old connection as it did when the connection was new.
"""

from dataclasses import dataclass, field, replace

import h11

from netlab.errors import InputError
from netlab.probes import evidence
from netlab.probes.clients import Client, Exchange, exchange
from netlab.probes.flows import observation
from netlab.probes.prober import Prober, check
from netlab.probes.values import HttpRequest, Opened, ProbeRequest, Used


@dataclass(slots=True)
class Connections:
    """The held connections of one worker, by number."""

    prober: Prober
    held: dict[int, tuple[Client, str]] = field(default_factory=dict)
    last: int = 0

    def open(self, request: ProbeRequest) -> Opened:
        """Connect once, ask for the peer's name, and keep the connection. `id` 0: it could not be made."""
        check(request)
        self.prober.begin([request])
        request = replace(request, count=1, http=request.http or HttpRequest("/hostname"))
        with exchange(self.prober, request) as watching:
            clients = watching.connect(1)
            watching.run_until_done(clients, self.prober.clock() + request.timeout_s)
            watching.follow(clients)
            blind = watching.blind()
            seen = observation(watching.batch, evidence.sentences(watching.batch.flows), tuple(blind), not blind)
        if not clients or clients[0].problem:
            for client in clients:
                client.sock.close()
            return Opened(0, "", seen)
        self.last += 1
        client = clients[0]
        answer = client.body.decode("utf-8", "replace")
        self.held[self.last] = (client, answer)
        return Opened(self.last, client.backend(), seen, answer)

    def use(self, number: int, timeout_s: float = 1.0) -> Used:
        """Ask again on a held connection."""
        client, first = self._held(number)
        try:
            client.http.start_next_cycle()
        except h11.ProtocolError:
            return Used(False, False, "", "the peer had ended the connection with its last answer")
        client.done, client.problem = False, ""
        client.body.clear()
        try:
            client.start()
        except OSError as error:
            client.failed(error)
        quiet = Exchange(self.prober, client.sent.batch.request, 0, {}, client.sent.batch)
        quiet.run_until_done([client], self.prober.clock() + timeout_s)
        answer = client.body.decode("utf-8", "replace")
        return Used(not client.problem, not client.problem and answer == first, answer, client.problem)

    def close(self, number: int) -> None:
        """End a held connection."""
        self._held(number)[0].sock.close()
        del self.held[number]

    def _held(self, number: int) -> tuple[Client, str]:
        if number not in self.held:
            raise InputError(f"no connection {number} is held; held are {sorted(self.held) or 'none'}")
        return self.held[number]
