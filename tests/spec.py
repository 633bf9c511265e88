"""The cases of tests/spec_cases as values: a Cluster, a Flow and what is expected; or as a topology and manifests for a live lab.

Offline and live suites read the same cases through this file. It refuses to judge: that is the suites' business.
The world of the cases: node-a (two LANs) is the node that is asked, node-b the other, `client` an outside host that also has the
far-away addresses from which the cases send. Over 400 lines: each object is written twice, as a value and as Kubernetes
would, and the two must be read side by side.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, Literal

import yaml

from netlab.model import (
    Backend,
    Cluster,
    ClusterConfig,
    Container,
    ContainerPort,
    Endpoint,
    EndpointSlice,
    Flow,
    HostSpec,
    Key,
    Lan,
    LoadBalancerIngress,
    Meta,
    Node,
    NodeSpec,
    OutcomeKind,
    Pod,
    PodSpec,
    Protocol,
    ProxyConfig,
    Ref,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
    Topology,
)

Raw = Mapping[str, Any]
Origin = Literal["pod", "node", "external"]

HERE = Path(__file__).parent / "spec_cases"
CHAINS = ("iptables", "nftables")
"""The modes that every kernel has. Live, ipvs is asked by tests/live/test_ipvs.py, where the kernel has it."""
MODES = (*CHAINS, "ipvs")
MAPS = "nftables-maps"
"""Mode nftables with the flat layout: it must answer whatever nftables does."""
NODE = "node-a"
ZONES = {"node-a": "zone-a", "node-b": "zone-b"}
POD_CIDRS = {"node-a": "10.244.1.0/24", "node-b": "10.244.2.0/24"}
NODE_ADDRESSES = {"node-a": ("192.168.50.10", "192.168.51.10"), "node-b": ("192.168.50.11",)}
HOST_ADDRESSES = ("192.168.50.100", "203.0.113.50", "198.51.100.7")
HOST_ROUTES = dict.fromkeys(("10.96.0.0/16", "10.244.0.0/16", "203.0.113.200/30", "192.0.2.33/32"), "192.168.50.10")
NETWORKS = {"lan-a": ("192.168.50.0/24", "192.168.50.1"), "lan-b": ("192.168.51.0/24", "192.168.51.1")}
ORIGINS: Mapping[str, Origin] = {"pod-on-node": "pod", "node": "node", "external": "external"}
KINDS = {
    "endpoints": OutcomeKind.DELIVERED,
    "reject": OutcomeKind.REJECTED,
    "drop": OutcomeKind.DROPPED,
    "not-handled": OutcomeKind.NOT_HANDLED,
}


@dataclass(frozen=True)
class Case:
    """One case. `steps` has one step, the case itself, where the file has no steps. Parts are as the file has them."""

    id: str
    about: str
    services: tuple[Raw, ...]
    endpoints: tuple[Raw, ...]
    config: Raw
    steps: tuple[Raw, ...]
    ipv6: bool = False

    @property
    def single(self) -> bool:
        """One packet and one verdict: no steps in time."""
        return len(self.steps) == 1 and "packet" in self.steps[0] and "repeat" not in self.steps[0]

    @property
    def packets(self) -> tuple[Raw, ...]:
        return tuple(step[key] for step in self.steps for key in ("packet", "open_connection") if key in step)

    def without(self, address: str) -> "Case":
        return replace(self, endpoints=tuple(endpoint for endpoint in self.endpoints if endpoint["ip"] != address))

    def with_conditions(self, address: str, conditions: Raw) -> "Case":
        changed = (dict(e, **conditions) if e["ip"] == address else e for e in self.endpoints)
        return replace(self, endpoints=tuple(changed))


@dataclass(frozen=True)
class Expected:
    """What a case says of one packet. `backends` is empty unless DELIVERED."""

    kind: OutcomeKind
    backends: frozenset[Backend] = frozenset()


@cache
def load_cases() -> tuple[Case, ...]:
    """The cases of kube-proxy-cases.yaml, in the file's order."""
    document = yaml.safe_load((HERE / "kube-proxy-cases.yaml").read_text(encoding="utf-8"))
    return tuple(_case(raw) for raw in document["cases"])


@cache
def load_combined() -> tuple[Case, ...]:
    """The cases of combined-cases.yaml, whose steps are packets that know nothing of each other."""
    document = yaml.safe_load((HERE / "combined-cases.yaml").read_text(encoding="utf-8"))
    return tuple(_case(raw) for raw in document["cases"])


def _case(raw: Raw) -> Case:
    steps = raw.get("steps") or [raw]
    return Case(raw["id"], raw["about"], tuple(raw["services"]), tuple(raw["endpoints"]), raw.get("config") or {}, tuple(steps))


@cache
def load_verdicts() -> tuple[Case, ...]:
    """The verdict table as cases of the same form: `detector/pod/clusterIP/plain` and so on."""
    document = yaml.safe_load((HERE / "verdict-table.yaml").read_text(encoding="utf-8"))
    found = []
    for setting in document["settings"]:
        for row in setting["rows"]:
            both = zip(document["services"], row["verdicts"], row.get("ipvs", row["verdicts"]), strict=True)
            for index, (name, verdict, ipvs) in enumerate(both):
                case_id = f"{setting['name']}/{row['from']}/{row['to']}/{name}"
                found.append(_verdict_case(case_id, document["services"], setting["config"], row, index, verdict, ipvs))
    return tuple(found)


def _verdict_case(case_id: str, names: list[str], config: Raw, row: Raw, index: int, verdict: str, ipvs: str) -> Case:
    services, endpoints = [], []
    for number, name in enumerate(names):
        service = {
            "name": name,
            "type": "LoadBalancer",
            "clusterIP": f"10.96.0.1{number}",
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP", "nodePort": 30080 + number}],
            "loadBalancerIPs": [{"ip": f"203.0.113.20{number}"}],
        }
        if name == "etp-local":
            service["externalTrafficPolicy"] = "Local"
        if name == "itp-local":
            service["internalTrafficPolicy"] = "Local"
        services.append(service)
        for node, subnet in (("node-a", 1), ("node-b", 2)):
            endpoints.append({"service": name, "ip": f"10.244.{subnet}.{5 + number}", "node": node})
    local = [f"10.244.1.{5 + index}:8080"]

    def said(word: str) -> Raw:
        scope, masquerade = word.split()
        endpoints = local if scope == "L" else [*local, f"10.244.2.{5 + index}:8080"]
        return {"result": "endpoints", "endpoints": endpoints, "masq": masquerade == "m"}

    step = {
        "packet": {
            "from": {"pod": "pod-on-node"}.get(row["from"], row["from"]),
            "srcIP": {"pod": "10.244.1.9", "node": "192.168.50.10", "external": "203.0.113.50"}[row["from"]],
            "to": {"clusterIP": f"10.96.0.1{index}", "nodePort": "192.168.50.10", "loadBalancer": f"203.0.113.20{index}"}[
                row["to"]
            ],
            "port": 30080 + index if row["to"] == "nodePort" else 80,
            "proto": "TCP",
        },
        "expect": said(verdict),
        "expect_ipvs": said(ipvs),
    }
    return Case(case_id, f"{row['from']} to {row['to']} of {names[index]}", tuple(services), tuple(endpoints), config, (step,))


# ---------------------------------------------------------------- the same in IPv6

_V4 = re.compile(r"(?<![0-9.])(\d+)\.(\d+)\.(\d+)\.(\d+)(/\d+)?(?![0-9.])")


def in_ipv6(case: Case) -> Case:
    """The same case with every address, network and endpoint mapped; 127.0.0.1 becomes ::1, where node ports never work."""
    services, endpoints, config, steps = (_mapped(part) for part in (case.services, case.endpoints, case.config, case.steps))
    if case.id == "np-07":
        steps = tuple({key: value for key, value in step.items() if key != "expect_iptables"} for step in steps)
    return Case(case.id, case.about, services, endpoints, config, steps, ipv6=True)


def v6(text: str) -> str:
    """10.244.1.5 as fd00:10:244:1::5, 10.244.1.0/24 as fd00:10:244:1::/64; in any text, decimal digits kept."""
    return _V4.sub(lambda found: _v6(*found.groups()), text)


def _v6(a: str, b: str, c: str, d: str, prefix: str | None) -> str:
    if a == "127":
        return "::1" + ("/128" if prefix else "")
    length = int(prefix[1:]) if prefix else 0
    if prefix == "/0":
        return "::/0"
    if length > 24 or not prefix:
        return str(ip_address(f"fd00:{a}:{b}:{c}::{d}")) + (f"/{96 + length}" if prefix else "")
    return str(ip_network(f"fd00:{a}:{b}:{c}::/{16 + 2 * length}"))


def _mapped(part: Any) -> Any:
    match part:
        case str():
            return v6(part)
        case dict():
            return {v6(key): _mapped(value) for key, value in part.items()}
        case list() | tuple():
            return type(part)(map(_mapped, part))
        case _:
            return part


def _say(case: Case, text: str) -> str:
    """A constant of the cases' world as the case has it."""
    return v6(text) if case.ipv6 else text


# ---------------------------------------------------------------- questions and answers


def origin_of(packet: Raw) -> Origin:
    return ORIGINS[packet["from"]]


def flow_of(packet: Raw, case: Case) -> Flow:
    source, protocol = ip_address(packet["srcIP"]), Protocol(packet["proto"])
    return Flow(sender_of(packet, case), source, ip_address(packet["to"]), packet["port"], protocol)


def target_of(packet: Raw) -> str:
    """What a packet is sent to, as `netlab probe` takes it."""
    return f"[{packet['to']}]:{packet['port']}" if ":" in packet["to"] else f"{packet['to']}:{packet['port']}"


def sender_of(packet: Raw, case: Case) -> Ref:
    """The pod with the packet's source address; the node; or the outside host, which may lend itself another's address."""
    source = packet["srcIP"]
    if packet["from"] == "node":
        return Ref("node", "", NODE)
    if packet["from"] == "external":
        return Ref("host", "", "client")
    return Ref("pod", "default", _pod_name(source))


def expected_of(step: Raw, mode: str) -> Expected:
    """What a step (or a case without steps) says for this mode: the mode's own word, else the common one."""
    said = step.get(f"expect_{proxy_of(mode)['mode']}") or step["expect"]
    masquerades = said.get("masq_by_endpoint") or dict.fromkeys(said.get("endpoints", ()), said.get("masq"))
    backends = set()
    for text in said.get("endpoints", ()):
        address, _, port = text.rpartition(":")
        backends.add(Backend(ip_address(address.strip("[]")), int(port), bool(masquerades[text])))
    return Expected(KINDS[said["result"]], frozenset(backends))


# ---------------------------------------------------------------- a Cluster


def proxy_of(mode: str) -> dict[str, Any]:
    """The keys of `cluster.proxy` that stand for a mode of these suites."""
    return {"mode": "nftables", "layout": "maps"} if mode == MAPS else {"mode": mode}


def cluster_of(case: Case, mode: str, fabric: str = "") -> Cluster:
    """The case's cluster, settled: services, slices as given, and every pod that the case mentions; in this fabric if any."""
    pods = {Key("default", name): pod for name, pod in _pods(case).items()}
    services = {Key("default", raw["name"]): _service(raw, case) for raw in case.services}
    slices = {one.meta.key: one for one in _slices(case)}
    nodes = {name: _node(case, name) for name in NODE_ADDRESSES}
    topology = _topology(case, mode)
    if fabric:
        topology = replace(topology, cluster=replace(topology.cluster, fabric=fabric))
    return Cluster(topology, nodes=nodes, pods=pods, services=services, slices=slices)


def _node_addresses(case: Case, name: str) -> tuple[str, ...]:
    """A node that sends from a load balancer's address must have it."""
    sources = (packet["srcIP"] for packet in case.packets if packet["from"] == "node" and name == NODE)
    own = tuple(_say(case, text) for text in NODE_ADDRESSES[name])
    extra = dict.fromkeys(s for s in sources if s not in own and not ip_address(s).is_loopback)
    return (*own, *extra)


def _topology(case: Case, mode: str) -> Topology:
    given = case.config.get("nodePortAddresses")
    proxy = ProxyConfig(
        **proxy_of(mode),
        masquerade_all=case.config.get("masqueradeAll", False),
        detect_local=case.config.get("detectLocal", "ClusterCIDR"),
        node_port_addresses="primary" if given == "primary" else tuple(ip_network(text) for text in given) if given else None,
        localhost_node_ports=case.config.get("localhostNodePorts", True),
        bridge_interface=case.config.get("bridgeInterface", "cni0"),
        interface_name_prefix=case.config.get("interfaceNamePrefix", "veth"),
    )
    return Topology(
        "spec",
        ClusterConfig(
            (ip_network(_say(case, "10.244.0.0/16")),), (ip_network(_say(case, "10.96.0.0/16")),), proxy, cidrs_given=True
        ),
        tuple(
            Lan(name, ip_network(_say(case, cidr)), ip_address(_say(case, router))) for name, (cidr, router) in NETWORKS.items()
        ),
        tuple(
            NodeSpec(name, tuple(map(ip_address, _node_addresses(case, name))), (ip_network(_say(case, POD_CIDRS[name])),))
            for name in NODE_ADDRESSES
        ),
        (
            HostSpec(
                "client",
                tuple(ip_address(_say(case, text)) for text in HOST_ADDRESSES),
                tuple((ip_network(_say(case, to)), ip_address(_say(case, gateway))) for to, gateway in HOST_ROUTES.items()),
            ),
        ),
    )


def _node(case: Case, name: str) -> Node:
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": ZONES[name]}
    addresses = tuple(map(ip_address, _node_addresses(case, name)))
    return Node(Meta(name, labels=labels), addresses, (ip_network(_say(case, POD_CIDRS[name])),))


def _service(raw: Raw, case: Case) -> Service:
    headless = raw["clusterIP"] == "None"
    affinity = raw.get("sessionAffinity") or {}
    return Service(
        meta=Meta(raw["name"], "default", labels=raw.get("labels") or {}),
        type=ServiceType(raw["type"]),
        cluster_ips=() if headless else (ip_address(raw["clusterIP"]),),
        headless=headless,
        ports=tuple(
            ServicePort(p["port"], p["name"], Protocol(p["protocol"]), p["targetPort"], p.get("nodePort")) for p in raw["ports"]
        ),
        session_affinity=affinity.get("type", "None"),
        affinity_timeout_s=affinity.get("timeoutSeconds", 10800),
        external_traffic_policy=raw.get("externalTrafficPolicy", "Cluster"),
        internal_traffic_policy=raw.get("internalTrafficPolicy", "Cluster"),
        external_ips=tuple(map(ip_address, raw.get("externalIPs", ()))),
        load_balancer=tuple(
            LoadBalancerIngress(ip_address(entry["ip"]), ip_mode=entry.get("ipMode")) for entry in raw.get("loadBalancerIPs", ())
        ),
        source_ranges=tuple(map(ip_network, raw.get("loadBalancerSourceRanges", ()))),
        health_check_node_port=raw.get("healthCheckNodePort"),
        publish_not_ready_addresses=raw.get("publishNotReadyAddresses", False),
        ip_families=("IPv6",) if case.ipv6 else ("IPv4",),
    )


def _slices(case: Case) -> tuple[EndpointSlice, ...]:
    found = []
    for service, number, ports, endpoints in _slice_parts(case):
        found.append(
            EndpointSlice(
                Meta(f"{service['name']}-{number}", "default", labels={"kubernetes.io/service-name": service["name"]}),
                Key("default", service["name"]),
                endpoints=tuple(_endpoint(raw) for raw in endpoints),
                ports=tuple(SlicePort(name, port, Protocol(protocol)) for name, port, protocol in ports),
                address_type="IPv6" if case.ipv6 else "IPv4",
            )
        )
    return tuple(found)


def _slice_parts(case: Case) -> list[tuple[Raw, int, list[tuple[str, int, str]], list[Raw]]]:
    """(service, slice number, its ports, its endpoints); a Service without endpoints has no slice."""
    found = []
    for service in case.services:
        mine = [endpoint for endpoint in case.endpoints if endpoint["service"] == service["name"]]
        for number in sorted({endpoint.get("slice", 1) for endpoint in mine}):
            members = [endpoint for endpoint in mine if endpoint.get("slice", 1) == number]
            numbers = members[0].get("ports", {})
            ports = [(p["name"], numbers.get(p["name"], p["targetPort"]), p["protocol"]) for p in service["ports"]]
            found.append((service, number, ports, members))
    return found


def _endpoint(raw: Raw) -> Endpoint:
    return Endpoint(
        (ip_address(raw["ip"]),),
        raw.get("ready"),
        raw.get("serving"),
        raw.get("terminating"),
        raw["node"],
        ZONES[raw["node"]],
        target=Ref("pod", "default", _pod_name(raw["ip"])),
        zone_hints=tuple(raw.get("zoneHints", ())),
        node_hints=tuple(raw.get("nodeHints", ())),
    )


def _pod_name(address: str) -> str:
    return "pod-" + address.replace(".", "-").replace(":", "-")


def _pod_ports(case: Case) -> dict[str, tuple[str, list[tuple[int, str]]]]:
    """For each pod's address: its node, and the (port, protocol) pairs that it listens on. Senders listen on nothing."""
    found: dict[str, tuple[str, list[tuple[int, str]]]] = {}
    for _, _, ports, endpoints in _slice_parts(case):
        for endpoint in endpoints:
            known = found.setdefault(endpoint["ip"], (endpoint["node"], []))[1]
            known.extend((port, protocol) for _, port, protocol in ports if (port, protocol) not in known)
    for packet in case.packets:
        source = ip_address(packet["srcIP"])
        node = next((n for n, cidr in POD_CIDRS.items() if source in ip_network(_say(case, cidr))), None)
        if node is not None:
            found.setdefault(packet["srcIP"], (node, []))
    return found


def _pods(case: Case) -> dict[str, Pod]:
    pods = {}
    for address, (node, ports) in _pod_ports(case).items():
        container = Container("web", "luksa/kubia", ports=tuple(ContainerPort(p, protocol=Protocol(x)) for p, x in ports))
        name = _pod_name(address)
        pods[name] = Pod(
            Meta(name, "default"), PodSpec((container,), node), node, (ip_address(address),), "Running", ready=True, serving=True
        )
    return pods


# ---------------------------------------------------------------- a live lab


def topology_of(case: Case, mode: str | None = None) -> dict[str, Any]:
    """The case's topology, as a topology file would have it."""
    proxy = {**(proxy_of(mode) if mode else {}), **case.config}
    return {
        "apiVersion": "netlab/v1",
        "kind": "Topology",
        "name": "spec",
        "cluster": {
            "podCIDR": _say(case, "10.244.0.0/16"),
            "serviceCIDR": _say(case, "10.96.0.0/16"),
            "dns": False,
            **({"proxy": proxy} if proxy else {}),
        },
        "networks": {name: {"cidr": _say(case, cidr), "router": _say(case, router)} for name, (cidr, router) in NETWORKS.items()},
        "nodes": {
            name: {
                "addresses": list(_node_addresses(case, name)),
                "podCIDR": _say(case, POD_CIDRS[name]),
                "labels": {"topology.kubernetes.io/zone": ZONES[name]},
            }
            for name in NODE_ADDRESSES
        },
        "hosts": {
            "client": {
                "addresses": [_say(case, text) for text in HOST_ADDRESSES],
                "routes": {_say(case, to): _say(case, gateway) for to, gateway in HOST_ROUTES.items()},
            }
        },
    }


def manifests_of(case: Case) -> list[dict[str, Any]]:
    """The case's objects as Kubernetes JSON: pods with their addresses and nodes, Services, EndpointSlices."""
    pods = [_pod_json(address, node, ports) for address, (node, ports) in _pod_ports(case).items()]
    return [*pods, *map(_service_json, case.services), *_slices_json(case)]


def receiver(case: Case, backend: Backend) -> str:
    """How probe results name a backend of the case."""
    return receiver_at(case, str(backend.address))


def receiver_at(case: Case, address: str) -> str:
    return f"pod/default/{_pod_name(address)}"


def address_of(case: Case, name: str) -> str:
    """The address of a receiver of the case, by its name in probe results."""
    if not name.startswith("pod/"):
        return name.rpartition(":")[0].strip("[]")
    return name.rpartition("/")[2].removeprefix("pod-").replace("-", ":" if case.ipv6 else ".")


def _pod_json(address: str, node: str, ports: list[tuple[int, str]]) -> dict[str, Any]:
    container = {"name": "web", "image": "luksa/kubia", "ports": [{"containerPort": p, "protocol": x} for p, x in ports]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _pod_name(address), "namespace": "default"},
        "spec": {"nodeName": node, "containers": [container]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def _service_json(raw: Raw) -> dict[str, Any]:
    copied = (
        "type", "clusterIP", "externalIPs", "externalTrafficPolicy", "internalTrafficPolicy", "loadBalancerSourceRanges",
        "healthCheckNodePort", "publishNotReadyAddresses",
    )  # fmt: skip
    spec: dict[str, Any] = {key: raw[key] for key in copied if key in raw}
    spec["ports"] = [dict(port) for port in raw["ports"]]
    if raw["type"] == "LoadBalancer" and not any("nodePort" in port for port in raw["ports"]):
        spec["allocateLoadBalancerNodePorts"] = False
    if "sessionAffinity" in raw:
        spec["sessionAffinity"] = raw["sessionAffinity"]["type"]
        spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": raw["sessionAffinity"]["timeoutSeconds"]}}
    metadata = {"name": raw["name"], "namespace": "default", **({"labels": dict(raw["labels"])} if "labels" in raw else {})}
    ingress = [dict(entry) for entry in raw.get("loadBalancerIPs", ())]
    status = {"status": {"loadBalancer": {"ingress": ingress}}} if ingress else {}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec, **status}


def _slices_json(case: Case) -> list[dict[str, Any]]:
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{service['name']}-{number}",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": service["name"]},
            },
            "addressType": "IPv6" if case.ipv6 else "IPv4",
            "ports": [{"name": name, "port": port, "protocol": protocol} for name, port, protocol in ports],
            "endpoints": [_endpoint_json(raw) for raw in endpoints],
        }
        for service, number, ports, endpoints in _slice_parts(case)
    ]


def _endpoint_json(raw: Raw) -> dict[str, Any]:
    hints = {
        **({"forZones": [{"name": zone} for zone in raw["zoneHints"]]} if "zoneHints" in raw else {}),
        **({"forNodes": [{"name": node} for node in raw["nodeHints"]]} if "nodeHints" in raw else {}),
    }
    return {
        "addresses": [raw["ip"]],
        "conditions": {key: raw[key] for key in ("ready", "serving", "terminating") if key in raw},
        "nodeName": raw["node"],
        "zone": ZONES[raw["node"]],
        "targetRef": {"kind": "Pod", "namespace": "default", "name": _pod_name(raw["ip"])},
        **({"hints": hints} if hints else {}),
    }
