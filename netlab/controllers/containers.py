"""What becomes of the containers of one pod: a pure function of (pod, clock), as a kubelet's sync of that pod would decide.

Decides: in which order containers start (init containers one after the other, sidecars among them, then the others together),
which are started again and when, what a pod's phase and readiness are, and when a pod on its way out is gone.
Refuses to know processes, sockets and probes: what they do is reported (reports.py), what they shall do stands in the statuses.

Theory. A status moves waiting -> running -> waiting (to be started again at `due`) or ended. While `stopping`, first the preStop
hook runs, then (`hooked`) SIGTERM is sent, and at `deadline` SIGKILL. The built-in responder is a program that exits as soon as
it gets SIGTERM, and an init container without a program one that succeeds at once. `advanced` takes steps until none is left, so
that nothing that is due is still undone when it returns.
Source: kubernetes pkg/kubelet/kuberuntime/kuberuntime_manager.go, pkg/kubelet/container/helpers.go, KEP 753 (sidecars).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from netlab.images import runs_program
from netlab.model import Container, ContainerStatus, Ended, Pod

KILLED = 137
TERMINATED = 143
STEADY_S = 0.2
"""A program that was started again and has no readiness probe is ready when it has stayed this long: else it would flap."""
FORGIVEN_S = 600.0
"""A program that ran this long starts with no back-off again."""
MOST_STEPS = 1000

Both = tuple[Container, ContainerStatus]
Backoff = tuple[float, float]
Blocked = Callable[[Container], str]
"""Why a container cannot be started now (its ConfigMap is not there); '' when it can."""


def advanced(pod: Pod, clock: float, backoff: Backoff, blocked: Blocked = lambda _: "") -> Pod | None:
    """The placed pod when nothing more is to do at this moment, the same object when nothing was; None when it is gone."""
    if rests(pod):
        return pod
    now = pod if pod.statuses else replace(pod, statuses=_first(pod))
    for _ in range(MOST_STEPS):
        after = _step(now, clock, backoff, blocked)
        if after == now.statuses:
            return _summed(now)
        now = replace(now, statuses=after)
    raise AssertionError(f"the containers of {pod.ref} do not come to rest")


def rests(pod: Pod) -> bool:
    """Whether nothing moves this pod but a report or a change of it: everything runs and is ready (by far the most pods)."""
    if not pod.statuses:
        return not _is_ours(pod)
    return pod.ready and pod.serving and not pod.terminating and all(map(_is_well, pod.statuses))


def next_due(pod: Pod, clock: float) -> float | None:
    """When something happens to this pod by itself, on the lab's clock; None: nothing does."""
    times = [time for container, status in _both(pod) for time in _times(container, status) if time > clock]
    return min(times, default=None)


def ended(pod: Pod, container: Container, status: ContainerStatus, code: int, clock: float, backoff: Backoff) -> ContainerStatus:
    """The status of a container whose program has ended with this exit code."""
    last = Ended(code, status.started_at, clock, "Completed" if code == 0 else "Error")
    down = ContainerStatus(status.name, "ended", last.reason, restarts=status.restarts, backoff_s=status.backoff_s, last=last)
    if pod.terminating or _is_over(pod) or not _is_restarted(pod, container, code):
        return down
    wait = 0.0 if clock - status.started_at > FORGIVEN_S else status.backoff_s
    following = min(2 * wait, backoff[1]) if wait else backoff[0]
    return replace(
        down,
        state="waiting",
        reason="CrashLoopBackOff" if wait else last.reason,
        message=f"back-off {wait:g}s restarting failed container={status.name} pod={pod.meta.name}_{pod.meta.namespace}",
        due=clock + wait,
        backoff_s=following,
    )


def stopped(container: Container, status: ContainerStatus, clock: float, grace_s: float) -> ContainerStatus:
    """A running container that is told to end: its preStop hook runs first."""
    return replace(status, stopping=clock, hooked=container.pre_stop is None, deadline=clock + grace_s)


def is_sidecar(pod: Pod, container: Container) -> bool:
    return container.sidecar and container in pod.spec.init


# ---------------------------------------------------------------- one step


def _is_ours(pod: Pod) -> bool:
    """Whether netlab runs this pod: not one that comes as it was in a live cluster, of which only the picture is kept."""
    if pod.phase == "Pending":
        return True
    return pod.phase == "Running" and any(runs_program(one) or one.readiness for one in pod.all_containers)


def _is_well(status: ContainerStatus) -> bool:
    return status.state == "running" and status.ready and status.stopping is None


def _first(pod: Pod) -> tuple[ContainerStatus, ...]:
    if pod.phase == "Running":  # it came so: what it runs starts now, and is as ready as it says
        init = tuple(
            ContainerStatus(one.name, "ended", "Completed", last=Ended(0, 0.0, 0.0, "Completed")) for one in pod.spec.init
        )
        mains = (ContainerStatus(one.name, "running", ready=pod.ready, started=True) for one in pod.spec.containers)
        return (*init, *mains)
    reason = "PodInitializing" if pod.spec.init else "ContainerCreating"
    return tuple(ContainerStatus(one.name, reason=reason) for one in pod.all_containers)


def _both(pod: Pod) -> Iterator[Both]:
    return zip(pod.all_containers, pod.statuses, strict=bool(pod.statuses))


def _step(pod: Pod, clock: float, backoff: Backoff, blocked: Blocked) -> tuple[ContainerStatus, ...]:
    both = [(container, _timed(pod, container, status, clock, backoff)) for container, status in _both(pod)]
    stopping = set(_to_stop(pod, both))
    starting = set(_to_start(pod, both, clock)) if not pod.terminating else set()
    found = []
    for container, status in both:
        if status.name in stopping:
            status = stopped(container, status, clock, _left(pod, clock))
        elif status.name in starting:
            reason = blocked(container)
            status = (
                replace(status, reason="CreateContainerConfigError", message=reason)
                if reason
                else _started(container, status, clock)
            )
        found.append(status)
    return tuple(found)


def _left(pod: Pod, clock: float) -> float:
    """What is left of the grace period."""
    grace = pod.spec.termination_grace_s if pod.grace_s is None else pod.grace_s
    return max(0.0, (clock if pod.meta.deleted is None else pod.meta.deleted) + grace - clock)


def _timed(pod: Pod, container: Container, status: ContainerStatus, clock: float, backoff: Backoff) -> ContainerStatus:
    """What time alone, or the lack of a program, does to a running container."""
    if status.state != "running":
        return status
    program = runs_program(container)
    if status.stopping is not None:
        if status.hooked and not program:
            return ended(pod, container, status, 0 if pod.terminating else TERMINATED, clock, backoff)
        if clock >= status.deadline:
            return ended(pod, container, status, KILLED, clock, backoff)
        if not status.hooked and isinstance(container.pre_stop, float) and clock >= status.stopping + container.pre_stop:
            return replace(status, hooked=True)
        return status
    if not program and container in pod.spec.init and not container.sidecar:
        return ended(pod, container, status, 0, clock, backoff)
    if not status.healthy and status.due is not None and clock >= status.due:
        return replace(status, healthy=True, due=None, ready=status.started and container.readiness is None)
    return status


def _to_stop(pod: Pod, both: Sequence[Both]) -> Iterator[str]:
    """Of a pod on its way out, or whose work is done: first the ordinary containers, then the sidecars, the last one first."""
    running = [(container, status) for container, status in both if status.state == "running"]
    if pod.terminating:
        first = [status for container, status in running if not is_sidecar(pod, container)]
        wanted = first or [status for _, status in running[-1:]]
    elif all(status.state == "ended" for _, status in both[len(pod.spec.init) :]):
        wanted = [status for _, status in running[-1:]]
    else:
        wanted = []
    return (status.name for status in wanted if status.stopping is None)


def _to_start(pod: Pod, both: Sequence[Both], clock: float) -> Iterator[str]:
    mains = both[len(pod.spec.init) :]
    begun = any(status.state != "waiting" or status.last is not None for _, status in mains)
    for container, status in both[: len(pod.spec.init)]:
        if _waits(status, clock) and (not begun or container.sidecar):
            yield status.name
        if not begun and not _is_done(container, status):
            return
    yield from (status.name for _, status in mains if _waits(status, clock))


def _waits(status: ContainerStatus, clock: float) -> bool:
    return status.state == "waiting" and (status.due is None or clock >= status.due)


def _is_done(container: Container, status: ContainerStatus) -> bool:
    """Whether the next init container may start."""
    if container.sidecar:
        return status.state == "running" and status.started
    return status.state == "ended" and status.last is not None and status.last.code == 0


def _started(container: Container, status: ContainerStatus, clock: float) -> ContainerStatus:
    again = status.last is not None
    steady = not again or not runs_program(container) or container.readiness is not None or container.startup is not None
    started = container.startup is None
    return replace(
        status,
        state="running",
        reason="",
        message="",
        started_at=clock,
        due=None if steady else clock + STEADY_S,
        healthy=steady,
        started=started,
        ready=started and steady and container.readiness is None,
        restarts=status.restarts + again,
    )


def _is_over(pod: Pod) -> bool:
    """Whether its work is done: only sidecars are left."""
    return bool(pod.statuses) and all(status.state == "ended" for status in pod.statuses[len(pod.spec.init) :])


def _is_restarted(pod: Pod, container: Container, code: int) -> bool:
    policy = pod.spec.restart_policy
    if container in pod.spec.init:
        return container.sidecar or (code != 0 and policy != "Never")
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def _times(container: Container, status: ContainerStatus) -> Iterator[float]:
    if status.state == "ended":
        return
    if status.stopping is not None:
        yield status.deadline
        if isinstance(container.pre_stop, float) and not status.hooked:
            yield status.stopping + container.pre_stop
    elif status.due is not None:
        yield status.due


# ---------------------------------------------------------------- the pod as a whole


def _summed(pod: Pod) -> Pod | None:
    """The pod with the phase, readiness and restarts that follow from its containers."""
    both = list(_both(pod))
    if pod.terminating and not any(status.state == "running" for _, status in both):
        return None
    phase = _phase(pod, both)
    counted = [status for container, status in both if container.sidecar or container not in pod.spec.init]
    ready = phase == "Running" and all(status.ready for status in counted)
    restarts = sum(status.restarts for _, status in both)
    return replace(pod, phase=phase, ready=ready, serving=ready, restarts=restarts, message=_message(both, ready, phase))


def _phase(pod: Pod, both: Sequence[Both]) -> Literal["Pending", "Running", "Succeeded", "Failed"]:
    count = len(pod.spec.init)
    once = [(container, status) for container, status in both[:count] if not container.sidecar]
    if any(status.state == "ended" and not _is_done(container, status) for container, status in once):
        return "Failed"
    mains = [status for _, status in both[count:]]
    if not any(status.state != "waiting" or status.last is not None for status in mains):
        return "Pending"
    if any(status.state != "ended" for status in mains) or any(status.state == "running" for _, status in both[:count]):
        return "Running"
    return "Succeeded" if all(status.last is not None and status.last.code == 0 for status in mains) else "Failed"


def _message(both: Sequence[Both], ready: bool, phase: str) -> str:
    """Why the pod is not ready: the first container that has something to say."""
    if ready or phase == "Succeeded":
        return ""
    for _, status in both:
        last = status.last
        if last is not None and (status.state == "waiting" or (status.state == "ended" and last.code)):
            return f"container {status.name} ended with exit code {last.code}"
        if status.reason == "CreateContainerConfigError":
            return status.message if len(both) == 1 else f"container {status.name}: {status.message}"
        if status.state == "running" and status.message and not status.ready:
            return status.message if len(both) == 1 else f"container {status.name}: {status.message}"
    return ""
