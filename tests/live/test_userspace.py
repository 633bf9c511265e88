"""Mode userspace with packets: the spec's cases, exact turns, and a proxy process that dies.

Cases in which the old proxier did otherwise than today's modes (tests/test_proxy_userspace.py lists them with their reasons) are
sent too, and judged by the oracle alone.
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import netlab
from netlab.client import Lab
from netlab.model import OutcomeKind
from tests import spec
from tests.live.test_spec import OWN_OF_NODE, SETTINGS, STEPPED, changed, probe, start, take
from tests.spec import Case
from tests.test_proxy_userspace import FOREIGN, NOT_ASKED, SINGLE, is_different, name_of, wanted
from tests.waiting import until

MODE = "userspace"
FLOWS = 12
CASES = [case for case in SINGLE if "/" not in case.id]


def check(lab: Lab, case: Case) -> None:
    seen = probe(lab, case, case.packets[0], count=FLOWS)
    assert seen.verdict == "pass", (case.id, seen)
    if is_different(case) or case.id in FOREIGN:
        return
    kind, backends = wanted(case)
    if kind is OutcomeKind.DELIVERED:
        assert seen.outcomes["delivered"] == seen.sent == FLOWS, (case.id, seen)
        assert set(seen.backends) == {spec.receiver(case, backend) for backend in backends}, (case.id, seen)
        assert set(seen.sources) <= OWN_OF_NODE, (case.id, seen)
        assert max(seen.backends.values()) - min(seen.backends.values()) <= (FLOWS if seen.expected.get("affinity") else 1)
    elif kind is OutcomeKind.REJECTED:
        assert seen.outcomes["rejected" if case.packets[0]["proto"] == "TCP" else "dropped"] == seen.sent, (case.id, seen)
    elif kind is OutcomeKind.DROPPED:
        assert seen.outcomes["dropped"] == seen.sent, (case.id, seen)


def by_settings() -> dict[str, list[Case]]:
    """Cases that can share a lab, one after the other: those with the same topology."""
    found: dict[str, list[Case]] = {}
    for case in CASES:
        found.setdefault(json.dumps(spec.topology_of(case), sort_keys=True, default=str), []).append(case)
    return {f"{name_of(cases[0])} and {len(cases) - 1} more": cases for cases in found.values()}


@pytest.mark.parametrize("cases", by_settings().values(), ids=by_settings())
def test_cases(cases: list[Case], tmp_path: Path) -> None:
    with start(cases[0], MODE, tmp_path) as lab:
        for number, case in enumerate(cases):
            if number:
                lab.apply(spec.manifests_of(case))
            check(lab, case)
            for one in reversed(spec.manifests_of(case)):
                lab.delete(one["kind"].lower(), one["metadata"]["name"])


@pytest.mark.parametrize("ipv6", [False, True], ids=["v4", "v6"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_verdict_table(setting: str, ipv6: bool, tmp_path: Path) -> None:
    cases = [case for case in spec.load_verdicts() if case.id.split("/")[0] == setting]
    cases = list(map(spec.in_ipv6, cases)) if ipv6 else cases
    with start(cases[0], MODE, tmp_path) as lab:
        for case in cases:
            check(lab, case)


def masqueraded(step: spec.Raw) -> spec.Raw:
    """What the step says, but that every pod sees the node's address."""
    said = step.get("expect", {})
    return {**step, "expect": {**said, "masq": True, "masq_by_endpoint": None}} if "endpoints" in said else step


@pytest.mark.parametrize("case", [case for case in STEPPED if case.id not in NOT_ASKED], ids=lambda case: case.id)
def test_case_in_steps(case: Case, tmp_path: Path) -> None:
    with start(case, MODE, tmp_path) as lab:
        remembered = ""
        for step in map(masqueraded, case.steps):
            remembered = take(lab, case, step, MODE, remembered)
            case = changed(lab, case, step, remembered)


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with netlab.up(manifests=["manifests/kubia.yaml", "manifests/udp.yaml"], proxy=MODE) as made:
        yield made


@pytest.mark.parametrize(
    ("to", "protocol"), [("svc/kubia", "tcp"), ("svc/kubia", "http"), ("svc/udp-echo:dns", "udp")], ids=["tcp", "http", "udp"]
)
def test_turns_are_exact(lab: Lab, to: str, protocol: str) -> None:
    seen = lab.probe("pod/client", to, count=1000, protocol=protocol)
    assert seen.verdict == "pass", seen
    assert sorted(seen.backends.values()) == [333, 333, 334], seen
    again = lab.probe("host/client", to, count=2, protocol=protocol)
    assert again.verdict == "pass", again


def proxies(lab: Lab) -> dict[str, int]:
    pids = lab.verb("processes")["agents"]
    return {name: pid for name, pid in pids.items() if name.startswith("proxy-")}


def test_a_node_has_a_proxy_process(lab: Lab) -> None:
    assert set(proxies(lab)) == {"proxy-node-169", "proxy-node-170", "proxy-node-171"}
    assert "kube-proxy" in lab.exec("node/node-170", ["ss", "-tlnp"]).stdout


def test_a_proxy_process_that_is_killed_comes_back(lab: Lab) -> None:
    before = proxies(lab)
    lab.exec("node/node-170", ["sh", "-c", f"kill -9 {before['proxy-node-170']}"], check=True)
    until(lambda: proxies(lab)["proxy-node-170"] != before["proxy-node-170"], "no other process was started")
    after = proxies(lab)
    assert {name for name in before if before[name] == after[name]} == {"proxy-node-169", "proxy-node-171"}
    assert lab.verify().drift == []
    seen = lab.probe("node/node-170", "svc/kubia", count=9)
    assert seen.verdict == "pass", seen
    assert set(seen.backends.values()) == {3}


def test_a_stopped_proxy_process_is_seen(lab: Lab) -> None:
    """A process that does nothing accepts connections all the same (its kernel does): only what arrives at the pod counts."""
    pid = proxies(lab)["proxy-node-171"]
    lab.exec("node/node-171", ["kill", "-STOP", str(pid)], check=True)
    try:
        seen = lab.probe("node/node-171", "svc/kubia", count=3, timeout_s=0.3)
    finally:
        lab.exec("node/node-171", ["kill", "-CONT", str(pid)], check=True)
    assert seen.verdict == "fail"
    assert seen.outcomes["dropped"] == 3
    assert lab.probe("node/node-171", "svc/kubia", count=3).verdict == "pass"


def test_rules_taken_away_are_told_and_mended(lab: Lab) -> None:
    for node in ("node-169", "node-170", "node-171"):
        lab.exec(f"node/{node}", ["iptables-nft", "-t", "nat", "-F", "KUBE-PORTALS-CONTAINER"], check=True)
    assert lab.probe("pod/client", "svc/kubia", timeout_s=0.3).verdict == "fail"
    assert any("KUBE-PORTALS-CONTAINER" in sentence for sentence in lab.verify(repair=True).drift)
    assert lab.probe("pod/client", "svc/kubia", count=3).verdict == "pass"


def test_a_pod_that_is_cut_off_is_passed_over(lab: Lab) -> None:
    victim = next(iter(lab.probe("pod/client", "svc/kubia").backends))
    lab.fault("link-down", target=victim)
    try:
        seen = lab.probe("pod/client", "svc/kubia", count=6, timeout_s=2.0)
        assert seen.verdict == "pass", seen
        assert seen.outcomes["delivered"] == 6
        assert victim not in seen.backends
        assert len(seen.backends) == 2
    finally:
        lab.fault("link-up", target=victim)


def test_a_udp_client_that_came_before_its_service_is_served(lab: Lab) -> None:
    """The node has forwarded its datagrams and goes on so, until the connection is forgotten."""
    before = lab.get("services", "udp-echo")
    lab.delete("service", "udp-echo")
    to = f"{before[0]['spec']['clusterIP']}:53"
    assert lab.probe("pod/client", to, protocol="udp", source_port=23456, timeout_s=0.3).outcomes["dropped"] == 1
    lab.apply([{key: value for key, value in before[0].items() if key != "status"}])
    seen = lab.probe("pod/client", to, protocol="udp", source_port=23456)
    assert (seen.verdict, seen.outcomes["delivered"]) == ("pass", 1), seen


ON_ONE_CONNECTION = """
import http.client, time
connection = http.client.HTTPConnection("kubia", timeout=60)
for _ in range(40):
    connection.request("GET", "/hostname")
    print(connection.getresponse().read().decode(), flush=True)
    time.sleep(0.05)
"""


def test_a_connection_stays_with_its_pod_while_endpoints_come_and_go(lab: Lab) -> None:
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(lab.exec, "pod/client", ["python3", "-c", ON_ONE_CONNECTION], timeout_s=30)
        for replicas in (5, 4, 5):
            lab.scale("rc", "kubia", replicas)
            assert lab.probe("pod/client", "svc/kubia", count=10).verdict == "pass"
        done = held.result()
    lab.scale("rc", "kubia", 3)
    assert done.returncode == 0, done
    assert len(done.stdout.split()) == 40
    assert len(set(done.stdout.split())) == 1


def test_matrix_passes(lab: Lab) -> None:
    results = lab.matrix()
    assert len(results) > 20
    assert [result for result in results if result.verdict != "pass"] == []


def test_flows_that_a_proxy_gave_up_as_foreseen_are_no_failure(lab: Lab) -> None:
    """Which flow meets three dead endpoints in turn is chance; that some may was said before."""
    nodes = {pod["metadata"]["name"]: pod["spec"]["nodeName"] for pod in lab.get("pods")}
    sender = nodes["client"]
    lab.scale("rc", "kubia", 6)
    lab.fault("partition", target="/".join(sorted({sender, next(node for node in nodes.values() if node != sender)})))
    try:
        for _ in range(3):
            seen = lab.probe(f"node/{sender}", "svc/kubia", count=12)
            assert seen.verdict == "pass", seen
            assert seen.outcomes["delivered"] > 0
            assert seen.outcomes["delivered"] + seen.outcomes["dropped"] == 12
    finally:
        lab.fault("heal")
        lab.scale("rc", "kubia", 3)


def test_routed_pods_are_served(tmp_path: Path) -> None:
    with netlab.up(manifests=["manifests/kubia.yaml", "manifests/udp.yaml"], proxy=MODE, fabric="routed") as routed:
        for sender in ("pod/client", "host/client", "node/node-169"):
            for to, protocol in (("svc/kubia", "tcp"), ("svc/udp-echo:dns", "udp")):
                seen = routed.probe(sender, to, count=6, protocol=protocol)
                assert seen.verdict == "pass", seen
                assert set(seen.backends.values()) == {2}
