"""Decides when a pod runs and is ready. A placed pod runs at once, for nothing has to be pulled or started first; it is ready
at once unless a readiness probe has still to say so. What probes and processes report comes in from outside (`pod_status`).
"""

from dataclasses import replace

from netlab.model import Cluster, Pod


def advance(cluster: Cluster) -> Cluster:
    """The cluster with every placed pod running, every finished one off the network; the same object when nothing changed."""
    changed = {pod.meta.key: after for pod in cluster.pods.values() if (after := _advanced(pod)) is not pod}
    if not changed:
        return cluster
    return cluster.with_(pods={key: changed.get(key, pod) for key, pod in cluster.pods.items()})


def _advanced(pod: Pod) -> Pod:
    if pod.phase == "Pending":
        if not (pod.node and pod.addresses):
            return pod
        ready = all(container.readiness is None for container in pod.spec.containers)
        return replace(pod, phase="Running", ready=ready, serving=ready, message="")
    # A finished pod has left the network. A dump may show its old address while another pod already has it.
    if pod.phase in ("Succeeded", "Failed") and (pod.addresses or pod.ready or pod.serving):
        return replace(pod, addresses=(), ready=False, serving=False)
    return pod
