"""Pods that are gone from the cluster, and whose connections are still being finished. A value: who decides is letting_go.py.

The built-in responder ends as a good server does: it takes no new connection, answers what was asked, and closes. Rules name
such a pod no more, but its namespace and its link stay until the last connection is over, for the pod's grace period at most.
Decides which ops that needs, and until when. A pod that is killed (grace period 0), one whose node is out of reach, and one
whose name or address another gets have no time for it.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, fields
from typing import Any

from netlab import ipam
from netlab.images import runs_program
from netlab.model import NOTHING, Cluster, Key, Pod
from netlab.ops import Identity, Op
from netlab.plan import Plan, plan_of


@dataclass(frozen=True, slots=True)
class One:
    """A pod that is ending: until when at most (the loop's clock), and the ops of the old plan that it needs."""

    pod: Pod
    until: float
    kept: Mapping[Identity, Op]


@dataclass(frozen=True, slots=True)
class Ending:
    """The pods of one lab that are ending, by their namespaces."""

    ones: Mapping[str, One] = NOTHING

    def __bool__(self) -> bool:
        return bool(self.ones)

    def __contains__(self, netns: str) -> bool:
        return netns in self.ones

    @property
    def pods(self) -> Mapping[Key, Pod]:
        """What `Cluster.ending` says."""
        return {one.pod.meta.key: one.pod for one in self.ones.values()} or NOTHING

    def joined_by(
        self, going: Mapping[Key, tuple[Pod, float]], old: Plan, new: Plan, now: float, is_link: Callable[[Op], bool]
    ) -> "Ending":
        """With these pods, each with the seconds that it may take: they are in the old plan and not in the new one."""
        if not going:
            return self
        owners = {name: str(pod.ref) for pod, _ in going.values() for name in names_of(pod)}
        kept: dict[str, dict[Identity, Op]] = {str(pod.ref): {} for pod, _ in going.values()}
        for identity, op in old.ops.items():
            if identity not in new.ops and is_link(op) and (netns := _owner(op, owners)):
                kept[netns][identity] = op
        more = {str(pod.ref): One(pod, now + left_s, kept[str(pod.ref)]) for pod, left_s in going.values()}
        return Ending({**self.ones, **more})

    def without(self, netns: Iterable[str]) -> "Ending":
        gone = {*netns}
        return Ending({name: one for name, one in self.ones.items() if name not in gone})

    def keep(self, new: Plan) -> Plan:
        """The plan with what is still needed. What the new plan says of the same thing counts."""
        if not self.ones:
            return new
        extra = {identity: op for one in self.ones.values() for identity, op in one.kept.items() if identity not in new.ops}
        return plan_of((*extra.values(), *new.ops.values()))

    def over(self, busy: Iterable[str], now: float) -> list[str]:
        """The namespaces in which no connection is left, and those whose time is up."""
        still = set(busy)
        return [netns for netns, one in self.ones.items() if netns not in still or now >= one.until]

    def in_the_way(self, cluster: Cluster) -> list[str]:
        """The namespaces of those whose name or address another pod has now, and of those whose node is out of reach."""
        if not self.ones:
            return []
        wanted = {address for pod in cluster.pods.values() for address in pod.addresses}
        return [
            netns
            for netns, one in self.ones.items()
            if one.pod.meta.key in cluster.pods or not wanted.isdisjoint(one.pod.addresses) or not _is_reached(cluster, one.pod)
        ]


def names_of(pod: Pod) -> tuple[Any, ...]:
    """What an op says that belongs to the pod: its namespace, the node's end of its link, its addresses."""
    netns = str(pod.ref)
    return (netns, ipam.host_device(netns), *pod.addresses, *map(ipam.host_route, pod.addresses))


def _owner(op: Op, owners: Mapping[Any, str]) -> str:
    """The namespace of the pod that the op belongs to, '' where there is none."""
    return next((owners[value] for field in fields(op) if (value := getattr(op, field.name)) in owners), "")


def leaving(
    before: Cluster, after: Cluster, grace_s: float | None = None, abrupt: Set[Key] = frozenset()
) -> dict[Key, tuple[Pod, float]]:
    """The pods that end now, have an own network and only the responder in it, and can be reached: each with the seconds it has.

    `grace_s`: how long whoever deletes lets them take, None: as they say themselves. `abrupt`: pods that have no time.
    """
    found = {
        key: (pod, _left_s(pod, after.clock, grace_s))
        for key, pod in (before.pods.items() if before.pods is not after.pods else ())
        if key not in after.pods
        and key not in abrupt
        and pod.phase == "Running"
        and pod.addresses
        and not pod.spec.host_network
        and _is_reached(after, pod)
        and not any(runs_program(one) for one in pod.all_containers)
    }
    return {key: (pod, left_s) for key, (pod, left_s) in found.items() if left_s > 0}


def _left_s(pod: Pod, clock: float, grace_s: float | None) -> float:
    """The smaller of what is asked now and what is left of the grace period (a preStop hook's time is part of it)."""
    own = pod.spec.termination_grace_s
    if pod.meta.deleted is not None:
        own = pod.meta.deleted + (own if pod.grace_s is None else pod.grace_s) - clock
    return own if grace_s is None else min(own, grace_s)


def _is_reached(cluster: Cluster, pod: Pod) -> bool:
    links = ((str(pod.ref), ipam.POD_DEVICE), (f"node/{pod.node}", ipam.host_device(str(pod.ref))))
    return pod.node in cluster.nodes and pod.node not in cluster.outages and cluster.links_down.isdisjoint(links)
