"""What fuzzing found (tests/fuzz), and a short run of every target by mutation."""

import random

import pytest
from dnslib import RCODE, DNSRecord

from netlab.agents.dns_answers import Resolver
from netlab.errors import InputError
from netlab.manifest import Source, read_objects, read_topology
from tests.fuzz.__main__ import mutated
from tests.fuzz.seeds import seeds
from tests.fuzz.targets import TARGETS


def test_a_question_with_a_label_that_is_too_long_is_refused() -> None:
    """The parser takes a label of 98 bytes, and packing the answer raised."""
    asked = bytes.fromhex("1234 0100 0001 0000 0000 0000") + bytes((98,)) + b"x" * 98 + b"\0" + bytes((0, 1, 0, 1))
    answer = Resolver().answer(asked)
    assert answer is not None
    assert DNSRecord.parse(answer[:12]).header.rcode == RCODE.FORMERR
    sound = bytes(DNSRecord.question("kubia.default.svc.cluster.local").pack())
    assert DNSRecord.parse(Resolver().answer(sound) or b"").header.rcode == RCODE.NXDOMAIN


CUSTOM = """
apiVersion: {version}
kind: Ingress
metadata: {{name: web}}
spec: {{rules: [{{host: h, http: {{paths: [{{pat: x}}], other: a string}}}}, a string]}}
"""


def test_a_custom_resource_called_ingress_is_no_ingress() -> None:
    """Its spec is anybody's: reading it as an Ingress raised."""
    TARGETS["manifest"](CUSTOM.format(version="example.org/v1").encode())
    with pytest.raises(InputError, match="has no Ingress"):
        read_objects([Source("x.yaml", CUSTOM.format(version="networking.k8s.io/~1networking.k8s.io/v1").encode())])


def test_an_ipv6_node_address_in_a_cluster_of_both_families_is_no_traceback() -> None:
    """Looking for a free IPv4 address took the last digits of an IPv6 one for a number."""
    topology = """
cluster: {podCIDR: [10.244.0.0/16, "fd00:10:244::/56"], serviceCIDR: [10.96.0.0/16, "fd00:10:96::/112"]}
networks: {lan: {cidr: [192.168.0.0/24, "fd00:192:168::/64"]}}
nodes: {a: {addresses: ["fd00:192:168::169"]}}
"""
    read = read_topology(Source("x.yaml", topology.encode()))
    assert [address.version for address in read.nodes[0].addresses] == [6, 4]


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    chance, corpus = random.Random(1), seeds(name)
    for data in corpus:
        TARGETS[name](data)
    for _ in range(100 if name == "topology" else 300):
        TARGETS[name](mutated(chance, chance.choice(corpus), corpus))
