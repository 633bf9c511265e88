"""Runs all controllers until none of them has anything left to do. Decides only their order, the end, and when there is more to
do.

A controller that had nothing to do is not asked again as long as the parts of the cluster that it reads (READS) are the very
same objects, and before its own time has come (DUE). The answer never depends on that.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from math import inf
from typing import Any

from netlab.controllers import (
    availability,
    daemons,
    deployments,
    endpointslices,
    jobs,
    lifecycle,
    load_balancers,
    outages,
    replicas,
    scheduler,
    services,
    stateful,
)
from netlab.errors import InputError
from netlab.memory import same
from netlab.model import Cluster

Controller = Callable[[Cluster], Cluster]
CONTROLLERS: tuple[Controller, ...] = (
    outages.reconcile,
    services.with_kubernetes,
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
    load_balancers.reconcile,
)
READS: Mapping[Controller, tuple[str, ...]] = {
    outages.reconcile: ("topology", "pods", "nodes", "outages"),
    services.with_kubernetes: ("services", "slices", "endpoints"),
    services.reconcile: ("topology", "services"),
    deployments.reconcile: ("workloads", "pods"),
    replicas.reconcile: ("workloads", "pods"),
    daemons.reconcile: ("workloads", "pods", "nodes"),
    stateful.reconcile: ("workloads", "pods"),
    jobs.reconcile: ("workloads", "pods"),
    scheduler.place: ("topology", "pods", "nodes"),
    availability.stamp: ("pods",),
    endpointslices.reconcile: ("services", "slices", "endpoints", "pods", "nodes"),
    load_balancers.reconcile: ("topology", "services", "slices", "nodes", "links_down"),
}
"""What a controller looks at to find out if there is something to do; with clock and serial it only does it.

One that is not here is always run.
"""
DUE: Mapping[Controller, tuple[Callable[[Cluster], Iterator[float]], ...]] = {
    outages.reconcile: (outages.due,),
    deployments.reconcile: (availability.due, deployments.due),
    daemons.reconcile: (availability.due,),
    stateful.reconcile: (availability.due,),
    jobs.reconcile: (jobs.due,),
}
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
            cluster = _run(controller, cluster)
        if cluster is before:
            _check_neighbours(cluster)
            return cluster
    raise AssertionError(f"the controllers do not come to rest within {most} rounds")


def next_due(cluster: Cluster) -> float | None:
    """When a settled cluster changes by itself, on the lab's clock; None when only events can change it."""
    of_pods = lifecycle.next_due(cluster)
    at = min((*(_next_due(controller, cluster) for controller in DUE), inf if of_pods is None else of_pods))
    return None if at == inf else at


def _next_due(controller: Controller, cluster: Cluster) -> float:
    return min((at for due in DUE.get(controller, ()) for at in due(cluster) if at > cluster.clock), default=inf)


def _run(controller: Controller, cluster: Cluster) -> Cluster:
    """What the controller makes of the cluster, unless it is known to leave it as it is."""
    reads = READS.get(controller)
    if reads is None:
        return controller(cluster)
    seen = tuple(getattr(cluster, name) for name in reads)
    resting = _resting()
    if controller in resting:
        known, since, until = resting[controller]
        if same(known, seen) and since <= cluster.clock < until:
            return cluster
    after = controller(cluster)
    if after is cluster:
        resting[controller] = (seen, cluster.clock if controller in DUE else -inf, _next_due(controller, cluster))
    return after


@cache
def _resting() -> dict[Controller, tuple[tuple[Any, ...], float, float]]:
    """What each controller has seen last when it had nothing to do, when that was, and when it will have."""
    return {}


def _check_neighbours(cluster: Cluster) -> None:
    if cluster.topology.cluster.neighbours == "learned" and len(cluster.pods) > MOST_LEARNED:
        raise InputError(
            f"cluster.neighbours: learned is refused above {MOST_LEARNED} pods (there would be {len(cluster.pods)}): "
            "the kernel's neighbour table holds 1,024 entries for the whole machine; use neighbours: permanent"
        )
