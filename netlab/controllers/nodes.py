"""Decides the Nodes of a cluster: those of the topology, with what Node objects say about them laid over."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from netlab import ipam
from netlab.controllers import names
from netlab.errors import ApiError, InputError, Problem
from netlab.model import (
    CONTROL_PLANE_TAINTS,
    NOTHING,
    Cluster,
    ClusterConfig,
    Labels,
    Manifest,
    Meta,
    Network,
    Node,
    NodeSpec,
    Taint,
    Topology,
)

CONTROL_PLANE = "node-role.kubernetes.io/control-plane"


def nodes(topology: Topology, given: Iterable[Node]) -> dict[str, Node]:
    """All nodes in the topology's order. Raises: InputError for unknown Node objects, or when the podCIDRs are used up."""
    objects = {node.meta.name: node for node in given}
    known = [spec.name for spec in topology.nodes]
    problems = tuple(Problem(f"node/{name}: {unknown(name, known)}") for name in objects if name not in known)
    if problems:
        raise InputError(problems)
    config = topology.cluster
    taken = [cidr for spec in topology.nodes for cidr in spec.pod_cidrs]
    taken += [cidr for node in objects.values() for cidr in node.pod_cidrs]
    free = {f"IPv{cidr.version}": ipam.free_pod_cidrs(config, taken, f"IPv{cidr.version}") for cidr in config.pod_cidrs}  # type: ignore[arg-type]  # 4 or 6
    return {spec.name: _node(spec, objects.get(spec.name), config, free, serial) for serial, spec in enumerate(topology.nodes)}


def unknown(name: str, known: Iterable[str]) -> str:
    """That there is no such node, and which one was probably meant."""
    candidates = list(known)
    close = get_close_matches(name, candidates, n=1)
    some = ", ".join(candidates[:8]) + (", ..." if len(candidates) > 8 else "")
    return f'there is no node "{name}" in the topology; ' + (f"did you mean {close[0]}?" if close else f"there is {some}")


def overlaid(node: Node, given: Node, clock: float = 0.0) -> Node:
    """A node with what a Node object says of labels, readiness and taints; a taint that was there keeps its time. Addresses and
    podCIDRs stay: they are wired.

    As `kubectl apply` does, what the object does not name stays, unless the one before named it. One with a uid is the API
    server's own, whole: what it does not name is not there.
    """
    spec, last = given.manifest.get("spec") or NOTHING, _last_applied(node)
    whole = bool(given.meta.uid and spec)

    def is_told(field: str) -> bool:
        return whole or spec.get(field) is not None or (last.get("spec") or {}).get(field) is not None

    known = {(one.key, one.effect): one for one in node.taints}
    taints = (same if (same := known.get((one.key, one.effect))) == one else replace(one, added=clock) for one in given.taints)
    meta = replace(
        node.meta,
        labels=given.meta.labels if whole else {**node.meta.labels, **given.meta.labels},
        annotations=given.meta.annotations if whole else _annotations(node, given, last),
        uid=given.meta.uid or node.meta.uid,
    )
    return replace(
        node,
        meta=meta,
        ready=given.ready if given.manifest.get("status") else node.ready,
        control_plane=given.control_plane if is_told("taints") else node.control_plane,
        unschedulable=given.unschedulable if is_told("unschedulable") else node.unschedulable,
        taints=tuple(taints) if is_told("taints") else node.taints,
        manifest=given.manifest,
    )


def _last_applied(node: Node) -> Manifest:
    """The manifest that was laid over the node last; nothing where that is the API server's own object."""
    return NOTHING if (node.manifest.get("metadata") or {}).get("uid") else node.manifest


def _annotations(node: Node, given: Node, last: Manifest) -> Labels:
    named = (last.get("metadata") or {}).get("annotations") or {}
    return {**{key: value for key, value in node.meta.annotations.items() if key not in named}, **given.meta.annotations}


def _node(spec: NodeSpec, given: Node | None, config: ClusterConfig, free: Mapping[str, Iterator[Network]], serial: int) -> Node:
    cidrs = spec.pod_cidrs or (given.pod_cidrs if given is not None else ())
    if not cidrs:
        cidrs = tuple(next(networks, None) or ipam.pod_cidr(replace(config, pod_cidrs=()), ()) for networks in free.values())
    labels = {
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        **({CONTROL_PLANE: ""} if spec.control_plane else {}),
        **spec.labels,
    }
    node = Node(
        meta=Meta(spec.name, labels=labels, uid=names.uid("Node", "", spec.name, serial)),
        addresses=spec.addresses or (given.addresses if given is not None else ()),
        pod_cidrs=cidrs,
        control_plane=spec.control_plane,
        taints=spec.taints,
    )
    if given is None:
        return node
    return overlaid(node, replace(given, meta=replace(given.meta, labels={**labels, **given.meta.labels})))


def tainted(cluster: Cluster, name: str, add: Sequence[Taint], remove: Sequence[tuple[str, str]], overwrite: bool) -> Cluster:
    """The cluster with taints of this node added and removed, not settled. Raises: ApiError in kubectl's words.

    The taint of a control plane is not among those that were given: it follows from what the node is, and goes with it.
    """
    node = cluster.nodes[name]
    own = CONTROL_PLANE_TAINTS[:1] if node.control_plane else ()
    there = (*node.taints, *own)
    same = [one.key for one in add if any((one.key, one.effect) == (old.key, old.effect) for old in there)]
    if same and not overwrite:
        words = f"node {name} already has {', '.join(same)} taint(s) with same effect(s) and --overwrite is false"
        raise ApiError(409, "Conflict", words)
    for key, effect in remove:
        if not any(_is_named(one, key, effect) for one in there):
            raise ApiError(404, "NotFound", f'taint "{key}{":" if effect else ""}{effect}" not found')

    def stays(one: Taint) -> bool:
        replaced = any((one.key, one.effect) == (other.key, other.effect) for other in add)
        return not replaced and not any(_is_named(one, key, effect) for key, effect in remove)

    new = [replace(one, added=cluster.clock) for one in add if one not in CONTROL_PLANE_TAINTS]
    control_plane = any(map(stays, own)) or any(one in CONTROL_PLANE_TAINTS for one in add)
    after = replace(node, taints=(*filter(stays, node.taints), *new), control_plane=control_plane)
    return cluster.with_(nodes={**cluster.nodes, name: after})


def _is_named(taint: Taint, key: str, effect: str) -> bool:
    return taint.key == key and effect in ("", taint.effect)
