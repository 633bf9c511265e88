"""Decides which taints a node has, given ones and those that follow from its state, and how long a pod may stay in spite of them.

Source: Kubernetes pkg/controller/nodelifecycle, pkg/controller/tainteviction, plugin/pkg/admission/defaulttolerationseconds.
"""

from collections.abc import Iterable, Iterator
from math import inf

from netlab.model import CONTROL_PLANE_TAINTS, Cluster, Node, Pod, PodSpec, Taint, Toleration

UNREACHABLE = "node.kubernetes.io/unreachable"
NOT_READY = "node.kubernetes.io/not-ready"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

OF_DAEMONS = (
    Toleration(NOT_READY, "Exists", effect="NoExecute"),
    Toleration(UNREACHABLE, "Exists", effect="NoExecute"),
    Toleration("node.kubernetes.io/disk-pressure", "Exists", effect="NoSchedule"),
    Toleration("node.kubernetes.io/memory-pressure", "Exists", effect="NoSchedule"),
    Toleration("node.kubernetes.io/pid-pressure", "Exists", effect="NoSchedule"),
    Toleration(UNSCHEDULABLE, "Exists", effect="NoSchedule"),
)
"""What the DaemonSet controller adds to its pods. Source: Kubernetes pkg/controller/daemon/util AddOrUpdateDaemonPodTolerations.
"""


def of_node(node: Node) -> Iterator[Taint]:
    """Every taint of a node. `unreachable:NoExecute` is not among them: who is evicted by it depends on why it is not ready."""
    if node.control_plane:
        yield CONTROL_PLANE_TAINTS[0]
    yield from node.taints
    if not node.ready:
        yield Taint(UNREACHABLE, "NoSchedule")
    if node.unschedulable:
        yield Taint(UNSCHEDULABLE, "NoSchedule")


def untolerated(spec: PodSpec, node: Node) -> Taint | None:
    """The first taint that keeps a pod of this kind off the node, None when there is none."""
    hard = (taint for taint in of_node(node) if taint.effect != "PreferNoSchedule")
    return next((taint for taint in hard if not _tolerated(spec.tolerations, taint)), None)


def may_stay(spec: PodSpec, node: Node) -> bool:
    """Whether a pod of this kind that is there may stay: NoSchedule keeps only new ones away."""
    hard = (taint for taint in of_node(node) if taint.effect == "NoExecute")
    return all(_tolerated(spec.tolerations, taint) for taint in hard)


def dislikes(spec: PodSpec, node: Node) -> int:
    """How many PreferNoSchedule taints of the node a pod does not tolerate."""
    soft = (taint for taint in node.taints if taint.effect == "PreferNoSchedule")
    return sum(not any(one.tolerates(taint) for one in spec.tolerations) for taint in soft)


def _tolerated(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    # A control plane is tainted under its new name here, and old manifests tolerate the old one.
    same = CONTROL_PLANE_TAINTS if taint in CONTROL_PLANE_TAINTS else (taint,)
    return any(one.tolerates(each) for one in tolerations for each in same)


def eviction_at(cluster: Cluster, pod: Pod) -> float:
    """When the pod is deleted because of its node's NoExecute taints, on the lab's clock; infinity for never."""
    node = cluster.nodes.get(pod.node)
    if node is None or pod.terminating or pod.phase in ("Succeeded", "Failed"):
        return inf
    times = [_tolerated_until(pod, taint, None) for taint in node.taints if taint.effect == "NoExecute"]
    if pod.node in cluster.outages and not node.ready:
        taint = Taint(UNREACHABLE, "NoExecute", added=node.ready_changed)
        times.append(_tolerated_until(pod, taint, cluster.topology.cluster.unreachable_toleration_s))
    return min(times, default=inf)


def _tolerated_until(pod: Pod, taint: Taint, default_s: float | None) -> float:
    """Until when the pod bears the taint; `default_s` is what admission gives to a pod that says nothing (None: it bears
    nothing).
    """
    fitting = [one for one in pod.spec.tolerations if one.tolerates(taint)]
    if not fitting:
        return taint.added + (default_s or 0.0)
    limits = [max(one.seconds, 0.0) for one in fitting if one.seconds is not None]
    return taint.added + min(limits) if limits else inf
