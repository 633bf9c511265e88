"""netlab's own verbs, but for probing: each takes the lab and the request's JSON body and returns JSON, at once or later."""

from dataclasses import asdict, replace
from typing import Any

from netlab import controllers, manifest
from netlab.endpoints import Family, endpoints_of
from netlab.errors import ApiError, InputError, Problem
from netlab.images import runs_program
from netlab.lab import link_faults, routing_http
from netlab.lab.bodies import Body, Later
from netlab.lab.holder import Lab
from netlab.lab.naming import named, names_of
from netlab.lab.receiving import name_of, receivers
from netlab.manifest import kinds
from netlab.manifest.formats import label_key, label_value
from netlab.model import TAINT_EFFECTS, Cluster, Container, Key, KubernetesObject, Ref, Taint
from netlab.ops import Veth
from netlab.targets import netns_of, resolve_sender

FAULTS = (
    *(kind for kind in link_faults.FAULTS if kind != "restore"),
    "kill-pod",
    "kill-node",
    "partition",
    "heal",
    "flush-conntrack",
)


def apply(lab: Lab, body: Body) -> list[dict[str, str]]:
    """{"objects": [Kubernetes JSON]} -> what happened to each: created, configured or unchanged."""
    documents = {"apiVersion": "v1", "kind": "List", "items": list(body["objects"])}  # read together: they may name each other
    objects = manifest.object_from_json(documents).objects
    before = lab.now
    after = controllers.apply(before, objects)
    lab.change(after)
    done = [_applied(before, obj) for obj in objects]
    if any(one["kind"] == "Ingress" for one in done):
        said = routing_http.problems_by_ingress(lab.cluster)
        done = [
            {**one, "warning": "\n".join(said.get(Key(one["namespace"], one["name"]), ()))} if one["kind"] == "Ingress" else one
            for one in done
        ]
    return done


def _applied(before: Cluster, obj: KubernetesObject) -> dict[str, str]:
    of = {"kind": controllers.kind_of(obj), "namespace": obj.meta.namespace, "name": obj.meta.name}
    return {**of, "action": controllers.action(before, obj)}


def scale(lab: Lab, body: Body) -> dict[str, Any]:
    """{"kind", "name", "namespace", "replicas"}"""
    kind = kinds.find(body["kind"]).kind
    lab.change(controllers.scale(lab.now, kind, Key(body.get("namespace", "default"), body["name"]), int(body["replicas"])))
    return {"replicas": int(body["replicas"])}


def place(lab: Lab, body: Body) -> dict[str, Any]:
    """{"target", "namespace", "container"} -> where a program for it runs; the holder's pid is the client's to know."""
    ref = alive(lab, resolve_sender(lab.cluster, body["target"], body.get("namespace", "default")))
    found = lab.place(ref, _container_name(lab, ref, body))
    fd = lab.kernel.fds[netns_of(lab.cluster, ref)]
    return {**asdict(found), "target": str(ref), "fd": fd}


def _container_name(lab: Lab, ref: Ref, body: Body) -> str | None:
    return container_of(lab, ref, body.get("container")).name if ref.kind == "pod" else None


def container_of(lab: Lab, ref: Ref, name: str | None) -> Container:
    """The named container of a pod; without a name the first that has a command, or the first. Raises InputError."""
    pod = lab.cluster.pods[Key(ref.namespace, ref.name)]
    if name is None:
        return next((one for one in pod.spec.containers if runs_program(one)), pod.spec.containers[0])
    for one in pod.all_containers:
        if one.name == name:
            return one
    raise InputError(f"{ref} has no container {name!r}; it has {', '.join(one.name for one in pod.all_containers)}")


def endpoints(lab: Lab, body: Body) -> list[str]:
    """{"service", "namespace"} -> the names of its ready endpoints, as probe results name them."""
    text = body["service"].removeprefix("svc/").removeprefix("service/")
    namespace, _, name = text.rpartition("/")
    key = Key(namespace or body.get("namespace", "default"), name)
    service = lab.cluster.services.get(key)
    if service is None:
        raise ApiError(404, "NotFound", f'services "{name}" not found')
    names = receivers(lab.cluster)
    families: tuple[Family, ...] = service.ip_families or ("IPv4",)
    found = {
        name_of(endpoint.address, endpoint.port, names)
        for port in service.ports
        for family in families
        for endpoint in endpoints_of(lab.cluster, service, port, family)
        if endpoint.ready
    }
    return sorted(found)


def problems(lab: Lab, body: Body) -> list[str]:
    """{"ingress", "namespace"} -> what of this Ingress will not work, one sentence each."""
    return routing_http.problems_by_ingress(lab.cluster).get(Key(body.get("namespace", "default"), body["ingress"]), [])


def processes(lab: Lab, body: Body) -> dict[str, Any]:
    """The lab's processes by name, with their pids in the lab's pid namespace."""
    return {
        "agents": {**lab.agents.pids(), **lab.relays.pids(), **lab.ingresses.pids(), **lab.speaking.pids()},
        "daemons": lab.daemons.pids(),
        "containers": lab.processes.pids(),
    }


def fault(lab: Lab, body: Body) -> dict[str, Any]:
    """{"kind": one of FAULTS, or restore, "target": ..., and what link_faults.py takes}

    An answer to an impairment has "undo": what `restore` takes to lead back to before.
    """
    kind = body["kind"]
    if kind in link_faults.FAULTS:
        before = lab.cluster
        target, after = link_faults.FAULTS[kind](lab.now, lab.plan, body)
        lab.change(controllers.settle(after))  # who announces an address may follow from it
        return {"target": target, "undo": link_faults.undo_of(before, after)}
    namespace = body.get("namespace", "default")
    if kind == "heal" and not body.get("target"):
        pairs = [" and ".join(pair) for pair in sorted(lab.cluster.apart)]
        healed = [*(f"node/{name}" for name in _heal_all(lab)), *pairs]
        if pairs:
            lab.change(controllers.settle(lab.now.with_(apart=frozenset())))
        return {"target": ", ".join(healed)}
    if kind in ("partition", "heal") and (parted := link_faults.part(lab.now, lab.plan, body)) is not None:
        lab.change(controllers.settle(parted[1]))
        return {"target": parted[0]}
    if kind not in FAULTS:
        raise InputError(f"unknown fault {kind!r}: there is {', '.join(FAULTS)}")
    if not body.get("target"):
        raise InputError(f"{kind}: the target is missing")
    of_node = kind in ("kill-node", "partition", "heal") and "/" not in body["target"]
    ref = resolve_sender(lab.cluster, f"node/{body['target']}" if of_node else body["target"], namespace)
    match kind:
        case "kill-pod":
            if ref.kind != "pod":
                raise InputError(f"{ref} is no pod: kill-pod takes pod/NAME, or a workload's pod as deploy/NAME or rc/NAME@2")
            lab.change(controllers.delete(lab.now, "Pod", Key(ref.namespace, ref.name), "background", 0), grace_s=0)
        case "kill-node" | "partition" | "heal":
            if ref.kind != "node":
                raise InputError(f"{ref} is no node: {kind} takes node/NAME")
            if kind == "heal":
                _heal(lab, ref.name)
            else:
                lab.change(controllers.cut(lab.now, ref.name, kind == "kill-node"))
        case _:
            raise InputError(f"{kind} is a verb of its own: flush-conntrack")
    return {"target": str(ref)}


def _heal_all(lab: Lab) -> list[str]:
    names = [*lab.cluster.outages]
    for name in names:
        _heal(lab, name)
    return names


def _heal(lab: Lab, node: str) -> None:
    if node not in lab.cluster.outages:
        raise InputError(f"node/{node} is in reach; kill-node and partition are what heal undoes")
    lab.change(controllers.heal(lab.now, node))


def cordon(lab: Lab, body: Body) -> dict[str, Any]:
    """{"node", "unschedulable": bool} -> {"changed": bool}"""
    name = str(body["node"]).removeprefix("node/")
    node = lab.cluster.nodes.get(name)
    if node is None:
        raise ApiError(404, "NotFound", f'nodes "{name}" not found')
    wanted = bool(body["unschedulable"])
    if node.unschedulable == wanted:
        return {"changed": False}
    nodes = {**lab.cluster.nodes, name: replace(node, unschedulable=wanted)}
    lab.change(controllers.settle(lab.now.with_(nodes=nodes)))
    return {"changed": True}


def taint(lab: Lab, body: Body) -> dict[str, Any]:
    """{"node", "add": [{key, value, effect}], "remove": [{key, effect or ""}], "overwrite": bool} -> {}. All or nothing.

    Raises: ApiError in kubectl's words; InputError for what no taint can be.
    """
    name = str(body["node"]).removeprefix("node/")
    if name not in lab.cluster.nodes:
        raise ApiError(404, "NotFound", f'nodes "{name}" not found')
    given, removed = body.get("add") or (), body.get("remove") or ()
    wrong = [reason for one in given for reason in (label_key(one["key"]), label_value(one.get("value") or "")) if reason]
    effects = [*(one.get("effect") or "" for one in given), *(one["effect"] for one in removed if one.get("effect"))]
    valid = ", ".join(TAINT_EFFECTS)
    wrong += [f"{one or 'none'}: invalid taint effect, it is one of {valid}" for one in effects if one not in TAINT_EFFECTS]
    if wrong:
        raise InputError(tuple(map(Problem, wrong)))
    add = [Taint(one["key"], one["effect"], one.get("value") or "") for one in given]
    remove = [(one["key"], one.get("effect") or "") for one in removed]
    lab.change(controllers.taint(lab.now, name, add, remove, bool(body.get("overwrite"))))
    return {}


def alive(lab: Lab, ref: Ref) -> Ref:
    """The same target. Raises InputError where it is on a node that was killed: nothing runs there."""
    node = ref.name if ref.kind == "node" else lab.cluster.pods[Key(ref.namespace, ref.name)].node if ref.kind == "pod" else ""
    outage = lab.cluster.outages.get(node)
    if outage is not None and outage.killed:
        on = "" if ref.kind == "node" else f" is on node/{node}, which"
        raise InputError(f"{ref}{on} is dead (fault kill-node); `netlab fault heal node/{node}` brings it back")
    return ref


def down(lab: Lab, body: Body) -> dict[str, Any]:
    """End the lab, once this answer is on its way."""
    lab.loop.after(0.0, lab.loop.stop)
    return {}


# ---------------------------------------------------------------- later


def exec_(lab: Lab, body: Body, later: Later) -> None:
    """{"target", "command", "namespace", "timeout_s", "stdin"} -> {"returncode", "stdout", "stderr"}"""
    ref = alive(lab, resolve_sender(lab.cluster, body["target"], body.get("namespace", "default")))
    place_ = lab.place(ref, _container_name(lab, ref, body))
    lab.agents.work(later, "run", place_, list(body["command"]), body.get("stdin", ""), body.get("timeout_s"))


def wait_gone(lab: Lab, body: Body, later: Later) -> None:
    """{"namespace", "name", "uid"} -> {} as soon as this pod is gone (one of the same name may be there by then)."""
    key, uid = Key(body["namespace"], body["name"]), body["uid"]
    lab.when(lambda cluster: key not in cluster.pods or cluster.pods[key].meta.uid != uid, lambda: later(True, {}))


def observe(lab: Lab, body: Body, later: Later) -> None:
    """{"target", "what": links|addresses|routes|neighbours|rules|conntrack} -> what the kernel says there."""
    ref = resolve_sender(lab.cluster, body["target"], body.get("namespace", "default"))
    names = names_of(lab.cluster) if body["what"] == "conntrack" else None

    def seen(ok: bool, answer: Any) -> None:
        later(ok, [named(row, names) for row in answer] if ok and names is not None else answer)

    netns = netns_of(lab.cluster, ref)
    lab.agents.work(
        seen, "observe", lab.netns_path(netns), body["what"], _far_ends(lab, netns) if body["what"] == "links" else None
    )


def _far_ends(lab: Lab, netns: str) -> dict[str, tuple[str, str]]:
    """Device -> (what opens the namespace, device) at the other end of its link, of machines' and pods' own devices."""
    found = {}
    for op in lab.plan.ops.values():
        if isinstance(op, Veth) and op.netns == netns and op.peer_netns in lab.kernel.fds:
            found[op.device] = (lab.netns_path(op.peer_netns), op.peer_device)
    return found


def flush_conntrack(lab: Lab, body: Body, later: Later) -> None:
    """{"target": node} -> forget every connection there."""
    targets = [body["target"]] if body.get("target") else [f"node/{name}" for name in lab.cluster.nodes]
    paths = [lab.netns_path(netns_of(lab.cluster, resolve_sender(lab.cluster, target))) for target in targets]
    lab.agents.work(later, "flush_conntrack", paths)
