"""Pods, pod templates and containers to the model.

Decides which containers have a program of their own: one with `command`. `args` alone go to an entrypoint inside an
image, which netlab does not have, so the built-in responder answers. The same holds for pods that a container runtime
has really run (their status says so): what they ran lies in their images. Refuses to know where pods are placed and
what they answer.
"""

from ipaddress import ip_address
from typing import Any, Literal

from netlab.ingresses import ingress_controller
from netlab.manifest.meta import EMPTY, Json, items, labels, raw, read_meta
from netlab.manifest.problems import Place, Report
from netlab.model import (
    Address,
    Container,
    ContainerPort,
    Labels,
    Pod,
    PodSpec,
    PodTemplate,
    Protocol,
    ReadinessProbe,
)

CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_WAS_RUN = (
    "pods that a live cluster ran: commands and readiness probes are not run, the responder answers, readiness stays as given"
)
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")

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


def read_template(data: Json, manifest: Json, place: Place, report: Report) -> PodTemplate:
    """spec.template of a workload."""
    meta = data.get("metadata") or EMPTY
    spec = data.get("spec") or EMPTY
    restart = spec.get("restartPolicy", "Always")
    if restart != "Always":
        report.problem(((place, "spec"), "restartPolicy"), f"must be Always in a template, not {restart}")
    return PodTemplate(
        spec=read_pod_spec(spec, (place, "spec"), report),
        labels=labels(meta.get("labels")),
        annotations=labels(meta.get("annotations")),
        manifest=manifest,
    )


def read_pod_spec(spec: Json, place: Place, report: Report, was_run: bool = False) -> PodSpec:
    at = (place, "containers")
    if spec.get("containers") == []:
        report.problem(at, "must not be empty")
    containers: list[Container] = []
    for index, entry in items(spec.get("containers")):
        container = _container(entry, (at, index), report, was_run)
        if container.name and any(container.name == other.name for other in containers):
            report.problem(((at, index), "name"), f"two containers are called {container.name}")
        containers.append(container)
    return PodSpec(
        containers=tuple(containers),
        node_name=spec.get("nodeName") or "",
        hostname=spec.get("hostname") or "",
        subdomain=spec.get("subdomain") or "",
        host_network=bool(spec.get("hostNetwork")),
        restart_policy=spec.get("restartPolicy") or "Always",
        termination_grace_s=_number(spec, "terminationGracePeriodSeconds", 30),
        node_selector=labels(spec.get("nodeSelector")),
        tolerates_control_plane=any(_tolerates(entry) for _, entry in items(spec.get("tolerations"))),
        share_process_namespace=bool(spec.get("shareProcessNamespace")),
    )


def _tolerates(toleration: Json) -> bool:
    if toleration.get("effect") not in (None, "", "NoSchedule"):
        return False
    key = toleration.get("key") or ""
    return key in CONTROL_PLANE or (not key and toleration.get("operator") == "Exists")


def _number(data: Json, key: str, default: float) -> float:
    value = data.get(key)
    return float(default if value is None else value)


def _container(data: Json, place: Place, report: Report, was_run: bool) -> Container:
    command = tuple(word for _, word in items(data.get("command")))
    args = tuple(word for _, word in items(data.get("args")))
    if was_run and (command or data.get("readinessProbe")):
        report.note(_WAS_RUN, (place, "command" if command else "readinessProbe"))
    elif flavour := ingress_controller(data.get("image") or ""):
        proxy = "the lab's own Ingress controller (`cluster: {ingress: ...}`, haproxy)" if flavour == "traefik" else flavour
        report.note(f"the image {flavour} is an Ingress controller: {proxy} of this machine stands in for it", (place, "image"))
    elif args and not command and not was_run:
        report.note(
            "args without command are for an image's entrypoint: not run, the built-in responder answers", (place, "args")
        )
    readiness = _readiness(data.get("readinessProbe"), (place, "readinessProbe"), report)
    if data.get("image") == "":
        report.problem((place, "image"), "must not be empty")
    return Container(
        name=data.get("name") or "",
        image=data.get("image") or "",
        command=command + args if command and not was_run else (),
        ports=_ports(data.get("ports"), (place, "ports"), report),
        env=tuple((entry["name"], entry.get("value") or "") for _, entry in items(data.get("env")) if _literal(entry)),
        readiness=None if was_run else readiness,
    )


def _literal(variable: Json) -> bool:
    return variable.get("name") is not None and variable.get("valueFrom") is None


def _ports(entries: Any, place: Place, report: Report) -> tuple[ContainerPort, ...]:
    ports: list[ContainerPort] = []
    names: dict[str, int] = {}
    for index, entry in items(entries):
        name = entry.get("name") or ""
        if name and name in names:
            report.problem(((place, index), "name"), f"two ports of this container are called {name}")
        names.setdefault(name, index)
        if entry.get("containerPort"):
            ports.append(ContainerPort(entry["containerPort"], name, Protocol(entry.get("protocol") or "TCP")))
    return tuple(ports)


def _readiness(data: Json | None, place: Place, report: Report) -> ReadinessProbe | None:
    if data is None:
        return None
    given = [name for name in _HANDLERS if data.get(name) is not None]
    if len(given) != 1:
        report.problem(place, f"exactly one of {', '.join(_HANDLERS)} is wanted, not {' and '.join(given) or 'none'}")
    http, tcp, program = (data.get(name) for name in ("httpGet", "tcpSocket", "exec"))
    if not (http or tcp or program):
        return None
    return ReadinessProbe(
        http_path=(http.get("path") or "/") if http else None,
        port=(http or tcp or EMPTY).get("port"),
        tcp=tcp is not None,
        command=tuple(word for _, word in items((program or EMPTY).get("command"))),
        initial_delay_s=_number(data, "initialDelaySeconds", 0),
        period_s=_number(data, "periodSeconds", 10),
        timeout_s=_number(data, "timeoutSeconds", 1),
        success_threshold=data.get("successThreshold") or 1,
        failure_threshold=data.get("failureThreshold") or 3,
    )


def template_labels(data: Json) -> Labels:
    """The labels of `spec.template`, as checked."""
    template = (data.get("spec") or EMPTY).get("template") or EMPTY
    return labels((template.get("metadata") or EMPTY).get("labels"))
