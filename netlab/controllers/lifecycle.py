"""Decides what becomes of every pod that has a node: its containers (containers.py), its phase, and when it is gone.

What processes and probes report comes in from outside (reports.py). A pod without a program or a probe runs and is ready in the
same moment in which it is placed, for nothing has to be pulled first.
"""

from dataclasses import replace

from netlab import variables
from netlab.controllers import containers
from netlab.images import runs_program
from netlab.memory import kept_for_each
from netlab.model import Cluster, Key, Pod


def advance(cluster: Cluster) -> Cluster:
    """The cluster with every placed pod as far as it can be now; the same object when nothing changed."""
    changed = {pod.meta.key: after for pod in _busy(cluster) if (after := _advanced(cluster, pod)) is not pod}
    if not changed:
        return cluster
    pods = {key: changed.get(key, pod) for key, pod in cluster.pods.items()}
    return cluster.with_(pods={key: pod for key, pod in pods.items() if pod is not None})


def next_due(cluster: Cluster) -> float | None:
    """When something happens to a pod by itself, on the lab's clock; None: nothing does."""
    times = (containers.next_due(pod, cluster.clock) for pod in _busy(cluster) if pod.statuses)
    return min((time for time in times if time is not None), default=None)


def leaving(pod: Pod, clock: float, grace_s: float | None = None) -> Pod | None:
    """A pod that is deleted: on its way out, or None where it is gone at once, for there is nothing in it to wait for.

    `grace_s` None: as its spec says; 0: without waiting for anything. A pod that leaves already can only be hurried.
    """
    grace = pod.spec.termination_grace_s if grace_s is None else grace_s
    if pod.terminating and pod.grace_s is not None:
        assert pod.meta.deleted is not None
        ends = min(pod.meta.deleted + pod.grace_s, clock + grace)
        if ends <= clock:
            return None
        statuses = tuple(replace(one, deadline=min(one.deadline, ends)) for one in pod.statuses)
        return replace(pod, grace_s=ends - pod.meta.deleted, statuses=statuses)
    waits = any(runs_program(container) or container.pre_stop is not None for container, _ in pod.running())
    if grace <= 0 or not waits or not pod.node:
        return None
    return replace(pod, meta=replace(pod.meta, deleted=clock), grace_s=grace)


def without(pods: dict[Key, Pod], key: Key, clock: float, grace_s: float | None = None) -> None:
    """Delete a pod of `pods`: it leaves, or is gone at once."""
    after = leaving(pods[key], clock, grace_s)
    if after is None:
        del pods[key]
    else:
        pods[key] = after


def end(pods: dict[Key, Pod], pod: Pod, cluster: Cluster, grace_s: float | None = None) -> None:
    """Delete a pod of `pods`. One whose node is out of reach stays, terminating, until the node hears of it, unless it is
    forced.
    """
    if pod.node not in cluster.outages or grace_s == 0:
        without(pods, pod.meta.key, cluster.clock, grace_s)
    elif not pod.terminating:
        pods[pod.meta.key] = replace(pod, ready=False, serving=False, meta=replace(pod.meta, deleted=cluster.clock))


def _busy(cluster: Cluster) -> tuple[Pod, ...]:
    """The pods that time or a report may move: few of many, and none on a node that is out of reach."""
    pods, lost = cluster.pods.values(), cluster.outages
    return tuple(pod for pod, rests in zip(pods, _rests(pods, None), strict=True) if not rests and pod.node not in lost)


@kept_for_each
def _rests(pod: Pod, _: None) -> bool:
    if pod.phase in ("Succeeded", "Failed"):
        return not (pod.addresses or pod.ready or pod.serving)
    return bool(pod.node and pod.addresses) and containers.rests(pod)


def _advanced(cluster: Cluster, pod: Pod) -> Pod | None:
    if pod.phase in ("Pending", "Running") and pod.node and pod.addresses:
        backoff = cluster.topology.cluster.backoff_s
        after = containers.advanced(pod, cluster.clock, backoff, lambda one: variables.missing(cluster, pod, one))
        if after is None or after.phase in ("Pending", "Running"):
            return pod if after == pod else after
        pod = after
    # A finished pod has left the network. A dump may show its old address while another pod already has it.
    if pod.phase in ("Succeeded", "Failed") and (pod.addresses or pod.ready or pod.serving):
        return replace(pod, addresses=(), ready=False, serving=False)
    return pod
