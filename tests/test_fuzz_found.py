"""What fuzzing found (tests/fuzz), and a short run of every target by mutation."""

import random

import pytest
from dnslib import RCODE, DNSRecord

from netlab.agents.dns_answers import Resolver
from tests.fuzz.__main__ import mutated
from tests.fuzz.targets import TARGETS, seeds


def test_a_question_with_a_label_that_is_too_long_is_refused() -> None:
    """The parser takes a label of 98 bytes, and packing the answer raised."""
    asked = bytes.fromhex("1234 0100 0001 0000 0000 0000") + bytes((98,)) + b"x" * 98 + b"\0" + bytes((0, 1, 0, 1))
    answer = Resolver().answer(asked)
    assert answer is not None
    assert DNSRecord.parse(answer[:12]).header.rcode == RCODE.FORMERR
    sound = bytes(DNSRecord.question("kubia.default.svc.cluster.local").pack())
    assert DNSRecord.parse(Resolver().answer(sound) or b"").header.rcode == RCODE.NXDOMAIN


@pytest.mark.parametrize("name", TARGETS)
def test_target(name: str) -> None:
    chance, corpus = random.Random(1), seeds(name)
    for data in corpus:
        TARGETS[name](data)
    for _ in range(100 if name == "topology" else 300):
        TARGETS[name](mutated(chance, chance.choice(corpus), corpus))
