"""Every port of every Service, in blocks of some dozens, so that one changed endpoint costs the work of one block and not of all.

Decides which Services have changed since the last cluster that was asked about. Refuses to know what a mode makes of a port.

Theory. The last answer is kept. Where a cluster has the same Services and slices, in the same order, those that differ are found
at the speed of C (what did not change is the very same object), and only their blocks are made anew. Where anything else differs
(a Service more, one less, another topology) everything is. The answer never depends on what is kept. A mode's own work on a block
can be kept under the block, which is compared by identity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from typing import TypeVar

from netlab import endpoints
from netlab.memory import last_kept
from netlab.model import Cluster, EndpointSlice, Key
from netlab.proxy.service_ports import PortEndpoints, PortsByFamily, families, ports_of
from netlab.ruleset import Family

SERVICES_A_BLOCK = 16
COMPARED_AT_ONCE = 256
MOST_CHANGED = 100


@dataclass(frozen=True, slots=True, eq=False)
class PortBlock:
    """The ports of some Services that follow each other, in order. Equal is only the very same block.

    endpoints: how many they have together, usable or not.
    """

    ports: tuple[PortEndpoints, ...]
    endpoints: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """All blocks of a cluster, and what is needed to find those of a changed one.

    place: in which block a Service is. services: those of each block, in order. slices: as proxies list them, by Service; they
    are handed on to the next Blocks, which changes them.
    """

    cluster: Cluster
    place: Mapping[Key, int]
    services: tuple[tuple[Key, ...], ...]
    slices: dict[Key, tuple[EndpointSlice, ...]]
    by_family: Mapping[Family, tuple[PortBlock, ...]]


@dataclass(slots=True)
class _Memory:
    last: Blocks | None = None


@cache
def _memory() -> _Memory:
    return _Memory()


def blocks_of(cluster: Cluster) -> Blocks:
    """The blocks of this cluster, those that are as they were for the last one being the very same."""
    memory = _memory()
    last = memory.last
    if last is None or last.cluster is not cluster:
        memory.last = last = (_changed(last, cluster) if last is not None else None) or _all(cluster)
    return last


@last_kept
def every_port(cluster: Cluster) -> PortsByFamily:
    """The ports of all blocks, for modes that keep nothing by block: by namespace and name of their Service, in its order."""
    by_family = blocks_of(cluster).by_family
    return {family: tuple(chain.from_iterable(block.ports for block in blocks)) for family, blocks in by_family.items()}


def _all(cluster: Cluster) -> Blocks:
    slices = dict(endpoints.slices_by_service(cluster))
    keys = [service.meta.key for service in endpoints.proxied_services(cluster)]
    services = tuple(tuple(keys[start : start + SERVICES_A_BLOCK]) for start in range(0, len(keys), SERVICES_A_BLOCK))
    return Blocks(
        cluster,
        {key: number for number, block in enumerate(services) for key in block},
        services,
        slices,
        {family: tuple(_block(cluster, block, family, slices) for block in services) for family in families(cluster)},
    )


def _block(cluster: Cluster, keys: tuple[Key, ...], family: Family, slices: Mapping[Key, tuple[EndpointSlice, ...]]) -> PortBlock:
    return _made(tuple(port for key in keys for port in ports_of(cluster, cluster.services[key], family, slices)))


def _made(ports: tuple[PortEndpoints, ...]) -> PortBlock:
    return PortBlock(ports, sum(len(port.endpoints) for port in ports))


def _changed(last: Blocks, cluster: Cluster) -> Blocks | None:
    """The blocks, given those of the last cluster; None when more has changed than Services and slices that both have."""
    old = last.cluster
    if families(old) != families(cluster):
        return None
    services = _replaced(old.services, cluster.services)
    slices = _replaced(old.slices, cluster.slices)
    if services is None or slices is None:
        return None
    if any(endpoints.is_proxied(old.services[key]) != endpoints.is_proxied(cluster.services[key]) for key in services):
        return None
    owners = {one.slices[key].service for one in (old, cluster) for key in slices}
    affected = {key for key in (*services, *owners) if key in last.place}
    last.slices.update({key: _slices_of(cluster, slices, last.slices.get(key, ()), key) for key in owners})
    numbers = {last.place[key] for key in affected}
    by_family = {}
    for family, blocks in last.by_family.items():
        anew = list(blocks)
        for number in numbers:
            anew[number] = _block_again(cluster, last.services[number], affected, family, last.slices, blocks[number])
        by_family[family] = tuple(anew)
    return Blocks(cluster, last.place, last.services, last.slices, by_family)


def _slices_of(cluster: Cluster, changed: list[Key], known: tuple[EndpointSlice, ...], owner: Key) -> tuple[EndpointSlice, ...]:
    """The Service's slices in order of name: the known ones, those that changed replaced."""
    found = {one.meta.key: one for one in known}
    for key in changed:
        found.pop(key, None)
        one = cluster.slices[key]
        if one.service == owner and endpoints.HEADLESS_LABEL not in one.meta.labels:
            found[key] = one
    return tuple(one for _, one in sorted(found.items()))


def _block_again(
    cluster: Cluster,
    keys: tuple[Key, ...],
    affected: set[Key],
    family: Family,
    slices: Mapping[Key, tuple[EndpointSlice, ...]],
    was: PortBlock,
) -> PortBlock:
    """The block with the ports of the affected Services made anew."""
    before: dict[Key, list[PortEndpoints]] = {}
    for port in was.ports:
        before.setdefault(port.front.service, []).append(port)
    now: list[PortEndpoints] = []
    for key in keys:
        now += ports_of(cluster, cluster.services[key], family, slices) if key in affected else before.get(key, ())
    return _made(tuple(now))


Object = TypeVar("Object")


def _replaced(old: Mapping[Key, Object], new: Mapping[Key, Object]) -> list[Key] | None:
    """The keys whose object is not equal; None when the keys, or their order, are not the same, or very many differ."""
    if old is new:
        return []
    if len(old) != len(new):
        return None
    before, after = list(old.values()), list(new.values())
    found: list[int] = []
    for start in range(0, len(before), COMPARED_AT_ONCE):
        # The very same object is equal to C without a question: this is how most of 10,000 are passed over.
        if before[start : start + COMPARED_AT_ONCE] != after[start : start + COMPARED_AT_ONCE]:
            end = min(start + COMPARED_AT_ONCE, len(before))
            found += (
                number for number in range(start, end) if before[number] is not after[number] and before[number] != after[number]
            )
    # An object carries its key: where the objects are equal, so are the keys.
    pairs = [(next(islice(old, number, None)), next(islice(new, number, None))) for number in found[:MOST_CHANGED]]
    return [key for _, key in pairs] if len(pairs) == len(found) and all(was == now for was, now in pairs) else None
