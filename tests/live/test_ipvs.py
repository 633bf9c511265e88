"""Mode ipvs with packets: the spec's cases and the verdict table in both families, turns and weights, leaving real servers, and
what the periodic sync and `verify` mend. Where the kernel has no IPVS, `make test-vm` runs this.

Cases that share a topology take turns in one lab: a lab costs seconds in the VM.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.client import Lab, ProbeResult
from tests import spec
from tests.live.test_spec import SETTINGS, STEPPED, changed, check, probe, start, take
from tests.spec import Case
from tests.waiting import until_equal

pytestmark = pytest.mark.needs_ip_vs
MODE = "ipvs"
FLOWS = 4
"""Round robin: of two real servers both are seen, each twice."""
OTHERWISE = {
    "aff-03": "a client is remembered while one of its connections is, TIME_WAIT's two minutes included (ip_vs_conn_expire)",
    "udp-03": "a UDP real server that is not ready any more is deleted at once, terminating but serving or not",
}
"""Cases in steps that ipvs does not keep to, as kube-proxy and the kernel do not.

udp-03: deleteRsFunc (kubernetes pkg/proxy/ipvs/graceful_termination.go) waits for connections of other protocols than UDP, and
with expire_nodest_conn the kernel then forgets the flow: since Linux 5.9 at once (04231e52d355, ip_vs_expire_nodest_conn_flush),
before with its next packet, which is lost. The test below asks the packets.
"""
SINGLE = [case for case in spec.load_cases() if case.single]


def topology_text(case: Case) -> str:
    return json.dumps(spec.topology_of(case, MODE), sort_keys=True, default=str)


def by_topology(cases: list[Case]) -> dict[str, list[Case]]:
    groups = groupby(sorted(cases, key=topology_text), topology_text)
    found = [list(group) for _, group in groups]
    return {f"{cases[0].id}+{len(cases) - 1}": cases for cases in found}


V4, V6 = by_topology(SINGLE), by_topology([spec.in_ipv6(case) for case in SINGLE])


@pytest.mark.parametrize("cases", [*V4.values(), *V6.values()], ids=[*V4, *(f"{name}-v6" for name in V6)])
def test_cases(cases: list[Case], tmp_path: Path) -> None:
    """All are sent, and what is wrong is told of all."""
    wrong: list[str] = []
    with start(cases[0], MODE, tmp_path) as lab:
        for number, case in enumerate(cases):
            objects = spec.manifests_of(case)
            if number:
                lab.apply(objects)
            wrong += problem(lab, case)
            for one in reversed(objects):
                lab.delete(one["kind"].lower(), one["metadata"]["name"])
        assert wrong == []
        assert lab.verify().drift == []


@pytest.mark.parametrize("six", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_verdict_table(setting: str, six: bool, tmp_path: Path) -> None:
    cases = [case for case in spec.load_verdicts() if case.id.split("/")[0] == setting]
    cases = [spec.in_ipv6(case) for case in cases] if six else cases
    assert len(cases) == 27
    with start(cases[0], MODE, tmp_path) as lab:
        assert [told for case in cases for told in problem(lab, case)] == []


def problem(lab: Lab, case: Case) -> list[str]:
    """What the case's packets did that they should not."""
    try:
        check(probe(lab, case, case.packets[0], count=FLOWS), case, case.steps[0], MODE)
    except AssertionError as error:
        return [f"{case.id}: {case.about}: {error}"]
    return []


def test_a_udp_flow_to_an_endpoint_that_terminates_goes_elsewhere(tmp_path: Path) -> None:
    """Case udp-03, in which every other mode keeps the flow: what ipvs does instead, by packets."""
    (case,) = [case for case in STEPPED if case.id == "udp-03"]
    first, change, again = case.steps
    with start(case, MODE, tmp_path) as lab:
        remembered = take(lab, case, first, MODE, "")
        case = changed(lab, case, change, remembered)
        assert remembered not in "".join(lab.node("node-a").rules().split("-a -u ")[1:]), "not weight 0: deleted"
        seen = [probe(lab, case, again["packet"], count=1, source_port=23456) for _ in range(4)]
        fates = [(one.outcomes["dropped"], {spec.address_of(case, name) for name in one.backends}) for one in seen]
        others = {end["ip"] for end in case.endpoints} - {remembered}
        assert fates[0] in ((0, others), (1, set())), "before Linux 5.9 the packet that finds its real server gone is lost"
        assert fates[1:] == [(0, others)] * 3 and {one.verdict for one in seen[1:]} == {"pass"}, (fates, seen)


@pytest.mark.parametrize("case", [case for case in STEPPED if case.id not in OTHERWISE], ids=lambda case: case.id)
def test_case_in_steps(case: Case, tmp_path: Path) -> None:
    with start(case, MODE, tmp_path) as lab, contextlib.ExitStack() as held:
        remembered, connection = "", None
        for step in case.steps:
            if packet := step.get("open_connection"):
                sender, to = str(spec.sender_of(packet, case)), f"{packet['to']}:{packet['port']}"
                connection = held.enter_context(lab.connect(sender, to, source=packet["srcIP"]))
                assert connection.result.verdict == "pass", connection.result
                remembered = spec.address_of(case, connection.backend)
            if "use_connection" in step:
                assert connection is not None
                assert connection.use(), connection.problem
            remembered = take(lab, case, step, MODE, remembered)
            case = changed(lab, case, step, remembered)


# ---------------------------------------------------------------- schedulers

WEIGHTS = (1, 2, 3)


def weighted() -> list[dict[str, Any]]:
    """Three pods of weights 1, 2 and 3 behind `web`, and a client."""
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"web-{weight}", "labels": {"app": "web"}, "annotations": {"netlab/ipvs-weight": str(weight)}},
            "spec": {"containers": [{"name": "web", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}]},
        }
        for weight in WEIGHTS
    ]
    client = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "client"},
        "spec": {"containers": [{"name": "c", "image": "client"}]},
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"clusterIP": "10.96.5.5", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    return [*pods, client, service]


def up(tmp_path: Path, name: str, **proxy: Any) -> Lab:
    topology, manifest = tmp_path / f"{name}.json", tmp_path / f"{name}-objects.json"
    text = {"apiVersion": "netlab/v1", "kind": "Topology", "cluster": {"proxy": {"mode": MODE, **proxy}, "dns": False}}
    topology.write_text(json.dumps(text))
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": weighted()}))
    return netlab.up(topology, manifests=[manifest])


def counts(seen: ProbeResult) -> list[int]:
    return [seen.backends.get(f"pod/default/web-{weight}", 0) for weight in WEIGHTS]


SHARES: dict[str, Callable[[list[int]], bool]] = {
    "rr": lambda found: found == [20, 20, 20],
    "wrr": lambda found: found == [10, 20, 30],
    "lc": lambda found: found == [20, 20, 20],
    "wlc": lambda found: found[0] < found[1] < found[2],
    "sed": lambda found: found[0] < found[1] < found[2],
    "nq": lambda found: found[0] < found[1] < found[2],
    "sh": lambda found: sorted(found) == [0, 0, 60],
    "dh": lambda found: sorted(found) == [0, 0, 60],
}
"""60 connections that stay open meanwhile (they are half open: IPVS counts them), over weights 1, 2 and 3."""


@pytest.mark.parametrize("scheduler", SHARES)
def test_schedulers(scheduler: str, tmp_path: Path) -> None:
    with up(tmp_path, scheduler, scheduler=scheduler) as lab:
        assert f"-A -t 10.96.5.5:80 -s {scheduler}\n" in lab.node("node-170").rules()
        seen = lab.probe("pod/client", "svc/web", count=60)
        assert seen.verdict == "pass", seen
        assert seen.outcomes["delivered"] == 60
        assert SHARES[scheduler](counts(seen)), counts(seen)
        assert lab.verify().drift == []


# ---------------------------------------------------------------- leaving, mending


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with up(tmp_path_factory.mktemp("lab"), "lab", syncPeriod="2s") as made:
        yield made


def real_servers(lab: Lab, node: str) -> dict[str, int]:
    """Address and port -> weight, of the virtual server of `web`."""
    lines = [line.split() for line in lab.node(node).rules().splitlines() if line.startswith("-a -t 10.96.5.5:80 ")]
    return {words[4]: int(words[-1]) for words in lines}


def relabel(lab: Lab, pod: str, app: str | None) -> None:
    path = f"/api/v1/namespaces/default/pods/{pod.rpartition('/')[2]}"
    patch = {"metadata": {"labels": {"app": app}}}
    lab.request("PATCH", path, patch, {"Content-Type": "application/merge-patch+json"})


def node_of(lab: Lab, pod: str) -> str:
    (found,) = [one["spec"]["nodeName"] for one in lab.get("pods", pod)]
    return str(found)


def test_a_real_server_leaves_when_its_connections_have_ended(lab: Lab) -> None:
    node = node_of(lab, "client")
    with contextlib.ExitStack() as held:
        connections = [held.enter_context(lab.connect("pod/client", "svc/web")) for _ in WEIGHTS]
        gone = connections[0].backend
        (endpoint,) = [one["status"]["podIP"] for one in lab.get("pods", gone.rpartition("/")[2])]
        weight = real_servers(lab, node)[f"{endpoint}:8080"]
        assert weight > 0
        relabel(lab, gone, None)
        assert real_servers(lab, node)[f"{endpoint}:8080"] == 0
        assert connections[0].use(), connections[0].problem
        seen = lab.probe("pod/client", "svc/web", count=6)
        assert seen.verdict == "pass", seen
        assert gone not in seen.backends
        assert lab.verify().drift == []
    relabel(lab, gone, "web")
    assert real_servers(lab, node)[f"{endpoint}:8080"] == weight


def test_one_without_connections_leaves_at_once(lab: Lab) -> None:
    other = next(name for name in ("node-169", "node-170", "node-171") if name != node_of(lab, "client"))
    before = real_servers(lab, other)
    relabel(lab, "pod/default/web-3", None)
    assert len(real_servers(lab, other)) == len(before) - 1
    relabel(lab, "pod/default/web-3", "web")
    assert real_servers(lab, other) == before


BROKEN = {
    "a virtual server is deleted": ["ipvsadm", "-D", "-t", "10.96.5.5:80"],
    "a real server is deleted": [
        "sh",
        "-c",
        "ipvsadm -d -t 10.96.5.5:80 -r $(ipvsadm -Sn | awk '/10.96.5.5:80 -r/ {print $5; exit}')",
    ],
    "a virtual server is added": ["ipvsadm", "-A", "-t", "10.96.5.5:81", "-s", "rr"],
    "another scheduler": ["ipvsadm", "-E", "-t", "10.96.5.5:80", "-s", "wlc"],
    "an element is deleted": ["ipset", "del", "KUBE-CLUSTER-IP", "10.96.5.5,tcp:80"],
    "an element is added": ["ipset", "add", "KUBE-NODE-PORT-TCP", "31999"],
    "rules are flushed": ["iptables-nft", "-t", "nat", "-F", "KUBE-SERVICES"],
    "an address is deleted": ["ip", "addr", "del", "10.96.5.5/32", "dev", "kube-ipvs0"],
    "an address is added": ["ip", "addr", "add", "10.96.5.6/32", "dev", "kube-ipvs0"],
    "the device is deleted": ["ip", "link", "del", "kube-ipvs0"],
    "a sysctl is changed": ["sh", "-c", "echo 0 > /proc/sys/net/ipv4/vs/conntrack"],
}


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab whose periodic sync never comes."""
    with up(tmp_path_factory.mktemp("still"), "still", syncPeriod="0s") as made:
        yield made


@pytest.mark.parametrize("how", BROKEN)
def test_verify_tells_and_repairs(still: Lab, how: str) -> None:
    still.exec("node/node-170", BROKEN[how], check=True)
    assert still.verify().drift, how
    still.verify(repair=True)
    assert still.verify().drift == []
    assert still.probe("node/node-170", "svc/web", count=3).verdict == "pass"


def test_the_periodic_sync_mends(lab: Lab) -> None:
    for command in (*BROKEN.values(),):
        if command[0] != "ip" or "del" not in command:
            lab.exec("node/node-170", command)
    until_equal(lambda: lab.verify().drift, [])
    assert lab.probe("node/node-170", "svc/web", count=3).verdict == "pass"


def test_ipvsadm_says_the_same(lab: Lab) -> None:
    saved = lab.exec("node/node-170", ["ipvsadm", "-Sn"], check=True).stdout.splitlines()
    ours = [line for line in lab.node("node-170").rules().splitlines() if line.startswith(("-A -t", "-A -u", "-a -t", "-a -u"))]
    assert sorted(line.strip() for line in saved) == sorted(ours)
