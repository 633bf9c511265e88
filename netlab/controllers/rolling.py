"""How many pods each ReplicaSet of a Deployment keeps, one step at a time: numbers in, numbers out.

Theory of a step (Kubernetes pkg/controller/deployment rolling.go, recreate.go, sync.go): first the new set grows while all sets
together stay within replicas + maxSurge; when it cannot, the old ones shrink while at least replicas - maxUnavailable pods are
available, those that are not available first. A change of `replicas` in the middle of a rollout is shared among the sets by their
sizes. It refuses to know pods and templates.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, floor

from netlab.model import IntOrPercent, Rollout


@dataclass(frozen=True, slots=True)
class Size:
    """One ReplicaSet: what it shall have and how many of its pods are available. `maximum`: replicas + maxSurge when it was last
    scaled, 0 where that is not known.
    """

    replicas: int
    available: int
    maximum: int = 0


def resolved(value: IntOrPercent, total: int, up: bool) -> int:
    """A number of pods: a percentage of `total`, rounded up or down."""
    if isinstance(value, int):
        return value
    exact = int(value.rstrip("%")) * total / 100
    return ceil(exact) if up else floor(exact)


def fenceposts(rollout: Rollout, replicas: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods. Surge is rounded up, unavailable down; if both come to nothing, one may be
    unavailable.
    """
    surge = resolved(rollout.max_surge, replicas, True)
    unavailable = resolved(rollout.max_unavailable, replicas, False)
    return surge, min(unavailable if surge or unavailable else 1, replicas)


def step(rollout: Rollout, replicas: int, new: Size, old: Sequence[Size]) -> tuple[int, tuple[int, ...]]:
    """What the new set and the old ones (oldest first) shall have next; the same numbers when there is nothing to do now."""
    surge, unavailable = fenceposts(rollout, replicas)
    sizes = tuple(one.replicas for one in old)
    total = new.replicas + sum(sizes)
    if new.replicas > replicas:
        return replicas, sizes
    if new.replicas < replicas and (grow := min(replicas + surge - total, replicas - new.replicas)) > 0:
        return new.replicas + grow, sizes
    return new.replicas, _shrunk(replicas - unavailable, new, old)


def _shrunk(least: int, new: Size, old: Sequence[Size]) -> tuple[int, ...]:
    total = new.replicas + sum(one.replicas for one in old)
    most = total - least - (new.replicas - new.available)
    kept = list(old)
    if most <= 0 or not any(one.replicas for one in old):
        return tuple(one.replicas for one in old)
    for at, one in enumerate(kept):  # what is not available anyway
        drop = min(most, max(one.replicas - one.available, 0))
        kept[at] = replace(one, replicas=one.replicas - drop)
        most -= drop
    spare = new.available + sum(one.available for one in old) - least
    for at, one in enumerate(kept):
        drop = max(min(spare, one.replicas), 0)
        kept[at] = replace(one, replicas=one.replicas - drop)
        spare -= drop
    return tuple(one.replicas for one in kept)


def scaled(rollout: Rollout, replicas: int, new: Size | None, old: Sequence[Size]) -> tuple[int | None, tuple[int, ...]]:
    """What the sets shall have when `replicas` has changed: the only one all, else each its share, the largest what is left
    over.
    """
    surge, _ = fenceposts(rollout, replicas)
    sizes = [*([new] if new is not None else []), *old]
    active = [at for at, one in enumerate(sizes) if one.replicas]
    wanted = [one.replicas for one in sizes]
    if len(active) <= 1:
        at = active[0] if active else 0 if new is not None else len(sizes) - 1
        wanted[at] = replicas
    elif new is not None and new.replicas == replicas == new.available:
        wanted = [replicas, *(0 for _ in old)]
    else:
        allowed = replicas + surge if replicas else 0
        to_add = allowed - sum(wanted)
        added = 0
        order = sorted(active, key=lambda at: -sizes[at].replicas)
        for at in order:
            share = _share(sizes[at], replicas, surge, allowed)
            part = min(share, to_add - added) if to_add > 0 else max(share, to_add - added)
            wanted[at] += part
            added += part
        wanted[order[0]] = max(wanted[order[0]] + to_add - added, 0)
    return (wanted[0] if new is not None else None), tuple(wanted[1:] if new is not None else wanted)


def _share(one: Size, replicas: int, surge: int, allowed: int) -> int:
    if not replicas:
        return -one.replicas
    return floor(one.replicas * (replicas + surge) / (one.maximum or allowed) + 0.5) - one.replicas
