"""Workloads over time: rollouts, StatefulSets, DaemonSets, Jobs, scheduling. A clock that the tests turn, no waiting."""

import pytest

from netlab import controllers
from netlab.controllers import revisions, rolling
from netlab.errors import ApiError, InputError
from netlab.model import Cluster, Key, Workload
from tests.test_controllers import KUBIA, SERVICE, WEB, endpoints, key, objects, pods_of, refusal, started

PROBED = WEB.replace("name: http}]", "name: http}], readinessProbe: {httpGet: {port: 80}}")
assert "readinessProbe" in PROBED


def deployment(cluster: Cluster, name: str = "web") -> Workload:
    return cluster.workloads["Deployment", key(name)]


def images(cluster: Cluster, prefix: str = "web") -> list[str]:
    return sorted(pod.spec.containers[0].image for pod in cluster.pods.values() if pod.meta.name.startswith(prefix))


def all_ready(cluster: Cluster) -> Cluster:
    """Every pod ready, and what follows, to the end."""
    while waiting := [
        name for name, pod in cluster.pods.items() if pod.phase == "Running" and not pod.ready and not pod.terminating
    ]:
        cluster = controllers.pod_status(cluster, waiting[0], ready=True)
    return cluster


def with_strategy(text: str, strategy: str) -> str:
    return text.replace("spec:\n  replicas: 3", f"spec:\n  strategy: {strategy}\n  replicas: 3")


def told(cluster: Cluster, kind: str, name: str) -> str:
    return controllers.rollout_message(cluster, kind, key(name)).message


# ---------------------------------------------------------------- Deployments


def test_status_tells_a_rollout_step_by_step_in_kubectls_words() -> None:
    cluster = all_ready(started(PROBED))
    assert told(cluster, "Deployment", "web") == 'deployment "web" successfully rolled out'
    cluster = controllers.apply(cluster, objects(PROBED.replace("nginx", "nginx:2")))
    seen = [told(cluster, "Deployment", "web")]
    while not controllers.rollout_message(cluster, "Deployment", key("web")).done:
        (waiting,) = (name for name, pod in cluster.pods.items() if not pod.ready)
        cluster = controllers.pod_status(cluster, waiting, ready=True)
        seen.append(told(cluster, "Deployment", "web"))
    words = 'Waiting for deployment "web" rollout to finish: '
    assert seen == [
        words + "1 out of 3 new replicas have been updated...",
        words + "2 out of 3 new replicas have been updated...",
        words + "1 old replicas are pending termination...",
        'deployment "web" successfully rolled out',
    ]


def test_a_rollout_whose_pods_never_get_ready_stalls_at_its_deadline_and_leaves_the_old_pods() -> None:
    cluster = all_ready(started(PROBED.replace("replicas: 3", "replicas: 3\n  progressDeadlineSeconds: 60")))
    old = set(cluster.pods)
    cluster = controllers.apply(
        cluster, objects(PROBED.replace("nginx", "bad").replace("replicas: 3", "replicas: 3\n  progressDeadlineSeconds: 60"))
    )
    assert controllers.next_due(cluster) == 60.0
    almost = controllers.tick(cluster, 59.9)
    assert not controllers.rollout_message(almost, "Deployment", key("web")).failed
    late = controllers.tick(cluster, 60.0)
    result = controllers.rollout_message(late, "Deployment", key("web"))
    assert (result.failed, result.message) == (True, 'error: deployment "web" exceeded its progress deadline')
    assert old <= set(late.pods) and controllers.next_due(late) is None


def test_min_ready_seconds_hold_each_step_until_its_time() -> None:
    text = WEB.replace("replicas: 3", "replicas: 3\n  minReadySeconds: 5")
    cluster = controllers.tick(started(text), 10)
    cluster = controllers.apply(cluster, objects(text.replace("nginx", "nginx:2")))
    assert images(cluster) == ["nginx", "nginx", "nginx", "nginx:2"]
    times = []
    while (due := controllers.next_due(cluster)) is not None and due < 100:
        cluster = controllers.tick(cluster, due - cluster.clock)
        times.append((due, images(cluster).count("nginx:2")))
    assert times[:3] == [(15.0, 2), (20.0, 3), (25.0, 3)] and images(cluster) == ["nginx:2"] * 3


def test_recreate_has_never_both() -> None:
    text = with_strategy(PROBED, "{type: Recreate}")
    cluster = all_ready(started(text))
    old = set(cluster.pods)
    cluster = controllers.apply(cluster, objects(text.replace("nginx", "nginx:2")))
    assert not old & set(cluster.pods) and images(cluster) == ["nginx:2"] * 3 and not any(p.ready for p in cluster.pods.values())


def test_paused_does_nothing_until_resumed_but_scales() -> None:
    cluster = controllers.pause(started(WEB), "Deployment", key("web"), True)
    cluster = controllers.apply(cluster, objects(WEB.replace("nginx", "nginx:2")))
    assert images(cluster) == ["nginx"] * 3
    cluster = controllers.scale(cluster, "Deployment", key("web"), 5)
    assert images(cluster) == ["nginx"] * 5
    assert "cannot rollback a paused deployment" in refusal(lambda: controllers.undo(cluster, "Deployment", key("web")))
    assert "already paused" in refusal(lambda: controllers.pause(cluster, "Deployment", key("web"), True))
    assert images(controllers.pause(cluster, "Deployment", key("web"), False)) == ["nginx:2"] * 5


CAUSED = WEB.replace("{name: web}", "{name: web, annotations: {kubernetes.io/change-cause: CAUSE}}")


def test_history_undo_and_revisions() -> None:
    cluster = started(CAUSED.replace("CAUSE", "one"))
    assert "no rollout history found" in refusal(lambda: controllers.undo(cluster, "Deployment", key("web")))
    for number, cause in ((2, "two"), (3, "three")):
        cluster = controllers.apply(cluster, objects(CAUSED.replace("CAUSE", cause).replace("nginx", f"nginx:{number}")))
    assert [(one.revision, one.cause) for one in controllers.history(cluster, "Deployment", key("web"))] == [
        (1, "one"), (2, "two"), (3, "three"),
    ]  # fmt: skip
    assert deployment(cluster).meta.annotations["deployment.kubernetes.io/revision"] == "3"
    cluster, message = controllers.undo(cluster, "Deployment", key("web"))
    assert (message, images(cluster)) == ("rolled back", ["nginx:2"] * 3)
    cluster, _ = controllers.undo(cluster, "Deployment", key("web"), 1)
    assert images(cluster) == ["nginx"] * 3
    assert [(one.revision, one.cause) for one in controllers.history(cluster, "Deployment", key("web"))] == [
        (3, "three"), (4, "two"), (5, "one"),
    ]  # fmt: skip
    assert "unable to find the specified revision 2" in refusal(lambda: controllers.undo(cluster, "Deployment", key("web"), 2))
    same, message = controllers.undo(cluster, "Deployment", key("web"), 5)
    assert same is cluster and message == "skipped rollback (current template already matches revision 5)"


def test_old_revisions_beyond_the_limit_go() -> None:
    text = WEB.replace("replicas: 3", "replicas: 3\n  revisionHistoryLimit: 2")
    cluster = started(text)
    for number in range(2, 7):
        cluster = controllers.apply(cluster, objects(text.replace("nginx", f"nginx:{number}")))
    assert [one.revision for one in controllers.history(cluster, "Deployment", key("web"))] == [4, 5, 6]


def test_restart_makes_all_pods_anew_and_the_same_manifest_does_not_undo_it() -> None:
    cluster = started(WEB)
    again = controllers.restart(cluster, "Deployment", key("web"), "2026-01-01T00:00:00Z")
    assert not set(again.pods) & set(cluster.pods) and len(again.pods) == 3
    assert set(controllers.apply(again, objects(WEB)).pods) == set(again.pods)


def test_scaling_in_the_middle_of_a_stuck_rollout_keeps_both() -> None:
    cluster = all_ready(started(PROBED))
    cluster = controllers.apply(cluster, objects(PROBED.replace("nginx", "bad")))
    assert images(cluster) == ["bad", "nginx", "nginx", "nginx"]
    cluster = controllers.scale(cluster, "Deployment", key("web"), 6)
    # Two and six by their sizes; then one of the old ones, none of which is ready yet, makes room for a new one.
    assert images(cluster).count("bad") == 3 and images(cluster).count("nginx") == 5


REFUSED = [
    ("both zero", "{rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}", "may not be 0 when maxSurge is 0"),
    (
        "recreate with limits",
        "{type: Recreate, rollingUpdate: {maxSurge: 1}}",
        "may not be specified when strategy type is Recreate",
    ),
    ("no percentage", "{rollingUpdate: {maxSurge: ten%}}", "must be a number of pods or a percentage"),
    ("unknown", "{type: Rolling}", "did you mean RollingUpdate?"),
]


@pytest.mark.parametrize(("strategy", "wanted"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_strategies_that_are_refused(strategy: str, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        objects(with_strategy(WEB, strategy))
    assert wanted in str(caught.value) and "test.yaml:" in str(caught.value)


def test_no_rollouts_for_an_rc() -> None:
    assert "no rollouts for a ReplicationController" in refusal(
        lambda: controllers.rollout_message(started(KUBIA), "ReplicationController", key("kubia"))
    )


# ---------------------------------------------------------------- StatefulSets

DB = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: db, port: 6379}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 3
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: c, image: redis, ports: [{containerPort: 6379}], readinessProbe: {tcpSocket: {port: 6379}}}]}
"""


def ready(cluster: Cluster, name: str, value: bool = True) -> Cluster:
    return controllers.pod_status(cluster, key(name), ready=value)


def test_stateful_pods_come_in_order_each_once_the_one_before_is_ready() -> None:
    cluster = started(DB)
    assert pods_of(cluster, "db") == ["db-0"]
    cluster = ready(cluster, "db-0")
    assert pods_of(cluster, "db") == ["db-0", "db-1"]
    cluster = ready(ready(ready(cluster, "db-0", False), "db-1"), "db-0")
    assert pods_of(cluster, "db") == ["db-0", "db-1", "db-2"]
    pod = cluster.pods[key("db-2")]
    assert (pod.spec.hostname, pod.spec.subdomain) == ("db-2", "db")
    assert (
        pod.meta.labels["statefulset.kubernetes.io/pod-name"] == "db-2" and pod.meta.labels["apps.kubernetes.io/pod-index"] == "2"
    )


def test_parallel_does_not_wait() -> None:
    cluster = started(DB.replace("serviceName: db", "serviceName: db\n  podManagementPolicy: Parallel"))
    assert pods_of(cluster, "db") == ["db-0", "db-1", "db-2"]
    assert pods_of(controllers.scale(cluster, "StatefulSet", key("db"), 0), "db") == []


def test_scaling_down_takes_the_last_and_back_up_the_same_names() -> None:
    cluster = all_ready(started(DB))
    cluster = controllers.scale(cluster, "StatefulSet", key("db"), 1)
    assert pods_of(cluster, "db") == ["db-0"]
    assert sorted(pods_of(all_ready(controllers.scale(cluster, "StatefulSet", key("db"), 3)), "db")) == ["db-0", "db-1", "db-2"]


def test_an_update_goes_from_the_last_to_the_first_and_waits_for_each() -> None:
    cluster = all_ready(started(DB))
    cluster = controllers.apply(cluster, objects(DB.replace("image: redis", "image: redis:8")))
    order = []
    while waiting := [name for name, pod in cluster.pods.items() if not pod.ready]:
        (one,) = waiting
        order.append(one.name)
        cluster = ready(cluster, one.name)
    assert order == ["db-2", "db-1", "db-0"] and images(cluster, "db") == ["redis:8"] * 3
    workload = cluster.workloads["StatefulSet", key("db")]
    assert workload.stateful is not None and workload.stateful.current == workload.revisions[-1].hash


def test_a_parallel_set_updates_one_by_one_too() -> None:
    text = DB.replace("serviceName: db", "serviceName: db\n  podManagementPolicy: Parallel")
    cluster = controllers.apply(all_ready(started(text)), objects(text.replace("image: redis", "image: redis:8")))
    assert images(cluster, "db") == ["redis", "redis", "redis:8"]


def test_a_partition_keeps_the_lower_ones_even_when_they_are_made_anew() -> None:
    text = DB.replace("serviceName: db", "serviceName: db\n  updateStrategy: {rollingUpdate: {partition: 2}}")
    cluster = all_ready(controllers.apply(all_ready(started(text)), objects(text.replace("image: redis", "image: redis:8"))))
    found = {pod.meta.name: pod.spec.containers[0].image for pod in cluster.pods.values()}
    assert found == {"db-0": "redis", "db-1": "redis", "db-2": "redis:8"}
    assert "partitioned roll out complete: 1 new pods" in told(cluster, "StatefulSet", "db")
    cluster = all_ready(controllers.delete(cluster, "Pod", key("db-0")))
    assert cluster.pods[key("db-0")].spec.containers[0].image == "redis"
    cluster = all_ready(
        controllers.apply(
            cluster, objects(text.replace("image: redis", "image: redis:8").replace("partition: 2", "partition: 0"))
        )
    )
    assert images(cluster, "db") == ["redis:8"] * 3


def test_on_delete_waits_for_the_user() -> None:
    text = DB.replace("serviceName: db", "serviceName: db\n  updateStrategy: {type: OnDelete}")
    cluster = controllers.apply(all_ready(started(text)), objects(text.replace("image: redis", "image: redis:8")))
    assert images(cluster, "db") == ["redis"] * 3
    cluster = all_ready(controllers.delete(cluster, "Pod", key("db-1")))
    assert cluster.pods[key("db-1")].spec.containers[0].image == "redis:8" and images(cluster, "db").count("redis") == 2


# ---------------------------------------------------------------- DaemonSets

AGENT = """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: c, image: agent, ports: [{containerPort: 80}], readinessProbe: {tcpSocket: {port: 80}}}]}
"""
FIVE = "cluster: {podCIDR: 10.244.0.0/16}\nnodes: 5\n"


def test_a_daemon_set_replaces_one_pod_at_a_time() -> None:
    cluster = all_ready(started(AGENT, FIVE))
    cluster = controllers.apply(cluster, objects(AGENT.replace("image: agent", "image: agent:2")))
    seen = [images(cluster, "agent").count("agent:2")]
    while waiting := [name for name, pod in cluster.pods.items() if not pod.ready]:
        assert len(waiting) == 1
        cluster = controllers.pod_status(cluster, waiting[0], ready=True)
        seen.append(images(cluster, "agent").count("agent:2"))
    assert seen == [1, 2, 3, 4, 5, 5] and "successfully rolled out" in told(cluster, "DaemonSet", "agent")


def test_a_daemon_set_with_surge_has_both_on_a_node_for_a_while() -> None:
    text = AGENT.replace("  selector", "  updateStrategy: {rollingUpdate: {maxSurge: 2, maxUnavailable: 0}}\n  selector", 1)
    cluster = controllers.apply(all_ready(started(text, FIVE)), objects(text.replace("image: agent", "image: agent:2")))
    assert images(cluster, "agent") == ["agent"] * 5 + ["agent:2"] * 2
    cluster = all_ready(cluster)
    assert images(cluster, "agent") == ["agent:2"] * 5


def test_a_daemon_set_with_on_delete_is_left_alone_and_can_be_undone() -> None:
    text = AGENT.replace("  selector", "  updateStrategy: {type: OnDelete}\n  selector", 1)
    cluster = controllers.apply(all_ready(started(text, FIVE)), objects(text.replace("image: agent", "image: agent:2")))
    assert images(cluster, "agent") == ["agent"] * 5
    cluster, _ = controllers.undo(cluster, "DaemonSet", key("agent"))
    assert [one.revision for one in controllers.history(cluster, "DaemonSet", key("agent"))] == [2, 3]


def test_the_pods_of_a_dumped_daemon_set_are_not_rolled() -> None:
    owner = "{apiVersion: apps/v1, kind: DaemonSet, name: agent, uid: u, controller: true}"
    ran = "{name: c, containerID: containerd://1, ready: true, restartCount: 0, image: agent, imageID: x}"
    pod = f"""
apiVersion: v1
kind: Pod
metadata:
  name: agent-abcde
  labels: {{app: agent, controller-revision-hash: 5d8c7}}
  ownerReferences: [{owner}]
spec: {{nodeName: node-1, containers: [{{name: c, image: agent}}]}}
status: {{phase: Running, podIP: 10.244.0.9, containerStatuses: [{ran}]}}
"""
    cluster = started(AGENT + "---" + pod, "nodes: 1\n")
    assert pods_of(cluster, "agent") == ["agent-abcde"]
    workload = cluster.workloads["DaemonSet", key("agent")]
    assert revisions.label_of(workload, workload.revisions[-1]) == "5d8c7"


# ---------------------------------------------------------------- Jobs

JOB = """
apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  completions: 3
  parallelism: 2
  backoffLimit: 1
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox, command: ["true"]}]}}
"""


def active(cluster: Cluster) -> list[Key]:
    return [name for name, pod in cluster.pods.items() if pod.phase in ("Pending", "Running") and not pod.terminating]


def end(cluster: Cluster, name: Key, good: bool = True) -> Cluster:
    return controllers.pod_status(cluster, name, phase="Succeeded" if good else "Failed", ready=False)


def test_a_job_runs_as_many_as_it_may_until_enough_have_succeeded() -> None:
    cluster = started(JOB)
    assert len(active(cluster)) == 2
    cluster = end(cluster, active(cluster)[0])
    assert len(active(cluster)) == 2
    cluster = end(cluster, active(cluster)[0])
    assert len(active(cluster)) == 1
    cluster = end(cluster, active(cluster)[0])
    batch = cluster.workloads["Job", key("once")].batch
    assert active(cluster) == [] and batch is not None and batch.verdict == "Complete" and len(cluster.pods) == 3


def test_a_job_tries_again_after_a_while_and_gives_up_at_its_limit() -> None:
    cluster = started(JOB)
    cluster = end(cluster, active(cluster)[0], good=False)
    assert len(active(cluster)) == 1 and controllers.next_due(cluster) == 10.0
    cluster = controllers.tick(cluster, 10)
    assert len(active(cluster)) == 2
    cluster = end(cluster, active(cluster)[0], good=False)
    batch = cluster.workloads["Job", key("once")].batch
    assert batch is not None and batch.verdict == "BackoffLimitExceeded" and active(cluster) == []


def test_an_indexed_job_counts_each_index_once() -> None:
    cluster = started(JOB.replace("completions: 3", "completions: 3\n  completionMode: Indexed\n  ttlSecondsAfterFinished: 30"))
    number = "batch.kubernetes.io/job-completion-index"
    assert [cluster.pods[name].meta.annotations[number] for name in active(cluster)] == ["0", "1"]
    cluster = controllers.tick(end(cluster, active(cluster)[0], good=False), 10)
    assert sorted(cluster.pods[name].meta.annotations[number] for name in active(cluster)) == ["0", "1"]
    variables = dict(cluster.pods[active(cluster)[0]].spec.containers[0].env)
    assert variables["JOB_COMPLETION_INDEX"] in ("0", "1")
    for _ in range(3):
        cluster = end(cluster, active(cluster)[0])
    assert active(cluster) == [] and controllers.tick(cluster, 30).pods == {}


def test_a_jobs_template_must_end() -> None:
    assert "must be Never or OnFailure of a Job, not Always" in refusal(
        lambda: objects(JOB.replace("restartPolicy: Never", "restartPolicy: Always"))
    )
    assert "must be Always in a template, not Never" in refusal(
        lambda: objects(WEB.replace("{containers", "{restartPolicy: Never, containers"))
    )


# ---------------------------------------------------------------- where pods may run

PLACES = """
nodes:
  a: {labels: {topology.kubernetes.io/zone: east, size: "4"}}
  b: {labels: {topology.kubernetes.io/zone: west, size: "16"}}
"""


def node(name: str, spec: str) -> str:
    return f"---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}}}\nspec: {spec}\n"


def where(spec: str, *nodes: str) -> list[str]:
    text = KUBIA.replace("spec: {containers", f"spec: {{{spec}containers")
    return sorted(pod.node for pod in started(text + "".join(nodes), PLACES).pods.values())


REQUIRED = "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [TERMS]}}}, "
TOLERATED = "tolerations: [{key: gpu, operator: OPERATOR}], "


def affine(*terms: str) -> str:
    return REQUIRED.replace("TERMS", ", ".join(f"{{matchExpressions: [{{{term}}}]}}" for term in terms))


def tainted(effect: str) -> str:
    return node("a", f"{{taints: [{{key: gpu, value: 'yes', effect: {effect}}}]}}")


FIELD = REQUIRED.replace("TERMS", "{matchFields: [{key: metadata.name, operator: In, values: [a]}]}")
SMALL = "key: size, operator: Lt, values: ['8']"
WHERE: list[tuple[str, str, tuple[str, ...], set[str]]] = [
    ("anywhere", "", (), {"a", "b"}),
    ("zone by selector", "nodeSelector: {topology.kubernetes.io/zone: west}, ", (), {"b"}),
    ("taint", "", (tainted("NoSchedule"),), {"b"}),
    ("tolerated", TOLERATED.replace("OPERATOR", "Exists"), (tainted("NoSchedule"),), {"a", "b"}),
    ("another value", TOLERATED.replace("OPERATOR", "Equal, value: 'no'"), (tainted("NoSchedule"),), {"b"}),
    ("the same value", TOLERATED.replace("OPERATOR", "Equal, value: 'yes'"), (tainted("NoSchedule"),), {"a", "b"}),
    ("prefer not", "", (tainted("PreferNoSchedule"),), {"b"}),
    ("cordoned", "", (node("a", "{unschedulable: true}"),), {"b"}),
    ("affinity In", affine("key: size, operator: In, values: ['4', '8']"), (), {"a"}),
    ("affinity Gt", affine("key: size, operator: Gt, values: ['8']"), (), {"b"}),
    ("affinity field", FIELD, (), {"a"}),
    ("one of two terms", affine("key: x, operator: Exists", SMALL), (), {"a"}),
]


@pytest.mark.parametrize(("spec", "nodes", "wanted"), [row[1:] for row in WHERE], ids=[row[0] for row in WHERE])
def test_where_pods_run(spec: str, nodes: tuple[str, ...], wanted: set[str]) -> None:
    assert set(where(spec, *nodes)) == wanted


def test_a_cordoned_node_keeps_its_pods_and_its_daemon() -> None:
    cluster = started(KUBIA + "---" + AGENT, PLACES)
    before = set(cluster.pods)
    cluster = controllers.apply(cluster, objects(node("a", "{unschedulable: true}")))
    assert set(cluster.pods) == before
    cluster = controllers.scale(cluster, "ReplicationController", key("kubia"), 9)
    assert sum(pod.node == "a" for pod in cluster.pods.values() if pod.meta.name.startswith("kubia")) <= 2


def test_no_execute_evicts_at_once_or_after_its_seconds() -> None:
    text = KUBIA.replace(
        "spec: {containers", "spec: {tolerations: [{key: bad, operator: Exists, tolerationSeconds: 7}], containers"
    )
    taint = node("a", "{taints: [{key: bad, effect: NoExecute}]}")
    evicted = controllers.apply(controllers.tick(started(KUBIA, PLACES), 5), objects(taint))
    assert {pod.node for pod in evicted.pods.values()} == {"b"}
    tolerant = controllers.apply(controllers.tick(started(text, PLACES), 5), objects(taint))
    assert {pod.node for pod in tolerant.pods.values()} == {"a", "b"} and controllers.next_due(tolerant) == 12.0
    later = controllers.tick(tolerant, 6.9)
    assert {pod.node for pod in later.pods.values()} == {"a", "b"}


def test_the_old_and_new_name_of_the_control_planes_taint() -> None:
    text = KUBIA.replace("replicas: 3", "replicas: 9").replace(
        "spec: {containers", "spec: {tolerations: [{key: node-role.kubernetes.io/master, effect: NoSchedule}], containers"
    )
    assert "node-169" in {pod.node for pod in started(text).pods.values()}
    assert "node-169" not in {pod.node for pod in started(KUBIA.replace("replicas: 3", "replicas: 9")).pods.values()}


# ---------------------------------------------------------------- ReplicationControllers


def test_orphans_are_adopted_and_released() -> None:
    cluster = started(KUBIA + "---" + SERVICE)
    names = set(cluster.pods)
    left = controllers.delete(cluster, "ReplicationController", key("kubia"), "orphan")
    assert set(left.pods) == names and all(pod.meta.owner is None for pod in left.pods.values())
    again = controllers.apply(left, objects(KUBIA.replace("name: kubia}", "name: other}", 1)))
    assert set(again.pods) == names and {pod.meta.owner.name for pod in again.pods.values() if pod.meta.owner} == {"other"}
    gone = controllers.delete(again, "ReplicationController", key("other"))
    assert gone.pods == {} and endpoints(gone, "kubia") == {}


def test_to_nothing_and_back() -> None:
    cluster = started(KUBIA + "---" + SERVICE)
    none = controllers.scale(cluster, "ReplicationController", key("kubia"), 0)
    assert none.pods == {} and endpoints(none, "kubia") == {}
    assert len(endpoints(controllers.scale(none, "ReplicationController", key("kubia"), 3), "kubia")) == 3


def test_scaling_what_has_no_replicas() -> None:
    with pytest.raises(ApiError):
        controllers.scale(started(AGENT), "DaemonSet", key("agent"), 2)
    assert rolling.resolved("50%", 3, True) == 2


@pytest.mark.parametrize("selector", ["  selector: {app: kubia}\n", ""], ids=["with a selector", "without"])
def test_a_replication_controller_without_labels_gets_its_templates(selector: str) -> None:
    bare = KUBIA.replace("  selector: {app: kubia}\n", selector)
    cluster = started(bare)
    assert dict(cluster.workloads["ReplicationController", key("kubia")].meta.labels) == {"app": "kubia"}
    own = started(bare.replace("{name: kubia}", "{name: kubia, labels: {its: own}}"))
    assert dict(own.workloads["ReplicationController", key("kubia")].meta.labels) == {"its": "own"}
    assert dict(started(WEB).workloads["Deployment", key("web")].meta.labels) == {}, "apps/v1 leaves them alone"


SUSPENDED = JOB.replace("spec:\n", "spec:\n  suspend: true\n", 1)
INDEXED = JOB.replace("spec:\n", "spec:\n  completionMode: Indexed\n", 1)
BARE = JOB.replace("  completions: 3\n  parallelism: 2\n", "")
NULL = "spec.completions: Invalid value: null: field is immutable"
SET_FORBIDDEN = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template'"
FIXED = [
    ("a Job's template", JOB, JOB.replace("busybox", "busybox:2"), "spec.template: Invalid value: field is immutable"),
    ("a Job's completions", JOB, JOB.replace("completions: 3", "completions: 4"), "spec.completions: Invalid value: 4: field is"),
    ("a Job's way of counting", JOB, INDEXED, 'spec.completionMode: Invalid value: "Indexed": field is immutable'),
    ("an Indexed Job's completions alone", INDEXED, INDEXED.replace("completions: 3", "completions: 4"), "in tandem"),
    ("an Indexed Job's completions and parallelism", INDEXED, INDEXED.replace("completions: 3", "completions: 2"), ""),
    ("a Job's parallelism", JOB, JOB.replace("parallelism: 2", "parallelism: 1"), ""),
    ("how many of a Job run at once that named no number", BARE, BARE.replace("spec:\n", "spec:\n  parallelism: 2\n", 1), ""),
    ("a Job that names no number", BARE, BARE, ""),
    ("completions that are named no more", JOB, JOB.replace("  completions: 3\n", ""), NULL),
    ("completions that are named no more, of a Job that never named parallelism",
     BARE.replace("spec:\n", "spec:\n  completions: 3\n", 1), BARE, NULL),
    ("both numbers that are named no more", JOB, BARE, "spec.completions: Invalid value: 1: field is immutable"),
    ("where a waiting Job's pods may run", SUSPENDED, SUSPENDED.replace("{restart", "{nodeSelector: {a: b}, restart"), ""),
    ("what a waiting Job's pods are", SUSPENDED, SUSPENDED.replace("busybox", "busybox:2"), "field is immutable"),
    ("where a Job's pods may run", JOB, JOB.replace("{restart", "{nodeSelector: {a: b}, restart"), "field is immutable"),
    ("a StatefulSet's Service", DB, DB.replace("serviceName: db", "serviceName: other"), SET_FORBIDDEN),
    ("a StatefulSet's order", DB, DB.replace("  replicas: 3", "  replicas: 3\n  podManagementPolicy: Parallel"), SET_FORBIDDEN),
    ("a StatefulSet's claims", DB, DB.replace("  replicas: 3", "  volumeClaimTemplates: [{metadata: {name: d}}]"), SET_FORBIDDEN),
    ("a StatefulSet's template", DB, DB.replace("image: redis", "image: redis:2"), ""),
    ("nothing", DB, DB, ""),
]  # fmt: skip


def test_a_jobs_completions_stay_when_only_its_parallelism_is_named() -> None:
    after = controllers.apply(started(BARE), objects(BARE.replace("spec:\n", "spec:\n  parallelism: 2\n", 1)))
    batch = after.workloads["Job", key("once")].batch
    assert batch is not None and (batch.completions, batch.parallelism) == (1, 2)


@pytest.mark.parametrize(("what", "first", "then", "says"), FIXED, ids=[one[0] for one in FIXED])
def test_what_of_a_workload_may_not_change(what: str, first: str, then: str, says: str) -> None:
    cluster = started(first)
    if not says:
        controllers.apply(cluster, objects(then))
        return
    assert says in refusal(lambda: controllers.apply(cluster, objects(then)))
