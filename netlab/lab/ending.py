"""Pods that are gone from the cluster, and whose connections are still being finished.

The built-in responder ends as a good server does: it takes no new connection, answers what was asked, and closes. Rules name
such a pod no more, but its namespace and its link stay until the last connection is over, for the pod's grace period at most.
Decides which ops that needs. A pod that is killed (grace period 0), one whose node is out of reach, and one whose name another
gets have no time for it.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import fields
from typing import Any

from netlab import ipam
from netlab.images import runs_program
from netlab.model import Cluster, Pod
from netlab.ops import Identity, Op
from netlab.plan import Plan, plan_of


class Ending:
    """The pods of one lab that are ending, by their namespaces. Times are those of the loop's clock."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._kept: dict[str, dict[Identity, Op]] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def __contains__(self, netns: str) -> bool:
        return netns in self._until

    def begin(self, old: Plan, new: Plan, leaving: Iterable[Pod], now: float, is_link: Callable[[Op], bool]) -> None:
        """These pods are in the old plan and not in the new one."""
        owners: dict[Any, str] = {}
        for pod in leaving:
            if pod.spec.termination_grace_s > 0:
                netns = str(pod.ref)
                self._until[netns] = now + pod.spec.termination_grace_s
                owners.update(dict.fromkeys(names_of(pod), netns))
        gone = ((identity, op) for identity, op in old.ops.items() if identity not in new.ops) if owners else ()
        for identity, op in gone:
            if is_link(op) and (netns := _owner(op, owners)):
                self._kept.setdefault(netns, {})[identity] = op

    def keep(self, new: Plan) -> Plan:
        """The plan with what is still needed. What the new plan says of the same thing counts."""
        if not self._until:
            return new
        extra = {identity: op for kept in self._kept.values() for identity, op in kept.items() if identity not in new.ops}
        return plan_of((*extra.values(), *new.ops.values()))

    def over(self, busy: Iterable[str], now: float) -> list[str]:
        """The namespaces in which no connection is left, and those whose time is up."""
        still = set(busy)
        return [netns for netns, until in self._until.items() if netns not in still or now >= until]

    def forget(self, netns: Iterable[str]) -> None:
        for one in netns:
            self._until.pop(one, None)
            self._kept.pop(one, None)

    def returning(self, pods: Iterable[Pod]) -> Set[str]:
        """The namespaces that a pod of the same name wants, which is another one."""
        return self._until.keys() & {str(pod.ref) for pod in pods} if self._until else frozenset()


def names_of(pod: Pod) -> tuple[Any, ...]:
    """What an op says that belongs to the pod: its namespace, the node's end of its link, its addresses."""
    netns = str(pod.ref)
    return (netns, ipam.host_device(netns), *pod.addresses, *map(ipam.host_route, pod.addresses))


def _owner(op: Op, owners: Mapping[Any, str]) -> str:
    """The namespace of the pod that the op belongs to, '' where there is none."""
    return next((owners[value] for field in fields(op) if (value := getattr(op, field.name)) in owners), "")


def leaving(before: Cluster, after: Cluster) -> list[Pod]:
    """The pods that end now, have an own network and only the responder in it, and can still be reached."""
    return [
        pod
        for key, pod in (before.pods.items() if before.pods is not after.pods else ())
        if key not in after.pods
        and pod.phase == "Running"
        and pod.addresses
        and not pod.spec.host_network
        and pod.node in after.nodes
        and pod.node not in after.outages
        and not any(runs_program(one) for one in pod.all_containers)
    ]
