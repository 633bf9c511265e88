"""Runs all controllers until none of them has anything left to do. Decides only their order, the end, and when there is more to
do.
"""

from netlab.controllers import (
    availability,
    daemons,
    deployments,
    endpointslices,
    jobs,
    lifecycle,
    outages,
    replicas,
    scheduler,
    services,
    stateful,
)
from netlab.errors import InputError
from netlab.model import Cluster

CONTROLLERS = (
    outages.reconcile,
    services.reconcile,
    deployments.reconcile,
    replicas.reconcile,
    daemons.reconcile,
    stateful.reconcile,
    jobs.reconcile,
    scheduler.place,
    lifecycle.advance,
    availability.stamp,
    endpointslices.reconcile,
)
DUE = (outages.due, availability.due, deployments.due, jobs.due)
"""Of every controller that acts by the clock: the times at which it will have something to do if nothing else happens."""
MOST_ROUNDS = 50
"""Rounds without a pod. A rollout takes a few for each pod, where they are replaced one by one."""
MOST_LEARNED = 200
"""Pods with learned neighbours: the kernel's neighbour table is one for all namespaces and holds 1,024 entries."""


def settle(cluster: Cluster) -> Cluster:
    """The cluster when nothing is left to do now; the same object when nothing was.

    Raises: InputError where the topology cannot carry what was asked for, ApiError where addresses or ports ran out.
    """
    wanted = sum(workload.replicas for workload in cluster.workloads.values())
    most = MOST_ROUNDS + 6 * (len(cluster.pods) + wanted)
    for _ in range(most):
        before = cluster
        for controller in CONTROLLERS:
            cluster = controller(cluster)
        if cluster is before:
            _check_neighbours(cluster)
            return cluster
    raise AssertionError(f"the controllers do not come to rest within {most} rounds")


def next_due(cluster: Cluster) -> float | None:
    """When a settled cluster changes by itself, on the lab's clock; None when only events can change it."""
    return min((at for due in DUE for at in due(cluster) if at > cluster.clock), default=None)


def _check_neighbours(cluster: Cluster) -> None:
    if cluster.topology.cluster.neighbours == "learned" and len(cluster.pods) > MOST_LEARNED:
        raise InputError(
            f"cluster.neighbours: learned is refused above {MOST_LEARNED} pods (there would be {len(cluster.pods)}): "
            "the kernel's neighbour table holds 1,024 entries for the whole machine; use neighbours: permanent"
        )
