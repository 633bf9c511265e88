"""What becomes of a pod and its containers, on a clock that the test turns: each row is a story of reports and seconds."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from netlab import controllers
from netlab.cli.tables import pod_status
from netlab.controllers import lifecycle
from netlab.lab.thresholds import Counts
from netlab.manifest import Source, read_objects, to_json
from netlab.model import Cluster, Key, Pod
from netlab.ops import Listener, Process
from netlab.plan import build
from tests import clusters

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, labels: {app: p}}\nspec:\n"
SERVICE = "---\napiVersion: v1\nkind: Service\nmetadata: {name: p}\nspec: {selector: {app: p}, ports: [{port: 80}]}\n"
KEY = Key("default", "p")
RUN = "command: [run]"
Step = Callable[[Cluster], Cluster]


def started(spec: str, more: str = "") -> Cluster:
    """A lab with this one pod in it, settled."""
    text = POD + spec + SERVICE + more
    topology = clusters.without_dns(clusters.default().topology)
    cluster = clusters.default()
    bare = Cluster(topology, nodes=cluster.nodes)
    return controllers.apply(bare, read_objects([Source("p.yaml", text.encode())]).objects)


def after(seconds: float) -> Step:
    return lambda cluster: controllers.tick(cluster, seconds)


def report(call: Callable[..., Cluster], name: str, *words: Any) -> Step:
    """A report of the container as it is at that moment."""

    def step(cluster: Cluster) -> Cluster:
        pod = cluster.pods[KEY]
        status = next(one for one in pod.statuses if one.name == name)
        return call(cluster, KEY, pod.meta.uid, name, status.restarts, *words)

    return step


def ends(name: str, code: int) -> Step:
    return report(controllers.container_ended, name, code)


def deleted(grace_s: float | None = None) -> Step:
    return lambda cluster: controllers.delete(cluster, "Pod", KEY, grace_s=grace_s)


def shown(cluster: Cluster) -> str:
    """`STATUS READY RESTARTS`, as `get pods` has it; `gone`."""
    pod = cluster.pods.get(KEY)
    if pod is None:
        return "gone"
    item = to_json(pod, cluster)
    ready = sum(one["ready"] for one in item["status"]["containerStatuses"])
    return f"{pod_status(item)} {ready} {pod.restarts}"


class Story(NamedTuple):
    name: str
    spec: str
    steps: Sequence[tuple[Step, str]]
    begins: str = "Running 1 0"


ONE = f"  containers: [{{name: a, image: x, {RUN}}}]\n"
STORIES = [
    Story("a program that ends well is started again", ONE, [(ends("a", 0), "Running 0 1"), (after(1), "Running 1 1")]),
    Story(
        "back-off doubles up to its end",
        ONE,
        [
            (ends("a", 1), "Running 0 1"),
            (ends("a", 1), "CrashLoopBackOff 0 1"),
            (after(0.9), "CrashLoopBackOff 0 1"),
            (after(0.2), "Running 0 2"),
            (ends("a", 1), "CrashLoopBackOff 0 2"),
            (after(1.9), "CrashLoopBackOff 0 2"),
            (after(0.2), "Running 0 3"),
            (after(0.3), "Running 1 3"),
            (ends("a", 1), "CrashLoopBackOff 0 3"),
            (after(3.9), "CrashLoopBackOff 0 3"),
            (after(0.2), "Running 0 4"),
        ],
    ),
    Story(
        "a long run is forgiven",
        ONE,
        [
            (ends("a", 1), "Running 0 1"),
            (ends("a", 1), "CrashLoopBackOff 0 1"),
            (after(700), "Running 0 2"),
            (after(601), "Running 1 2"),
            (ends("a", 1), "Running 0 3"),
        ],
    ),
    Story(
        "restartPolicy Never: the first end is the last",
        "  restartPolicy: Never\n" + ONE,
        [(ends("a", 3), "Error 0 0"), (after(100), "Error 0 0")],
    ),
    Story("restartPolicy Never, ended well", "  restartPolicy: Never\n" + ONE, [(ends("a", 0), "Completed 0 0")]),
    Story(
        "restartPolicy OnFailure",
        "  restartPolicy: OnFailure\n" + ONE,
        [(ends("a", 1), "Running 0 1"), (after(1), "Running 1 1"), (ends("a", 0), "Completed 0 1")],
    ),
    Story(
        "init containers, one after the other",
        f"  initContainers: [{{name: i, image: x, {RUN}}}, {{name: j, image: x, {RUN}}}]\n" + ONE,
        [
            (after(60), "Init:0/2 0 0"),
            (ends("i", 0), "Init:1/2 0 0"),
            (ends("j", 1), "Init:1/2 0 1"),
            (ends("j", 1), "Init:CrashLoopBackOff 0 1"),
            (after(1.1), "Init:1/2 0 2"),
            (ends("j", 0), "Running 1 2"),
        ],
        "Init:0/2 0 0",
    ),
    Story(
        "an init container that fails for good",
        f"  restartPolicy: Never\n  initContainers: [{{name: i, image: x, {RUN}}}]\n" + ONE,
        [(ends("i", 2), "Init:Error 0 0")],
        "Init:0/1 0 0",
    ),
    Story("an init container without a program succeeds", "  initContainers: [{name: i, image: x}]\n" + ONE, []),
    Story(
        "a sidecar starts first and ends last",
        f"  restartPolicy: Never\n  initContainers: [{{name: s, image: x, restartPolicy: Always, {RUN}}}]\n" + ONE,
        [
            (ends("s", 1), "Running 1 1"),
            (after(1), "Running 1 1"),
            (ends("a", 0), "Completed 0 1"),
            (lambda cluster: cluster if cluster.pods[KEY].phase == "Running" else cluster.with_(pods={}), "Completed 0 1"),
            (ends("s", 143), "Completed 0 1"),
            (lambda cluster: cluster if cluster.pods[KEY].phase == "Succeeded" else cluster.with_(pods={}), "Completed 0 1"),
        ],
    ),
    Story(
        "a liveness kill restarts",
        f"  containers: [{{name: a, image: x, {RUN}, livenessProbe: {{tcpSocket: {{port: 1}}}}}}]\n",
        [
            (report(controllers.unhealthy, "a", None, "Liveness probe failed"), "Running 1 0"),
            (ends("a", 143), "Running 0 1"),
            (after(1), "Running 1 1"),
        ],
    ),
    Story(
        "a liveness kill that the program ignores ends with SIGKILL",
        f"  containers: [{{name: a, image: x, {RUN}, livenessProbe: {{tcpSocket: {{port: 1}}}}}}]\n",
        [
            (report(controllers.unhealthy, "a", 5.0, "Liveness probe failed"), "Running 1 0"),
            (after(4.9), "Running 1 0"),
            (after(0.2), "Running 0 1"),
        ],
    ),
    Story(
        "startup gates readiness",
        f"  containers: [{{name: a, image: x, {RUN}, startupProbe: {{tcpSocket: {{port: 1}}}}, "
        "readinessProbe: {tcpSocket: {port: 1}}}]\n",
        [
            (report(controllers.ready, "a", True), "Running 0 0"),
            (report(controllers.started, "a"), "Running 0 0"),
            (report(controllers.ready, "a", True), "Running 1 0"),
            (report(controllers.ready, "a", False, "no"), "Running 0 0"),
        ],
        "Running 0 0",
    ),
    Story(
        "deleted: until its program has ended",
        ONE,
        [(deleted(), "Terminating 1 0"), (after(29), "Terminating 1 0"), (ends("a", 0), "gone")],
    ),
    Story("deleted: killed at the end of its grace", ONE, [(deleted(), "Terminating 1 0"), (after(30.1), "gone")]),
    Story("deleted with a shorter grace", ONE, [(deleted(2), "Terminating 1 0"), (after(2.1), "gone")]),
    Story("deleted twice, the second time in a hurry", ONE, [(deleted(), "Terminating 1 0"), (deleted(1), "Terminating 1 0"),
                                                            (after(1.1), "gone")]),
    Story("forced", ONE, [(deleted(0), "gone")]),
    Story("a responder ends at once", "  containers: [{name: a, image: x}]\n", [(deleted(), "gone")]),
    Story(
        "the responder serves while its preStop sleeps",
        "  containers: [{name: a, image: x, ports: [{containerPort: 80}], lifecycle: {preStop: {sleep: {seconds: 5}}}}]\n",
        [(deleted(), "Terminating 1 0"), (after(4.9), "Terminating 1 0"), (after(0.2), "gone")],
    ),
    Story(
        "a preStop hook runs before SIGTERM",
        f"  containers: [{{name: a, image: x, {RUN}, lifecycle: {{preStop: {{exec: {{command: [x]}}}}}}}}]\n",
        [(deleted(), "Terminating 1 0"), (report(controllers.hook_done, "a"), "Terminating 1 0"), (ends("a", 0), "gone")],
    ),
]  # fmt: skip


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_story_of_one_pod(story: Story) -> None:
    cluster = started(story.spec)
    assert shown(cluster) == story.begins
    for at, (step, wanted) in enumerate(story.steps):
        cluster = step(cluster)
        assert shown(cluster) == wanted, f"step {at + 1}"
        assert controllers.settle(cluster) is cluster


def test_a_terminating_pod_serves_until_it_is_gone() -> None:
    def endpoint(cluster: Cluster) -> tuple[object, ...]:
        (found,) = [one for piece in cluster.slices.values() if piece.service == KEY for one in piece.endpoints]
        return found.ready, found.serving, found.terminating

    cluster = started(ONE)
    assert endpoint(cluster) == (True, True, False)
    leaving = deleted()(cluster)
    assert endpoint(leaving) == (False, True, True)
    unready = report(controllers.ready, "a", False)(leaving)
    assert endpoint(unready) == (False, False, True)
    assert not [one for piece in ends("a", 0)(leaving).slices.values() if piece.service == KEY for one in piece.endpoints]


def test_what_the_plan_makes_of_it() -> None:
    spec = (
        f"  containers: [{{name: a, image: x, {RUN}, lifecycle: {{preStop: {{sleep: {{seconds: 2}}}}}}}}, "
        "{name: b, image: x, ports: [{containerPort: 80}]}]\n"
    )

    def ops(cluster: Cluster) -> tuple[list[tuple[int, bool]], list[int]]:
        found = build(cluster).ops.values()
        processes = [(op.run, op.ending) for op in found if isinstance(op, Process)]
        return processes, [op.port for op in found if isinstance(op, Listener) and op.health is None]

    cluster = started(spec)
    assert ops(cluster) == ([(0, False)], [80])
    assert ops(ends("a", 1)(cluster)) == ([(1, False)], [80])
    leaving = deleted()(cluster)
    assert ops(leaving) == ([(0, False)], [])  # b has no hook and is a responder: it ends at once
    assert ops(after(2.1)(leaving)) == ([(0, True)], [])


def test_late_reports_change_nothing() -> None:
    cluster = started(ONE)
    pod = cluster.pods[KEY]
    assert controllers.container_ended(cluster, KEY, "another", "a", 0, 1) is cluster
    assert controllers.container_ended(cluster, KEY, pod.meta.uid, "a", 7, 1) is cluster
    assert controllers.container_ended(cluster, Key("default", "q"), pod.meta.uid, "a", 0, 1) is cluster


def test_when_something_is_due() -> None:
    cluster = started(ONE)
    assert lifecycle.next_due(cluster) is None
    crashed = ends("a", 1)(ends("a", 1)(cluster))
    assert lifecycle.next_due(crashed) == pytest.approx(1.0)
    assert lifecycle.next_due(deleted()(cluster)) == pytest.approx(30.0)


def test_a_pod_waits_for_its_config_map() -> None:
    spec = (
        f"  containers: [{{name: a, image: x, {RUN}, env: [{{name: X, valueFrom: {{configMapKeyRef: {{name: c, key: k}}}}}}]}}]\n"
    )
    cluster = started(spec)
    assert shown(cluster) == "CreateContainerConfigError 0 0"
    assert cluster.pods[KEY].message == 'configmap "c" not found'
    given = read_objects([Source("c.yaml", b"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {k: v}\n")]).objects
    there = controllers.apply(cluster, given)
    assert shown(there) == "Running 1 0"
    (process,) = [op for op in build(there).ops.values() if isinstance(op, Process)]
    assert dict(process.env)["X"] == "v"


def test_a_replacement_does_not_take_the_address_of_the_one_that_went() -> None:
    text = (
        "apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: r}\nspec:\n  replicas: 1\n  selector: {matchLabels: {a: b}}\n"
        "  template: {metadata: {labels: {a: b}}, spec: {nodeName: node-170, containers: [{name: a, image: x}]}}\n"
    )
    base = clusters.default()
    cluster = Cluster(clusters.without_dns(base.topology), nodes=base.nodes)
    cluster = controllers.apply(cluster, read_objects([Source("r.yaml", text.encode())]).objects)
    seen = []
    for _ in range(260):
        (pod,) = cluster.pods.values()
        seen.append(pod.addresses[0])
        cluster = controllers.delete(cluster, "Pod", pod.meta.key)
    assert len(set(seen[:253])) == 253  # .2 to .254, and round again
    assert seen[253] == seen[0]


@pytest.mark.parametrize(
    ("answers", "turns"),
    [
        ("++--+", ["", "up", "", "down", ""]),
        ("-+-+++", ["", "", "", "", "up", ""]),
        ("----", ["", "down", "", "down"]),
    ],
)
def test_thresholds(answers: str, turns: list[str]) -> None:
    counts = Counts(success_threshold=2, failure_threshold=2)
    assert [counts.took(one == "+") for one in answers] == turns


def test_early_failures_do_not_count() -> None:
    counts = Counts(1, 2)
    assert [counts.took(False, early=not counts.is_time(now, 10.0)) for now in (0.0, 0.1, 0.3, 9.9, 10.0)] == [
        "",
        "",
        "",
        "",
        "down",
    ]


def test_hand_made_running_pods_are_left_as_they_are() -> None:
    settled = controllers.settle(clusters.default())
    assert all(isinstance(pod, Pod) and not pod.statuses for pod in settled.pods.values())
