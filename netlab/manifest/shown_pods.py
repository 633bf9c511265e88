"""A pod's spec and status as kubectl shows them.

Decides defaults that are shown (protocol, restartPolicy) and the conditions that follow from phase and readiness.
Refuses to know how a pod came to its state.
"""

from collections.abc import Mapping
from typing import Any

from netlab.manifest.shown_time import timestamp
from netlab.model import Address, Cluster, Container, ContainerStatus, Ended, EnvSource, Node, Pod, PodSpec

_DONE = ("Succeeded", "Failed")


def shown_pod_spec(pod: Pod, given: Mapping[str, Any]) -> dict[str, Any]:
    """spec of a pod: as given (by its template, where it has one), with the node it was placed on."""
    spec = template_spec(pod.spec, given)
    return {**spec, "nodeName": pod.node} if pod.node else spec


def template_spec(spec: PodSpec, given: Mapping[str, Any]) -> dict[str, Any]:
    """A pod spec with the API's defaults; made from the model where nothing was given."""
    containers = given.get("containers") or [_container(container) for container in spec.containers]
    return {
        "restartPolicy": spec.restart_policy,
        "terminationGracePeriodSeconds": int(spec.termination_grace_s),
        "dnsPolicy": "ClusterFirst",
        **{key: value for key, value in given.items() if value is not None},
        "containers": [_with_protocols(container) for container in containers],
    }


def _container(container: Container) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": container.name, "image": container.image}
    if container.command:
        shown["command"] = list(container.command)
    if container.ports:
        shown["ports"] = [
            {"containerPort": port.port, **({"name": port.name} if port.name else {}), "protocol": str(port.protocol)}
            for port in container.ports
        ]
    if container.env:
        shown["env"] = [{"name": name, "value": value} for name, value in container.env if not isinstance(value, EnvSource)]
    return shown


def _with_protocols(container: Mapping[str, Any]) -> dict[str, Any]:
    shown = dict(container)
    if shown.get("ports"):
        shown["ports"] = [{"protocol": "TCP", **port} for port in shown["ports"]]
    return shown


def _host_ips(node: Node) -> tuple[Address, ...]:
    """The node's first address of each family that its pods have."""
    primary = node.addresses[0].version
    other = [address for address in node.addresses if address.version != primary]
    return (*node.addresses[:1], *(other[:1] if len(node.pod_cidrs) > 1 else ()))


def pod_status(pod: Pod, given: Mapping[str, Any], cluster: Cluster, started: float) -> dict[str, Any]:
    """status of a pod, as its kubelet would report it."""
    since = given.get("startTime") or timestamp(started + pod.meta.created)
    status: dict[str, Any] = {"phase": pod.phase, "conditions": _conditions(pod, since)}
    if pod.node:
        node = cluster.nodes.get(pod.node)
        if node is not None and node.addresses:
            status["hostIP"] = str(node.addresses[0])
            status["hostIPs"] = [{"ip": str(address)} for address in _host_ips(node)]
        status["startTime"] = since
        shown = _statuses(pod, since, given, started)
        if pod.spec.init:
            status["initContainerStatuses"] = shown[: len(pod.spec.init)]
        status["containerStatuses"] = shown[len(pod.spec.init) :]
    if pod.addresses:
        status["podIP"] = str(pod.addresses[0])
        status["podIPs"] = [{"ip": str(address)} for address in pod.addresses]
    if pod.message:
        status["message"] = pod.message
    status["qosClass"] = given.get("qosClass") or "BestEffort"
    return status


def _conditions(pod: Pod, since: str) -> list[dict[str, Any]]:
    done = pod.phase in _DONE
    ready = pod.ready and not done
    states = {
        "PodReadyToStartContainers": bool(pod.addresses),
        "Initialized": bool(pod.node) and (not pod.spec.init or _is_initialized(pod)),
        "Ready": ready,
        "ContainersReady": ready,
        "PodScheduled": bool(pod.node),
    }
    conditions = []
    for name, holds in states.items():
        condition: dict[str, Any] = {
            "type": name,
            "status": "True" if holds else "False",
            "lastProbeTime": None,
            "lastTransitionTime": since,
        }
        if not holds and name in ("Ready", "ContainersReady"):
            condition["reason"] = "PodCompleted" if done else "ContainersNotReady"
        elif not holds and name == "Initialized" and pod.node:
            condition["reason"] = "ContainersNotInitialized"
        elif not holds and name == "PodScheduled":
            condition["reason"] = "Unschedulable"
            condition["message"] = pod.message
        conditions.append(condition)
    return conditions


def _is_initialized(pod: Pod) -> bool:
    """Whether its init containers have all succeeded once: the others have begun."""
    if not pod.statuses:
        return pod.phase != "Pending"
    return any(status.state != "waiting" or status.last is not None for status in pod.statuses[len(pod.spec.init) :])


def _statuses(pod: Pod, since: str, given: Mapping[str, Any], started: float) -> list[dict[str, Any]]:
    """initContainerStatuses and containerStatuses, one after the other."""
    if pod.statuses:
        both = zip(pod.all_containers, pod.statuses, strict=True)
        return [_container_status(container, status, started, container in pod.spec.init) for container, status in both]
    return [_given_status(pod, container, since, given) for container in pod.all_containers]


def _container_status(container: Container, status: ContainerStatus, started: float, init: bool) -> dict[str, Any]:
    runs = status.state == "running"
    succeeded = init and status.state == "ended" and status.last is not None and status.last.code == 0
    shown: dict[str, Any] = {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "ready": status.ready or succeeded,
        "restartCount": status.restarts,
        "started": runs and status.started,
        "state": _state(status, started),
    }
    if status.last is not None and status.state != "ended":
        shown["lastState"] = {"terminated": _terminated(status.last, started)}
    return shown


def _state(status: ContainerStatus, started: float) -> dict[str, Any]:
    match status.state:
        case "running":
            return {"running": {"startedAt": timestamp(started + status.started_at)}}
        case "waiting":
            return {"waiting": {"reason": status.reason, **({"message": status.message} if status.message else {})}}
        case "ended" if status.last is not None:
            return {"terminated": _terminated(status.last, started)}
        case "ended":
            return {"terminated": {"exitCode": 137, "reason": "Error"}}


def _terminated(ended: Ended, started: float) -> dict[str, Any]:
    return {
        "exitCode": ended.code,
        "reason": ended.reason,
        "startedAt": timestamp(started + ended.started),
        "finishedAt": timestamp(started + ended.at),
    }


def _given_status(pod: Pod, container: Container, since: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Of a pod that netlab did not start: what its phase says."""
    states: dict[str, dict[str, Any]] = {
        "Running": {"running": {"startedAt": since}},
        "Pending": {"waiting": {"reason": "ContainerCreating"}},
        "Succeeded": {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": since}},
        "Failed": {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": since}},
    }
    shown: dict[str, Any] = {
        "name": container.name,
        "image": container.image,
        "imageID": "",
        "ready": pod.ready and pod.phase == "Running",
        "restartCount": pod.restarts,
        "started": pod.phase == "Running",
        "state": states[pod.phase],
    }
    was_run = next((entry for entry in given.get("containerStatuses") or () if entry.get("name") == container.name), None)
    if was_run and was_run.get("containerID"):
        shown["containerID"] = was_run["containerID"]
    return shown
