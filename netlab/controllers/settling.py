"""Runs all controllers until none of them has anything left to do. Decides only their order and the end."""

from netlab.controllers import daemons, deployments, endpointslices, lifecycle, replicas, scheduler, services
from netlab.errors import InputError
from netlab.model import Cluster

CONTROLLERS = (
    services.reconcile,
    deployments.reconcile,
    replicas.reconcile,
    daemons.reconcile,
    scheduler.place,
    lifecycle.advance,
    endpointslices.reconcile,
)
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
            cluster = controller(cluster)
        if cluster is before:
            _check_neighbours(cluster)
            return cluster
    raise AssertionError(f"the controllers do not come to rest within {MOST_ROUNDS} rounds")


def _check_neighbours(cluster: Cluster) -> None:
    if cluster.topology.cluster.neighbours == "learned" and len(cluster.pods) > MOST_LEARNED:
        raise InputError(
            f"cluster.neighbours: learned is refused above {MOST_LEARNED} pods (there would be {len(cluster.pods)}): "
            "the kernel's neighbour table holds 1,024 entries for the whole machine; use neighbours: permanent"
        )
