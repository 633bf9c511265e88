"""Real input of the targets: what a mutation begins with."""

import json
import struct
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import yaml

from netlab.kernel import netlink as nl
from netlab.model import Protocol
from netlab.probes import plain

ROOT = Path(__file__).parents[2]
HOME, AWAY = IPv4Address("10.244.1.2"), IPv4Address("10.96.0.80")
HOME_V6, AWAY_V6 = IPv6Address("fd00::1"), IPv6Address("fd00::2")


def seeds(name: str) -> list[bytes]:
    match name:
        case "manifest":
            files = [*sorted((ROOT / "manifests").glob("*.yaml")), *sorted((ROOT / "tests/dumps").glob("*.yaml"))]
            texts = [document for path in files for document in path.read_text().split("\n---\n")]
            dump = yaml.safe_load((ROOT / "tests/dumps/kubeadm.yaml").read_text())
            kinds = {item["kind"]: item for item in dump["items"]}
            return [text.encode() for text in texts if len(text) < 6000] + [
                yaml.safe_dump(item).encode() for item in kinds.values()
            ]
        case "topology":
            return [path.read_bytes() for path in sorted((ROOT / "topologies").glob("*.yaml"))]
        case "scenario":
            return [path.read_bytes() for path in sorted((ROOT / "scenarios").glob("*.yaml"))]
        case "dns":
            from dnslib import DNSRecord

            names = ("kubia.default.svc.cluster.local", "kubernetes.default.svc.cluster.local", "example.org")
            return [bytes(DNSRecord.question(one, kind).pack()) for one in names for kind in ("A", "AAAA", "SRV", "PTR")]
        case "frame":
            return [b"\2" * 12 + (b"\x86\xdd" if one[0] >> 4 == 6 else b"\x08\0") + one for one in _packets()]
        case "packet":
            return _packets()
        case "rules":
            files = [path for path in sorted((ROOT / "tests/golden/proxy").rglob("*")) if path.is_file()]
            return [path.read_bytes()[:6000] for path in files] + [NFT, SAVED]
        case "words":
            return [b"-nni eth0 -c 10 tcp port 80", b"-i any --direction=in -s 96 -w - udp", b"-D", b"--interface eth0 -Qout"]
        case "netlink":
            return [_datagram(kind, body) for kind, body in _messages()]
        case "trace":
            return [TRACE]
        case "connection":
            return [CONNECTION]
        case "request":
            return [_http(*one) for one in REQUESTS]
        case "api":
            return [f"{method} {path} {kind}\n{body}".encode() for method, path, kind, body in REQUESTS]
        case "responder":
            return [
                b"GET /echo?msg=a&code=204 HTTP/1.1\r\nHost: a\r\n\r\n",
                b"GET /dial?host=10.0.0.1&port=80&request=hostname&tries=2&protocol=udp HTTP/1.0\r\n\r\n",
                b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
                b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
                b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab",
                b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n*2\r\n$3\r\nDEL\r\n$1\r\na\r\nPING\r\n",
            ]
    return [bytes(64), bytes(range(64)), b"\x24\x00\x01\x00" * 16]


def _packets() -> list[bytes]:
    found = [plain.packet(0x1234, one, HOME, AWAY, 80, 5, 4000) for one in (Protocol.TCP, Protocol.UDP, Protocol.ICMP)]
    found += [plain.packet(0x1234, one, HOME_V6, AWAY_V6, 80, 5, 4000) for one in (Protocol.TCP, Protocol.UDP, Protocol.ICMP)]
    quoting = bytes((0x45, 0, 0, 80, 0, 0, 0, 0, 64, 1, 0, 0)) + AWAY.packed + HOME.packed + bytes((3, 1, 0, 0, 0, 0, 0, 0))
    return [*found, quoting + found[0], quoting + found[1], quoting + found[2]]


def _datagram(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body + b"\0" * (-len(body) % 4)


def _messages() -> list[tuple[int, bytes]]:
    veth = nl.veth(nl.End(5, "eth0", "02:00:00:00:00:01", True), nl.End(6, "veth0", "02:00:00:00:00:02", True), 0, 1500)
    route = nl.attr(1, bytes((10, 244, 1, 0))) + nl.attr_u32(4, 5) + nl.attr(5, HOME.packed) + nl.attr_u32(15, 254)
    hop = struct.pack("=HBBi", 16, 0, 0, 5) + nl.attr(5, HOME.packed)
    return [
        (nl.RTM_NEWLINK, veth.body + nl.attr(nl.IFLA_PROP_LIST, nl.attr_text(nl.IFLA_ALT_IFNAME, "a-long-name"))),
        (nl.RTM_NEWADDR, nl.add_address(5, HOME, 24, True).body),
        (nl.RTM_NEWADDR, nl.add_address(5, HOME_V6, 64, False).body),
        (nl.RTM_NEWROUTE, nl.RTMSG.pack(2, 24, 0, 0, 254, 4, 0, 1, 0) + route),
        (nl.RTM_NEWROUTE, nl.RTMSG.pack(10, 64, 0, 0, 254, 4, 0, 1, 0) + nl.attr(1, HOME_V6.packed) + nl.attr(9, hop)),
        (nl.RTM_NEWNEIGH, nl.set_neighbour(5, HOME, "02:00:00:00:00:01").body),
        (0x100, CONNECTION),
        (0xA11, TRACE),
    ]


def _nested(kind: int, *rows: bytes) -> bytes:
    return nl.attr(kind | 0x8000, b"".join(rows))


def _direction(kind: int, source: IPv4Address, destination: IPv4Address) -> bytes:
    ports = nl.attr(1, b"\6") + nl.attr(2, b"\x0f\xa0") + nl.attr(3, b"\0\x50")
    return _nested(kind, _nested(1, nl.attr(1, source.packed), nl.attr(2, destination.packed)), _nested(2, ports))


CONNECTION = b"\2\0\0\0" + b"".join(
    (
        _direction(1, HOME, AWAY),
        _direction(2, AWAY, HOME),
        nl.attr(3, (0x2E).to_bytes(4, "big")),
        nl.attr(7, (60).to_bytes(4, "big")),
        _nested(4, _nested(1, nl.attr(1, b"\3"))),
        _nested(9, nl.attr(1, (7).to_bytes(8, "big"))),
        nl.attr(12, b"\0\0\0\1"),
    )
)
TRACE = b"\2\0\0\0" + b"".join(
    (
        nl.attr_text(1, "kube-proxy"),
        nl.attr_text(2, "services"),
        nl.attr(3, (9).to_bytes(8, "big")),
        nl.attr(4, (3).to_bytes(4, "big")),
        _nested(5, nl.attr(1, struct.pack(">i", -3)), nl.attr_text(2, "service-a")),
        nl.attr(6, (77).to_bytes(4, "big")),
        nl.attr(8, bytes(20)),
        nl.attr(10, (5).to_bytes(4, "big")),
        nl.attr(16, (1).to_bytes(4, "big")),
    )
)
NFT = b"""table ip kube-proxy {
\tcomment "of \\"netlab\\""
\tset cluster-ips {
\t\ttype ipv4_addr . inet_proto . inet_service
\t\tflags dynamic,timeout
\t\telements = { 10.96.0.1 . tcp . 443 comment "default/kubernetes, https",
\t\t\t     10.96.0.80 . tcp . 80 }
\t}

\tchain services {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tip daddr . meta l4proto . th dport vmap @service-ips
\t}
}
"""
SAVED = b"""# Generated
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "a : b" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.80/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-X
COMMIT
"""


def _http(method: str, path: str, kind: str, body: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: netlab\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


_POD = {"spec": {"containers": [{"name": "c", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}]}}
_SERVICE = {"spec": {"selector": {"app": "kubia"}, "ports": [{"port": 80, "targetPort": 8080}]}}
_FLOW = {"from": "pod/client", "to": "svc/kubia:80", "count": 3, "protocol": "tcp", "source_port": 4000, "timeout_s": 0.5}
_NAMED = {"kind": "rc", "name": "kubia", "namespace": "default"}
VERBS: tuple[tuple[str, dict[str, object]], ...] = (
    ("apply", {"objects": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, **_POD}]}),
    ("scale", {**_NAMED, "replicas": 2}),
    ("rollout", {**_NAMED, "action": "undo", "revision": 1}),
    ("rollout-status", {**_NAMED, "seen": "x"}),
    ("cordon", {"node": "node-170", "unschedulable": True}),
    ("taint", {"node": "node-170", "add": [{"key": "a/b", "value": "c", "effect": "NoExecute"}], "remove": [{"key": "d"}]}),
    ("place", {"target": "pod/client", "container": "client"}),
    ("port-forward", {"target": "svc/kubia", "ports": ["8080:80", ":http"]}),
    ("fault", {"kind": "delay", "target": "node/node-170", "value": "10ms", "jitter": "1ms", "direction": "out"}),
    ("fault", {"kind": "link-down", "target": "client/lan", "device": "eth0"}),
    ("fault", {"kind": "restore", "undo": [["node/node-170", "eth0", {"delay_s": 0.1}]]}),
    ("fault", {"kind": "kill-pod", "target": "rc/kubia@2"}),
    ("fault", {"kind": "partition", "target": "node-170"}),
    ("endpoints", {"service": "svc/kubia"}),
    ("problems", {"ingress": "web"}),
    ("probe", _FLOW),
    ("probe", {"from": "host/client", "to": "http://192.168.0.170:30123/a", "source": "192.168.0.100"}),
    ("connect", _FLOW),
    ("explain", {**_FLOW, "live_s": 1}),
    ("load", {**_FLOW, "rate": 10, "for_s": 1, "keep_alive": True, "expect": {"lost": {"max": 3}, "outage_ms": 5}}),
    ("matrix", {"from": ["pod/client"], "to": ["svc/kubia"], "timeout_s": 1}),
    ("exec", {"target": "pod/client", "command": ["true"], "stdin": "a", "timeout_s": 1}),
    ("logs", {"pod": "pod/client", "previous": False, "offset": 0, "run": 0, "wait_s": 1}),
    ("wait-gone", {"namespace": "default", "name": "client", "uid": "1"}),
    ("observe", {"target": "node/node-170", "what": "conntrack"}),
    ("end-load", {"load": 1, "stop": True}),
    ("close-connection", {"connection": 1}),
    ("verify", {"repair": False}),
    ("use-connection", {"connection": 1, "timeout_s": 1}),
    ("flush-conntrack", {"target": "node/node-170"}),
    ("info", {}),
    ("down", {}),
)
_JSON, _MERGE, _APPLY = "application/json", "application/merge-patch+json", "application/apply-patch+yaml"
REQUESTS: tuple[tuple[str, str, str, str], ...] = (
    *(("POST", f"/netlab/v1/{verb}", _JSON, json.dumps(body)) for verb, body in VERBS),
    ("GET", "/api/v1/namespaces/default/pods?labelSelector=app%3Dkubia,x!=y", "", ""),
    ("GET", "/apis/apps/v1/deployments", "", ""),
    ("GET", "/api/v1/namespaces/default/services/kubia", "", ""),
    ("GET", "/netlab/v1/events?last=5", "", ""),
    ("POST", "/api/v1/namespaces/default/pods", _JSON, json.dumps({"metadata": {"name": "b"}, **_POD})),
    ("PUT", "/api/v1/namespaces/default/services/kubia", _JSON, json.dumps({"metadata": {"name": "kubia"}, **_SERVICE})),
    ("PATCH", "/api/v1/namespaces/default/services/kubia", _MERGE, json.dumps({"spec": {"sessionAffinity": "ClientIP"}})),
    ("PATCH", "/api/v1/namespaces/default/services/c", _APPLY, json.dumps({"kind": "Service", "apiVersion": "v1", **_SERVICE})),
    ("DELETE", "/api/v1/namespaces/default/pods/client?gracePeriodSeconds=0&propagationPolicy=Orphan", _JSON, "{}"),
    ("DELETE", "/api/v1/namespaces/default/services/kubia", _JSON, json.dumps({"gracePeriodSeconds": 3})),
)  # fmt: skip
