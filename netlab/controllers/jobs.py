"""Decides which pods a Job has at work, and when it is over: enough pods have succeeded, too many have failed, or its time is up.

A pod that failed is followed by another after 10 s, doubled with each failure up to 6 minutes. Ended pods stay, to be looked at.
Source: Kubernetes pkg/controller/job/job_controller.go.
"""

from collections.abc import Iterator
from dataclasses import replace

from netlab.controllers.lifecycle import end
from netlab.controllers.pods import index, is_active
from netlab.controllers.replicas import Special, made
from netlab.model import Batch, Cluster, Key, Pod, Workload
from netlab.numerals import natural

NAME_LABELS = ("batch.kubernetes.io/job-name", "job-name")
UID_LABELS = ("batch.kubernetes.io/controller-uid", "controller-uid")
INDEX = "batch.kubernetes.io/job-completion-index"
FIRST_DELAY_S = 10.0
LONGEST_DELAY_S = 360.0


def reconcile(cluster: Cluster) -> Cluster:
    """The cluster with every Job's pods; the same object when nothing changed."""
    jobs = [workload for (kind, _), workload in cluster.workloads.items() if kind == "Job"]
    if not jobs:
        return cluster
    known = index(cluster.pods)
    pods = dict(cluster.pods)
    workloads = dict(cluster.workloads)
    serial = cluster.serial
    for job in jobs:
        slot = ("Job", job.meta.key)
        mine = list(known.owned(job.ref))
        batch = _judged(_counted(job, mine, cluster.clock), job, mine, cluster.clock)
        if batch.over is not None and batch.ttl_s is not None and cluster.clock >= batch.over + batch.ttl_s:
            del workloads[slot]
            for pod in mine:
                end(pods, pod, cluster)
            continue
        if batch != job.batch:
            workloads[slot] = job = replace(job, batch=batch)
        serial = _work(job, batch, cluster, mine, pods, serial)
    same = len(workloads) == len(cluster.workloads) and all(workloads[slot] is one for slot, one in cluster.workloads.items())
    if same and len(pods) == len(cluster.pods) and all(pods.get(key) is pod for key, pod in cluster.pods.items()):
        return cluster
    return cluster.with_(pods=pods, workloads=workloads, serial=serial)


def _counted(job: Workload, mine: list[Pod], clock: float) -> Batch:
    """What has come of the Job so far, pods that ended since included."""
    batch = job.batch or Batch()
    if batch.started is None and not batch.suspended:
        batch = replace(batch, started=clock)
    done = {uid for uid, _ in (*batch.succeeded, *batch.failed)}
    for pod in mine:
        if pod.meta.uid in done:
            continue
        if pod.phase == "Succeeded":
            batch = replace(batch, succeeded=(*batch.succeeded, (pod.meta.uid, _index(pod))))
        elif pod.phase == "Failed":
            batch = replace(batch, failed=(*batch.failed, (pod.meta.uid, _index(pod))), last_failure=clock)
    return batch


def _index(pod: Pod) -> int:
    index = natural(pod.meta.annotations.get(INDEX, ""))
    return -1 if index is None else index


def _judged(batch: Batch, job: Workload, mine: list[Pod], clock: float) -> Batch:
    if batch.over is not None:
        return batch
    active = [pod for pod in mine if is_active(pod)]
    good = completed(batch)
    restarts = sum(pod.restarts for pod in active) if job.template.spec.restart_policy == "OnFailure" else 0
    if (good >= 1 and not active) if batch.completions is None else good >= batch.completions:
        return replace(batch, over=clock, verdict="Complete")
    if len(batch.failed) + restarts > batch.backoff_limit:
        return replace(batch, over=clock, verdict="BackoffLimitExceeded")
    if batch.deadline_s is not None and batch.started is not None and clock >= batch.started + batch.deadline_s:
        return replace(batch, over=clock, verdict="DeadlineExceeded")
    return batch


def completed(batch: Batch) -> int:
    """How many completions there are: of an Indexed Job each index counts once."""
    return len({index_ for _, index_ in batch.succeeded}) if batch.indexed else len(batch.succeeded)


def _work(job: Workload, batch: Batch, cluster: Cluster, mine: list[Pod], pods: dict[Key, Pod], serial: int) -> int:
    active = [pod for pod in mine if is_active(pod)]
    if batch.over is not None or batch.suspended:
        for pod in active:
            end(pods, pod, cluster)
        return serial
    wanted = batch.parallelism
    if batch.completions is not None:
        wanted = min(wanted, batch.completions - completed(batch))
    elif batch.succeeded:
        wanted = len(active)
    for pod in active[max(wanted, 0) :]:
        end(pods, pod, cluster)
    if cluster.clock < _next_try(batch):
        return serial
    taken = {_index(pod) for pod in active} | {index_ for _, index_ in batch.succeeded}
    free = (number for number in range(batch.completions or 0) if number not in taken) if batch.indexed else iter(())
    for _ in range(wanted - len(active)):
        special = _special(job, next(free, None) if batch.indexed else None)
        pod, serial = made(job, pods, serial, cluster.clock, special=special)
        pods[pod.meta.key] = pod
    return serial


def _next_try(batch: Batch) -> float:
    """Before this moment no pod is made; a Job that has not failed tries at once."""
    failures = len(batch.failed)
    return batch.last_failure + min(FIRST_DELAY_S * 2 ** (failures - 1), LONGEST_DELAY_S) if failures else 0.0


def _special(job: Workload, number: int | None) -> Special:
    labels = {**dict.fromkeys(NAME_LABELS, job.meta.name), **dict.fromkeys(UID_LABELS, job.meta.uid)}
    if number is None:
        return Special(labels=labels)
    variable = ("JOB_COMPLETION_INDEX", str(number))
    containers = tuple(replace(one, env=(*one.env, variable)) for one in job.template.spec.containers)
    name = f"{job.meta.name}-{number}"
    return Special(
        labels={**labels, INDEX: str(number)},
        annotations={INDEX: str(number)},
        spec={"containers": containers, "hostname": name},
        manifest={"hostname": name},
    )


def due(cluster: Cluster) -> Iterator[float]:
    """When a Job tries again, gives up, or is swept."""
    for (kind, _), job in cluster.workloads.items():
        if kind != "Job" or job.batch is None:
            continue
        batch = job.batch
        if batch.over is not None:
            if batch.ttl_s is not None:
                yield batch.over + batch.ttl_s
            continue
        if batch.failed:
            yield _next_try(batch)
        if batch.deadline_s is not None and batch.started is not None:
            yield batch.started + batch.deadline_s
