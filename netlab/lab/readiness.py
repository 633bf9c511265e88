"""Readiness, liveness and startup probes that really run, and preStop hooks: when each is asked, and what its answers mean.

httpGet and tcpSocket are asked from the pod's node, as the kubelet does, exec in the container; a worker asks (agents/asking.py).
What follows from an answer is the controllers' business (`controllers.ready`, `started`, `unhealthy`, `hook_done`).

Until a container was ready (or had started) for the first time it is asked again quickly, from 0.1 s on, doubling up to its
period, so that a lab settles soon; a failure counts only when the manifest's own time for it has come. From then on every probe
has its period, as in a cluster.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from netlab import controllers
from netlab.lab import recording
from netlab.lab.holder import Lab
from netlab.lab.thresholds import Counts
from netlab.model import Cluster, Container, ContainerStatus, Key, Pod, Probe

SETTLE_LIMIT_S = 10.0
FIRST_RETRY_S = 0.1
HOOK_LIMIT_S = 600.0

Kind = Literal["readiness", "liveness", "startup"]
Which = tuple[Key, str, str]
"""Pod, container, and the kind of probe (or `hook`)."""


@dataclass(slots=True)
class _State:
    """What is known of one probe of one run of a container (uid and restarts: a pod of the same name may follow)."""

    uid: str
    run: int
    container: Container
    probe: Probe
    counts: Counts
    asked: int = 0
    due: float = 0.0

    @property
    def same(self) -> tuple[str, int]:
        return self.uid, self.run


class Readiness:
    """Every probe and hook of one lab."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._states: dict[Which, _State] = {}
        self._hooks: set[tuple[Which, str, int]] = set()
        self._waiting: list[Callable[[], None]] = []

    def update(self) -> None:
        """Begin with containers that are new, forget those that are gone, run the hooks of those that are to end."""
        wanted = {which: found for key, pod in self._lab.cluster.pods.items() for which, found in _wanted(key, pod)}
        for gone in self._states.keys() - wanted.keys():
            del self._states[gone]
        for which, (pod, container, status, probe) in wanted.items():
            state = self._states.get(which)
            if state is None or state.same != (pod.meta.uid, status.restarts):
                counts = Counts(probe.success_threshold, probe.failure_threshold, status.ready)
                self._states[which] = state = _State(pod.meta.uid, status.restarts, container, probe, counts)
                self._later(which, state, max(0.0, status.started_at + probe.initial_delay_s - self._lab.now.clock))
        self._run_hooks()
        self._settled()

    # ------------------------------------------------------------ settling

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
        if self._waiting and not any(map(_is_awaited, self._lab.cluster.pods.values())) and not self._is_asking():
            self._give_up([*self._waiting])

    def _is_asking(self) -> bool:
        """Whether a container that asks for no patience has yet to be ready for the first time."""
        return any(
            kind != "liveness" and not state.counts.was_up and not state.run and state.probe.initial_delay_s < 1.0
            for (_, _, kind), state in self._states.items()
        )

    # ------------------------------------------------------------ probes

    def _later(self, which: Which, state: _State, delay_s: float) -> None:
        state.due = self._lab.loop.now() + delay_s
        self._lab.loop.after(delay_s, lambda: self._check(which, state))

    def _check(self, which: Which, state: _State) -> None:
        pod = self._lab.cluster.pods.get(which[0])
        if self._states.get(which) is not state or pod is None:
            return
        state.asked += 1
        self._ask(pod, state.container, state.probe, lambda ok, words: self._answered(which, state, ok, words))

    def _ask(self, pod: Pod, container: Container, probe: Probe, done: Callable[[bool, str], None]) -> None:
        port = next((port.port for port in container.ports if port.name == probe.port), probe.port)
        node = self._lab.netns_path(f"node/{pod.node}")
        where = self._lab.place(pod.ref, container.name) if probe.command else None

        def answered(ok: bool, answer: Any) -> None:
            done(*answer) if ok else done(False, str(answer))

        self._lab.agents.work(answered, "ask", node, where, str(pod.addresses[0]), port, probe, probe.timeout_s)

    def _answered(self, which: Which, state: _State, success: bool, words: str) -> None:
        if self._states.get(which) is not state:
            return
        key, container, kind = which
        early = not state.counts.was_up and kind != "liveness" and not self._is_time(state)
        turn = state.counts.took(success, early)
        period = state.probe.period_s
        quick = kind != "liveness" and not state.counts.was_up
        self._later(which, state, min(period, FIRST_RETRY_S * 2 ** min(state.asked, 10)) if quick else period)
        name = {"readiness": "Readiness", "liveness": "Liveness", "startup": "Startup"}[kind]
        words = f"{name} probe failed: {words}"
        if not success and not early:
            self._record(key, container, kind, turn, words)
        self._report(key, container, kind, state, turn, success, words)
        self._settled()

    def _record(self, key: Key, container: str, kind: str, turn: str, words: str) -> None:
        """Tell of a failure that counts, as a kubelet does each time."""
        pod, now = self._lab.cluster.pods[key], time.time()
        if pod.node in self._lab.cluster.outages:
            return
        self._lab.recorder.record(recording.failed_probe(pod, words), now)
        if kind != "readiness" and turn == "down":
            self._lab.recorder.record(recording.killed_by_probe(pod, container, kind), now)

    def _is_time(self, state: _State) -> bool:
        """Whether one more period has passed since the last failure that counted."""
        return state.counts.is_time(self._lab.loop.now(), state.probe.period_s)

    def _report(
        self, key: Key, container: str, kind: str, state: _State, turn: Literal["", "up", "down"], success: bool, words: str
    ) -> None:
        who = (key, state.uid, container, state.run)
        after: Cluster | None = None
        now = self._lab.now
        match kind, turn:
            case "readiness", "up" | "down":
                after = controllers.ready(now, *who, turn == "up", "" if success else words)
            case "readiness", _ if not success and not state.counts.up:
                after = controllers.ready(now, *who, False, words)
            case "startup", "up":
                after = controllers.started(now, *who)
            case "liveness" | "startup", "down":
                after = controllers.unhealthy(now, *who, state.probe.grace_s, words)
            case _:
                return
        if after is not now:
            self._lab.try_change(after)

    # ------------------------------------------------------------ preStop hooks

    def _run_hooks(self) -> None:
        wanted = {
            ((key, container.name, "hook"), pod.meta.uid, status.restarts): (pod, container, container.pre_stop)
            for key, pod in self._lab.cluster.pods.items()
            if any(status.stopping is not None for status in pod.statuses)
            for container, status in pod.running()
            if status.stopping is not None and not status.hooked and isinstance(container.pre_stop, Probe)
        }
        for hook in wanted.keys() - self._hooks:
            pod, container, probe = wanted[hook]
            self._hook(pod, container, probe, hook)
        self._hooks = set(wanted)

    def _hook(self, pod: Pod, container: Container, probe: Probe, hook: tuple[Which, str, int]) -> None:
        (key, name, _), uid, run = hook

        def done(ok: bool, words: str) -> None:
            if not ok:
                self._lab.log(f"preStop hook of container {name} of {pod.ref} failed: {words}")
            self._lab.try_change(controllers.hook_done(self._lab.now, key, uid, name, run))

        self._ask(pod, container, replace(probe, timeout_s=HOOK_LIMIT_S), done)


def _wanted(key: Key, pod: Pod) -> "list[tuple[Which, tuple[Pod, Container, ContainerStatus, Probe]]]":
    """The probes that run now: startup until it has succeeded, then the others; of a container that is to end readiness only."""
    if not pod.statuses or not pod.addresses:
        return []
    found = []
    for container, status in pod.running():
        probes: tuple[tuple[str, Probe | None], ...]
        if not status.started:
            probes = (("startup", container.startup),) if status.stopping is None else ()
        else:
            probes = (("readiness", container.readiness), ("liveness", container.liveness if status.stopping is None else None))
        found += [((key, container.name, kind), (pod, container, status, probe)) for kind, probe in probes if probe is not None]
    return found


def _is_awaited(pod: Pod) -> bool:
    """Whether its init containers are at work for the first time."""
    if pod.phase != "Pending" or not pod.spec.init or pod.terminating:
        return False
    stuck = any(status.restarts or status.reason == "CreateContainerConfigError" for status in pod.statuses)
    return bool(pod.addresses) and not stuck
