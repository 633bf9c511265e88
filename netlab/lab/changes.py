"""What has changed between two Clusters and two Plans, as events for people and scripts. Pure.

Decides what is worth an event: objects that came, went or changed in a way that their table would show, endpoints by Service,
links that faults set down, rules by node and count. An event is plain JSON; docs/watching.md says its keys.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from netlab.model import Cluster, EndpointSlice, Key, Node, Pod
from netlab.ops import Ruleset
from netlab.plan import Diff

Event = dict[str, Any]


def changes(before: Cluster, after: Cluster) -> Iterator[Event]:
    """Objects, endpoints and links, in the order in which a reader wants them: what was asked, then what follows from it."""
    yield from _objects("Service", before.services, after.services)
    yield from _workloads(before, after)
    yield from _objects("Node", before.nodes, after.nodes)
    yield from _objects("Pod", before.pods, after.pods)
    yield from _endpoints(before, after)
    yield from _others(before, after)
    for netns, device in sorted(after.links_down - before.links_down):
        yield {"type": "fault", "action": "link-down", "where": netns, "name": device, "text": f"{device} of {netns} is set down"}
    for netns, device in sorted(before.links_down - after.links_down):
        yield {"type": "fault", "action": "link-up", "where": netns, "name": device, "text": f"{device} of {netns} is up again"}
    for pair in sorted(before.apart ^ after.apart):
        parted, names = pair in after.apart, " and ".join(pair)
        words = f"{names} do not reach each other" if parted else f"{names} reach each other again"
        yield {"type": "fault", "action": "partition" if parted else "heal", "where": pair[0], "name": pair[1], "text": words}
    yield from _impairments(before, after)


def _impairments(before: Cluster, after: Cluster) -> Iterator[Event]:
    if before.impaired is after.impaired:
        return
    for netns, device in sorted({*before.impaired, *after.impaired}):
        was, now = before.impaired.get((netns, device)), after.impaired.get((netns, device))
        if was != now:
            words = f"now has {str(now) or 'no impairment'}" if now is not None else "is as the topology says again"
            event: Event = {"type": "fault", "action": "impair" if now is not None else "clear", "where": netns, "name": device}
            yield {**event, "text": f"what {device} of {netns} sends {words}"}


def _objects(kind: str, before: Mapping[Any, Any], after: Mapping[Any, Any]) -> Iterator[Event]:
    if before is after:
        return
    for key, old in before.items():
        if key not in after:
            yield _object(kind, key, "removed", "")
        elif after[key] is not old and after[key] != old and (words := _changed(kind, old, after[key])):
            yield _object(kind, key, "changed", words)
    for key, new in after.items():
        if key not in before:
            yield _object(kind, key, "added", _shown(new))


def _object(kind: str, key: Any, action: str, words: str) -> Event:
    namespace, name = (key.namespace, key.name) if isinstance(key, Key) else ("", str(key))
    label = f"{kind} {namespace + '/' if namespace else ''}{name}"
    text = f"{label} {action}" + (f": {words}" if words else "")
    return {"type": "object", "action": action, "kind": kind, "namespace": namespace, "name": name, "text": text}


def _shown(new: Any) -> str:
    match new:
        case Pod(node=node, addresses=addresses):
            return f"on {node or 'no node'}, {', '.join(map(str, addresses)) or 'no address'}"
        case Node(addresses=addresses):
            return ", ".join(map(str, addresses))
        case _:
            return ", ".join(map(str, getattr(new, "cluster_ips", ())))


def _changed(kind: str, old: Any, new: Any) -> str:
    """In words what is different; '' for what nobody would see."""
    if kind != "Pod":
        fields = [name for name in new.__dataclass_fields__ if name not in ("manifest", "meta")]
        named = [name for name in fields if getattr(old, name) != getattr(new, name)]
        return ", ".join(named) or ("metadata" if old.meta != new.meta else "")
    found = []
    if old.node != new.node:
        found.append(f"placed on {new.node}")
    if old.phase != new.phase:
        found.append(new.phase)
    if old.ready != new.ready:
        found.append("ready" if new.ready else "not ready")
    if old.terminating != new.terminating:
        found.append("terminating")
    if old.restarts != new.restarts:
        found.append(f"restart {new.restarts}")
    return ", ".join(found + ([new.message] if new.message and new.message != old.message else []))


def _workloads(before: Cluster, after: Cluster) -> Iterator[Event]:
    if before.workloads is after.workloads:
        return
    for kind in dict.fromkeys(kind for kind, _ in (*before.workloads, *after.workloads)):
        old = {key: one for (of, key), one in before.workloads.items() if of == kind}
        new = {key: one for (of, key), one in after.workloads.items() if of == kind}
        yield from _objects(kind, old, new)


def _others(before: Cluster, after: Cluster) -> Iterator[Event]:
    if before.others is not after.others:
        for kind, key in sorted(after.others.keys() - before.others.keys()):
            yield _object(kind, key, "added", "")
        for kind, key in sorted(before.others.keys() - after.others.keys()):
            yield _object(kind, key, "removed", "")


def _endpoints(before: Cluster, after: Cluster) -> Iterator[Event]:
    """Addresses that became ready, or are not any more, by Service."""
    if before.slices is after.slices:
        return
    touched = [key for key, one in after.slices.items() if before.slices.get(key) is not one]
    touched += [key for key in before.slices if key not in after.slices]
    services = {(after.slices.get(key) or before.slices[key]).service for key in touched}
    for service in sorted(services):
        old, new = _ready(before, service), _ready(after, service)
        if old != new:
            parts = [f"+{one}" for one in sorted(new - old)] + [f"-{one}" for one in sorted(old - new)]
            shown = ", ".join(parts[:8]) + (f" and {len(parts) - 8} more" if len(parts) > 8 else "")
            many = f"{len(new)} ready endpoint{'' if len(new) == 1 else 's'}"
            yield {
                "type": "endpoints", "action": "changed", "namespace": service.namespace, "name": service.name,
                "ready": len(new), "added": sorted(new - old), "removed": sorted(old - new),
                "text": f"svc/{service.namespace}/{service.name} has {many}: {shown}",
            }  # fmt: skip


def _ready(cluster: Cluster, service: Key) -> set[str]:
    slices: list[EndpointSlice] = [one for one in cluster.slices.values() if one.service == service]
    return {str(address) for one in slices for end in one.endpoints if end.ready is not False for address in end.addresses}


def rules(difference: Diff, took_s: float) -> Iterator[Event]:
    """What was loaded into each namespace: how many rules and elements there are now, and were before."""
    before = {old.identity: old for old, _ in difference.changed if isinstance(old, Ruleset)}
    for op in difference.added:
        if isinstance(op, Ruleset):
            now, elements = _size(op)
            was = _size(before[op.identity])[0] if op.identity in before else 0
            yield {
                "type": "rules", "action": "applied", "where": op.netns, "dialect": op.value.dialect, "rules": now,
                "rules_before": was, "elements": elements, "seconds": round(took_s, 4),
                "text": f"{op.netns}: {now} rules and {elements} elements in {op.value.dialect} ({now - was:+d} rules), "
                f"loaded in {took_s * 1000:.0f} ms for all nodes",
            }  # fmt: skip


def _size(op: Ruleset) -> tuple[int, int]:
    tables = op.value.tables
    elements = sum(len(one.elements) for table in tables for one in table.maps)
    elements += sum(len(one.elements) for table in tables for one in table.sets)
    return sum(len(chain.rules) for table in tables for chain in table.chains), elements
