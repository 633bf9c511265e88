"""What the lab reports of a pod's programs and probes, and what follows from it: (Cluster, report) -> settled Cluster.

A report names the container as it was when it was made (uid of the pod, number of restarts): one that comes too late changes
nothing. Refuses to know how programs are run and when probes are sent.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from netlab.controllers import containers
from netlab.controllers.settling import settle
from netlab.model import Cluster, Container, ContainerStatus, Key, Pod

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
Change = Callable[[Pod, Container, ContainerStatus], ContainerStatus]


def container_ended(cluster: Cluster, key: Key, uid: str, container: str, restarts: int, code: int) -> Cluster:
    """A program has ended; `code` is 128 + N when signal N ended it."""
    backoff = cluster.topology.cluster.backoff_s
    return _changed(
        cluster,
        key,
        uid,
        container,
        restarts,
        lambda pod, one, was: containers.ended(pod, one, was, code, cluster.clock, backoff),
    )


def hook_done(cluster: Cluster, key: Key, uid: str, container: str, restarts: int) -> Cluster:
    """A preStop hook has run, whatever came of it: SIGTERM follows."""
    return _changed(cluster, key, uid, container, restarts, lambda _, __, was: replace(was, hooked=was.stopping is not None))


def ready(cluster: Cluster, key: Key, uid: str, container: str, restarts: int, is_ready: bool, message: str = "") -> Cluster:
    """What the readiness probe says now."""
    return _changed(
        cluster, key, uid, container, restarts, lambda _, __, was: replace(was, ready=is_ready and was.started, message=message)
    )


def started(cluster: Cluster, key: Key, uid: str, container: str, restarts: int) -> Cluster:
    """The startup probe has succeeded: from now on the others count."""
    return _changed(
        cluster, key, uid, container, restarts,
        lambda _, one, was: replace(was, started=True, ready=one.readiness is None and was.healthy, message=""),
    )  # fmt: skip


def unhealthy(
    cluster: Cluster, key: Key, uid: str, container: str, restarts: int, grace_s: float | None, message: str
) -> Cluster:
    """The liveness or startup probe has failed too often: the container is stopped, and started again as its policy says."""

    def killed(pod: Pod, one: Container, was: ContainerStatus) -> ContainerStatus:
        if was.stopping is not None:
            return was
        grace = pod.spec.termination_grace_s if grace_s is None else grace_s
        return replace(containers.stopped(one, was, cluster.clock, grace), message=message)

    return _changed(cluster, key, uid, container, restarts, killed)


def pod_status(
    cluster: Cluster, key: Key, ready: bool | None = None, phase: Phase | None = None, message: str | None = None
) -> Cluster:
    """What follows from a report on a whole pod; None = as it was. A pod that is gone by now changes nothing."""
    pod = cluster.pods.get(key)
    if pod is None or pod.node in cluster.outages:  # nobody hears a kubelet that is out of reach
        return cluster
    statuses = pod.statuses
    if phase in ("Succeeded", "Failed"):
        statuses = tuple(replace(one, state="ended", ready=False, due=None, stopping=None) for one in statuses)
    elif ready is not None:
        words = message or ""
        statuses = tuple(replace(one, ready=ready and one.state == "running", message=words) for one in statuses)
    is_ready = pod.ready if ready is None else ready
    after = replace(
        pod,
        ready=is_ready,
        serving=pod.serving if ready is None else ready,
        phase=phase or pod.phase,
        message=pod.message if message is None else message,
        statuses=statuses,
    )
    return cluster if after == pod else settle(cluster.with_(pods={**cluster.pods, key: after}))


def _changed(cluster: Cluster, key: Key, uid: str, container: str, restarts: int, change: Change) -> Cluster:
    pod = cluster.pods.get(key)
    if pod is None or pod.meta.uid != uid or (pod.node in cluster.outages and cluster.outages[pod.node].killed):
        return cluster
    statuses = tuple(
        change(pod, one, was) if was.name == container and was.state == "running" and was.restarts == restarts else was
        for one, was in zip(pod.all_containers, pod.statuses, strict=bool(pod.statuses))
    )
    if statuses == pod.statuses:
        return cluster
    return settle(cluster.with_(pods={**cluster.pods, key: replace(pod, statuses=statuses)}))
