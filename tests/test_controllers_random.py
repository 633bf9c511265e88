"""Whatever happens in whatever order, what the controllers leave is right: checked after every event of random histories."""

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from netlab import controllers
from netlab.manifest import default_topology
from netlab.model import (
    Cluster,
    Container,
    ContainerPort,
    Key,
    Meta,
    Pod,
    PodSpec,
    PodTemplate,
    Probe,
    Selector,
    Service,
    ServicePort,
    ServiceType,
    Workload,
    WorkloadKind,
)
from tests.clusters import without_dns

APPS = ("a", "b")
KINDS: tuple[WorkloadKind, ...] = ("ReplicationController", "ReplicaSet", "Deployment", "DaemonSet")


def spec(port: int, probed: bool) -> PodSpec:
    readiness = Probe(tcp=True, port=port) if probed else None
    return PodSpec((Container("c", "luksa/kubia", ports=(ContainerPort(port, "http"),), readiness=readiness),))


def workload(kind: WorkloadKind, app: str, replicas: int, port: int, probed: bool) -> Workload:
    labels = {"app": app, "kind": kind}
    manifest = {"spec": {"port": port, "probed": probed}}
    template = PodTemplate(spec(port, probed), labels, manifest=manifest)
    said = {"spec": {"replicas": replicas, "template": manifest}}
    return Workload(kind, Meta(f"{app}-{kind.lower()}", "default"), replicas, Selector(labels), template, said)


def service(app: str, node_port: bool) -> Service:
    kind = ServiceType.NODE_PORT if node_port else ServiceType.CLUSTER_IP
    return Service(Meta(app, "default"), kind, ports=(ServicePort(80, "web", target_port="http"),), selector={"app": app})


workloads = st.builds(
    workload, st.sampled_from(KINDS), st.sampled_from(APPS), st.integers(0, 5), st.sampled_from([80, 81]), st.booleans()
)
services = st.builds(service, st.sampled_from(APPS), st.booleans())
bare = st.builds(
    lambda name, app, kind: Pod(Meta(name, "default", labels={"app": app, "kind": kind}), spec(80, False)),
    st.sampled_from(["p", "q"]),
    st.sampled_from(APPS),
    st.sampled_from(KINDS),
)
events = st.one_of(
    st.tuples(st.just("apply"), st.one_of(workloads, services, bare)),
    st.tuples(st.just("scale"), st.tuples(st.integers(0, 9), st.integers(0, 6))),
    st.tuples(st.just("kill"), st.integers(0, 99)),
    st.tuples(st.just("status"), st.tuples(st.integers(0, 99), st.booleans())),
    st.tuples(st.just("fail"), st.integers(0, 99)),
    st.tuples(st.just("delete"), st.tuples(st.integers(0, 9), st.sampled_from(["background", "orphan"]))),
    st.tuples(st.just("unserve"), st.sampled_from(APPS)),
)


def after(cluster: Cluster, kind: str, value: object) -> Cluster:
    """The cluster after one event; an event that has nothing to happen to changes nothing."""
    pods, owners = list(cluster.pods), [slot for slot in cluster.workloads if slot[0] != "DaemonSet"]
    match kind, value:
        case "apply", Pod() as pod if pod.meta.key in cluster.pods:
            return controllers.apply(cluster, [replace(pod, spec=cluster.pods[pod.meta.key].spec)])
        case "apply", Workload() | Service() | Pod():
            return controllers.apply(cluster, [value])
        case "scale", (int(at), int(replicas)) if owners:
            return controllers.scale(cluster, *owners[at % len(owners)], replicas)
        case "kill", int(at) if pods:
            return controllers.delete(cluster, "Pod", pods[at % len(pods)])
        case "status", (int(at), bool(ready)) if pods:
            pod_key = pods[at % len(pods)]
            finished = cluster.pods[pod_key].phase in ("Failed", "Succeeded")
            return controllers.pod_status(cluster, pod_key, ready=ready and not finished)
        case "fail", int(at) if pods:
            return controllers.pod_status(cluster, pods[at % len(pods)], phase="Failed", ready=False)
        case "delete", (int(at), ("background" | "orphan") as cascade) if cluster.workloads:
            return controllers.delete(cluster, *list(cluster.workloads)[at % len(cluster.workloads)], cascade)
        case "unserve", str(name) if Key("default", name) in cluster.services:
            return controllers.delete(cluster, "Service", Key("default", name))
        case _:
            return cluster


def check(cluster: Cluster) -> None:
    assert controllers.settle(cluster) is cluster
    check_addresses(cluster)
    check_replicas(cluster)
    check_endpoints(cluster)
    groups = (cluster.pods, cluster.workloads, cluster.slices)
    uids = [one.meta.uid for group in groups for one in group.values()]
    assert all(uids) and len(set(uids)) == len(uids)


def check_addresses(cluster: Cluster) -> None:
    addresses = Counter(address for pod in cluster.pods.values() for address in pod.addresses)
    assert all(count == 1 for count in addresses.values())
    for pod in cluster.pods.values():
        if pod.phase == "Running":
            assert any(pod.addresses[0] in cidr for cidr in cluster.nodes[pod.node].pod_cidrs)
    ports = Counter(port.node_port for one in cluster.services.values() for port in one.ports if port.node_port)
    ips = Counter(address for one in cluster.services.values() for address in one.cluster_ips)
    assert all(count == 1 for count in (*ports.values(), *ips.values()))


def check_replicas(cluster: Cluster) -> None:
    for (kind, _), one in cluster.workloads.items():
        active = [pod for pod in cluster.pods.values() if pod.meta.owner == one.ref and pod.phase in ("Pending", "Running")]
        if kind in ("ReplicationController", "ReplicaSet"):
            assert len(active) == one.replicas
        if kind == "DaemonSet":
            assert sorted(pod.node for pod in active) == ["node-170", "node-171"]
        if kind == "Deployment":
            sets = [other for other in cluster.workloads.values() if other.meta.owner == one.ref]
            (current,) = (other for other in sets if other.template.spec == one.template.spec)
            assert current.replicas == one.replicas
            ready = sum(pod.ready for pod in cluster.pods.values() if pod.meta.owner == current.ref)
            assert sum(other.replicas for other in sets) <= one.replicas + max(0, one.replicas - ready)
    owners = {pod.meta.owner for pod in cluster.pods.values()} - {None}
    assert owners <= {one.ref for one in cluster.workloads.values()}


def check_endpoints(cluster: Cluster) -> None:
    for key, one in cluster.services.items():
        if not one.selector:
            continue
        seen = Counter(
            (end.target, end.addresses[0], port.port, end.ready)
            for part in cluster.slices.values()
            if part.service == key
            for end in part.endpoints
            for port in part.ports
        )
        wanted = Counter(
            (pod.ref, pod.addresses[0], pod.spec.containers[0].ports[0].port, pod.ready)
            for pod in cluster.pods.values()
            if pod.meta.labels["app"] == one.selector["app"] and pod.phase == "Running"
        )
        assert seen == wanted
    known = set(cluster.services)
    assert all(part.service in known for part in cluster.slices.values() if part.managed)


@settings(max_examples=150, deadline=None)
@given(st.lists(events, max_size=15))
def test_random_histories(history: list[tuple[str, object]]) -> None:
    cluster = controllers.initial(without_dns(default_topology()))
    check(cluster)
    for kind, value in history:
        cluster = after(cluster, kind, value)
        check(cluster)
