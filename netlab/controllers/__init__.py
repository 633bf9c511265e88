"""The controllers: pure functions (Cluster, event) -> settled Cluster.

What Kubernetes' controllers do over time, these do at once: every function here returns when nothing is left to do, so that
nobody has to poll. They know no kernel and no plan. Errors are InputError (every refused object, in the API server's words) and
ApiError (404 and the like).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from netlab.controllers import addons, ingress_addon, nodes, outages, removal
from netlab.controllers.objects import Action, action, find, kind_of, not_found, objects_of
from netlab.controllers.putting import ALWAYS, namespace, put_all
from netlab.controllers.removal import Cascade
from netlab.controllers.reports import container_ended, hook_done, pod_status, ready, started, unhealthy
from netlab.controllers.rollouts import Told, history, pause, restart, rollout_message, shown_revision, undo
from netlab.controllers.settling import next_due, settle
from netlab.errors import ApiError
from netlab.model import Cluster, Key, KubernetesObject, Node, Taint, Topology, Workload

__all__ = [
    "Action", "Cascade", "Told", "action", "apply", "container_ended", "cut", "delete", "find", "heal", "history", "hook_done",
    "initial", "kind_of", "next_due", "not_found", "objects_of", "pause", "pod_status", "ready", "restart", "rollout_message",
    "scale", "settle", "shown_revision", "started", "taint", "tick", "undo", "unhealthy",
]  # fmt: skip

SCALABLE = ("ReplicationController", "ReplicaSet", "Deployment", "StatefulSet")


def initial(topology: Topology, objects: Iterable[KubernetesObject] = ()) -> Cluster:
    """The settled cluster of a topology and the objects that a lab starts with. Raises: InputError with all that is refused."""
    given = list(objects)
    others = {("Namespace", Key("", name)): namespace(name) for name in ALWAYS}
    known = nodes.nodes(topology, (obj for obj in given if isinstance(obj, Node)))
    cluster = Cluster(topology, nodes=known, others=others, serial=len(known))
    settled = settle(put_all(cluster, (obj for obj in given if not isinstance(obj, Node))))
    # Last, so that names and addresses of what was given are the same with and without.
    missing = (*addons.missing(settled), *ingress_addon.missing(settled))
    return settle(put_all(settled, missing)) if missing else settled


def apply(cluster: Cluster, objects: Iterable[KubernetesObject]) -> Cluster:
    """What `kubectl apply` leaves. All objects or none. `action` says what it did to each. Raises: InputError, ApiError."""
    return settle(put_all(cluster, objects))


def delete(cluster: Cluster, kind: str, key: Key, cascade: Cascade = "background", grace_s: float | None = None) -> Cluster:
    """What `kubectl delete` leaves. `kind` as in a manifest (`Deployment`). Raises: ApiError.

    A pod with a program or a preStop hook is on its way out then, for `grace_s` at most (None: as its spec says; 0: it is gone).
    """
    return settle(removal.remove(cluster, kind, key, cascade, grace_s))


def scale(cluster: Cluster, kind: str, key: Key, replicas: int) -> Cluster:
    """What `kubectl scale` leaves. Raises: ApiError when there is no such object or it has no replicas to set."""
    workload = find(cluster, kind, key)
    if workload is None:
        raise not_found(kind, key.name)
    if kind not in SCALABLE or not isinstance(workload, Workload):
        raise ApiError(404, "NotFound", f"the server could not find the requested resource: a {kind} cannot be scaled")
    if replicas < 0:
        reason = f"spec.replicas: Invalid value: {replicas}: must be greater than or equal to 0"
        raise ApiError(422, "Invalid", f'{kind} "{key.name}" is invalid: {reason}')
    if workload.replicas == replicas:
        return settle(cluster)
    meta = replace(workload.meta, generation=workload.meta.generation + 1)
    scaled = replace(workload, replicas=replicas, meta=meta)
    return settle(cluster.with_(workloads={**cluster.workloads, (kind, key): scaled}))


def tick(cluster: Cluster, seconds: float) -> Cluster:
    """The cluster `seconds` later."""
    return settle(cluster.with_(clock=cluster.clock + seconds))


def taint(
    cluster: Cluster, node: str, add: Sequence[Taint], remove: Sequence[tuple[str, str]], overwrite: bool = False
) -> Cluster:
    """What `kubectl taint` leaves; `remove`: (key, effect or '' for every effect). Raises: ApiError in kubectl's words."""
    return settle(nodes.tainted(cluster, node, add, remove, overwrite))


def cut(cluster: Cluster, node: str, killed: bool) -> Cluster:
    """What follows at once when a node is out of reach: its links are down, and if it was killed, so are its programs.

    What follows later (`tick`): NotReady, evictions. Raises: InputError when it is out of reach already.
    """
    return settle(outages.cut(cluster, node, killed))


def heal(cluster: Cluster, node: str) -> Cluster:
    """What follows when the node is in reach again; nothing where it was all the time."""
    return settle(outages.heal(cluster, node))
