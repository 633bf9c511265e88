"""TCP connections held open through the API: connect, use, close. All live in one process of their own, the keeper.

It decides how a held connection is shown. What "the same" means is decided where it is used (probes.connections).
"""

import socket

from netlab.errors import KernelError
from netlab.kernel import agent
from netlab.lab import probing
from netlab.lab.holder import Lab
from netlab.lab.probing import Body, Later
from netlab.lab.receiving import receivers
from netlab.model import Protocol
from netlab.probes.values import Opened, Used


def connect(lab: Lab, body: Body, later: Later) -> None:
    """{"from", "to", "source", "source_port", "timeout_s", "namespace"} -> {"connection", "backend", "answer", "result"}"""
    question = probing.ask(lab, {**body, "count": 1, "protocol": body.get("protocol") or "tcp"})
    if question.destination.protocol is not Protocol.TCP:
        raise KernelError(f"{question.destination.label}: only TCP connections are held")
    names = receivers(lab.cluster)

    def opened(ok: bool, answer: Opened) -> None:
        if not ok:
            return later(False, answer)
        if not answer.id:
            fate = next((what for what in ("rejected", "dropped") if getattr(answer.observation, what)), "not answered")
            seen = "; ".join(answer.observation.evidence)
            return later(False, KernelError(f"{question.sender} cannot connect to {question.destination.label}: {fate}; {seen}"))
        result = probing.result(lab, question, answer.observation, names)
        return later(True, {"connection": answer.id, "backend": answer.backend, "answer": answer.answer, "result": result})

    lab.agents.keep(opened, "open", probing.request(lab, question, names, probing.watch_list(lab)))


def use(lab: Lab, body: Body, later: Later) -> None:
    """{"connection", "timeout_s"} -> {"alive", "same", "answer", "problem"}"""

    def used(ok: bool, answer: Used) -> None:
        fields = ("alive", "same", "answer", "problem")
        later(ok, {name: getattr(answer, name) for name in fields} if ok else answer)

    lab.agents.keep(used, "use", int(body["connection"]), probing.waiting_s(body))


def close(lab: Lab, body: Body, later: Later) -> None:
    """{"connection"} -> {}"""
    lab.agents.keep(lambda ok, answer: later(ok, {} if ok else answer), "close", int(body["connection"]))


def serve(sock: socket.socket, own: int) -> None:
    """Be the keeper, until the holder has gone. `own`: the upper byte of its tokens."""
    from netlab.probes.connections import Connections
    from netlab.probes.spaces import REST_S
    from netlab.probes.worker import Worker

    worker = Worker(own)
    connections = Connections(worker.prober())
    methods: dict[str, agent.Method] = {"open": connections.open, "use": connections.use, "close": connections.close}
    agent.serve_forever(sock, methods, (REST_S, worker.rest))
