"""A storm of events on a cluster with every kind of workload: what happens, what must hold at the end, and what does not count.

The events are drawn from a cluster, so that each has something to happen to, and name what they happen to: the same list can be
given to the controllers one by one, and to a running lab.
"""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

from netlab import controllers, manifest
from netlab.controllers.rolling import fenceposts
from netlab.model import Cluster, Key, Pod, Workload

Event = tuple[str, ...]
NODES = ("node-170", "node-171", "node-172")
TOPOLOGY = """
cluster: {proxy: {mode: MODE}, dns: false, nodeMonitorGracePeriod: 50ms, unreachableToleration: 50ms}
nodes:
  node-169: {addresses: 192.168.0.169, controlPlane: true}
  node-170: {addresses: 192.168.0.170}
  node-171: {addresses: 192.168.0.171}
  node-172: {addresses: 192.168.0.172}
hosts: {client: {addresses: 192.168.0.100, routes: {10.96.0.0/12: 192.168.0.169, 10.244.0.0/16: 192.168.0.169}}}
"""
WORKLOADS = (
    ("v1", "ReplicationController", "old", 3), ("apps/v1", "Deployment", "web", 4), ("apps/v1", "StatefulSet", "db", 3),
    ("apps/v1", "DaemonSet", "agent", 1), ("apps/v1", "ReplicaSet", "set", 2),
)  # fmt: skip
SCALED = ("ReplicationController", "Deployment", "StatefulSet", "ReplicaSet")
ROLLED = ("Deployment", "StatefulSet", "DaemonSet")
LONG_S = 5.0
"""What is due later than this (a rollout that is given up after minutes) does not belong to the storm."""


def documents(version: int = 1) -> dict[str, dict[str, Any]]:
    """The objects by KIND/NAME; `version` is the tag of every image. No replicas: what `scale` set stays."""
    found: dict[str, dict[str, Any]] = {}
    for api, kind, name, _ in WORKLOADS:
        labels = {"app": name}
        ports = [{"containerPort": 8080}]
        template = {
            "metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": f"luksa/kubia:{version}", "ports": ports}]},
        }
        selector = labels if kind == "ReplicationController" else {"matchLabels": labels}
        spec: dict[str, Any] = {"selector": selector, "template": template}
        if kind == "StatefulSet":
            spec["serviceName"] = name
        found[f"{kind}/{name}"] = {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}
        service = {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]}
        found[f"Service/{name}"] = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": service}
    return found


def topology_of(mode: str) -> str:
    return TOPOLOGY.replace("MODE", mode)


def begun(mode: str = "iptables") -> Cluster:
    """The cluster before the storm."""
    topology = manifest.read_topology(manifest.Source("storm.yaml", topology_of(mode).encode()))
    items = list(documents().values())
    loaded = manifest.object_from_json({"apiVersion": "v1", "kind": "List", "items": items}).objects
    cluster = controllers.initial(topology, loaded)
    for _, kind, name, replicas in WORKLOADS:
        if kind in SCALED:
            cluster = after(cluster, ("scale", kind, name, str(replicas)))
    return cluster


def drawn(cluster: Cluster, rng: random.Random, flips: bool) -> Event:
    """One event that can happen now. `flips`: readiness changes, too (a running lab has probes for that)."""
    kinds = ["scale"] * 4 + ["delete"] * 4 + ["label"] * 2 + ["roll"] * 2 + ["cordon", "node", "node"] + ["ready"] * (6 * flips)
    kind = rng.choice(kinds)
    pods = sorted(key.name for key, pod in cluster.pods.items() if not pod.terminating)
    match kind:
        case "scale":
            _, workload, name, _ = rng.choice([one for one in WORKLOADS if one[1] in SCALED])
            return "scale", workload, name, str(rng.randint(0, 6))
        case "delete" if pods:
            return "delete", rng.choice(pods)
        case "label" if pods:
            return "label", rng.choice(pods), rng.choice([name for _, _, name, _ in WORKLOADS] + ["nobody"])
        case "roll":
            _, workload, name, _ = rng.choice([one for one in WORKLOADS if one[1] in ROLLED])
            return "roll", f"{workload}/{name}", str(rng.randint(1, 4))
        case "cordon":
            return "cordon", rng.choice(NODES), str(rng.random() < 0.5)
        case "node":
            if cluster.outages:
                return "heal", rng.choice(sorted(cluster.outages))
            return rng.choice(["kill", "partition"]), rng.choice(NODES)
        case "ready" if pods:
            return "ready", rng.choice(pods), str(rng.random() < 0.7)
        case _:
            return ("nothing",)


def after(cluster: Cluster, event: Event) -> Cluster:
    """The cluster after one event, and after all that soon follows from it. No two events at the same time: pods have an age."""
    cluster = controllers.tick(cluster, 1.0)
    match event:
        case "scale", kind, name, replicas:
            cluster = controllers.scale(cluster, kind, Key("default", name), int(replicas))
        case "delete", pod:
            cluster = controllers.delete(cluster, "Pod", Key("default", pod))
        case "label", pod, app:
            cluster = controllers.apply(cluster, [relabelled(cluster.pods[Key("default", pod)], app)])
        case "roll", name, version:
            cluster = controllers.apply(cluster, manifest.object_from_json(documents(int(version))[name]).objects)
        case "cordon", node, wanted:
            nodes = {**cluster.nodes, node: replace(cluster.nodes[node], unschedulable=wanted == "True")}
            cluster = controllers.settle(cluster.with_(nodes=nodes))
        case "kill" | "partition", node:
            cluster = controllers.cut(cluster, node, event[0] == "kill")
        case "heal", node:
            cluster = controllers.heal(cluster, node)
        case "ready", pod, value:
            cluster = controllers.pod_status(cluster, Key("default", pod), ready=value == "True")
    return rested(cluster)


def relabelled(pod: Pod, app: str) -> Pod:
    return replace(pod, meta=replace(pod.meta, labels={**pod.meta.labels, "app": app}))


def rested(cluster: Cluster) -> Cluster:
    """The cluster when nothing is due any more soon."""
    while (due := controllers.next_due(cluster)) is not None and due < cluster.clock + LONG_S:
        cluster = controllers.tick(cluster, due - cluster.clock)
    return cluster


def calmed(cluster: Cluster) -> Iterator[Event]:
    """What ends the storm: every node back and open, every pod ready."""
    yield from (("heal", node) for node in sorted(cluster.outages))
    yield from (("cordon", node, "False") for node in NODES)


def all_ready(cluster: Cluster) -> Cluster:
    while waiting := [
        key for key, pod in cluster.pods.items() if pod.phase == "Running" and not pod.ready and not pod.terminating
    ]:
        cluster = rested(controllers.pod_status(cluster, waiting[0], ready=True))
    return cluster


# ---------------------------------------------------------------- what must hold


def check(cluster: Cluster) -> None:
    """After every event: the controllers rest, endpoints are those of the pods, no address twice, limits of a rollout kept."""
    assert controllers.settle(cluster) is cluster
    addresses = Counter(address for pod in cluster.pods.values() for address in pod.addresses)
    assert all(count == 1 for count in addresses.values())
    for key, service in cluster.services.items():
        if service.selector:
            slices = [one for one in cluster.slices.values() if one.service == key]
            seen = {(end.target, end.ready) for one in slices for end in one.endpoints}
            chosen = [
                pod for pod in cluster.pods.values() if pod.meta.labels.get("app") == service.selector["app"] and pod.addresses
            ]
            assert seen == {(pod.ref, pod.ready and not pod.terminating) for pod in chosen}, key
    for (kind, _), one in cluster.workloads.items():
        active = _active(cluster, one)
        if kind in ("ReplicationController", "ReplicaSet"):
            assert len(active) == one.replicas
        if kind == "Deployment":
            sets = [other for other in cluster.workloads.values() if other.meta.owner == one.ref]
            assert sum(other.replicas for other in sets) <= one.replicas + fenceposts(one.rollout, one.replicas)[0]


def check_calm(cluster: Cluster) -> None:
    """At the end: every workload has what was asked for, all of its newest template, all ready."""
    check(cluster)
    assert not cluster.outages and not cluster.links_down and all(node.ready for node in cluster.nodes.values())
    assert all(pod.ready and not pod.terminating for pod in cluster.pods.values())
    for (kind, _), one in cluster.workloads.items():
        active = _active(cluster, one)
        if kind == "Deployment":
            sets = [other for other in cluster.workloads.values() if other.meta.owner == one.ref]
            active = [pod for other in sets for pod in _active(cluster, other)]
        if kind == "ReplicaSet" and one.meta.owner is not None:
            continue
        wanted = len(NODES) if kind == "DaemonSet" else one.replicas
        assert len(active) == wanted, (one.ref, [pod.meta.name for pod in active])
        if kind in ROLLED:
            assert {pod.spec.containers for pod in active} <= {one.template.spec.containers}
        if kind == "StatefulSet":
            assert sorted(pod.meta.name for pod in active) == [f"{one.meta.name}-{number}" for number in range(one.replicas)]
        if kind == "DaemonSet":
            assert sorted(pod.node for pod in active) == list(NODES)


def _active(cluster: Cluster, one: Workload) -> list[Pod]:
    owned = (pod for pod in cluster.pods.values() if pod.meta.owner == one.ref)
    return [pod for pod in owned if pod.phase in ("Pending", "Running") and not pod.terminating]


TIMES = {"created", "deleted", "ready_since", "ready_changed", "clock", "at", "started_at", "since", "started", "added"}
SHOWN = {"manifest", "generation", "node_name"}
"""What a pod that was patched as a whole through the API shows of itself; where it runs stands in `node`."""


def timeless(value: Any) -> Any:
    """The value without its times: what two runs of the same events must have in common."""
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: timeless(getattr(value, one.name)) for one in fields(value) if one.name not in TIMES | SHOWN}
    if isinstance(value, dict):
        return {key: timeless(one) for key, one in value.items()}
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return tuple(map(timeless, value))
    return value
