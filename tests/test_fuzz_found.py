"""What fuzzing found (tests/fuzz), and a short run of every target by mutation."""

import json
import random
import re

import pytest
from dnslib import RCODE, DNSRecord

from netlab.agents import answers, dialling
from netlab.agents.dns_answers import Resolver
from netlab.errors import ApiError, InputError, NetlabError
from netlab.kernel import rule_listing
from netlab.lab import api, bodies, http
from netlab.manifest import Source, read_objects, read_topology
from netlab.observe import annotating
from tests.fuzz import paper
from tests.fuzz.__main__ import mutated
from tests.fuzz.seeds import VERBS, seeds
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


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("/echo?code=%C2%B2", id="a superscript two is a digit to isdigit(), and none to int()"),
        pytest.param("/dial?host=a&port=%C2%B2&request=x", id="as a port"),
        pytest.param("/dial?host=a&port=1&request=x&tries=%C2%B9", id="as a number of tries"),
    ],
)
def test_the_responder_takes_no_digits_that_are_none(path: str) -> None:
    """The responder answers for every pod of a lab: a client's request ended it, for all of them."""
    asked = answers.take_request(bytearray(f"GET {path} HTTP/1.0\r\n\r\n".encode()))
    assert isinstance(asked, answers.Request)
    said = answers.http_answer(asked, "kubia", answers.PodFacts("a"), ("10.0.0.1", 1))
    assert isinstance(said, answers.Answer)
    assert said.status == 400


@pytest.mark.parametrize("size", [b"-6", b"-8", b"+5", b"0x5", b"5_0", b""])
def test_a_chunk_size_that_is_no_number_is_malformed(size: bytes) -> None:
    """A negative one led back to where it stood, for ever."""
    with pytest.raises(answers.Malformed):
        answers.take_request(bytearray(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + size + b"\r\nhello\r\n\r\n"))
    sound = bytearray(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n")
    assert isinstance(answers.take_request(sound), answers.Request)
    assert not sound
    assert dialling.response_body(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n\r\n", ended=True) is None


@pytest.mark.parametrize(
    ("verb", "body", "said"),
    [
        ("fault", {"kind": "delay", "value": "1ms"}, "target is missing"),
        ("fault", {"kind": "kill-pod"}, "target is missing"),
        ("fault", {"kind": "restore", "undo": [["node/a", "eth0", {"speed": 1}]]}, "is no impairment"),
        ("fault", {"kind": "restore", "undo": [["node/a", "eth0"]]}, "undo must be what `fault` answered"),
        ("probe", {"from": "pod/client", "to": 80}, "to must be a string"),
        ("probe", {"from": "pod/client", "to": "svc/kubia", "timeout_s": 1e300}, "timeout_s must be a number"),
        (
            "probe",
            {"to": "svc/kubia", "count": True},
            "from is missing: a string without a zero byte; count must be a whole number",
        ),
        ("exec", {"target": "pod/client", "command": "ls"}, "command must be a list of strings"),
        ("exec", {"target": "pod/client", "command": ["l\0s"]}, "command must be a list of strings"),
        ("taint", {"add": []}, "taint: node is missing: a string without a zero byte"),
        ("taint", {"node": "node-170", "add": "abc"}, "add must be a list of objects that have a key"),
        ("taint", {"node": "node-170", "remove": [{"effect": "NoSchedule"}]}, "remove must be a list of objects that have a key"),
        ("taint", {"node": "node-170", "add": [{"key": "a", "value": 1}]}, "add must be a list of objects that have a key"),
        ("taint", {"node": "node-170", "add": [{"key": "a"}]}, "none: invalid taint effect, it is one of NoSchedule"),
        ("taint", {"node": "node-170", "add": [{"key": "a", "effect": "Foo"}]}, "Foo: invalid taint effect, it is one of NoSch"),
        ("taint", {"node": "node-170", "remove": [{"key": "a", "effect": "Foo"}]}, "Foo: invalid taint effect"),
        ("taint", {"node": "node-170", "add": [{"key": "bad key", "effect": "NoExecute"}]}, '"bad key" is no valid key'),
        ("matrix", ["pod/client"], "the body must be one JSON object"),
        ("port-forward", {"target": "pod/client", "ports": ["²:80"]}, "error parsing local port"),
    ],
)
def test_a_body_of_the_api_that_is_wrong_is_refused_in_words(verb: str, body: object, said: str) -> None:
    """Each was a traceback in the lab's log and a 500."""
    request = http.Request("POST", ("netlab", "v1", verb), {}, {}, json.dumps(body).encode())
    with pytest.raises(NetlabError, match=re.escape(said)):
        paper.ask(request)


def test_the_fields_of_every_verb_are_listed_and_every_verb_is_fuzzed() -> None:
    verbs = {*api.NOW, *api.LATER}
    assert bodies.FIELDS.keys() == verbs
    assert verbs - {verb for verb, _ in VERBS} == {"processes", "ingresses", "daemons", "namespaces"}, "they take no body"


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [
        ("POST", {}, b'{"metadata": 5}'),
        ("POST", {}, b"[" * 100_000),
        ("PUT", {}, b"not JSON"),
        ("DELETE", {}, b"[1]"),
        ("DELETE", {"gracePeriodSeconds": "nan"}, b""),
        ("DELETE", {}, b'{"gracePeriodSeconds": 1e400}'),
    ],
)
def test_an_object_of_the_api_that_is_wrong_is_a_bad_request(method: str, query: dict[str, str], body: bytes) -> None:
    name = ("client",) if method != "POST" else ()
    with pytest.raises(ApiError) as refused:
        paper.ask(http.Request(method, ("api", "v1", "namespaces", "default", "pods", *name), query, {}, body))
    assert refused.value.code == 400


def test_a_frame_that_is_cut_off_has_no_comment() -> None:
    """A snap length, or a program of the lab that sends half a header, ended the capture."""
    for whole in seeds("frame"):
        header = 34 if whole[12:14] == b"\x08\0" else 54
        protocol = whole[23] if header == 34 else whole[20]
        needed = header + (4 if protocol in (6, 17, 132) else 0)
        for length in range(len(whole)):
            assert bool(annotating.key_of(whole[:length])) is (length >= needed), (whole, length)


def test_a_listing_with_lines_of_another_kind_is_read_on() -> None:
    """A name that a user gave may hold what looks like another line."""
    assert rule_listing.nft_blocks("\t\taccept\n\tflags x\n") == {("", ""): ["accept", "flags x"]}
    assert rule_listing.iptables_blocks("*nat\n:odd\n-A odd -j X\n") == {("nat", "odd"): ["chain", "-A odd -j X"]}


@pytest.mark.parametrize("name", ["deployment.kubernetes.io/revision", "deployment.kubernetes.io/max-replicas"])
@pytest.mark.parametrize("value", ["²", "9" * 5000])
def test_an_annotation_that_is_no_number_is_none(name: str, value: str) -> None:
    text = f"""
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web
  annotations: {{{name}: "{value}"}}
  ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, uid: "1", controller: true}}]
spec:
  selector: {{matchLabels: {{app: web}}}}
  template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: nginx}}]}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, uid: "1", annotations: {{{name}: "{value}"}}}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  strategy: {{rollingUpdate: {{maxSurge: 25%}}}}
  template: {{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{{name: c, image: nginx}}]}}}}
"""
    TARGETS["manifest"](text.encode())
    with pytest.raises(InputError, match="percentage"):
        read_objects([Source("x.yaml", text.replace("25%", "²%").encode())])


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    chance, corpus = random.Random(1), seeds(name)
    for data in corpus:
        TARGETS[name](data)
    for _ in range(100 if name == "topology" else 300):
        TARGETS[name](mutated(chance, chance.choice(corpus), corpus))
