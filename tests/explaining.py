"""Hand-made evidence for the tests of `explain`: a cluster, its plan, and what the kernel would have shown of one packet."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from netlab import controllers, plan
from netlab.lab.inputs import read_inputs
from netlab.model import Cluster, Flow, Protocol, Ref
from netlab.ops import Ruleset, Veth
from netlab.plan import Plan
from netlab.probes.planned_rules import PlannedRules
from netlab.probes.witnessed import RuleMet, Shown, Sighting, Witnessed
from netlab.rendering import iptables
from netlab.ruleset import Jump
from tests.clusters import without_dns

ROOT = Path(__file__).parents[1]
CLIENT = "pod/default/client"


@cache
def made(mode: str = "iptables", manifest: str = "kubia.yaml") -> tuple[Cluster, Plan]:
    """The two-node lab with these objects, as values."""
    topology, objects, _ = read_inputs(str(ROOT / "topologies/two-node.yaml"), [str(ROOT / "manifests" / manifest)], proxy=mode)
    cluster = controllers.initial(without_dns(topology), objects)
    return cluster, plan.build(cluster)


def address_of(cluster: Cluster, name: str) -> str:
    return str(next(pod.addresses[0] for pod in cluster.pods.values() if pod.meta.name.startswith(name)))


def flow(cluster: Cluster, to: str, port: int, source_port: int = 20000) -> Flow:
    source = ip_address(address_of(cluster, "client"))
    return Flow(Ref("pod", "default", "client"), source, ip_address(to), port, Protocol.TCP, source_port)


def shown(src: str, dst: str, sport: int, dport: int, proto: str = "TCP") -> Shown:
    return Shown(src, dst, sport, dport, proto)


class Scene:
    """Collects what is seen, a microsecond apart."""

    def __init__(self, plan_: Plan, flow_: Flow) -> None:
        self._plan = plan_
        self._planned = PlannedRules(plan_)
        self._seen = Witnessed(flow_, traced=("node/node-170", "node/node-171"))
        self._at = 1_000_000_000_000
        self._run = 0

    def sees(self, netns: str, device: str, way: str, packet: Shown, part: str = "request", **more: bool) -> "Scene":
        self._at += 1000
        one = Sighting(self._at, netns, device, way == "out", part, packet, **more)
        self._seen = replace(self._seen, sightings=(*self._seen.sightings, one))
        return self

    def rule(
        self, netns: str, hook: str, place: str, position: int, verdict: str, packet: Shown, target: str = "",
        iif: str = "cni0", part: str = "request", text: str | None = None,
    ) -> "Scene":  # fmt: skip
        table, name = place.split(" ")
        chain = self._planned.chain(netns, table, name)
        lines = self._lines(netns, table, name)
        words = text if text is not None else lines[position] if lines else ""
        count = len(chain.rules) if chain is not None else 1
        one = RuleMet(
            netns, part, self._run, hook, table, name, position, count, verdict, target, packet, iif, "", words, position + 9
        )
        self._seen = replace(self._seen, rules=(*self._seen.rules, one))
        return self

    def next_chain(self) -> "Scene":
        self._run += 1
        return self

    def takes(self, netns: str, packet: Shown, part: str = "request") -> "Scene":
        self._seen = replace(self._seen, accepted=(*self._seen.accepted, (netns, part, packet)))
        return self

    def routes(self, netns: str, *rows: dict[str, str]) -> "Scene":
        self._seen = replace(self._seen, routes={**self._seen.routes, netns: rows})
        return self

    def _lines(self, netns: str, table: str, chain: str) -> Sequence[str]:
        ruleset = self._plan.ops.get(("ruleset", netns, "iptables"))
        if not isinstance(ruleset, Ruleset):
            return ()
        lines = iptables.lines(ruleset.value)
        return [line for line in lines.get(table, ()) if line.startswith(f"-A {chain} ")]

    def done(self) -> Witnessed:
        return self._seen


def position(plan_: Plan, netns: str, place: str, target: str) -> int:
    """Where in the planned chain the rule stands that leads to `target`."""
    table, name = place.split(" ")
    chain = PlannedRules(plan_).chain(netns, table, name)
    assert chain is not None
    return next(at for at, rule in enumerate(chain.rules) if any(target in str(one) for one in rule.statements))


def real_devices(plan_: Plan, seen: Witnessed) -> Witnessed:
    """The scenes call veths veth0 and veth1; the plan has their real names."""
    names: dict[str, str] = {}
    for op in plan_.ops.values():
        if isinstance(op, Veth):
            names |= {op.netns: op.peer_device, op.peer_netns: op.device}
    pods = dict.fromkeys(one.netns for one in seen.sightings if one.netns.startswith("pod/"))
    real = {fake: names[netns] for fake, netns in zip(("veth0", "veth1"), pods, strict=False)}
    return replace(seen, sightings=tuple(replace(one, device=real.get(one.device, one.device)) for one in seen.sightings))


def refused(text: str | None = None) -> tuple[Cluster, Plan, Witnessed]:
    """A packet to a Service without endpoints, rejected by the node's rule; `text` is what the kernel shows of that rule."""
    cluster, plan_ = made("iptables", "no-endpoints.yaml")
    service = next(one for one in cluster.services.values() if one.meta.name == "nobody")
    client, virtual = address_of(cluster, "client"), str(service.cluster_ips[0])
    asked = shown(client, virtual, 20000, 80)
    error = shown("10.244.0.1", client, 0, 0, "ICMP")
    scene = Scene(plan_, flow(cluster, virtual, 80))
    scene.sees(CLIENT, "eth0", "out", asked).sees("node/node-170", "veth0", "in", asked, foreign=True, port=True)
    scene.sees("node/node-170", "cni0", "in", asked, bridge=True)
    at = position(plan_, "node/node-170", "filter FORWARD", "KUBE-SERVICES")
    scene.rule("node/node-170", "forward", "filter FORWARD", at, "jump", asked, "KUBE-SERVICES")
    scene.rule("node/node-170", "forward", "filter KUBE-SERVICES", 0, "drop", asked, text=text)
    scene.sees("node/node-170", "cni0", "out", error, "icmp-error", bridge=True)
    scene.sees("node/node-170", "veth0", "out", error, "icmp-error", port=True)
    scene.sees(CLIENT, "eth0", "in", error, "icmp-error").takes(CLIENT, error, "icmp-error")
    return cluster, plan_, real_devices(plan_, scene.done())


def delivered(endpoint: int = 0, mode: str = "iptables") -> tuple[Cluster, Plan, Witnessed]:
    """A packet through a ClusterIP to an endpoint on the client's own node, and its answer."""
    cluster, plan_ = made(mode)
    service = next(one for one in cluster.services.values() if one.meta.name == "kubia")
    client, virtual = address_of(cluster, "client"), str(service.cluster_ips[0])
    here = [pod for pod in cluster.pods.values() if pod.node == "node-170" and pod.meta.name.startswith("kubia")]
    pod = here[endpoint]
    there = str(pod.addresses[0])
    asked, sent = shown(client, virtual, 20000, 80), shown(client, there, 20000, 8080)
    answer, back = shown(there, client, 8080, 20000), shown(virtual, client, 80, 20000)
    scene = Scene(plan_, flow(cluster, virtual, 80))
    node, netns = "node/node-170", str(pod.ref)
    scene.sees(CLIENT, "eth0", "out", asked).sees(node, "veth0", "in", asked, foreign=True, port=True)
    scene.sees(node, "cni0", "in", asked, bridge=True)
    _balanced(scene, plan_, asked, there)
    scene.sees(node, "cni0", "out", sent, bridge=True).sees(node, "veth1", "out", sent, port=True)
    scene.sees(netns, "eth0", "in", sent).takes(netns, sent)
    scene.sees(netns, "eth0", "out", answer, "reply").sees(node, "veth1", "in", answer, "reply", port=True)
    scene.sees(node, "cni0", "in", answer, "reply", bridge=True)
    scene.sees(node, "cni0", "out", back, "reply", bridge=True).sees(node, "veth0", "out", back, "reply", port=True)
    scene.sees(CLIENT, "eth0", "in", back, "reply").takes(CLIENT, back, "reply")
    scene.routes(node, {"dst": "default", "gateway": "192.168.0.1", "dev": "eth0"}, {"dst": "10.244.0.0/24", "dev": "cni0"})
    return cluster, plan_, real_devices(plan_, scene.done())


def _balanced(scene: Scene, plan_: Plan, asked: Shown, there: str) -> None:
    """The rules that lead from PREROUTING to the endpoint's DNAT, followed over the plan."""
    planned, node, name = PlannedRules(plan_), "node/node-170", "PREROUTING"
    for prefix in ("KUBE-SERVICES", "KUBE-SVC-", "KUBE-SEP-"):
        chain = planned.chain(node, "nat", name)
        assert chain is not None
        for at, rule in enumerate(chain.rules):
            target = next(
                (str(one.chain) for one in rule.statements if isinstance(one, Jump) and one.chain.startswith(prefix)), ""
            )
            if not target or (prefix == "KUBE-SVC-" and "default/kubia" not in rule.comment):
                continue
            if prefix == "KUBE-SEP-" and there not in str(planned.chain(node, "nat", target)):
                continue
            scene.rule(node, "prerouting", f"nat {name}", at, "jump", asked, target)
            name = target
            break
    scene.rule(node, "prerouting", f"nat {name}", 1, "accept", asked)
