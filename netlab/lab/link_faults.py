"""Faults of links: which link is meant, and what is done to it.

Decides how a link may be named, and which ends of it a fault changes. Refuses to know how a device is impaired.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, fields
from typing import Any

from netlab.errors import InputError
from netlab.fabric import impairments as planned
from netlab.ipam import attachments
from netlab.lab.bodies import Body
from netlab.manifest import impairments
from netlab.manifest.problems import did_you_mean
from netlab.model import Cluster, FrozenDict, Impairment
from netlab.ops import Veth
from netlab.plan import Plan
from netlab.targets import KINDS, netns_of, resolve_sender

Device = tuple[str, str]


def link_of(cluster: Callable[[], Cluster], text: str) -> tuple[str, str | None]:
    """(target, device) of a link in either spelling: TARGET[:DEVICE], or the topology's END/LAN. None: every link."""
    end, slash, lan = text.partition("/")
    if not slash or end.lower() in KINDS or ":" in lan:
        return split_device(text)
    return _on_lan(cluster(), text, end, lan)


def split_device(text: str) -> tuple[str, str | None]:
    """(target, device) of `node/a:eth1`; None, all links, where no device is given."""
    target, colon, device = text.partition(":")
    if colon and not device:
        raise InputError(f"{text!r}: the device's name is missing after the colon, such as {target}:eth0")
    return target, device or None


def _on_lan(cluster: Cluster, text: str, end: str, lan: str) -> tuple[str, str]:
    """(target, device) of the interface that the node or host `end` has in `lan`."""
    machines = {host.name: (f"host/{host.name}", host.addresses) for host in cluster.topology.hosts}
    machines |= {name: (f"node/{name}", node.addresses) for name, node in cluster.nodes.items()}
    if end not in machines:
        meant = did_you_mean(end, machines)
        hint = f"did you mean {meant}/{lan}?" if meant else "links are named node/NAME, pod/NAME, host/NAME or HOST/LAN"
        raise InputError(f"{text!r}: there is no node or host {end}; {hint}")
    target, addresses = machines[end]
    own = {one.lan: one.device for one in attachments(cluster.topology, addresses)}
    if lan not in own:
        raise InputError(f"{text!r}: {target} has no link to {lan}; it has {', '.join(f'{end}/{one}' for one in own) or 'none'}")
    return target, own[lan]


def links_of(cluster: Cluster, plan: Plan, body: Body) -> tuple[str, tuple[tuple[Device, Device], ...]]:
    """The target, and (own end, far end) of the links that {"target", "device", "namespace"} names. Raises: InputError."""
    if not body.get("target"):
        raise InputError(f"{body['kind']}: the target is missing: pod/NAME, node/NAME, host/NAME or HOST/LAN")
    target, device = link_of(lambda: cluster, body["target"])
    ref = resolve_sender(cluster, target, body.get("namespace", "default"))
    device = body.get("device") or device
    netns = netns_of(cluster, ref)
    found = []
    for op in plan.ops.values():
        if isinstance(op, Veth):
            near, far = (op.netns, op.device), (op.peer_netns, op.peer_device)
            for own, other in ((near, far), (far, near)):
                if own[0] == netns and device in (None, own[1]) and not own[1].startswith("veth"):
                    found.append((own, other))
    if not found:
        raise InputError(f"{netns} has no link {device or ''}".rstrip())
    return str(ref), tuple(found)


def set_down(cluster: Cluster, plan: Plan, body: Body) -> tuple[str, Cluster]:
    """link-down and link-up: a cable is pulled where it is plugged into the switch, or into the node.

    Setting the machine's own end down would take its routes along, and its programs would be told at once.
    """
    target, links = links_of(cluster, plan, body)
    far = frozenset(far for _, far in links)
    down = cluster.links_down | far if body["kind"] == "link-down" else cluster.links_down - far
    return target, cluster.with_(links_down=down)


def pair_of(cluster: Cluster, text: str) -> tuple[str, str] | None:
    """The namespaces of the two machines that `A/B` names, nodes or outside hosts, sorted; None where it names no pair.

    Raises: InputError when they share no LAN, or one of them does not exist.
    """
    first, slash, second = text.partition("/")
    if not slash or first.lower() in KINDS or "/" in second:
        return None
    machines = {host.name: (f"host/{host.name}", host.addresses) for host in cluster.topology.hosts}
    machines |= {name: (f"node/{name}", node.addresses) for name, node in cluster.nodes.items()}
    for one in (first, second):
        if one not in machines:
            meant = did_you_mean(one, machines)
            raise InputError(
                f"{text!r}: there is no node or host {one}; " + (f"did you mean {meant}?" if meant else "A/B names two")
            )
    if first == second:
        raise InputError(f"{text!r}: two machines are wanted")
    lans = [{leg.lan for leg in attachments(cluster.topology, machines[one][1])} for one in (first, second)]
    if not lans[0] & lans[1]:
        raise InputError(f"{text!r}: they share no LAN; what passes the router is cut with link-down A/LAN")
    a, b = sorted((machines[first][0], machines[second][0]))
    return a, b


def part(cluster: Cluster, _: Plan, body: Body) -> tuple[str, Cluster] | None:
    """partition and heal of a pair, A/B; None where the target is no pair. Raises: InputError."""
    pair = pair_of(cluster, str(body.get("target") or ""))
    if pair is None:
        return None
    if cluster.topology.cluster.neighbours != "permanent":
        raise InputError("two machines are parted through their neighbour tables, which `neighbours: learned` leaves to ARP")
    name = " and ".join(pair)
    if (pair in cluster.apart) is (body["kind"] == "partition"):
        raise InputError(f"{name} are parted already" if body["kind"] == "partition" else f"{name} reach each other")
    return name, cluster.with_(apart=cluster.apart ^ {pair})


def impair(cluster: Cluster, plan: Plan, body: Body) -> tuple[str, Cluster]:
    """{"kind": delay|loss|..., "target", "value", "jitter", "direction"}: one part of the impairment is set, the others stay."""
    target, devices = _devices(cluster, plan, body)
    was = planned.in_force(cluster)
    now = {
        device: impairments.changed(was.get(device, Impairment()), body["kind"], body.get("value"), body.get("jitter"))
        for device in devices
    }
    return target, cluster.with_(impaired=FrozenDict({**cluster.impaired, **now}))


def clear(cluster: Cluster, plan: Plan, body: Body) -> tuple[str, Cluster]:
    """Links are again as the topology says: one target's, or all. Links that are set down stay so."""
    if not body.get("target"):
        return "", cluster.with_(impaired=FrozenDict())
    target, devices = _devices(cluster, plan, body)
    return target, cluster.with_(
        impaired=FrozenDict({key: value for key, value in cluster.impaired.items() if key not in devices})
    )


def restore(cluster: Cluster, _: Plan, body: Body) -> tuple[str, Cluster]:
    """{"undo": what `undo_of` noted} is in force again."""
    kept = dict(cluster.impaired)
    for netns, device, value in body.get("undo") or ():
        kept.pop((netns, device), None)
        if value is not None:
            kept[netns, device] = _impairment(value)
    return "", cluster.with_(impaired=FrozenDict(kept))


def _impairment(value: Mapping[str, Any]) -> Impairment:
    names = {field.name for field in fields(Impairment)}
    if not names >= value.keys() or not all(type(one) in (int, float) or one is None for one in value.values()):
        raise InputError(f"restore: {value!r:.200} is no impairment, which has {', '.join(sorted(names))}")
    return Impairment(**value)


def undo_of(before: Cluster, after: Cluster) -> list[list[Any]]:
    """[netns, device, fault or None] of every device whose fault differs: what leads back."""
    devices = {*before.impaired, *after.impaired}
    changed = sorted(one for one in devices if before.impaired.get(one) != after.impaired.get(one))
    return [[*one, asdict(before.impaired[one]) if one in before.impaired else None] for one in changed]


def _devices(cluster: Cluster, plan: Plan, body: Body) -> tuple[str, tuple[Device, ...]]:
    direction = body.get("direction") or "both"
    if direction not in impairments.DIRECTIONS:
        raise InputError(f"direction {direction!r}: out (what the target sends), in (what it gets) or both")
    target, links = links_of(cluster, plan, body)
    return target, tuple(
        device for out, into in links for device, way in ((out, "out"), (into, "in")) if direction in ("both", way)
    )


FAULTS: Mapping[str, Callable[[Cluster, Plan, Body], tuple[str, Cluster]]] = {
    "link-down": set_down,
    "link-up": set_down,
    **{kind: impair for kind in impairments.KINDS if kind != "jitter"},
    "clear": clear,
    "restore": restore,
}
"""What each fault makes of a cluster, and of which target."""
