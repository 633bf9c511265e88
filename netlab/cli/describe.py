"""Kubernetes JSON -> what `kubectl describe` prints. Pure; the objects that a description also shows are given in Related.

Each kind yields kubectl's own lines with tabs between the cells (kubectl pkg/describe/describe.go); `columns` then lays them
out as its tabwriter does: cells of adjoining lines share a width, two spaces apart.

Over 400 lines: one function a kind, and the kinds share nothing but their head.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from netlab.cli.tables import NONE, Json, balanced_at, few, host, meta, name_of, pairs, roles, selector, since, spec, status

Lines = Iterator[str]


@dataclass(frozen=True, slots=True)
class Related:
    """Objects beside the one described: its Service's slices, a node's or a workload's pods, a Deployment's ReplicaSets."""

    now: datetime
    slices: Sequence[Json] = ()
    pods: Sequence[Json] = ()
    replicasets: Sequence[Json] = ()
    links: Sequence[Json] = ()
    """Its links as the kernel has them, of nodes and pods."""
    services: Sequence[Json] = ()
    problems: Sequence[str] = ()
    events: Sequence[Json] = ()
    """What was recorded of it, in the order of time."""


def text(item: Json, related: Related) -> str:
    describe = KINDS.get(str(item.get("kind")), other)
    return columns([*describe(item, related)])


def columns(lines: Sequence[str], padding: int = 2) -> str:
    """Tab-separated lines with the tabs expanded as Go's text/tabwriter does; the last cell of a line is not padded."""
    cells = [line.split("\t") for line in lines]
    widths = [[0] * len(row) for row in cells]

    def block(start: int, end: int, column: int) -> None:
        while start < end:
            stop = start
            while stop < end and column < len(cells[stop]) - 1:
                stop += 1
            if stop == start:
                start += 1
                continue
            width = max(len(cells[at][column]) for at in range(start, stop)) + padding
            for at in range(start, stop):
                widths[at][column] = width
            block(start, stop, column + 1)
            start = stop

    block(0, len(cells), 0)
    laid = (
        "".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)) for row, wide in zip(cells, widths, strict=True)
    )
    return "".join(line + "\n" for line in laid)


# ---------------------------------------------------------------- parts that kinds share


def labelled(title: str, labels: Json | None, separator: str = "=") -> Lines:
    """One label a line, the title on the first."""
    if not labels:
        yield f"{title}\t{NONE}"
    for at, (key, value) in enumerate(sorted((labels or {}).items())):
        yield f"{title if not at else ''}\t{key}{separator}{value}"


def head(item: Json, namespaced: bool = True) -> Lines:
    yield f"Name:\t{name_of(item)}"
    if namespaced:
        yield f"Namespace:\t{meta(item).get('namespace', '')}"


def labels_of(item: Json) -> Lines:
    yield from labelled("Labels:", meta(item).get("labels"))
    notes = {key: value for key, value in (meta(item).get("annotations") or {}).items() if key != LAST_APPLIED}
    yield from labelled("Annotations:", notes, ": ")


LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def stamp(value: Any) -> str:
    """A time stamp as kubectl describes it: RFC 1123 with a numeric zone."""
    if not value:
        return "<unset>"
    return datetime.fromisoformat(str(value).replace("Z", "+00:00")).strftime("%a, %d %b %Y %H:%M:%S %z")


def controller(item: Json) -> Lines:
    for owner in meta(item).get("ownerReferences") or ():
        if owner.get("controller"):
            yield f"Controlled By:\t{owner.get('kind')}/{owner.get('name')}"


def events_of(related: Related) -> Lines:
    if not related.events:
        yield f"Events:\t{NONE}"
        return
    yield "Events:"
    yield "  Type\tReason\tAge\tFrom\tMessage"
    yield "  ----\t------\t----\t----\t-------"
    for one in related.events:
        last, first = (since(one.get(key), related.now) for key in ("lastTimestamp", "firstTimestamp"))
        age = f"{last} (x{one['count']} over {first})" if one.get("count", 1) > 1 else last
        who = (one.get("source") or {}).get("component", "")
        yield f"  {one.get('type')}\t{one.get('reason')}\t{age}\t{who}\t{str(one.get('message')).strip()}"


def truth(value: Any) -> str:
    return "True" if value else "False"


# ---------------------------------------------------------------- kinds


def service(item: Json, related: Related) -> Lines:
    what = spec(item)
    yield from head(item)
    yield from labels_of(item)
    yield f"Selector:\t{pairs(what.get('selector'))}"
    yield f"Type:\t{what.get('type', 'ClusterIP')}"
    if what.get("ipFamilyPolicy"):
        yield f"IP Family Policy:\t{what['ipFamilyPolicy']}"
    yield f"IP Families:\t{','.join(what.get('ipFamilies') or ()) or NONE}"
    yield f"IP:\t{what.get('clusterIP') or ''}"
    yield f"IPs:\t{','.join(what.get('clusterIPs') or ()) or NONE}"
    if what.get("externalIPs"):
        yield f"External IPs:\t{','.join(what['externalIPs'])}"
    if what.get("loadBalancerIP"):
        yield f"Desired LoadBalancer IP:\t{what['loadBalancerIP']}"
    if what.get("externalName"):
        yield f"External Name:\t{what['externalName']}"
    ingress = (status(item).get("loadBalancer") or {}).get("ingress") or ()
    if ingress:
        yield f"LoadBalancer Ingress:\t{', '.join(one.get('ip') or one.get('hostname', '') for one in ingress)}"
    for port in what.get("ports") or ():
        yield from service_port(port, related)
    yield f"Session Affinity:\t{what.get('sessionAffinity', 'None')}"
    if what.get("externalTrafficPolicy"):
        yield f"External Traffic Policy:\t{what['externalTrafficPolicy']}"
    if what.get("internalTrafficPolicy"):
        yield f"Internal Traffic Policy:\t{what['internalTrafficPolicy']}"
    if what.get("healthCheckNodePort"):
        yield f"HealthCheck NodePort:\t{what['healthCheckNodePort']}"
    if what.get("loadBalancerSourceRanges"):
        yield f"LoadBalancer Source Ranges:\t{','.join(what['loadBalancerSourceRanges'])}"
    conditions = status(item).get("conditions") or ()
    if conditions:
        yield "Events:"
        yield "  Type\tReason\tFrom\tMessage"
        for one in conditions:
            kind = "Normal" if one["status"] == "True" else "Warning"
            yield f"  {kind}\t{one['reason']}\tload-balancer\t{one['message']}"
    else:
        yield f"Events:\t{NONE}"


def service_port(port: Json, related: Related) -> Lines:
    name, protocol = port.get("name") or "<unset>", port.get("protocol", "TCP")
    yield f"Port:\t{name}\t{port['port']}/{protocol}"
    yield f"TargetPort:\t{port.get('targetPort') or port['port']}/{protocol}"
    if port.get("nodePort"):
        yield f"NodePort:\t{name}\t{port['nodePort']}/{protocol}"
    yield f"Endpoints:\t{few(service_endpoints(port, related), '') if related.slices else NONE}"


def service_endpoints(port: Json, related: Related) -> list[str]:
    """IP:PORT of the ready endpoints of one Service port."""
    found = []
    for one in related.slices:
        for slice_port in one.get("ports") or ():
            if (slice_port.get("name") or "") == (port.get("name") or "") and slice_port.get("port"):
                ready = (end for end in one.get("endpoints") or () if (end.get("conditions") or {}).get("ready") is not False)
                found += [f"{host(address)}:{slice_port['port']}" for end in ready for address in end.get("addresses") or ()]
    return found


def pod(item: Json, related: Related) -> Lines:
    what, now = spec(item), status(item)
    yield from head(item)
    place = f"{what['nodeName']}/{now.get('hostIP', '')}" if what.get("nodeName") else NONE
    yield f"Node:\t{place}"
    if now.get("startTime"):
        yield f"Start Time:\t{stamp(now['startTime'])}"
    yield from labels_of(item)
    if meta(item).get("deletionTimestamp"):
        yield f"Status:\tTerminating (lasts {since(meta(item)['deletionTimestamp'], related.now)})"
        yield f"Termination Grace Period:\t{meta(item).get('deletionGracePeriodSeconds', 0)}s"
    else:
        yield f"Status:\t{now.get('phase', '')}"
    for key in ("reason", "message"):
        if now.get(key):
            yield f"{key.title()}:\t{now[key]}"
    yield f"IP:\t{now.get('podIP', '')}"
    ips = now.get("podIPs") or ()
    yield from ["IPs:", *(f"  IP:\t{one.get('ip')}" for one in ips)] if ips else [f"IPs:\t{NONE}"]
    yield from controller(item)
    for title, key, statuses in (
        ("Init Containers:", "initContainers", "initContainerStatuses"),
        ("Containers:", "containers", "containerStatuses"),
    ):
        states = {one.get("name"): one for one in now.get(statuses) or ()}
        yield from [title] if what.get(key) else ()
        for one in what.get(key) or ():
            yield f"  {one.get('name')}:"
            yield from (f"    {line}" for line in container(one, states.get(one.get("name"))))
    if now.get("conditions"):
        yield "Conditions:"
        yield "  Type\tStatus"
        yield from (f"  {one.get('type')} \t{one.get('status')} " for one in now["conditions"])
    yield from volumes(what)
    yield f"QoS Class:\t{now.get('qosClass') or 'BestEffort'}"
    yield from labelled("Node-Selectors:", what.get("nodeSelector"))
    yield from tolerations(what)
    yield from impaired(related)
    yield from events_of(related)


def impaired(related: Related) -> Lines:
    """Not kubectl's: links that delay, lose or slow down packets on purpose; nothing where there are none."""
    from netlab.cli.kernel_objects import impairment

    rows = [(one["ifname"], impairment(one["impairment"])) for one in related.links if one.get("impairment")]
    yield from (f"{'Impaired Links:' if not at else ''}\t{name}: {words}" for at, (name, words) in enumerate(rows))


def container(one: Json, state: Json | None) -> Lines:
    """One container; `state` None in a pod template and before the pod runs."""
    if state is not None:
        yield f"Container ID:\t{state.get('containerID', '')}"
    yield f"Image:\t{one.get('image', '')}"
    if state is not None:
        yield f"Image ID:\t{state.get('imageID', '')}"
    ports = one.get("ports") or ()
    own_ports = ", ".join(f"{port['containerPort']}/{port.get('protocol', 'TCP')}" for port in ports)
    yield f"Port{'s' * (len(ports) > 1)}:\t{own_ports or NONE}"
    host_ports = ", ".join(f"{port.get('hostPort', 0)}/{port.get('protocol', 'TCP')}" for port in ports)
    yield f"Host Port{'s' * (len(ports) > 1)}:\t{host_ports or NONE}"
    for title, key in (("Command", "command"), ("Args", "args")):
        if one.get(key):
            yield f"{title}:"
            yield from (f"  {line}" for word in one[key] for line in str(word).split("\n"))
    if state is not None:
        yield from state_lines("State", state.get("state") or {"waiting": {}})
        if state.get("lastState"):
            yield from state_lines("Last State", state["lastState"])
        yield f"Ready:\t{truth(state.get('ready'))}"
        yield f"Restart Count:\t{state.get('restartCount', 0)}"
    for title, key in (("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")):
        if one.get(key):
            yield f"{title}:\t{probe(one[key])}"
    if one.get("envFrom"):
        yield "Environment Variables from:"
        yield from (f"  {line}" for line in map(env_from, one["envFrom"]))
    env = one.get("env") or ()
    yield from (
        ["Environment:", *(f"  {var.get('name')}:\t{env_value(var)}" for var in env)] if env else [f"Environment:\t{NONE}"]
    )
    mounts = one.get("volumeMounts") or ()
    if not mounts:
        yield f"Mounts:\t{NONE}"
    else:
        yield "Mounts:"
        yield from (f"  {m.get('mountPath')} from {m.get('name')} ({'ro' if m.get('readOnly') else 'rw'})" for m in mounts)


def env_from(what: Json) -> str:
    given, kind = what.get("configMapRef") or what.get("secretRef") or {}, "ConfigMap" if what.get("configMapRef") else "Secret"
    prefix = f" with prefix '{what['prefix']}'" if what.get("prefix") else ""
    return f"{given.get('name')}\t{kind}{prefix}\tOptional: {truth(given.get('optional')).lower()}"


def env_value(variable: Json) -> str:
    """A variable's value, or in kubectl's words where it comes from."""
    source = variable.get("valueFrom") or {}
    if field := source.get("fieldRef"):
        return f" ({field.get('apiVersion') or 'v1'}:{field.get('fieldPath')})"
    for key, words in (("configMapKeyRef", "of config map"), ("secretKeyRef", "in secret")):
        if given := source.get(key):
            optional = truth(given.get("optional")).lower()
            return f"<set to the key '{given.get('key')}' {words} '{given.get('name')}'>\tOptional: {optional}"
    return str(variable.get("value", ""))


def state_lines(title: str, state: Json) -> Lines:
    for word in ("running", "waiting", "terminated"):
        if state.get(word) is not None:
            inside = state[word]
            yield f"{title}:\t{word.title()}"
            if inside.get("reason"):
                yield f"  Reason:\t{inside['reason']}"
            if inside.get("message"):
                yield f"  Message:\t{inside['message']}"
            if word == "terminated":
                yield f"  Exit Code:\t{inside.get('exitCode', 0)}"
            for key, name in (("startedAt", "Started"), ("finishedAt", "Finished")):
                if key in inside:
                    yield f"  {name}:\t{stamp(inside[key])}"
            return


def probe(what: Json) -> str:
    times = (("delay", "initialDelaySeconds", 0), ("timeout", "timeoutSeconds", 1), ("period", "periodSeconds", 10))
    tail = " ".join(f"{word}={what.get(key, default)}s" for word, key, default in times)
    tail += f" #success={what.get('successThreshold', 1)} #failure={what.get('failureThreshold', 3)}"
    if what.get("httpGet") is not None:
        get = what["httpGet"]
        scheme = str(get.get("scheme", "HTTP")).lower()
        return f"http-get {scheme}://{get.get('host', '')}:{get.get('port')}{get.get('path', '/')} {tail}"
    if what.get("tcpSocket") is not None:
        return f"tcp-socket {what['tcpSocket'].get('host', '')}:{what['tcpSocket'].get('port')} {tail}"
    return f"exec {(what.get('exec') or {}).get('command', [])} {tail}"


def volumes(what: Json) -> Lines:
    if not what.get("volumes"):
        yield f"Volumes:\t{NONE}"
        return
    yield "Volumes:"
    for one in what["volumes"]:
        yield f"  {one.get('name')}:"
        yield f"    Type:\t{next((key for key in one if key != 'name'), 'emptyDir')}"


def tolerations(what: Json) -> Lines:
    given = what.get("tolerations") or ()
    if not given:
        yield f"Tolerations:\t{NONE}"
    for at, one in enumerate(given):
        value = f"={one['value']}" if one.get("value") else ""
        effect = f":{one['effect']}" if one.get("effect") else ""
        exists = " op=Exists" if one.get("operator") == "Exists" else ""
        wait = f" for {one['tolerationSeconds']}s" if one.get("tolerationSeconds") is not None else ""
        yield f"{'Tolerations:' if not at else ''}\t{one.get('key', '')}{value}{effect}{exists}{wait}"


def node(item: Json, related: Related) -> Lines:
    what, now = spec(item), status(item)
    yield from head(item, namespaced=False)
    yield f"Roles:\t{roles(item)}"
    yield from labels_of(item)
    yield f"CreationTimestamp:\t{stamp(meta(item).get('creationTimestamp'))}"
    taints = [
        f"{one['key']}{'=' + one['value'] if one.get('value') else ''}:{one.get('effect')}" for one in what.get("taints") or ()
    ]
    yield from (f"{'Taints:' if not at else ''}\t{one}" for at, one in enumerate(taints or [NONE]))
    yield f"Unschedulable:\t{str(bool(what.get('unschedulable'))).lower()}"
    if now.get("conditions"):
        yield "Conditions:"
        yield "  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage"
        yield "  ----\t------\t-----------------\t------------------\t------\t-------"
        for one in now["conditions"]:
            times = f"{stamp(one.get('lastHeartbeatTime'))} \t{stamp(one.get('lastTransitionTime'))}"
            yield f"  {one.get('type')} \t{one.get('status')} \t{times} \t{one.get('reason', '')} \t{one.get('message', '')}"
    yield "Addresses:"
    yield from (f"  {one.get('type')}:\t{one.get('address')}" for one in now.get("addresses") or ())
    for title in ("capacity", "allocatable"):
        if now.get(title):
            yield f"{title.title()}:"
            yield from (f"  {key}:\t{value}" for key, value in sorted(now[title].items()))
    yield from system_info(now.get("nodeInfo") or {})
    if what.get("podCIDR"):
        yield f"PodCIDR:\t{what['podCIDR']}"
    if what.get("podCIDRs"):
        yield f"PodCIDRs:\t{','.join(what['podCIDRs'])}"
    pods = [one for one in related.pods if status(one).get("phase") not in ("Succeeded", "Failed")]
    yield f"Non-terminated Pods:\t({len(pods)} in total)"
    names = ("Namespace", "Name", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits", "Age")
    yield "  " + "\t".join([*names[:2], "", *names[2:]])
    yield "  " + "\t".join("-" * len(name) for name in [*names[:2], "", *names[2:]])
    for one in pods:
        cells = [
            meta(one).get("namespace", ""),
            name_of(one),
            "",
            *["0 (0%)"] * 4,
            since(meta(one).get("creationTimestamp"), related.now),
        ]
        yield "  " + "\t".join(cells)
    yield "Allocated resources:"
    yield "  (Total limits may be over 100 percent, i.e., overcommitted.)"
    yield "  Resource\tRequests\tLimits"
    yield "  --------\t--------\t------"
    yield from (f"  {resource}\t0 (0%)\t0 (0%)" for resource in ("cpu", "memory", "ephemeral-storage"))
    yield from impaired(related)
    yield from events_of(related)


def system_info(info: Json) -> Lines:
    yield "System Info:"
    yield f"  Machine ID:\t{info.get('machineID', '')}"
    yield f"  System UUID:\t{info.get('systemUUID', '')}"
    yield f"  Boot ID:\t{info.get('bootID', '')}"
    yield f"  Kernel Version:\t{info.get('kernelVersion', '')}"
    yield f"  OS Image:\t{info.get('osImage', '')}"
    yield f"  Operating System:\t{info.get('operatingSystem', '')}"
    yield f"  Architecture:\t{info.get('architecture', '')}"
    yield f"  Container Runtime Version:\t{info.get('containerRuntimeVersion', '')}"
    yield f"  Kubelet Version:\t{info.get('kubeletVersion', '')}"
    yield f"  Kube-Proxy Version:\t{info.get('kubeProxyVersion', '')}"


def workload(item: Json, related: Related) -> Lines:
    """ReplicationController, ReplicaSet, Deployment, DaemonSet and StatefulSet."""
    what, now, kind = spec(item), status(item), item.get("kind")
    wanted = pairs(what.get("selector")) if kind == "ReplicationController" else selector(what.get("selector"))
    yield from head(item, namespaced=kind != "DaemonSet")
    if kind in ("Deployment", "StatefulSet"):
        yield f"CreationTimestamp:\t{stamp(meta(item).get('creationTimestamp'))}"
    if kind == "Deployment":
        yield from labels_of(item)
    yield f"Selector:\t{wanted}"
    if kind == "DaemonSet":
        yield f"Node-Selector:\t{pairs(((what.get('template') or {}).get('spec') or {}).get('nodeSelector'))}"
    if kind != "Deployment":
        yield from labels_of(item)
        yield from controller(item)
    match kind:
        case "Deployment":
            yield from rollout(what, now)
        case "DaemonSet":
            yield f"Desired Number of Nodes Scheduled: {now.get('desiredNumberScheduled', 0)}"
            yield f"Current Number of Nodes Scheduled: {now.get('currentNumberScheduled', 0)}"
            yield f"Number of Nodes Scheduled with Up-to-date Pods: {now.get('updatedNumberScheduled', 0)}"
            yield f"Number of Nodes Scheduled with Available Pods: {now.get('numberAvailable', 0)}"
            yield f"Number of Nodes Misscheduled: {now.get('numberMisscheduled', 0)}"
        case "StatefulSet":
            yield f"Replicas:\t{what.get('replicas', 0)} desired | {now.get('replicas', 0)} total"
            yield f"Update Strategy:\t{(what.get('updateStrategy') or {}).get('type', 'RollingUpdate')}"
            update = (what.get("updateStrategy") or {}).get("rollingUpdate")
            if update:
                yield f"  Partition:\t{update.get('partition', 0)}"
        case _:
            yield f"Replicas:\t{now.get('replicas', 0)} current / {what.get('replicas', 0)} desired"
    if kind != "Deployment":
        phases = [status(one).get("phase") for one in related.pods]
        number = {word: phases.count(word) for word in ("Running", "Pending", "Succeeded", "Failed")}
        running = f"{number['Running']} Running / {number['Pending']} Waiting"
        yield f"Pods Status:\t{running} / {number['Succeeded']} Succeeded / {number['Failed']} Failed"
    yield from template(what.get("template") or {})
    if kind == "Deployment":
        yield f"OldReplicaSets:\t{sets(related.replicasets, current=False)}"
        yield f"NewReplicaSet:\t{sets(related.replicasets, current=True)}"
    yield from events_of(related)


def job(item: Json, related: Related) -> Lines:
    what, now = spec(item), status(item)
    yield from head(item)
    yield f"Selector:\t{selector(what.get('selector'))}"
    yield from labels_of(item)
    yield from controller(item)
    yield f"Parallelism:\t{what.get('parallelism', 1)}"
    yield f"Completions:\t{what.get('completions', '<unset>')}"
    yield f"Completion Mode:\t{what.get('completionMode', 'NonIndexed')}"
    yield f"Suspend:\t{str(bool(what.get('suspend'))).lower()}"
    yield f"Backoff Limit:\t{what.get('backoffLimit', 6)}"
    for title, key in (("Start Time", "startTime"), ("Completed At", "completionTime")):
        if now.get(key):
            yield f"{title}:\t{stamp(now[key])}"
    if now.get("startTime") and now.get("completionTime"):
        ended = datetime.fromisoformat(str(now["completionTime"]).replace("Z", "+00:00"))
        yield f"Duration:\t{since(now['startTime'], ended)}"
    if what.get("activeDeadlineSeconds"):
        yield f"Active Deadline Seconds:\t{what['activeDeadlineSeconds']}s"
    active = f"{now.get('active', 0)} Active ({now.get('ready', 0)} Ready)"
    yield f"Pods Statuses:\t{active} / {now.get('succeeded', 0)} Succeeded / {now.get('failed', 0)} Failed"
    yield from template(what.get("template") or {})
    yield from events_of(related)


def rollout(what: Json, now: Json) -> Lines:
    total, ready = now.get("replicas", 0), now.get("availableReplicas", 0)
    numbers = f"{what.get('replicas', 0)} desired | {now.get('updatedReplicas', 0)} updated | {total} total"
    yield f"Replicas:\t{numbers} | {ready} available | {now.get('unavailableReplicas', 0)} unavailable"
    strategy = what.get("strategy") or {}
    yield f"StrategyType:\t{strategy.get('type', 'RollingUpdate')}"
    yield f"MinReadySeconds:\t{what.get('minReadySeconds', 0)}"
    if strategy.get("rollingUpdate"):
        update = strategy["rollingUpdate"]
        surge = f"{update.get('maxSurge', '25%')} max surge"
        yield f"RollingUpdateStrategy:\t{update.get('maxUnavailable', '25%')} max unavailable, {surge}"


def template(what: Json) -> Lines:
    yield "Pod Template:"
    yield from (f"  {line}" for line in labelled("Labels:", meta(what).get("labels")))
    yield "  Containers:"
    inner = spec(what)
    for one in inner.get("containers") or ():
        yield f"   {one.get('name')}:"
        yield from (f"    {line}" for line in container(one, None))
    yield from (f"  {line}" for line in volumes(inner))
    yield from (f"  {line}" for line in labelled("Node-Selectors:", inner.get("nodeSelector")))
    yield from (f"  {line}" for line in tolerations(inner))


def sets(replicasets: Sequence[Json], current: bool) -> str:
    """The newest ReplicaSet of a Deployment (by revision), or the others that still have pods."""

    def revision(one: Json) -> int:
        return int((meta(one).get("annotations") or {}).get("deployment.kubernetes.io/revision", 0))

    ordered = sorted(replicasets, key=revision)
    chosen = ordered[-1:] if current else [one for one in ordered[:-1] if spec(one).get("replicas")]
    made = (
        f"{name_of(one)} ({status(one).get('replicas', 0)}/{spec(one).get('replicas', 0)} replicas created)" for one in chosen
    )
    return ", ".join(made) or NONE


def endpoints(item: Json, related: Related) -> Lines:
    yield from head(item)
    yield from labels_of(item)
    yield "Subsets:"
    for one in item.get("subsets") or ():
        yield f"  Addresses:\t{','.join(a.get('ip', '') for a in one.get('addresses') or ()) or NONE}"
        yield f"  NotReadyAddresses:\t{','.join(a.get('ip', '') for a in one.get('notReadyAddresses') or ()) or NONE}"
        yield from port_table(one.get("ports") or (), "  ")
        yield ""
    yield f"Events:\t{NONE}"


def port_table(ports: Sequence[Json], indent: str) -> Lines:
    if not ports:
        yield f"{indent}Ports:\t<unset>"
        return
    yield f"{indent}Ports:"
    yield f"{indent}  Name\tPort\tProtocol"
    yield f"{indent}  ----\t----\t--------"
    for one in ports:
        yield f"{indent}  {one.get('name') or '<unset>'}\t{one.get('port') or '<unset>'}\t{one.get('protocol', 'TCP')}"


def endpointslice(item: Json, related: Related) -> Lines:
    yield from head(item)
    yield from labels_of(item)
    yield f"AddressType:\t{item.get('addressType', '')}"
    yield from port_table(item.get("ports") or (), "")
    ends = item.get("endpoints") or ()
    yield from ["Endpoints:"] if ends else [f"Endpoints:\t{NONE}"]
    for one in ends:
        yield f"  - Addresses:\t{', '.join(one.get('addresses') or ())}"
        yield "    Conditions:"
        ready = (one.get("conditions") or {}).get("ready")
        yield f"      Ready:\t{'<unset>' if ready is None else str(ready).lower()}"
        yield f"    Hostname:\t{one.get('hostname') or '<unset>'}"
        if one.get("targetRef"):
            yield f"    TargetRef:\t{one['targetRef'].get('kind')}/{one['targetRef'].get('name')}"
        yield f"    NodeName:\t{one.get('nodeName') or '<unset>'}"
        yield f"    Zone:\t{one.get('zone') or '<unset>'}"
    yield f"Events:\t{NONE}"


def namespace(item: Json, related: Related) -> Lines:
    yield from head(item, namespaced=False)
    yield from labels_of(item)
    yield f"Status:\t{status(item).get('phase', 'Active')}"
    yield ""
    yield "No resource quota."
    yield ""
    yield "No LimitRange resource."


def ingress(item: Json, related: Related) -> Lines:
    what = spec(item)
    yield f"Name:\t{name_of(item)}"
    yield from labelled("Labels:", meta(item).get("labels"))
    yield f"Namespace:\t{meta(item).get('namespace', '')}"
    yield f"Address:\t{balanced_at(item, wide=True)}"
    yield f"Ingress Class:\t{what.get('ingressClassName') or NONE}"
    default = what.get("defaultBackend")
    shown = f"{backend_word(default)} ({backend_ends(default, related)})" if default else "<default>"
    yield f"Default backend:\t{shown}"
    if what.get("tls"):
        yield "TLS:"
    for tls in what.get("tls") or ():
        hosts = ",".join(tls.get("hosts") or ()) or NONE
        yield f"  {tls.get('secretName') or 'SNI routes'} terminates {hosts}"
    yield "Rules:"
    yield "  Host\tPath\tBackends"
    yield "  ----\t----\t--------"
    for rule in what.get("rules") or ():
        yield f"  {rule.get('host') or '*'}\t"
        for path in (rule.get("http") or {}).get("paths") or ():
            backend = path.get("backend") or {}
            yield f"  \t{path.get('path') or '/'} \t{backend_word(backend)} ({backend_ends(backend, related)})"
    if not what.get("rules"):
        yield f"  *\t*\t{shown}"
    notes = {key: value for key, value in (meta(item).get("annotations") or {}).items() if key != LAST_APPLIED}
    yield from labelled("Annotations:", notes, ": ")
    if related.problems:
        yield "Events:"
        yield "  Type\tReason\tFrom\tMessage"
        yield "  ----\t------\t----\t-------"
        yield from (f"  Warning\tRoute\tingress-controller\t{one.partition(': ')[2]}" for one in related.problems)
    else:
        yield f"Events:\t{NONE}"


def backend_word(backend: Json) -> str:
    """`web:80`, as kubectl names a backend."""
    if resource := backend.get("resource"):
        return f"APIGroup: {resource.get('apiGroup', '')}, Kind: {resource.get('kind')}, Name: {resource.get('name')}"
    port = (backend.get("service") or {}).get("port") or {}
    return f"{(backend.get('service') or {}).get('name')}:{port.get('name') or port.get('number')}"


def backend_ends(backend: Json, related: Related) -> str:
    """The ready endpoints of a backend's Service, three at most."""
    given = backend.get("service") or {}
    name, wanted = given.get("name"), given.get("port") or {}
    service = next((one for one in related.services if name_of(one) == name), None)
    if service is None:
        return f'<error: services "{name}" not found>' if name else NONE
    port = next((p for p in spec(service).get("ports") or () if wanted in ({"number": p["port"]}, {"name": p.get("name")})), None)
    if port is None:
        return NONE
    found = [
        f"[{address}]:{one.get('port')}" if ":" in address else f"{address}:{one.get('port')}"
        for part in related.slices
        if (meta(part).get("labels") or {}).get("kubernetes.io/service-name") == name
        for one in part.get("ports") or ()
        if (one.get("name") or "") == (port.get("name") or "")
        for end in part.get("endpoints") or ()
        if (end.get("conditions") or {}).get("ready") is not False
        for address in end.get("addresses") or ()
    ]
    return few(found) if found else ""


def ingressclass(item: Json, related: Related) -> Lines:
    yield from head(item, namespaced=False)
    yield from labels_of(item)
    yield f"Controller:\t{spec(item).get('controller', '')}"
    if given := spec(item).get("parameters"):
        yield "Parameters:"
        keys = (("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name"), ("Namespace", "namespace"))
        yield from (f"  {title}:\t{given[key]}" for title, key in keys if given.get(key))
    yield f"Events:\t{NONE}"


def configmap(item: Json, related: Related) -> Lines:
    yield from head(item)
    yield from labels_of(item)
    yield from data_title("Data")
    for key, value in sorted((item.get("data") or {}).items()):
        yield from (f"{key}:", "----", *str(value).split("\n"), "")
    yield from data_title("BinaryData")
    for key, value in sorted((item.get("binaryData") or {}).items()):
        yield f"{key}: {len(decoded(value))} bytes"
    yield ""
    yield f"Events:\t{NONE}"


def secret(item: Json, related: Related) -> Lines:
    """Sizes only: what is described is often shown to others."""
    yield from head(item)
    yield from labels_of(item)
    yield ""
    yield f"Type:\t{item.get('type') or 'Opaque'}"
    yield from data_title("Data")
    plain = {key: str(value).encode() for key, value in (item.get("stringData") or {}).items()}
    held = {key: decoded(value) for key, value in (item.get("data") or {}).items()} | plain
    yield from (f"{key}:\t{len(value)} bytes" for key, value in sorted(held.items()))


def data_title(title: str) -> Lines:
    yield from ("", title, "====")  # kubectl underlines every title alike


def decoded(value: Any) -> bytes:
    try:
        return base64.b64decode(str(value))
    except ValueError:
        return str(value).encode()


def other(item: Json, related: Related) -> Lines:
    """A kind without a description of its own: its head, then its fields as YAML."""
    import yaml

    yield from head(item)
    yield from labels_of(item)
    rest = {key: value for key, value in item.items() if key not in ("apiVersion", "kind", "metadata")}
    yield from yaml.safe_dump(rest, default_flow_style=False).splitlines() if rest else ()


KINDS: dict[str, Callable[[Json, Related], Lines]] = {
    "Service": service,
    "Pod": pod,
    "Node": node,
    "ReplicationController": workload,
    "ReplicaSet": workload,
    "Deployment": workload,
    "DaemonSet": workload,
    "StatefulSet": workload,
    "Job": job,
    "Endpoints": endpoints,
    "EndpointSlice": endpointslice,
    "Namespace": namespace,
    "Ingress": ingress,
    "IngressClass": ingressclass,
    "ConfigMap": configmap,
    "Secret": secret,
}
