"""What is fuzzed: a target takes bytes and may raise only what its reader promises. Whatever else comes out is a crash."""

import struct
from collections.abc import Callable
from pathlib import Path

import yaml

from netlab import controllers, plan
from netlab.agents.dns_answers import Resolver
from netlab.errors import ApiError, InputError
from netlab.kernel import conntrack, nft_trace
from netlab.manifest import Source, default_topology, read_objects, read_scenario, read_topology
from netlab.observe import annotating

ROOT = Path(__file__).parents[2]
Target = Callable[[bytes], None]


def manifest(data: bytes) -> None:
    """A manifest, and what follows from it: controllers and plan."""
    try:
        loaded = read_objects([Source("fuzz.yaml", data)])
        cluster = controllers.initial(default_topology(), loaded.objects)
    except (InputError, ApiError):
        return
    plan.text(plan.build(cluster))


def topology(data: bytes) -> None:
    """A topology, and the plan of an empty cluster of it."""
    try:
        read = read_topology(Source("fuzz.yaml", data))
        if len(read.nodes) > 20:
            return
        plan.text(plan.build(controllers.initial(read, ())))
    except (InputError, ApiError):
        return


def scenario(data: bytes) -> None:
    """A scenario."""
    try:
        read_scenario(Source("fuzz.yaml", data))
    except InputError:
        return


def dns(data: bytes) -> None:
    """A question to the DNS server."""
    Resolver().answer(data)


def trace(data: bytes) -> None:
    """A message of the kernel's rule trace."""
    try:
        nft_trace.parsed(data)
    except (ValueError, KeyError, struct.error):
        return


def connection(data: bytes) -> None:
    """An entry of the kernel's connection tracking: whole, as the kernel sends it, or refused at once."""
    try:
        conntrack._entry(data)
    except (ValueError, KeyError, struct.error):
        return


def frame(data: bytes) -> None:
    """An Ethernet frame of a capture."""
    annotating.key_of(data)


TARGETS: dict[str, Target] = {one.__name__: one for one in (manifest, topology, scenario, dns, trace, connection, frame)}


def seeds(name: str) -> list[bytes]:
    """Real input of a target."""
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
    return [bytes(64), bytes(range(64)), b"\x24\x00\x01\x00" * 16]
