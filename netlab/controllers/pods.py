"""An index over the pods of one cluster: by namespace, by label, by owner. Built once for the
same pods, so that nothing scans them all again.

It decides also what "active" means, and knows nothing of who asks.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from netlab.memory import last_kept
from netlab.model import Key, Labels, Pod, Ref, Selector

NONE: tuple[Pod, ...] = ()


def is_active(pod: Pod) -> bool:
    """Whether a pod counts as a replica: neither finished nor being deleted."""
    return pod.phase not in ("Succeeded", "Failed") and pod.meta.deleted is None


@dataclass(frozen=True, slots=True)
class PodIndex:
    """Pods in the cluster's order in every list."""

    by_namespace: Mapping[str, list[Pod]]
    by_label: Mapping[tuple[str, str, str], list[Pod]]
    by_owner: Mapping[Ref, list[Pod]]

    def owned(self, owner: Ref) -> Iterable[Pod]:
        return self.by_owner.get(owner, NONE)

    def selected(self, namespace: str, selector: Selector) -> list[Pod]:
        """Pods of a namespace that a selector matches; an empty selector matches all."""
        labels = selector.labels
        found: Iterable[Pod]
        if labels:
            found = _shortest([self.by_label.get((namespace, key, value), []) for key, value in labels.items()])
            if len(labels) == 1 and not selector.expressions:
                return list(found)
        else:
            found = self.by_namespace.get(namespace, NONE)
        return [pod for pod in found if selector.matches(pod.meta.labels)]

    def having(self, namespace: str, labels: Labels) -> list[Pod]:
        """Pods of a namespace that carry all these labels (a Service's selector)."""
        return self.selected(namespace, Selector(labels))


def _shortest(buckets: list[list[Pod]]) -> list[Pod]:
    return min(buckets, key=len)


@last_kept
def index(pods: Mapping[Key, Pod]) -> PodIndex:
    by_namespace: dict[str, list[Pod]] = {}
    by_label: dict[tuple[str, str, str], list[Pod]] = {}
    by_owner: dict[Ref, list[Pod]] = {}
    for pod in pods.values():
        meta = pod.meta
        namespace = meta.namespace
        by_namespace.setdefault(namespace, []).append(pod)
        for key, value in meta.labels.items():
            by_label.setdefault((namespace, key, value), []).append(pod)
        if meta.owner is not None:
            by_owner.setdefault(meta.owner, []).append(pod)
    return PodIndex(by_namespace, by_label, by_owner)
