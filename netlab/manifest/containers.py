"""Containers, their probes, variables and volumes to the model.

Decides which containers have a program of their own: one with `command`. `args` alone go to an entrypoint inside an
image, which netlab does not have, so the built-in responder answers. The same holds for pods that a container runtime
has really run (their status says so): what they ran lies in their images, and their probes are not sent. Refuses to know what a
probe's answer means.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, Literal

from netlab.images import ingress_controller
from netlab.manifest.formats import ip
from netlab.manifest.meta import EMPTY, Json, items
from netlab.manifest.problems import Place, Report
from netlab.model import Address, Container, ContainerPort, EnvFrom, EnvSource, Mount, Probe, Protocol, Volume

_WAS_RUN = (
    "pods that a live cluster ran: commands and readiness probes are not run, the responder answers, readiness stays as given"
)
_PROBES = ("readinessProbe", "livenessProbe", "startupProbe")
_HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
_HOOKS = ("exec", "httpGet", "sleep", "tcpSocket")
_STAND_IN = "probes of an Ingress controller's image are not sent: the lab's own proxy stands in for it"
_UNCHECKED = "probes of kind grpc are not sent: the container counts as ready and alive"

Sources = tuple[tuple[Literal["configmap", "secret", "field"], str, tuple[tuple[str, str], ...], bool], ...]


def read_container(data: Json, place: Place, report: Report, was_run: bool) -> Container:
    """One container of a pod or a template."""
    command = tuple(word for _, word in items(data.get("command")))
    args = tuple(word for _, word in items(data.get("args")))
    probed = next((key for key in _PROBES if data.get(key)), "")
    if was_run and (command or probed):
        report.note(_WAS_RUN, (place, "command" if command else probed))
    elif flavour := ingress_controller(data.get("image") or ""):
        proxy = "the lab's own Ingress controller (`cluster: {ingress: ...}`, haproxy)" if flavour == "traefik" else flavour
        report.note(f"the image {flavour} is an Ingress controller: {proxy} of this machine stands in for it", (place, "image"))
    elif args and not command and not was_run:
        report.note(
            "args without command are for an image's entrypoint: not run, the built-in responder answers", (place, "args")
        )
    if data.get("image") == "":
        report.problem((place, "image"), "must not be empty")
    restart = data.get("restartPolicy")
    if restart not in (None, "", "Always"):
        report.problem((place, "restartPolicy"), f'must be Always or left out, not "{restart}"')
    probes = {key: _probe(data.get(key), (place, key), report) for key in _PROBES}
    if probed and ingress_controller(data.get("image") or ""):
        report.note(_STAND_IN, (place, probed))
        probes = dict.fromkeys(_PROBES)
    for key in ("livenessProbe", "startupProbe"):
        found = probes[key]
        if found is not None and found.success_threshold != 1:
            report.problem(((place, key), "successThreshold"), "must be 1")
    ports = _ports(data.get("ports"), (place, "ports"), report)
    whole = Container(
        name=data.get("name") or "",
        image=data.get("image") or "",
        command=command + args if command and not was_run else (),
        ports=ports,
        env=tuple(_variables(data.get("env"), (place, "env"), report)),
        sidecar=restart == "Always",
    )
    if was_run:
        return whole
    return Container(
        name=whole.name,
        image=whole.image,
        command=whole.command,
        ports=ports,
        env=whole.env,
        readiness=probes["readinessProbe"],
        liveness=probes["livenessProbe"],
        startup=probes["startupProbe"],
        pre_stop=_hook((data.get("lifecycle") or EMPTY).get("preStop"), ((place, "lifecycle"), "preStop"), report),
        sidecar=whole.sidecar,
        env_from=tuple(_from_objects(data.get("envFrom"), (place, "envFrom"), report)),
        mounts=tuple(
            Mount(entry.get("name") or "", entry.get("mountPath") or "", entry.get("subPath") or "", bool(entry.get("readOnly")))
            for _, entry in items(data.get("volumeMounts"))
        ),
        working_dir=data.get("workingDir") or "",
    )


def number(data: Json, key: str, default: float) -> float:
    value = data.get(key)
    return float(default if value is None else value)


def _ports(entries: Any, place: Place, report: Report) -> tuple[ContainerPort, ...]:
    ports: list[ContainerPort] = []
    names: dict[str, int] = {}
    for index, entry in items(entries):
        name = entry.get("name") or ""
        if name and name in names:
            report.problem(((place, index), "name"), f"two ports of this container are called {name}")
        names.setdefault(name, index)
        if entry.get("containerPort"):
            protocol = Protocol(entry.get("protocol") or "TCP")
            on_host = entry.get("hostPort") or 0
            at = _host_ip(entry.get("hostIP") or "", ((place, index), "hostIP"), report)
            ports.append(ContainerPort(entry["containerPort"], name, protocol, on_host, at))
    return tuple(ports)


def _host_ip(text: str, place: Place, report: Report) -> Address | None:
    """None for every address of the node, which 0.0.0.0 and :: mean too."""
    if not text:
        return None
    if error := ip(text):
        report.problem(place, error)
        return None
    address = ip_address(text)
    return None if address.is_unspecified else address


def _variables(entries: Any, place: Place, report: Report) -> Iterator[tuple[str, str | EnvSource]]:
    for index, entry in items(entries):
        source = entry.get("valueFrom")
        if entry.get("name") is None:
            continue
        if source is None:
            yield entry["name"], entry.get("value") or ""
            continue
        at = ((place, index), "valueFrom")
        if entry.get("value"):
            report.problem(at, "may not be given together with value")
        given, field = source.get("configMapKeyRef") or source.get("secretKeyRef"), source.get("fieldRef")
        kind: Literal["configmap", "secret"] = "configmap" if source.get("configMapKeyRef") else "secret"
        if field:
            yield entry["name"], EnvSource("field", field.get("fieldPath") or "")
        elif given:
            yield entry["name"], EnvSource(kind, given.get("key") or "", given.get("name") or "", bool(given.get("optional")))


def _from_objects(entries: Any, place: Place, report: Report) -> Iterator[EnvFrom]:
    for index, entry in items(entries):
        given = entry.get("configMapRef") or entry.get("secretRef")
        if not given:
            report.problem((place, index), "one of configMapRef, secretRef is wanted")
            continue
        kind: Literal["configmap", "secret"] = "configmap" if entry.get("configMapRef") else "secret"
        yield EnvFrom(kind, given.get("name") or "", entry.get("prefix") or "", bool(given.get("optional")))


# ---------------------------------------------------------------- probes and hooks


def _one_of(data: Json, words: tuple[str, ...], place: Place, report: Report) -> None:
    given = [name for name in words if data.get(name) is not None]
    if len(given) != 1:
        report.problem(place, f"exactly one of {', '.join(words)} is wanted, not {' and '.join(given) or 'none'}")


def _probe(data: Json | None, place: Place, report: Report) -> Probe | None:
    if data is None:
        return None
    _one_of(data, _HANDLERS, place, report)
    if data.get("grpc") is not None:
        report.note(_UNCHECKED, (place, "grpc"))
    http, tcp, program = (data.get(name) for name in ("httpGet", "tcpSocket", "exec"))
    if not (http or tcp or program):
        return None
    grace = data.get("terminationGracePeriodSeconds")
    return Probe(
        **_action(data),
        tcp=tcp is not None,
        initial_delay_s=number(data, "initialDelaySeconds", 0),
        period_s=number(data, "periodSeconds", 10),
        timeout_s=number(data, "timeoutSeconds", 1),
        success_threshold=data.get("successThreshold") or 1,
        failure_threshold=data.get("failureThreshold") or 3,
        grace_s=None if grace is None else float(grace),
    )


def _action(data: Json) -> dict[str, Any]:
    """The fields of a Probe that say what is asked, and whom."""
    http = data.get("httpGet")
    asked = http or data.get("tcpSocket") or EMPTY
    return {
        "http_path": (http.get("path") or "/") if http else None,
        "port": asked.get("port"),
        "command": tuple(word for _, word in items((data.get("exec") or EMPTY).get("command"))),
        "host": asked.get("host") or "",
        "scheme": asked.get("scheme") or "HTTP",
        "headers": tuple((one.get("name") or "", one.get("value") or "") for _, one in items(asked.get("httpHeaders"))),
    }


def _hook(data: Json | None, place: Place, report: Report) -> Probe | float | None:
    if data is None:
        return None
    _one_of(data, _HOOKS, place, report)
    if data.get("sleep") is not None:
        return float(data["sleep"].get("seconds") or 0)
    return Probe(**_action(data)) if data.get("exec") or data.get("httpGet") else None


# ---------------------------------------------------------------- volumes


def read_volumes(entries: Any, place: Place, report: Report) -> tuple[Volume, ...]:
    """The volumes of a pod. Kinds that need a cluster (persistentVolumeClaim, csi, ...) are empty directories here."""
    found: dict[str, Volume] = {}
    for index, entry in items(entries):
        name = entry.get("name") or ""
        if name in found:
            report.problem(((place, index), "name"), f"two volumes are called {name}")
        found[name] = _volume(name, entry)
    return tuple(found.values())


def _volume(name: str, data: Json) -> Volume:
    if data.get("hostPath"):
        return Volume(name, "host", data["hostPath"].get("path") or "/")
    projected = data.get("projected")
    parts = [part for _, part in items(projected.get("sources"))] if projected else [data]
    sources = tuple(source for part in parts for source in _sources(part))
    if sources or projected or any(data.get(key) is not None for key in ("configMap", "secret", "downwardAPI")):
        return Volume(name, "objects", sources=sources)
    return Volume(name)


def _sources(data: Json) -> Sources:
    found: list[Any] = []
    for key, kind in (("configMap", "configmap"), ("secret", "secret")):
        given = data.get(key)
        if given:
            pairs = tuple((one.get("key") or "", one.get("path") or "") for _, one in items(given.get("items")))
            found.append((kind, given.get("name") or given.get("secretName") or "", pairs, bool(given.get("optional"))))
    fields = data.get("downwardAPI")
    if fields:
        pairs = tuple(
            (one.get("path") or "", (one.get("fieldRef") or EMPTY).get("fieldPath") or "")
            for _, one in items(fields.get("items"))
        )
        found.append(("field", "", pairs, False))
    return tuple(found)
