"""Pods, pod templates and containers to the model.

Refuses to know where pods are placed and what they answer. A container is read in containers.py.
"""

import re
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Any, Literal

from netlab.manifest.containers import number, read_container, read_volumes
from netlab.manifest.meta import EMPTY, Json, items, labels, raw, read_meta
from netlab.manifest.problems import Place, Report, shorten
from netlab.model import (
    Address,
    Container,
    Labels,
    Pod,
    PodSpec,
    PodTemplate,
    Selector,
    Toleration,
)

CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]
_PHASES: dict[str, Phase] = {
    "Pending": "Pending", "Running": "Running", "Succeeded": "Succeeded", "Failed": "Failed", "Unknown": "Running",
}  # fmt: skip


def read_pod(data: Json, manifest: Json, place: Place, report: Report) -> Pod:
    """A Pod; one from a live cluster keeps its node, addresses, phase and readiness."""
    status = data.get("status") or EMPTY
    was_run = _was_run(status)
    spec = read_pod_spec(data.get("spec") or EMPTY, (place, "spec"), report, was_run)
    ready = _ready(status)
    phase = _PHASES[status.get("phase") or "Pending"]
    return Pod(
        meta=read_meta(data, place, report, "Pod", True),
        spec=spec,
        node=spec.node_name,
        addresses=_addresses(status, place, report),
        phase=phase,
        ready=ready,
        serving=ready,
        manifest=manifest,
    )


def _was_run(status: Json) -> bool:
    """Whether a container runtime has run this pod: only then a container has an ID like containerd://1f2e."""
    statuses = status.get("containerStatuses")
    return isinstance(statuses, list) and any("://" in str(raw(entry, "containerID")) for entry in statuses)


def _ready(status: Json) -> bool:
    if status.get("phase") != "Running":
        return False
    conditions = {entry.get("type"): entry.get("status") for _, entry in items(status.get("conditions"))}
    return bool(conditions.get("Ready", "True") == "True")


def _addresses(status: Json, place: Place, report: Report) -> tuple[Address, ...]:
    first = [status["podIP"]] if status.get("podIP") else []
    given = dict.fromkeys([*first, *(entry["ip"] for _, entry in items(status.get("podIPs")) if entry.get("ip"))])
    found = tuple(ip_address(text) for text in given)
    if len({address.version for address in found}) < len(found):
        report.problem(((place, "status"), "podIPs"), "a pod has one address of each family, and podIP is the first of podIPs")
    return found


def read_template(data: Json, manifest: Json, place: Place, report: Report, claims: Any = None) -> PodTemplate:
    """spec.template of a workload. `claims`: its volumeClaimTemplates, of which each pod gets a volume."""
    meta = data.get("metadata") or EMPTY
    spec = data.get("spec") or EMPTY
    return PodTemplate(
        spec=read_pod_spec(spec, (place, "spec"), report, claims=claims),
        labels=labels(meta.get("labels")),
        annotations=labels(meta.get("annotations")),
        manifest=manifest,
    )


def read_pod_spec(spec: Json, place: Place, report: Report, was_run: bool = False, claims: Any = None) -> PodSpec:
    at = (place, "containers")
    if spec.get("containers") == []:
        report.problem(at, "must not be empty")
    if spec.get("hostNetwork"):
        _check_host_ports(spec, at, report)
    if not was_run:
        _check_mounts(spec, claims, place, report)
    taken: set[str] = set()
    init = [] if was_run else [*items(spec.get("initContainers"))]
    return PodSpec(
        containers=_containers(items(spec.get("containers")), at, report, was_run, taken),
        init=_containers(init, (place, "initContainers"), report, was_run, taken),
        volumes=() if was_run else read_volumes(spec.get("volumes"), (place, "volumes"), report),
        node_name=spec.get("nodeName") or "",
        hostname=spec.get("hostname") or "",
        subdomain=spec.get("subdomain") or "",
        host_network=bool(spec.get("hostNetwork")),
        restart_policy=spec.get("restartPolicy") or "Always",
        termination_grace_s=number(spec, "terminationGracePeriodSeconds", 30),
        node_selector=labels(spec.get("nodeSelector")),
        node_affinity=_node_affinity(spec.get("affinity") or EMPTY, (place, "affinity"), report),
        tolerations=tuple(_toleration(entry) for _, entry in items(spec.get("tolerations")) if not _by_default(entry)),
        share_process_namespace=bool(spec.get("shareProcessNamespace")),
        service_links=spec.get("enableServiceLinks") is not False,
    )


def _check_mounts(spec: Json, claims: Any, place: Place, report: Report) -> None:
    """Every mount is of a volume of the pod, or of a claim template of its StatefulSet."""
    given = [entry.get("name") for _, entry in items(spec.get("volumes"))]
    given += [(entry.get("metadata") or EMPTY).get("name") for _, entry in items(claims)]
    if not all(isinstance(name, str) for name in given):
        return  # what is wrong with the volumes is said already
    there = f"; there is {', '.join(given)}" if given else "; the pod has no volumes"
    for part in ("initContainers", "containers"):
        for index, container in items(spec.get(part)):
            for at, mount in items(container.get("volumeMounts")):
                name = mount.get("name")
                if isinstance(name, str) and name not in given:
                    where = (((((place, part), index), "volumeMounts"), at), "name")
                    report.problem(where, f'Not found: "{shorten(name)}": no volume of the pod is called so{there}')


def _check_host_ports(spec: Json, place: Place, report: Report) -> None:
    for index, container in items(spec.get("containers")):
        for at, port in items(container.get("ports")):
            if port.get("hostPort") not in (None, 0, port.get("containerPort")):
                report.problem(((((place, index), "ports"), at), "hostPort"), "must match containerPort when hostNetwork is true")


def _containers(
    entries: Iterable[tuple[int, Any]], place: Place, report: Report, was_run: bool, taken: set[str]
) -> tuple[Container, ...]:
    containers: list[Container] = []
    for index, entry in entries:
        container = read_container(entry, (place, index), report, was_run)
        if container.name and container.name in taken:
            report.problem(((place, index), "name"), f"two containers are called {container.name}")
        taken.add(container.name)
        containers.append(container)
    return tuple(containers)


def _toleration(entry: Json) -> Toleration:
    seconds = entry.get("tolerationSeconds")
    return Toleration(
        entry.get("key") or "",
        "Exists" if entry.get("operator") == "Exists" else "Equal",
        entry.get("value") or "",
        entry.get("effect") or "",
        None if seconds is None else float(seconds),
    )


def _by_default(entry: Json) -> bool:
    """Whether a live API server put it there (DefaultTolerationSeconds): the lab has a default of its own."""
    condition = entry.get("key") in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    return condition and entry.get("operator") == "Exists" and entry.get("tolerationSeconds") == 300


def _node_affinity(affinity: Json, place: Place, report: Report) -> tuple[Selector, ...]:
    """The required terms; an empty one selects nothing and is left out."""
    required = (affinity.get("nodeAffinity") or EMPTY).get("requiredDuringSchedulingIgnoredDuringExecution") or EMPTY
    terms = []
    for index, term in items(required.get("nodeSelectorTerms")):
        at = ((((place, "nodeAffinity"), "requiredDuringSchedulingIgnoredDuringExecution"), "nodeSelectorTerms"), index)
        found = []
        for part in ("matchExpressions", "matchFields"):
            for place_, entry in items(term.get(part)):
                operator, values = entry.get("operator", ""), tuple(value for _, value in items(entry.get("values")))
                here = (((at, part), place_), "values")
                if operator in ("In", "NotIn") and not values:
                    report.problem(here, f"must not be empty when operator is {operator}")
                if operator in ("Gt", "Lt") and (len(values) != 1 or not re.fullmatch(r"-?[0-9]{1,19}", values[0])):
                    report.problem(here, f"must be one whole number, in quotes, when operator is {operator}")
                found.append((entry.get("key", ""), operator, values))
        if found:
            terms.append(Selector(expressions=tuple(found)))
    return tuple(terms)


def template_labels(data: Json) -> Labels:
    """The labels of `spec.template`, as checked."""
    template = (data.get("spec") or EMPTY).get("template") or EMPTY
    return labels((template.get("metadata") or EMPTY).get("labels"))
