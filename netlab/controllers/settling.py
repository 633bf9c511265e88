"""Runs all controllers until none of them has anything left to do. Decides only their order and the end.

A controller that had nothing to do is not asked again as long as the parts of the cluster that it reads (READS) are the very
same objects. The answer never depends on that.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from netlab.controllers import daemons, deployments, endpointslices, lifecycle, load_balancers, replicas, scheduler, services
from netlab.errors import InputError
from netlab.memory import same
from netlab.model import Cluster

Controller = Callable[[Cluster], Cluster]
CONTROLLERS: tuple[Controller, ...] = (
    services.with_kubernetes,
    services.reconcile,
    deployments.reconcile,
    replicas.reconcile,
    daemons.reconcile,
    scheduler.place,
    lifecycle.advance,
    endpointslices.reconcile,
    load_balancers.reconcile,
)
READS: Mapping[Controller, tuple[str, ...]] = {
    services.with_kubernetes: ("services", "slices", "endpoints"),
    services.reconcile: ("topology", "services"),
    deployments.reconcile: ("workloads", "pods"),
    replicas.reconcile: ("workloads", "pods"),
    daemons.reconcile: ("workloads", "pods", "nodes"),
    scheduler.place: ("topology", "pods", "nodes"),
    endpointslices.reconcile: ("services", "slices", "endpoints", "pods", "nodes"),
    load_balancers.reconcile: ("topology", "services", "slices", "nodes", "links_down"),
}
"""What a controller looks at to find out if there is something to do; with clock and serial it only does it.

One that is not here is always run.
"""
MOST_ROUNDS = 50
MOST_LEARNED = 200
"""Pods with learned neighbours: the kernel's neighbour table is one for all namespaces and holds 1,024 entries."""


def settle(cluster: Cluster) -> Cluster:
    """The cluster when nothing is left to do; the same object when nothing was.

    Raises: InputError where the topology cannot carry what was asked for, ApiError where addresses or ports ran out.
    """
    for _ in range(MOST_ROUNDS):
        before = cluster
        for controller in CONTROLLERS:
            cluster = _run(controller, cluster)
        if cluster is before:
            _check_neighbours(cluster)
            return cluster
    raise AssertionError(f"the controllers do not come to rest within {MOST_ROUNDS} rounds")


def _run(controller: Controller, cluster: Cluster) -> Cluster:
    """What the controller makes of the cluster, unless it is known to leave it as it is."""
    reads = READS.get(controller)
    if reads is None:
        return controller(cluster)
    seen = tuple(getattr(cluster, name) for name in reads)
    resting = _resting()
    if controller in resting and same(resting[controller], seen):
        return cluster
    after = controller(cluster)
    if after is cluster:
        resting[controller] = seen
    return after


@cache
def _resting() -> dict[Controller, tuple[Any, ...]]:
    """What each controller has seen last when it had nothing to do."""
    return {}


def _check_neighbours(cluster: Cluster) -> None:
    if cluster.topology.cluster.neighbours == "learned" and len(cluster.pods) > MOST_LEARNED:
        raise InputError(
            f"cluster.neighbours: learned is refused above {MOST_LEARNED} pods (there would be {len(cluster.pods)}): "
            "the kernel's neighbour table holds 1,024 entries for the whole machine; use neighbours: permanent"
        )
