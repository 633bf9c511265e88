"""Kubernetes JSON -> the table that `kubectl get` prints. Pure: no lab, no clock (`now` is given), no colour.

Columns, words and spacing are kubectl's own (kubernetes pkg/printers/internalversion/printers.go and its tabwriter: three
spaces between columns, six at least). A kind without an entry in KINDS is shown with NAME and AGE.

Over 400 lines: one short function a kind, and one table of them all.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Json = Mapping[str, Any]
Cells = list[str]
NONE = "<none>"


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of one kind: headings, those that `-o wide` adds, and the cells of an object for both."""

    names: tuple[str, ...]
    wide: tuple[str, ...]
    cells: Callable[[Json, datetime, bool], Cells]


def text(
    items: Sequence[Json],
    now: datetime,
    wide: bool = False,
    namespaces: bool = False,
    prefix: bool = False,
    labels: bool = False,
    label_columns: Sequence[str] = (),
) -> str:
    """The table of objects of one kind. `namespaces`: as with -A; `prefix`: names as KIND/NAME; `labels`: as --show-labels;
    `label_columns`: as -L.
    """
    kind = items[0].get("kind", "") if items else ""
    columns = KINDS.get(kind, Columns(("NAME", "AGE"), (), generic_cells))
    if wide and kind == "Event":  # other columns, and not only more
        names = ("LAST SEEN", "TYPE", "REASON", "OBJECT", "SUBOBJECT", "SOURCE", "MESSAGE", "FIRST SEEN", "COUNT", "NAME")
        columns = Columns(names, (), event_cells)
    heading = [
        *(["NAMESPACE"] if namespaces else []),
        *columns.names,
        *(columns.wide if wide else ()),
        *(key.rpartition("/")[2].upper() for key in label_columns),
        *(["LABELS"] if labels else []),
    ]
    rows = [heading]
    for item in items:
        cells = columns.cells(item, now, wide)
        if prefix:
            cells[0] = f"{qualified(item)}/{cells[0]}"
        rows.append(
            [
                *([meta(item).get("namespace", "")] if namespaces else []),
                *cells,
                *((meta(item).get("labels") or {}).get(key, "") for key in label_columns),
                *([pairs(meta(item).get("labels"))] if labels else []),
            ]
        )
    return align(rows)


def align(rows: Sequence[Sequence[str]]) -> str:
    """Rows laid out as kubectl does; the last cell of a row is not padded."""
    if not rows:
        return ""
    widths = [max(6, 3 + max(len(row[at]) for row in rows)) for at in range(len(rows[0]))]
    lines = ("".join([cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)] + [row[-1]]) for row in rows)
    return "".join(line + "\n" for line in lines)


def qualified(item: Json) -> str:
    """kind.group in lower case, as `kubectl get -o name` has it: pod, service, deployment.apps."""
    group, slash, _ = str(item.get("apiVersion", "v1")).partition("/")
    kind = str(item.get("kind", "")).lower()
    return f"{kind}.{group}" if slash else kind


def age(seconds: float) -> str:
    """A duration in kubectl's words: 45s, 3m12s, 17h, 5d3h."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    match whole:
        case _ if whole < 120:
            return f"{max(whole, 0)}s"
        case _ if minutes < 10:
            return _two(minutes, "m", whole % 60, "s")
        case _ if minutes < 180:
            return f"{minutes}m"
        case _ if hours < 8:
            return _two(hours, "h", minutes % 60, "m")
        case _ if hours < 48:
            return f"{hours}h"
        case _ if hours < 192:
            return _two(days, "d", hours % 24, "h")
        case _ if days < 730:
            return f"{days}d"
        case _ if days < 2920:
            return _two(days // 365, "y", days % 365, "d")
        case _:
            return f"{days // 365}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def since(stamp: Any, now: datetime) -> str:
    """The age of an RFC 3339 time stamp; `<unknown>` without one."""
    if not stamp:
        return "<unknown>"
    return age((now - datetime.fromisoformat(str(stamp).replace("Z", "+00:00"))).total_seconds())


# ---------------------------------------------------------------- cells of each kind


def meta(item: Json) -> Json:
    return item.get("metadata") or {}


def spec(item: Json) -> Json:
    return item.get("spec") or {}


def status(item: Json) -> Json:
    return item.get("status") or {}


def name_of(item: Json) -> str:
    return str(meta(item).get("name", ""))


def age_of(item: Json, now: datetime) -> str:
    return since(meta(item).get("creationTimestamp"), now)


def pairs(labels: Json | None) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE


def selector(value: Json | None) -> str:
    """A LabelSelector in kubectl's words: `app=web,tier in (a,b)`."""
    value = value or {}
    parts = [f"{key}={one}" for key, one in sorted((value.get("matchLabels") or {}).items())]
    for one in value.get("matchExpressions") or ():
        values = ",".join(sorted(one.get("values") or ()))
        match one.get("operator"):
            case "In":
                parts.append(f"{one['key']} in ({values})")
            case "NotIn":
                parts.append(f"{one['key']} notin ({values})")
            case "Exists":
                parts.append(str(one["key"]))
            case _:
                parts.append(f"!{one['key']}")
    return ",".join(parts) or NONE


def few(values: Sequence[str], empty: str = NONE, most: int = 3) -> str:
    """The first values, and how many more there are."""
    if not values:
        return empty
    shown = ",".join(values[:most])
    return f"{shown} + {len(values) - most} more..." if len(values) > most else shown


def generic_cells(item: Json, now: datetime, wide: bool) -> Cells:
    return [name_of(item), age_of(item, now)]


def pod_cells(item: Json, now: datetime, wide: bool) -> Cells:
    statuses = [*sidecars(item), *(status(item).get("containerStatuses") or ())]
    total = len(sidecars(item)) + len(spec(item).get("containers") or ())
    ready = sum(1 for one in statuses if one.get("ready"))
    if init_status(item) and not has_condition(item, "Initialized"):  # until then kubectl counts the restarts of init containers
        statuses = list(status(item).get("initContainerStatuses") or ())
    restarts = sum(int(one.get("restartCount", 0)) for one in statuses)
    ends = [
        str(one["lastState"]["terminated"].get("finishedAt") or "")
        for one in statuses
        if (one.get("lastState") or {}).get("terminated")
    ]
    latest = max(ends, default="")
    count = f"{restarts} ({since(latest, now)} ago)" if restarts and latest else str(restarts)
    cells = [name_of(item), f"{ready}/{total}", pod_status(item), count, age_of(item, now)]
    if wide:
        gates = spec(item).get("readinessGates")
        nominated = status(item).get("nominatedNodeName") or NONE
        cells += [
            status(item).get("podIP") or NONE,
            spec(item).get("nodeName") or NONE,
            nominated,
            f"0/{len(gates)}" if gates else NONE,
        ]
    return cells


def pod_status(item: Json) -> str:
    """STATUS of a pod: its phase, unless a container waits or has ended for a reason, or it is being deleted."""
    word = str(status(item).get("reason") or status(item).get("phase") or "Unknown")
    initialising = init_status(item)
    if initialising and not has_condition(item, "Initialized"):
        return "Terminating" if meta(item).get("deletionTimestamp") else initialising
    running = False
    for one in reversed(status(item).get("containerStatuses") or []):
        state = one.get("state") or {}
        if (state.get("waiting") or {}).get("reason"):
            word = state["waiting"]["reason"]
        elif "terminated" in state and state["terminated"] is not None:
            end = state["terminated"]
            word = end.get("reason") or (f"Signal:{end['signal']}" if end.get("signal") else f"ExitCode:{end.get('exitCode', 0)}")
        elif one.get("ready") and state.get("running") is not None:
            running = True
    if word == "Completed" and running:
        word = "Running" if ready_condition(item) else "NotReady"
    return "Terminating" if meta(item).get("deletionTimestamp") else word


def sidecars(item: Json) -> list[Json]:
    """The statuses of init containers that go on running beside the others."""
    names = {one.get("name") for one in spec(item).get("initContainers") or () if one.get("restartPolicy") == "Always"}
    return [one for one in status(item).get("initContainerStatuses") or () if one.get("name") in names]


def init_status(item: Json) -> str:
    """Init:1/2 and its kin while the pod's init containers are at work; '' afterwards."""
    given = {one.get("name"): one for one in spec(item).get("initContainers") or ()}
    statuses = status(item).get("initContainerStatuses") or ()
    for at, one in enumerate(statuses):
        state = one.get("state") or {}
        end, waits = state.get("terminated"), state.get("waiting") or {}
        sidecar = given.get(one.get("name"), {}).get("restartPolicy") == "Always"
        if (end is not None and end.get("exitCode", 0) == 0) or (sidecar and one.get("started")):
            continue
        if end is not None:
            words = f"Signal:{end['signal']}" if end.get("signal") else f"ExitCode:{end.get('exitCode', 0)}"
            return f"Init:{end.get('reason') or words}"
        if waits.get("reason") and waits["reason"] != "PodInitializing":
            return f"Init:{waits['reason']}"
        return f"Init:{at}/{len(statuses)}"
    return ""


def ready_condition(item: Json) -> bool:
    return has_condition(item, "Ready")


def has_condition(item: Json, name: str) -> bool:
    return any(one.get("type") == name and one.get("status") == "True" for one in status(item).get("conditions") or ())


def service_cells(item: Json, now: datetime, wide: bool) -> Cells:
    kind = spec(item).get("type") or "ClusterIP"
    addresses = spec(item).get("clusterIPs") or [spec(item).get("clusterIP")]
    cells = [name_of(item), kind, addresses[0] or NONE, external(item, kind, wide), service_ports(item), age_of(item, now)]
    return [*cells, pairs(spec(item).get("selector"))] if wide else cells


def external(item: Json, kind: str, wide: bool) -> str:
    """EXTERNAL-IP of a Service."""
    given = list(spec(item).get("externalIPs") or [])
    if kind == "ExternalName":
        return str(spec(item).get("externalName") or NONE)
    if kind != "LoadBalancer":
        return ",".join(given) or NONE
    shown = balanced_at(item, wide)
    return ",".join([*([shown] if shown else []), *given]) or "<pending>"


def service_ports(item: Json) -> str:
    ports = spec(item).get("ports") or ()
    each = (
        f"{one['port']}{':' + str(one['nodePort']) if one.get('nodePort') else ''}/{one.get('protocol', 'TCP')}" for one in ports
    )
    return ",".join(each) or NONE


def endpoints_cells(item: Json, now: datetime, wide: bool) -> Cells:
    return [name_of(item), few(endpoint_texts(item.get("subsets") or ())), age_of(item, now)]


def endpoint_texts(subsets: Iterable[Json]) -> list[str]:
    """IP:PORT of every ready address, ports first as kubectl walks them."""
    found: list[str] = []
    for subset in subsets:
        addresses = [str(one.get("ip", "")) for one in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        found += [f"{host(ip)}:{port['port']}" for port in ports for ip in addresses] if ports else addresses
    return found


def host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip


def slice_cells(item: Json, now: datetime, wide: bool) -> Cells:
    ports = [str(one.get("port") or "*") for one in item.get("ports") or ()]
    addresses = [address for one in item.get("endpoints") or () for address in one.get("addresses") or ()]
    return [name_of(item), str(item.get("addressType", "")), few(ports, "<unset>"), few(addresses, "<unset>"), age_of(item, now)]


def node_cells(item: Json, now: datetime, wide: bool) -> Cells:
    info = status(item).get("nodeInfo") or {}
    word = "Ready" if ready_condition(item) else "NotReady"
    if spec(item).get("unschedulable"):
        word += ",SchedulingDisabled"
    cells = [name_of(item), word, roles(item), age_of(item, now), info.get("kubeletVersion", "")]
    if wide:
        addresses = {one.get("type"): one.get("address") for one in reversed(status(item).get("addresses") or ())}
        more = [info.get(key) or "<unknown>" for key in ("osImage", "kernelVersion", "containerRuntimeVersion")]
        cells += [addresses.get("InternalIP") or NONE, addresses.get("ExternalIP") or NONE, *more]
    return cells


def roles(item: Json) -> str:
    """ROLES of a node, from its labels."""
    found = set()
    for key, value in (meta(item).get("labels") or {}).items():
        if key.startswith("node-role.kubernetes.io/"):
            found.add(key.removeprefix("node-role.kubernetes.io/"))
        elif key == "kubernetes.io/role" and value:
            found.add(value)
    return ",".join(sorted(found - {""})) or NONE


def wide_workload(item: Json) -> Cells:
    """CONTAINERS IMAGES SELECTOR of a workload."""
    containers = ((spec(item).get("template") or {}).get("spec") or {}).get("containers") or ()
    wanted = spec(item).get("selector") or {}
    shown = pairs(wanted) if item.get("kind") == "ReplicationController" else selector(wanted)
    return [",".join(one.get("name", "") for one in containers), ",".join(one.get("image", "") for one in containers), shown]


def counts(source: Json, *keys: str) -> Cells:
    return [str(source.get(key) or 0) for key in keys]


def replica_cells(item: Json, now: datetime, wide: bool) -> Cells:
    cells = [
        name_of(item),
        *counts(spec(item), "replicas"),
        *counts(status(item), "replicas", "readyReplicas"),
        age_of(item, now),
    ]
    return [*cells, *wide_workload(item)] if wide else cells


def deployment_cells(item: Json, now: datetime, wide: bool) -> Cells:
    ready = f"{status(item).get('readyReplicas') or 0}/{spec(item).get('replicas') or 0}"
    cells = [name_of(item), ready, *counts(status(item), "updatedReplicas", "availableReplicas"), age_of(item, now)]
    return [*cells, *wide_workload(item)] if wide else cells


def daemonset_cells(item: Json, now: datetime, wide: bool) -> Cells:
    numbers = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady", "updatedNumberScheduled", "numberAvailable")
    pod_spec = (spec(item).get("template") or {}).get("spec") or {}
    cells = [name_of(item), *counts(status(item), *numbers), pairs(pod_spec.get("nodeSelector")), age_of(item, now)]
    return [*cells, *wide_workload(item)] if wide else cells


def statefulset_cells(item: Json, now: datetime, wide: bool) -> Cells:
    ready = f"{status(item).get('readyReplicas') or 0}/{spec(item).get('replicas') or 0}"
    cells = [name_of(item), ready, age_of(item, now)]
    return [*cells, *wide_workload(item)[:2]] if wide else cells


def job_cells(item: Json, now: datetime, wide: bool) -> Cells:
    done = status(item).get("succeeded") or 0
    parallelism = spec(item).get("parallelism") or 0
    wanted = spec(item).get("completions")
    if wanted is None:
        wanted = f"1 of {parallelism}" if parallelism > 1 else "1"
    begun, ended = status(item).get("startTime"), status(item).get("completionTime")
    took = since(begun, datetime.fromisoformat(str(ended).replace("Z", "+00:00")) if ended else now) if begun else ""
    cells = [name_of(item), job_status(item), f"{done}/{wanted}", took, age_of(item, now)]
    return [*cells, *wide_workload(item)] if wide else cells


def job_status(item: Json) -> str:
    """STATUS of a Job: Complete, Failed, Suspended or Running."""
    holding = [one.get("type") for one in status(item).get("conditions") or () if one.get("status") == "True"]
    return next((str(word) for word in ("Complete", "Failed", "Suspended") if word in holding), "Running")


def namespace_cells(item: Json, now: datetime, wide: bool) -> Cells:
    return [name_of(item), str(status(item).get("phase", "Active")), age_of(item, now)]


def policy_cells(item: Json, now: datetime, wide: bool) -> Cells:
    return [name_of(item), selector(spec(item).get("podSelector")), age_of(item, now)]


def data_cells(item: Json, now: datetime, wide: bool) -> Cells:
    return [name_of(item), str(len(item.get("data") or {}) + len(item.get("binaryData") or {})), age_of(item, now)]


def ingress_cells(item: Json, now: datetime, wide: bool) -> Cells:
    hosts = [rule.get("host") or "*" for rule in spec(item).get("rules") or ()]
    shown = ",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "") or "*"
    ports = "80, 443" if spec(item).get("tls") else "80"
    name = spec(item).get("ingressClassName") or NONE
    return [name_of(item), name, shown, balanced_at(item, wide), ports, age_of(item, now)]


def balanced_at(item: Json, wide: bool = False) -> str:
    """The addresses in a status' loadBalancer, as kubectl shortens them."""
    given = (status(item).get("loadBalancer") or {}).get("ingress") or ()
    shown = ",".join(sorted({one.get("ip") or one.get("hostname", "") for one in given}))
    return shown[:13] + "..." if len(shown) > 16 and not wide else shown


def class_cells(item: Json, now: datetime, wide: bool) -> Cells:
    return [name_of(item), str(spec(item).get("controller") or ""), NONE, age_of(item, now)]


def secret_cells(item: Json, now: datetime, wide: bool) -> Cells:
    data = {**(item.get("data") or {}), **(item.get("stringData") or {})}
    return [name_of(item), str(item.get("type") or "Opaque"), str(len(data)), age_of(item, now)]


def host_cells(item: Json, now: datetime, wide: bool) -> Cells:
    addresses = (one.get("address", "") if isinstance(one, Mapping) else str(one) for one in status(item).get("addresses") or ())
    routes = (f"{to} via {gateway}" for to, gateway in (spec(item).get("routes") or {}).items())
    return [name_of(item), ",".join(addresses) or NONE, ", ".join(routes) or NONE]


def event_cells(item: Json, now: datetime, wide: bool) -> Cells:
    what = item.get("involvedObject") or {}
    last = [since(item.get("lastTimestamp"), now), str(item.get("type")), str(item.get("reason"))]
    said, subject = str(item.get("message")).strip(), f"{str(what.get('kind')).lower()}/{what.get('name')}"
    if not wide:
        return [*last, subject, said]
    source = item.get("source") or {}
    by = ", ".join(str(source[key]) for key in ("component", "host") if source.get(key))
    first = since(item.get("firstTimestamp"), now)
    return [*last, subject, "", by, said, first, str(item.get("count") or 1), name_of(item)]


WORKLOAD_WIDE = ("CONTAINERS", "IMAGES", "SELECTOR")
REPLICAS = Columns(("NAME", "DESIRED", "CURRENT", "READY", "AGE"), WORKLOAD_WIDE, replica_cells)
KINDS: dict[str, Columns] = {
    "Pod": Columns(
        ("NAME", "READY", "STATUS", "RESTARTS", "AGE"), ("IP", "NODE", "NOMINATED NODE", "READINESS GATES"), pod_cells
    ),
    "Service": Columns(("NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"), ("SELECTOR",), service_cells),
    "Event": Columns(("LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"), (), event_cells),
    "Endpoints": Columns(("NAME", "ENDPOINTS", "AGE"), (), endpoints_cells),
    "EndpointSlice": Columns(("NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE"), (), slice_cells),
    "Node": Columns(
        ("NAME", "STATUS", "ROLES", "AGE", "VERSION"),
        ("INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION", "CONTAINER-RUNTIME"),
        node_cells,
    ),
    "ReplicationController": REPLICAS,
    "ReplicaSet": REPLICAS,
    "Deployment": Columns(("NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"), WORKLOAD_WIDE, deployment_cells),
    "DaemonSet": Columns(
        ("NAME", "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR", "AGE"), WORKLOAD_WIDE, daemonset_cells
    ),
    "StatefulSet": Columns(("NAME", "READY", "AGE"), ("CONTAINERS", "IMAGES"), statefulset_cells),
    "Job": Columns(("NAME", "STATUS", "COMPLETIONS", "DURATION", "AGE"), WORKLOAD_WIDE, job_cells),
    "Namespace": Columns(("NAME", "STATUS", "AGE"), (), namespace_cells),
    "NetworkPolicy": Columns(("NAME", "POD-SELECTOR", "AGE"), (), policy_cells),
    "Ingress": Columns(("NAME", "CLASS", "HOSTS", "ADDRESS", "PORTS", "AGE"), (), ingress_cells),
    "IngressClass": Columns(("NAME", "CONTROLLER", "PARAMETERS", "AGE"), (), class_cells),
    "Secret": Columns(("NAME", "TYPE", "DATA", "AGE"), (), secret_cells),
    "ConfigMap": Columns(("NAME", "DATA", "AGE"), (), data_cells),
    "Host": Columns(("NAME", "ADDRESSES", "ROUTES"), (), host_cells),
}
