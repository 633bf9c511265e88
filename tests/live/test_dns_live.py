"""The cluster's DNS in a running lab, asked from inside a pod by dnspython, by dig and by glibc's own resolver."""

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import netlab
from netlab.client import Lab
from tests.dns_cases import ALL, CASES, MANIFEST
from tests.waiting import until

ASK = """
import json, sys
import dns.message, dns.query, dns.rcode, dns.rdatatype
ways = {"udp": dns.query.udp, "tcp": dns.query.tcp}
found = []
for name, kind in json.loads(sys.argv[2]):
    for way in ways:
        answer = ways[way](dns.message.make_query(name, kind, use_edns=0), sys.argv[1], timeout=10)
        data = sorted(f"{dns.rdatatype.to_text(rrset.rdtype)} {one}" for rrset in answer.answer for one in rrset)
        soa = [rrset[0].minimum for rrset in answer.authority if rrset.rdtype == dns.rdatatype.SOA]
        found.append([way, data, dns.rcode.to_text(answer.rcode()), soa])
json.dump(found, sys.stdout)
"""
CLUSTER_DNS = "10.96.0.10"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    manifest = tmp_path_factory.mktemp("dns") / "cases.yaml"
    manifest.write_text(MANIFEST)
    with netlab.up(manifests=[manifest]) as running:
        yield running


def ask(lab: Lab, questions: list[tuple[str, str]], sender: str = "pod/client", server: str = CLUSTER_DNS) -> list[Any]:
    """[way, answers, status, negative TTLs] of every question over UDP and TCP, by dnspython."""
    done = lab.exec(sender, [sys.executable, "-c", ASK, server, json.dumps(questions)], timeout_s=60)
    assert done.returncode == 0, done.stderr
    found: list[Any] = json.loads(done.stdout)
    return found


def test_every_kind_of_record_by_dnspython(lab: Lab) -> None:
    found = ask(lab, [(case.name, case.type) for case in CASES])
    wrong = []
    for index, (way, answers, status, soa) in enumerate(found):
        case = CASES[index // 2]
        denied = [] if case.answers or case.name == "www.example.com" else [5]
        if (tuple(answers), status, soa) != (case.answers, case.status, denied):
            wrong.append((case.row, way, answers, status, soa))
    assert len(found) == 2 * len(CASES)
    assert wrong == []


@pytest.mark.skipif(not shutil.which("dig"), reason="dig (package bind9-dnsutils) is not installed")
def test_every_kind_of_record_by_dig(lab: Lab) -> None:
    questions = [word for case in CASES for word in (case.name, case.type)]
    options = ["+noall", "+comments", "+answer", "+nocookie", "+tries=3"]
    done = lab.exec("pod/client", ["dig", *options, *questions], timeout_s=60)
    found = [_dug(text) for text in done.stdout.split(";; Got answer:")[1:]]
    assert [(case.row, *one) for case, one in zip(CASES, found, strict=True)] == [
        (case.row, case.answers, case.status) for case in CASES
    ]


def _dug(text: str) -> tuple[tuple[str, ...], str]:
    status = text.partition("status: ")[2].partition(",")[0]
    lines = [line.split(None, 4) for line in text.splitlines() if line and not line.startswith(";")]
    return tuple(sorted(f"{kind} {data}" for _, _, _, kind, data in lines)), status


@pytest.mark.parametrize(
    ("database", "name", "found"),
    [
        ("ahostsv4", "web", {"10.96.0.80"}),
        ("ahostsv4", "web.shop", {"10.96.0.82"}),
        ("ahostsv4", "web.shop.svc", {"10.96.0.82"}),
        ("ahostsv4", f"web.{ALL}", {"10.96.0.80"}),
        ("ahostsv4", f"web.{ALL}.", {"10.96.0.80"}),
        ("ahostsv4", "pets", {"10.244.1.20", "10.244.2.21"}),
        ("ahostsv4", "rex.pets", {"10.244.1.20"}),
        ("ahostsv4", "alias", {"10.96.0.82"}),
        ("ahostsv4", "10-244-2-22.default.pod", {"10.244.2.22"}),
        ("hosts", "rex.six", {"2001:db8::20"}),
        ("hosts", "10.96.0.80", {"10.96.0.80"}),
        ("ahosts", "waiting", set()),
        ("ahosts", "wep", set()),
        ("ahosts", "outside", set()),
        ("ahosts", "www.example.com", set()),
    ],
)
def test_by_the_c_librarys_own_resolver(lab: Lab, database: str, name: str, found: set[str]) -> None:
    started = time.monotonic()
    done = lab.exec("pod/client", ["env", "RES_OPTIONS=timeout:30", "getent", database, name], timeout_s=60)
    assert {line.split()[0] for line in done.stdout.splitlines()} == found, done
    assert done.returncode == (0 if found else 2)
    assert time.monotonic() - started < 25, "a question went unanswered; also that there is none is an answer"


def test_names_of_addresses_by_the_c_librarys_own_resolver(lab: Lab) -> None:
    assert lab.exec("pod/client", ["getent", "hosts", "10.96.0.80"]).stdout.split() == ["10.96.0.80", f"web.{ALL}"]
    assert lab.exec("pod/client", ["getent", "hosts", "10.244.1.20"]).stdout.split() == ["10.244.1.20", f"rex.pets.{ALL}"]


def test_a_pod_of_another_namespace_has_its_own_search_list(lab: Lab) -> None:
    lab.apply([{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "buyer", "namespace": "shop"},
                "spec": {"containers": [{"name": "main", "image": "curl"}]}}])  # fmt: skip
    assert lab.exec("pod/buyer", ["getent", "ahostsv4", "web"], namespace="shop").stdout.split()[0] == "10.96.0.82"
    assert lab.exec("pod/buyer", ["getent", "ahostsv4", "web.default"], namespace="shop").stdout.split()[0] == "10.96.0.80"


def test_nodes_ask_too(lab: Lab) -> None:
    assert ask(lab, [(f"web.{ALL}", "A")], "node/node-171")[0][1] == ["A 10.96.0.80"]


def test_a_program_in_a_pod_finds_a_service_by_name(lab: Lab) -> None:
    herd = lab.get("pods", selector="app=herd")[0]["metadata"]["name"]
    assert lab.exec("pod/client", ["curl", "-s", "-m", "10", "http://herd:8080/"]).stdout.startswith("You've hit herd-"), herd


def test_the_next_question_after_a_change_gets_the_new_answer(lab: Lab) -> None:
    for count in (4, 1, 3):
        lab.scale("deploy", "herd", count)
        addresses = sorted(f"A {pod['status']['podIP']}" for pod in lab.get("pods", selector="app=herd"))
        assert len(addresses) == count
        assert sorted(ask(lab, [(f"herd.{ALL}", "A")])[0][1]) == addresses


def test_a_new_service_has_a_name_and_a_deleted_one_has_none(lab: Lab) -> None:
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "fresh"},
               "spec": {"clusterIP": "10.96.0.90", "ports": [{"port": 80}]}}  # fmt: skip
    assert ask(lab, [(f"fresh.{ALL}", "A")])[0][2] == "NXDOMAIN"
    lab.apply([service])
    assert ask(lab, [(f"fresh.{ALL}", "A")])[0][1] == ["A 10.96.0.90"]
    lab.delete("service", "fresh")
    assert ask(lab, [(f"fresh.{ALL}", "A")])[0][2] == "NXDOMAIN"


NOISE = """
import os, random, socket, sys
random.seed(4)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(2000):
    sock.sendto(os.urandom(2) + random.randbytes(random.randrange(0, 120)), (sys.argv[1], 53))
held = [socket.create_connection((sys.argv[1], 53), timeout=10) for _ in range(40)]
for one in held[:20]:
    one.sendall(random.randbytes(300))
held[0].sendall(b"\\0\\5")
"""


def test_noise_does_not_end_it(lab: Lab) -> None:
    before = lab.verb("processes")["agents"]["dns"]
    assert lab.exec("pod/client", [sys.executable, "-c", NOISE, CLUSTER_DNS], timeout_s=30).returncode == 0
    assert ask(lab, [(f"web.{ALL}", "A")])[0][1] == ["A 10.96.0.80"]
    assert lab.verb("processes")["agents"]["dns"] == before


def test_a_killed_server_comes_back_with_all_names(lab: Lab) -> None:
    pid = lab.verb("processes")["agents"]["dns"]
    _kill(lab, pid)
    until(lambda: lab.verb("processes")["agents"]["dns"] != pid, "no other server was started")
    found = ask(lab, [(case.name, case.type) for case in CASES[:8]])
    assert [tuple(one[1]) for one in found[::2]] == [case.answers for case in CASES[:8]]
    assert lab.verify().drift == []


def _kill(lab: Lab, pid: int) -> None:
    """End one process of the lab, by its number inside."""
    lab.exec("node/node-169", ["kill", f"-{int(signal.SIGKILL)}", str(pid)], check=True)


def test_nothing_is_forwarded(lab: Lab) -> None:
    """Whatever is asked, the DNS pods send one datagram for each that they get: the answer."""
    before = _datagrams(lab)
    found = ask(lab, [("www.example.com", "A"), (f"outside.{ALL}", "A"), ("1.1.1.1.in-addr.arpa", "PTR"), ("example.com", "MX")])
    assert [one[2] for one in found[::2]] == ["NXDOMAIN", "NOERROR", "NXDOMAIN", "NXDOMAIN"]
    received, sent = (after - was for after, was in zip(_datagrams(lab), before, strict=True))
    assert received == sent == 4


def _datagrams(lab: Lab) -> tuple[int, int]:
    """UDP datagrams that all DNS pods together received and sent."""
    received = sent = 0
    for pod in lab.get("pods", None, "kube-system"):
        text = lab.exec(f"pod/{pod['metadata']['name']}", ["cat", "/proc/net/snmp"], namespace="kube-system").stdout
        names, values = (line.split() for line in text.splitlines() if line.startswith("Udp:"))
        counters = dict(zip(names, values, strict=True))
        received += int(counters["InDatagrams"])
        sent += int(counters["OutDatagrams"])
    return received, sent
