"""The controllers: what a user sees after up, apply, delete and scale. Manifests go in as YAML, clusters come out settled."""

from collections.abc import Callable
from ipaddress import ip_address

import pytest

from netlab import controllers, manifest
from netlab.errors import ApiError, InputError
from netlab.model import Cluster, Key, KubernetesObject, Service, Topology
from tests.clusters import without_dns


def objects(text: str) -> tuple[KubernetesObject, ...]:
    return manifest.read_objects([manifest.Source("test.yaml", text.encode())]).objects


def started(text: str = "", topology: str = "") -> Cluster:
    loaded = objects(text) if text else ()
    value: Topology | None = manifest.read_topology(manifest.Source("topology.yaml", topology.encode())) if topology else None
    return controllers.initial(without_dns(manifest.adapt_topology(value, loaded)), loaded)


def key(name: str, namespace: str = "default") -> Key:
    return Key(namespace, name)


def pods_of(cluster: Cluster, prefix: str) -> list[str]:
    return [pod.meta.name for pod in cluster.pods.values() if pod.meta.name.startswith(prefix)]


def service(cluster: Cluster, name: str) -> Service:
    return cluster.services[key(name)]


def endpoints(cluster: Cluster, name: str) -> dict[str, list[int | None]]:
    """Name of the target (or address) -> its port numbers, over all slices of a Service; only ready endpoints."""
    found: dict[str, list[int | None]] = {}
    for one in cluster.slices.values():
        for endpoint in one.endpoints:
            if one.service == key(name) and endpoint.ready:
                shown = endpoint.target.name if endpoint.target else str(endpoint.addresses[0])
                found.setdefault(shown, []).extend(port.port for port in one.ports)
    return found


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises((InputError, ApiError)) as caught:
        call()
    return str(caught.value)


KUBIA = """
apiVersion: v1
kind: ReplicationController
metadata: {name: kubia}
spec:
  replicas: 3
  selector: {app: kubia}
  template:
    metadata: {labels: {app: kubia}}
    spec: {containers: [{name: c, image: luksa/kubia, ports: [{containerPort: 8080}]}]}
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: kubia}
spec: {selector: {app: kubia}, ports: [{port: 80, targetPort: 8080}]}
"""
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: nginx, ports: [{containerPort: 80, name: http}]}]}
"""
PROBED = WEB.replace("image: nginx,", "image: nginx, readinessProbe: {tcpSocket: {port: 80}},")


def pod(name: str, labels: str = "{}", extra: str = "", port: str = "containerPort: 8080") -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {labels}}}
spec:
  {extra}
  containers: [{{name: c, image: luksa/kubia, ports: [{{{port}}}]}}]
"""


def joined(*texts: str) -> str:
    return "\n---\n".join(texts)


# ---------------------------------------------------------------- replicas and placing


def test_three_replicas_are_placed_and_answer() -> None:
    cluster = started(KUBIA)
    assert len(cluster.pods) == 3
    assert sorted(one.node for one in cluster.pods.values()) == ["node-170", "node-170", "node-171"]
    assert [str(one.addresses[0]) for one in cluster.pods.values()] == ["10.244.1.2", "10.244.2.2", "10.244.1.3"]
    assert all(one.ready and one.phase == "Running" for one in cluster.pods.values())


def test_names_look_like_kubernetes_and_are_the_same_each_time() -> None:
    cluster = started(KUBIA)
    for name in pods_of(cluster, "kubia-"):
        assert len(name) == len("kubia-") + 5 and set(name[6:]) <= set("bcdfghjklmnpqrstvwxz2456789")
    assert list(started(KUBIA).pods) == list(cluster.pods)


def test_names_and_uids_are_never_used_twice() -> None:
    cluster = started(joined(KUBIA, SERVICE))
    names, uids = set(cluster.pods), {one.meta.uid for one in cluster.pods.values()}
    for _ in range(20):
        cluster = controllers.delete(cluster, "Pod", next(iter(cluster.pods)))
        new = [one for one in cluster.pods.values() if one.meta.uid not in uids]
        assert len(new) == 1 and new[0].meta.key not in names
        names.add(new[0].meta.key)
        uids.add(new[0].meta.uid)


def test_a_killed_pod_is_replaced_and_the_endpoints_follow() -> None:
    cluster = started(joined(KUBIA, SERVICE))
    victim = next(iter(cluster.pods))
    after = controllers.delete(cluster, "Pod", victim)
    assert victim not in after.pods and len(after.pods) == 3
    assert set(endpoints(after, "kubia")) == set(pods_of(after, "kubia-"))


def test_scaling_up_and_down_keeps_the_oldest() -> None:
    cluster = started(joined(KUBIA, SERVICE))
    up = controllers.scale(cluster, "ReplicationController", key("kubia"), 5)
    assert len(up.pods) == 5 and set(cluster.pods) < set(up.pods)
    down = controllers.scale(up, "ReplicationController", key("kubia"), 1)
    assert len(down.pods) == 1 and set(down.pods) <= set(cluster.pods)
    none = controllers.scale(down, "ReplicationController", key("kubia"), 0)
    assert not none.pods and not endpoints(none, "kubia")


def test_scaling_down_takes_pods_that_are_not_ready_first() -> None:
    cluster = started(KUBIA)
    first = next(iter(cluster.pods))
    cluster = controllers.pod_status(cluster, first, ready=False)
    assert first not in controllers.scale(cluster, "ReplicationController", key("kubia"), 2).pods


def test_a_bare_pod_is_adopted_and_one_with_other_labels_is_not() -> None:
    cluster = started(joined(pod("mine", "{app: kubia}"), pod("other", "{app: else}"), KUBIA))
    assert len(pods_of(cluster, "kubia-")) == 2
    assert cluster.pods[key("mine")].meta.owner == cluster.workloads["ReplicationController", key("kubia")].ref
    assert cluster.pods[key("other")].meta.owner is None


def test_two_workloads_never_share_a_pod() -> None:
    cluster = started(joined(pod("mine", "{app: kubia}"), KUBIA, KUBIA.replace("{name: kubia}", "{name: other}")))
    owners = [one.meta.owner.name for one in cluster.pods.values() if one.meta.owner]
    assert sorted(owners) == ["kubia"] * 3 + ["other"] * 3
    assert len(cluster.pods) == 6


def test_a_daemon_set_gives_up_what_is_one_too_many_on_a_node() -> None:
    extra = [pod(name, "{app: ds}", "nodeName: node-171") for name in ("one", "two")]
    cluster = started(joined(*extra, DAEMON.replace("TOLERATIONS", "")))
    assert sorted(one.node for one in cluster.pods.values()) == ["node-170", "node-171"]


def test_a_relabelled_pod_is_released_and_replaced() -> None:
    cluster = started(joined(pod("mine", "{app: kubia}"), KUBIA))
    after = controllers.apply(cluster, objects(pod("mine", "{app: debug}")))
    assert after.pods[key("mine")].meta.owner is None and len(pods_of(after, "kubia-")) == 3


def test_deleting_cascades_or_orphans() -> None:
    cluster = started(WEB)
    assert len(cluster.pods) == 3 and len(cluster.workloads) == 2
    gone = controllers.delete(cluster, "Deployment", key("web"))
    assert not gone.pods and not gone.workloads
    orphaned = controllers.delete(cluster, "Deployment", key("web"), "orphan")
    assert set(orphaned.pods) == set(cluster.pods) and [kind for kind, _ in orphaned.workloads] == ["ReplicaSet"]
    again = controllers.apply(orphaned, objects(WEB))
    assert set(again.pods) == set(cluster.pods), "the Deployment takes its ReplicaSet back"


def test_a_failed_pod_is_replaced_and_leaves_its_address() -> None:
    cluster = started(joined(KUBIA, SERVICE))
    first = next(iter(cluster.pods))
    after = controllers.pod_status(cluster, first, phase="Failed", ready=False)
    assert len(after.pods) == 4 and after.pods[first].addresses == ()
    assert len(endpoints(after, "kubia")) == 3


def test_a_new_template_replaces_all_pods_and_the_old_one_brings_the_old_set_back() -> None:
    cluster = started(WEB)
    new = controllers.apply(cluster, objects(WEB.replace("nginx", "nginx:2")))
    assert len(new.pods) == 3 and not set(new.pods) & set(cluster.pods)
    assert sorted(one.replicas for (kind, _), one in new.workloads.items() if kind == "ReplicaSet") == [0, 3]
    back = controllers.apply(new, objects(WEB))
    assert {one for kind, one in back.workloads if kind == "ReplicaSet"} == {
        one for kind, one in new.workloads if kind == "ReplicaSet"
    }


def test_old_pods_stay_until_new_ones_are_ready() -> None:
    cluster = started(PROBED)
    for one in list(cluster.pods):
        cluster = controllers.pod_status(cluster, one, ready=True)
    rolling = controllers.apply(cluster, objects(PROBED.replace("nginx", "nginx:2")))
    for number in range(1, 4):  # 25% of three: one more than three pods, and never fewer than three that are ready
        (new,) = (key for key, one in rolling.pods.items() if not one.ready)
        assert len(set(cluster.pods) & set(rolling.pods)) == 4 - number
        rolling = controllers.pod_status(rolling, new, ready=True)
    assert len(rolling.pods) == 3 and not set(cluster.pods) & set(rolling.pods)


def test_a_dump_of_deployment_and_pods_without_replica_sets_makes_no_second_set_of_pods() -> None:
    labels = "{app: web, pod-template-hash: 5d4f8b6c9}"
    pods = [pod(f"web-5d4f8b6c9-{suffix}", labels) for suffix in ("abcde", "fghij", "klmno")]
    cluster = started(joined(WEB, *pods))
    assert len(cluster.pods) == 3
    assert ("ReplicaSet", key("web-5d4f8b6c9")) in cluster.workloads


DAEMON = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ds}
spec:
  selector: {matchLabels: {app: ds}}
  template:
    metadata: {labels: {app: ds}}
    spec:
      TOLERATIONS
      containers: [{name: c, image: luksa/kubia, ports: [{containerPort: 9000}]}]
"""


def test_a_daemon_set_has_one_pod_on_every_node_that_it_tolerates() -> None:
    workers = started(DAEMON.replace("TOLERATIONS", ""))
    assert sorted(one.node for one in workers.pods.values()) == ["node-170", "node-171"]
    every = started(DAEMON.replace("TOLERATIONS", "tolerations: [{operator: Exists}]"))
    assert sorted(one.node for one in every.pods.values()) == ["node-169", "node-170", "node-171"]
    again = controllers.delete(every, "Pod", next(iter(every.pods)))
    assert sorted(one.node for one in again.pods.values()) == ["node-169", "node-170", "node-171"]


def test_a_new_template_of_a_daemon_set_replaces_its_pods() -> None:
    cluster = started(DAEMON.replace("TOLERATIONS", ""))
    after = controllers.apply(cluster, objects(DAEMON.replace("TOLERATIONS", "").replace("9000", "9001")))
    assert len(after.pods) == 2 and not set(after.pods) & set(cluster.pods)


@pytest.mark.parametrize(
    ("spec", "node", "message"),
    [
        ("nodeName: node-169", "node-169", ""),
        ("nodeSelector: {kubernetes.io/hostname: node-171}", "node-171", ""),
        (
            "nodeSelector: {disk: ssd}",
            "",
            "0/3 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }, "
            "2 node(s) didn't match Pod's node affinity/selector.",
        ),
        ("tolerations: [{key: node-role.kubernetes.io/control-plane, effect: NoSchedule}]", "node-169", ""),
    ],
    ids=["nodeName passes by the taint", "nodeSelector", "no node fits", "toleration"],
)
def test_placing(spec: str, node: str, message: str) -> None:
    placed = started(pod("p", extra=spec)).pods[key("p")]
    assert (placed.node, placed.message, placed.phase) == (node, message, "Running" if node else "Pending")


def test_host_network_pods_with_one_port_need_a_node_each() -> None:
    text = KUBIA.replace("spec: {containers", "spec: {hostNetwork: true, containers")
    cluster = started(text)
    nodes = [one.node for one in cluster.pods.values()]
    assert sorted(nodes) == ["", "node-170", "node-171"]
    assert {str(one.addresses[0]) for one in cluster.pods.values() if one.node} == {"192.168.0.170", "192.168.0.171"}
    (waiting,) = (one for one in cluster.pods.values() if not one.node)
    assert "2 node(s) didn't have free ports for the requested pod ports" in waiting.message


SMALL = """
apiVersion: netlab/v1
kind: Topology
nodes:
  a: {podCIDR: 10.244.1.0/29}
  b: {podCIDR: 10.244.2.0/29}
"""


def test_used_up_pod_cidrs_leave_pods_pending_with_a_message_until_one_goes() -> None:
    cluster = started(KUBIA.replace("replicas: 3", "replicas: 11"), SMALL)
    waiting = [one for one in cluster.pods.values() if one.phase == "Pending"]
    assert len(waiting) == 1 and waiting[0].message == "0/2 nodes are available: 2 Too many pods."
    after = controllers.scale(cluster, "ReplicationController", key("kubia"), 10)
    assert all(one.phase == "Running" for one in after.pods.values())


def test_a_given_pod_ip_decides_address_and_node_and_nobody_else_gets_it() -> None:
    given = pod("given") + "status: {podIP: 10.244.2.2}\n"
    cluster = started(joined(given, KUBIA))
    placed = cluster.pods[key("given")]
    assert (placed.node, str(placed.addresses[0])) == ("node-171", "10.244.2.2")
    addresses = [one.addresses for one in cluster.pods.values()]
    assert len(set(addresses)) == 4


# ---------------------------------------------------------------- what is refused


def with_ip(name: str, address: str) -> str:
    return pod(name) + f"status: {{podIP: {address}}}\n"


def svc(name: str, spec: str) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {spec}\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (pod("p", extra="nodeName: node-17"), 'spec.nodeName: there is no node "node-17" in the topology; did you mean node-17'),
        (joined(with_ip("a", "10.244.1.9"), with_ip("b", "10.244.1.9")), "10.244.1.9: it is the address of pod/default/a"),
        (with_ip("a", "10.244.1.1"), "it is the address of the bridge of node/node-170"),
        (
            joined(*(svc(name, "{clusterIP: 10.96.0.9, ports: [{port: 1}]}") for name in "ab")),
            'Service "b" is invalid: spec.clusterIPs: Invalid value: [10.96.0.9]: failed to allocate IP 10.96.0.9: '
            "provided IP is already allocated",
        ),
        (svc("a", "{clusterIP: 10.1.0.9, ports: [{port: 1}]}"), "The range of valid IPs is 10.96.0.0/12"),
        (svc("a", "{clusterIP: 10.96.0.0, ports: [{port: 1}]}"), "The range of valid IPs is 10.96.0.0/12"),
        (svc("a", "{clusterIP: 10.111.255.255, ports: [{port: 1}]}"), "The range of valid IPs is 10.96.0.0/12"),
        (
            joined(
                svc("a", "{type: NodePort, ports: [{port: 1, nodePort: 30001}]}"),
                svc("b", "{type: NodePort, ports: [{port: 1, nodePort: 30001}]}"),
            ),
            "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated",
        ),
        (svc("a", "{type: NodePort, ports: [{port: 1, nodePort: 8080}]}"), "30000-32767"),
    ],
    ids=[
        "unknown node",
        "podIP twice",
        "podIP of the bridge",
        "clusterIP twice",
        "clusterIP out of range",
        "clusterIP of the network",
        "clusterIP of the broadcast",
        "nodePort twice",
        "nodePort",
    ],
)
def test_refusals(text: str, says: str) -> None:
    cluster = started()
    assert says in refusal(lambda: controllers.apply(cluster, objects(text)))


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        ("loadBalancerClass: a/b", "loadBalancerClass: a/c", 'spec.loadBalancerClass: Invalid value: "a/c": may not change'),
        ("loadBalancerClass: a/b", "sessionAffinity: None", 'spec.loadBalancerClass: Invalid value: "": may not change'),
        (
            "externalTrafficPolicy: Local, healthCheckNodePort: 30100",
            "externalTrafficPolicy: Local, healthCheckNodePort: 30101",
            "spec.healthCheckNodePort: Invalid value: 30101: field is immutable",
        ),
    ],
    ids=["class", "class taken away", "health check"],
)
def test_what_a_load_balancer_keeps(first: str, then: str, says: str) -> None:
    def balanced(words: str) -> str:
        return svc("a", f"{{type: LoadBalancer, ports: [{{port: 1}}], {words}}}")

    cluster = started(balanced(first))
    assert says in refusal(lambda: controllers.apply(cluster, objects(balanced(then))))
    controllers.apply(cluster, objects(balanced(first)))
    controllers.apply(cluster, objects(svc("a", "{ports: [{port: 1}]}")))


def test_a_slice_keeps_its_family() -> None:
    cluster = started(joined(svc("kubia", "{ports: [{port: 80}]}"), SLICE))
    other = SLICE.replace("IPv4", "IPv6").replace("10.244.1.77", "'fd00::77'")
    assert 'addressType: Invalid value: "IPv6": field is immutable' in refusal(lambda: controllers.apply(cluster, objects(other)))


def test_the_address_of_kubernetes_is_taken_before_it_is_there() -> None:
    wanted = svc("a", "{clusterIP: 10.96.0.1, ports: [{port: 1}]}")
    with pytest.raises(InputError, match="provided IP is already allocated"):
        started(wanted)


def test_all_refusals_are_told_at_once() -> None:
    text = joined(pod("p", extra="nodeName: nowhere"), pod("q", extra="nodeName: nowhere"))
    with pytest.raises(InputError) as caught:
        started(text)
    assert len(caught.value.problems) == 2


FIXED = svc("s", "{clusterIP: 10.96.0.50, ports: [{port: 1}]}")
IMMUTABLE = [
    (FIXED, FIXED.replace("0.50", "0.51"), "may not change once set"),
    (WEB, WEB.replace("app: web", "app: new"), "spec.selector: Invalid value: {'app': 'new'}: field is immutable"),
    (pod("p"), pod("p", port="containerPort: 81"), "pod updates may not change fields other than"),
]  # fmt: skip


@pytest.mark.parametrize(("first", "then", "says"), IMMUTABLE, ids=["clusterIP", "selector", "pod"])
def test_what_may_not_change(first: str, then: str, says: str) -> None:
    cluster = started(first)
    assert says in refusal(lambda: controllers.apply(cluster, objects(then)))


def test_missing_objects_are_404_in_the_api_servers_words() -> None:
    cluster = started()
    for kind, words in (("Pod", 'pods "x" not found'), ("Deployment", 'deployments.apps "x" not found')):
        with pytest.raises(ApiError) as caught:
            controllers.delete(cluster, kind, key("x"))
        assert (caught.value.code, str(caught.value)) == (404, words)
    assert "cannot be scaled" in refusal(lambda: controllers.scale(started(pod("p")), "Pod", key("p"), 2))


def test_learned_neighbours_are_refused_above_200_pods() -> None:
    topology = "apiVersion: netlab/v1\nkind: Topology\ncluster: {neighbours: learned}\nnodes: 3\n"
    started(KUBIA.replace("replicas: 3", "replicas: 200"), topology)
    assert "above 200 pods" in refusal(lambda: started(KUBIA.replace("replicas: 3", "replicas: 201"), topology))


# ---------------------------------------------------------------- apply


def test_apply_says_created_unchanged_and_configured() -> None:
    cluster = started(KUBIA)
    before = objects(joined(KUBIA, SERVICE))
    assert [controllers.action(cluster, one) for one in before] == ["unchanged", "created"]
    cluster = controllers.apply(cluster, before)
    assert [controllers.action(cluster, one) for one in before] == ["unchanged", "unchanged"]
    assert controllers.apply(cluster, before) == cluster
    assert controllers.action(cluster, objects(SERVICE.replace("8080", "8081"))[0]) == "configured"


def test_apply_sets_a_scaled_count_back_only_where_the_manifest_names_one() -> None:
    named = controllers.scale(started(KUBIA), "ReplicationController", key("kubia"), 5)
    assert controllers.action(named, objects(KUBIA)[0]) == "configured"
    assert len(controllers.apply(named, objects(KUBIA)).pods) == 3
    silent = KUBIA.replace("  replicas: 3\n", "")
    scaled = controllers.scale(started(silent), "ReplicationController", key("kubia"), 5)
    assert controllers.action(scaled, objects(silent)[0]) == "unchanged"
    assert len(controllers.apply(scaled, objects(silent)).pods) == 5


def test_a_changed_service_keeps_its_address_and_node_port() -> None:
    cluster = started(svc("s", "{type: NodePort, ports: [{port: 80}]}"))
    before = service(cluster, "s")
    assert before.ports[0].node_port in range(30000, 32768)
    after = service(controllers.apply(cluster, objects(svc("s", "{type: NodePort, ports: [{port: 80, targetPort: 81}]}"))), "s")
    assert (after.cluster_ips, after.ports[0].node_port) == (before.cluster_ips, before.ports[0].node_port)
    assert after.meta.uid == before.meta.uid and after.meta.generation == before.meta.generation + 1
    plain = service(controllers.apply(cluster, objects(svc("s", "{ports: [{port: 80}]}"))), "s")
    assert plain.ports[0].node_port is None, "a ClusterIP Service gives its node port back"


def test_namespaces_come_with_their_objects_and_take_them_along() -> None:
    cluster = controllers.apply(started(), objects(KUBIA.replace("{name: kubia}", "{name: kubia, namespace: shop}")))
    assert [one.meta.name for one in controllers.objects_of(cluster, "Namespace")][-1] == "shop"
    after = controllers.delete(cluster, "Namespace", Key("", "shop"))
    assert not after.pods and not after.workloads
    assert "may not be deleted" in refusal(lambda: controllers.delete(after, "Namespace", Key("", "default")))


# ---------------------------------------------------------------- services and slices


def test_kubernetes_is_there_from_the_start_and_comes_back() -> None:
    cluster = started()
    for settled in (cluster, controllers.delete(cluster, "Service", key("kubernetes"))):
        one = service(settled, "kubernetes")
        assert [str(address) for address in one.cluster_ips] == ["10.96.0.1"]
        assert [(port.name, port.port, port.target_port) for port in one.ports] == [("https", 443, 6443)]
        assert endpoints(settled, "kubernetes") == {"192.168.0.169": [6443]}


def test_given_addresses_and_ports_are_kept_and_never_given_twice() -> None:
    many = [svc(f"s{number}", "{type: NodePort, ports: [{port: 80}]}") for number in range(20)]
    cluster = started(joined(svc("given", "{type: NodePort, clusterIP: 10.96.1.3, ports: [{port: 80, nodePort: 30088}]}"), *many))
    given = service(cluster, "given")
    assert (str(given.cluster_ips[0]), given.ports[0].node_port) == ("10.96.1.3", 30088)
    assert len({one.cluster_ips for one in cluster.services.values()}) == 22
    assert len({port.node_port for one in cluster.services.values() for port in one.ports if port.node_port}) == 21


def test_one_number_for_tcp_and_udp_of_one_port_and_a_health_check_port_for_local() -> None:
    ports = "[{name: t, port: 53}, {name: u, port: 53, protocol: UDP}]"
    cluster = started(svc("dns", f"{{type: LoadBalancer, externalTrafficPolicy: Local, ports: {ports}}}"))
    one = service(cluster, "dns")
    assert one.ports[0].node_port == one.ports[1].node_port is not None
    assert one.health_check_node_port not in (None, one.ports[0].node_port)


def test_headless_and_external_name_get_no_address() -> None:
    cluster = started(
        joined(svc("h", "{clusterIP: None, ports: [{port: 80}]}"), svc("e", "{type: ExternalName, externalName: a.b}"))
    )
    assert service(cluster, "h").cluster_ips == service(cluster, "e").cluster_ips == ()


def test_named_target_ports_differ_from_pod_to_pod() -> None:
    text = joined(
        pod("old", "{app: x}", port="containerPort: 8080, name: http"),
        pod("new", "{app: x}", port="containerPort: 9090, name: http"),
        pod("none", "{app: x}", port="containerPort: 7070, name: other"),
        svc("x", "{selector: {app: x}, ports: [{name: w, port: 80, targetPort: http}]}"),
    )
    assert endpoints(started(text), "x") == {"old": [8080], "new": [9090], "none": []}


def test_readiness_moves_endpoints() -> None:
    cluster = started(joined(PROBED, svc("web", "{selector: {app: web}, ports: [{port: 80}]}")))
    first = next(iter(cluster.pods))
    assert not endpoints(cluster, "web")
    ready = controllers.pod_status(cluster, first, ready=True)
    assert list(endpoints(ready, "web")) == [first.name]
    assert controllers.pod_status(ready, first, ready=True) is ready
    assert controllers.pod_status(ready, key("gone"), ready=True) is ready


def test_a_terminating_pod_of_a_dump_serves_but_is_not_ready_and_counts_as_no_replica() -> None:
    dying = """
apiVersion: v1
kind: Pod
metadata: {name: dying, labels: {app: kubia}, deletionTimestamp: "2026-01-01T00:00:00Z"}
spec:
  nodeName: node-171
  containers: [{name: c, image: luksa/kubia, ports: [{containerPort: 8080}]}]
status: {phase: Running, podIP: 10.244.2.77, conditions: [{type: Ready, status: "True"}]}
"""
    cluster = started(joined(dying, KUBIA, SERVICE))
    assert len(pods_of(cluster, "kubia-")) == 3
    (one,) = (one for one in cluster.slices.values() if one.service == key("kubia"))
    states = {end.target.name: (end.ready, end.serving, end.terminating) for end in one.endpoints if end.target}
    assert states.pop("dying") == (False, True, True)
    assert set(states.values()) == {(True, True, False)}


def test_published_when_not_ready() -> None:
    spec = "{selector: {app: web}, publishNotReadyAddresses: true, ports: [{port: 80}]}"
    cluster = started(joined(PROBED, svc("web", spec)))
    assert len(endpoints(cluster, "web")) == 3


def test_slices_hold_100_endpoints_at_most_and_keep_their_names() -> None:
    topology = "apiVersion: netlab/v1\nkind: Topology\nnodes: 4\n"
    cluster = started(joined(KUBIA.replace("replicas: 3", "replicas: 250"), SERVICE), topology)
    sizes = [len(one.endpoints) for one in cluster.slices.values() if one.service == key("kubia")]
    assert sorted(sizes) == [50, 100, 100]
    after = controllers.scale(cluster, "ReplicationController", key("kubia"), 240)
    assert set(after.slices) == set(cluster.slices)


SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: kubia-hand, labels: {kubernetes.io/service-name: kubia}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.77], conditions: {ready: true}}]
ports: [{name: "", port: 8080}]
"""


def test_a_slice_given_by_hand_stands_beside_the_controllers() -> None:
    cluster = started(joined(KUBIA, SERVICE, SLICE))
    assert set(endpoints(cluster, "kubia")) == {"10.244.1.77", *pods_of(cluster, "kubia-")}
    later = controllers.apply(started(joined(KUBIA, SERVICE)), objects(SLICE))
    assert set(endpoints(later, "kubia")) == {"10.244.1.77", *pods_of(later, "kubia-")}
    without = controllers.delete(later, "EndpointSlice", key("kubia-hand"))
    assert set(endpoints(without, "kubia")) == set(pods_of(without, "kubia-"))


@pytest.mark.parametrize("manager", ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"])
def test_a_slice_of_the_clusters_controllers_without_its_pods_is_the_only_one(manager: str) -> None:
    label = f"labels: {{endpointslice.kubernetes.io/managed-by: {manager}, "
    cluster = started(joined(KUBIA, SERVICE, SLICE.replace("labels: {", label)))
    assert endpoints(cluster, "kubia") == {"10.244.1.77": [8080]}


def test_endpoints_given_by_hand_count_where_there_is_no_selector() -> None:
    given = ENDPOINTS.replace("name: db", "name: kubia")
    cluster = started(joined(KUBIA, SERVICE, given))
    assert set(endpoints(cluster, "kubia")) == set(pods_of(cluster, "kubia-"))
    lone = given.replace("{ip: 192.168.0.100}", "{ip: 192.168.0.100, targetRef: {kind: Pod, name: gone}}")
    lone = lone.replace("notReadyAddresses: [{ip: 192.168.0.101}], ", "")
    of_dump = started(joined(SERVICE, lone))
    assert endpoints(of_dump, "kubia") == {"gone": [5432]}


def test_a_service_that_loses_its_selector_keeps_its_slices() -> None:
    cluster = started(joined(KUBIA, SERVICE))
    had = endpoints(cluster, "kubia")
    bare = svc("kubia", "{ports: [{port: 80, targetPort: 8080}]}")
    later = controllers.scale(controllers.apply(cluster, objects(bare)), "ReplicationController", key("kubia"), 1)
    assert len(had) == 3 and endpoints(later, "kubia") == had
    again = controllers.apply(later, objects(SERVICE))
    assert set(endpoints(again, "kubia")) == set(pods_of(again, "kubia-")) < set(had)
    assert not endpoints(controllers.delete(later, "Service", key("kubia")), "kubia")


def test_mirrored_endpoints_stand_beside_a_slice_given_by_hand() -> None:
    hand = SLICE.replace("kubia", "db").replace("8080", "5432")
    cluster = started(joined(svc("db", "{ports: [{port: 5432}]}"), ENDPOINTS, hand))
    assert set(endpoints(cluster, "db")) == {"192.168.0.100", "10.244.1.77"}


def test_named_target_ports_are_those_of_sidecars_too() -> None:
    def pod(name: str, restart: str) -> str:
        init = f"[{{name: s, image: luksa/kubia, {restart}ports: [{{name: web, containerPort: 8090}}]}}]"
        spec = f"{{containers: [{{name: c, image: luksa/kubia}}], initContainers: {init}}}"
        return f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: kubia}}}}\nspec: {spec}\n"

    service = svc("kubia", "{selector: {app: kubia}, ports: [{port: 80, targetPort: web}]}")
    cluster = started(joined(pod("with", "restartPolicy: Always, "), pod("without", ""), service))
    assert endpoints(cluster, "kubia")["with"] == [8090]
    assert endpoints(cluster, "kubia").get("without", []) == []


ENDPOINTS = """
apiVersion: v1
kind: Endpoints
metadata: {name: db}
subsets: [{addresses: [{ip: 192.168.0.100}], notReadyAddresses: [{ip: 192.168.0.101}], ports: [{port: 5432}]}]
"""


def test_endpoints_given_by_hand_are_mirrored_and_go_with_their_service() -> None:
    cluster = started(joined(svc("db", "{ports: [{port: 5432}]}"), ENDPOINTS))
    (one,) = (one for one in cluster.slices.values() if one.service == key("db"))
    assert [(str(end.addresses[0]), end.ready) for end in one.endpoints] == [("192.168.0.100", True), ("192.168.0.101", False)]
    gone = controllers.delete(cluster, "Service", key("db"))
    assert not gone.endpoints and not any(one.service == key("db") for one in gone.slices.values())


def test_hints_follow_traffic_distribution() -> None:
    topology = """
apiVersion: netlab/v1
kind: Topology
nodes:
  a: {labels: {topology.kubernetes.io/zone: east}}
  b: {labels: {topology.kubernetes.io/zone: west}}
"""

    def hints(distribution: str) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
        spec = f"{{selector: {{app: kubia}}, trafficDistribution: {distribution}, ports: [{{port: 80}}]}}"
        cluster = started(joined(KUBIA, svc("kubia", spec)), topology)
        ends = [end for one in cluster.slices.values() if one.service == key("kubia") for end in one.endpoints]
        return {(end.zone_hints, end.node_hints) for end in ends}

    assert hints("PreferClose") == {(("east",), ()), (("west",), ())}
    assert hints("PreferSameNode") == {(("east",), ("a",)), (("west",), ("b",))}


def test_headless_hostnames_and_labels() -> None:
    spec = "{clusterIP: None, selector: {app: x}, ports: [{port: 80}]}"
    cluster = started(joined(pod("p", "{app: x}", "hostname: one\n  subdomain: x"), svc("x", spec)))
    (one,) = (one for one in cluster.slices.values() if one.service == key("x"))
    assert one.endpoints[0].hostname == "one" and one.endpoints[0].node_name == "node-170"
    assert one.meta.labels["service.kubernetes.io/headless"] == ""


def test_a_service_of_another_namespace_does_not_select() -> None:
    cluster = started(joined(KUBIA, SERVICE.replace("{name: kubia}", "{name: kubia, namespace: other}")))
    (one,) = (one for one in cluster.slices.values() if one.service == Key("other", "kubia"))
    assert one.endpoints == ()


def test_settling_twice_changes_nothing() -> None:
    cluster = started(joined(KUBIA, SERVICE, WEB, DAEMON.replace("TOLERATIONS", "")))
    assert controllers.settle(cluster) is cluster
    later = controllers.tick(cluster, 5)
    assert later.clock == 5 and later.with_(clock=0.0) == cluster


def test_pods_are_never_given_an_address_of_a_node() -> None:
    topology = "apiVersion: netlab/v1\nkind: Topology\nnodes:\n  a: {podCIDR: 10.244.1.0/24}\n"
    cluster = started(KUBIA, topology)
    used = {address for one in cluster.pods.values() for address in one.addresses}
    assert ip_address("10.244.1.1") not in used and len(used) == 3
