"""Every port of every Service, in blocks of some dozens, so that one changed endpoint costs the work of one block and not of all.

Decides which Services have changed since the last cluster that was asked about, by the identity of their objects: a change makes
new objects of what it changes and leaves the others as they are. Refuses to know what a mode makes of a port.

Theory. The last answer is kept. Where a cluster has the same Services and slices, in the same order, those that are other
objects are found at the speed of C, and only their blocks are made anew. Where anything else differs (a Service more, one less,
another topology) everything is made anew. The answer never depends on what is kept. A mode's own work on a block can be kept
under the block, which is compared by identity.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, compress
from operator import is_not
from typing import TypeVar

from netlab import endpoints
from netlab.model import Cluster, EndpointSlice, Key
from netlab.proxy.service_ports import PortEndpoints, PortsByFamily, families, ports_of
from netlab.ruleset import Family

SERVICES_A_BLOCK = 32


@dataclass(frozen=True, slots=True, eq=False)
class PortBlock:
    """The ports of some Services that follow each other, in order. Equal is only the very same block."""

    ports: tuple[PortEndpoints, ...]


@dataclass(frozen=True, slots=True)
class Blocks:
    """All blocks of a cluster, and what is needed to find those of a changed one.

    place: in which block a Service is. services: those of each block, in order. slices: as proxies list them, by Service.
    """

    cluster: Cluster
    place: Mapping[Key, int]
    services: tuple[tuple[Key, ...], ...]
    slices: Mapping[Key, tuple[EndpointSlice, ...]]
    by_family: Mapping[Family, tuple[PortBlock, ...]]

    @property
    def ports(self) -> PortsByFamily:
        """The same without the blocks: what service_ports_by_family gives."""
        return {family: tuple(chain.from_iterable(one.ports for one in blocks)) for family, blocks in self.by_family.items()}


@dataclass(slots=True)
class _Memory:
    last: Blocks | None = None


@cache
def _memory() -> _Memory:
    return _Memory()


def port_blocks(cluster: Cluster) -> Blocks:
    """The blocks of this cluster, those that are as they were for the last one being the very same."""
    memory = _memory()
    last = memory.last
    if last is None or last.cluster is not cluster:
        memory.last = last = (_changed(last, cluster) if last is not None else None) or _all(cluster)
    return last


def _all(cluster: Cluster) -> Blocks:
    slices = endpoints.slices_by_service(cluster)
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
    return PortBlock(tuple(port for key in keys for port in ports_of(cluster, cluster.services[key], family, slices)))


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
    affected = [key for key in {*services, *owners} if key in last.place]
    by_service = last.slices
    if owners:
        renewed = {key: _slices_of(old, cluster, slices, last.slices.get(key, ()), key) for key in owners}
        by_service = {**last.slices, **renewed}
    numbers = {last.place[key] for key in affected}
    by_family = {}
    for family, blocks in last.by_family.items():
        anew = list(blocks)
        for number in numbers:
            anew[number] = _block_again(cluster, last.services[number], family, by_service, blocks[number])
        by_family[family] = tuple(anew)
    return Blocks(cluster, last.place, last.services, by_service, by_family)


def _slices_of(
    old: Cluster, cluster: Cluster, changed: list[Key], known: tuple[EndpointSlice, ...], owner: Key
) -> tuple[EndpointSlice, ...]:
    """The Service's slices in order of name: the known ones, those that changed replaced."""
    gone = {id(old.slices[key]) for key in changed}
    found = {one.meta.key: one for one in known if id(one) not in gone}
    for key in changed:
        one = cluster.slices[key]
        if one.service == owner and endpoints.HEADLESS_LABEL not in one.meta.labels:
            found[key] = one
    return tuple(one for _, one in sorted(found.items()))


def _block_again(
    cluster: Cluster, keys: tuple[Key, ...], family: Family, slices: Mapping[Key, tuple[EndpointSlice, ...]], was: PortBlock
) -> PortBlock:
    """The block made anew; the ports that are equal are the very objects that they were, and if all are, so is the block."""
    now = _block(cluster, keys, family, slices).ports
    if now == was.ports:
        return was
    known = {(port.front.service, port.front.port_name, port.front.protocol): port for port in was.ports}
    kept = (known.get((port.front.service, port.front.port_name, port.front.protocol)) for port in now)
    return PortBlock(tuple(old if old == port and old is not None else port for port, old in zip(now, kept, strict=True)))


Object = TypeVar("Object")


def _replaced(old: Mapping[Key, Object], new: Mapping[Key, Object]) -> list[Key] | None:
    """The keys whose object is another one; None when the keys, or their order, are not the same."""
    if old is new:
        return []
    if len(old) != len(new):
        return None
    found = list(compress(zip(old, new, strict=True), map(is_not, old.values(), new.values())))
    # An object carries its key: where the objects are the same, so are the keys.
    return None if any(one != other for one, other in found) else [key for key, _ in found]
