"""Readiness probes that really run: httpGet and tcpSocket from the pod's node, as the kubelet does, exec in the pod.

Decides when a check runs and what its results mean; a worker runs it. Until a container was ready for the first time it is
asked again quickly (from 0.1 s on, doubling up to its period), so that a lab settles soon; from then on at its period, as in
a cluster.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from netlab import controllers
from netlab.lab.holder import Lab
from netlab.model import Container, Key, Pod

SETTLE_LIMIT_S = 10.0
FIRST_RETRY_S = 0.1


@dataclass(slots=True)
class _State:
    """What is known of one container of one pod (told apart by uid: a pod of the same name may follow)."""

    uid: str
    container: Container
    ready: bool = False
    was_ready: bool = False
    asked: int = 0
    successes: int = 0
    failures: int = 0


class Readiness:
    """Every readiness probe of one lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._states: dict[tuple[Key, str], _State] = {}
        self._waiting: list[Callable[[], None]] = []

    def update(self) -> None:
        """Begin with pods that are new, forget those that are gone."""
        wanted: dict[tuple[Key, str], tuple[Pod, Container]] = {
            (key, container.name): (pod, container)
            for key, pod in self._lab.cluster.pods.items()
            if pod.phase == "Running" and not pod.terminating and pod.addresses
            for container in pod.spec.containers
            if container.readiness is not None
        }
        for gone in self._states.keys() - wanted.keys():
            del self._states[gone]
        for place, (pod, container) in wanted.items():
            state = self._states.get(place)
            if state is None or state.uid != pod.meta.uid:
                self._states[place] = state = _State(pod.meta.uid, container)
                assert container.readiness is not None
                self._later(place, state, container.readiness.initial_delay_s)

    def when_settled(self, call: Callable[[], None]) -> None:
        """Call once no container waits for its first success any more, or after SETTLE_LIMIT_S."""
        self._waiting.append(call)
        self._lab.loop.after(SETTLE_LIMIT_S, lambda: self._give_up([call]))
        self._settled()

    def _give_up(self, calls: list[Callable[[], None]]) -> None:
        for call in calls:
            if call in self._waiting:
                self._waiting.remove(call)
                call()

    def _settled(self) -> None:
        if self._waiting and all(state.was_ready or _slow(state) for state in self._states.values()):
            self._give_up([*self._waiting])

    def _later(self, place: tuple[Key, str], state: _State, delay_s: float) -> None:
        self._lab.loop.after(delay_s, lambda: self._check(place, state))

    def _check(self, place: tuple[Key, str], state: _State) -> None:
        pod = self._lab.cluster.pods.get(place[0])
        if self._states.get(place) is not state or pod is None:
            return
        state.asked += 1
        probe = state.container.readiness
        assert probe is not None
        port = next((port.port for port in state.container.ports if port.name == probe.port), probe.port)
        node = self._lab.netns_path(f"node/{pod.node}")
        where = self._lab.place(pod.ref) if probe.command else None
        address = str(pod.addresses[0])
        question = (node, where, address, port, probe.http_path, tuple(probe.command), probe.timeout_s)
        self._lab.agents.work(lambda ok, answer: self._answered(place, state, ok and answer), "check_ready", *question)

    def _answered(self, place: tuple[Key, str], state: _State, success: Any) -> None:
        if self._states.get(place) is not state:
            return
        probe = state.container.readiness
        assert probe is not None
        state.successes, state.failures = (state.successes + 1, 0) if success else (0, state.failures + 1)
        if state.successes >= probe.success_threshold:
            state.ready = state.was_ready = True
        elif state.failures >= probe.failure_threshold:
            state.ready = False
        first = not state.was_ready
        self._later(place, state, min(probe.period_s, FIRST_RETRY_S * 2 ** min(state.asked, 10)) if first else probe.period_s)
        key = place[0]
        ready = all(one.ready for (of, _), one in self._states.items() if of == key)
        pod = self._lab.cluster.pods.get(key)
        if pod is not None and pod.ready != ready:
            self._lab.try_change(controllers.pod_status(self._lab.now, key, ready=ready))
        self._settled()


def _slow(state: _State) -> bool:
    """A container that asks for patience is not waited for."""
    return state.container.readiness is not None and state.container.readiness.initial_delay_s >= 1.0
