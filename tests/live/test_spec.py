"""The spec's cases and the verdict table with packets: real manifests, a real kernel, and the case's own word as the judge.

What a case says is compared with what arrived; that the oracle agrees (`verdict`) is asked besides. Cases with steps in time
follow at the end.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import netlab
from netlab.client import Lab, ProbeResult
from netlab.model import OutcomeKind
from tests import spec
from tests.spec import CHAINS as MODES
from tests.spec import Case

FLOWS = 40
"""Of two equal backends both are seen, but for one run in 2**39."""
OWN_OF_NODE = {text for own in (*spec.NODE_ADDRESSES[spec.NODE], "10.244.1.1") for text in (own, spec.v6(own))}
SINGLE = [case for case in spec.load_cases() if case.single]
STEPPED = [case for case in spec.load_cases() if not case.single]
SETTINGS = sorted({case.id.split("/")[0] for case in spec.load_verdicts()})


def start(case: Case, mode: str, tmp_path: Path) -> Lab:
    topology, manifest = tmp_path / "topology.json", tmp_path / "manifest.json"
    topology.write_text(json.dumps(spec.topology_of(case, mode)))
    manifest.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": spec.manifests_of(case)}))
    return netlab.up(topology, manifests=[manifest])


def probe(lab: Lab, case: Case, packet: spec.Raw, count: int = FLOWS, **options: Any) -> ProbeResult:
    return lab.probe(
        str(spec.sender_of(packet, case)),
        spec.target_of(packet),
        count=count,
        protocol=packet["proto"].lower(),
        source=packet["srcIP"],
        timeout_s=0.5 if _is_silence(packet, case) else 5.0,  # silence takes as long as it is waited for, an answer does not
        **options,
    )


def _is_silence(packet: spec.Raw, case: Case) -> bool:
    """Whether some mode is to leave the packet unanswered."""
    steps = [step for step in case.steps if packet in (step.get("packet"), step.get("open_connection"))]
    said = [value for step in steps for key, value in step.items() if key.startswith("expect")]
    return any(one.get("result") in ("drop", "not-handled") for one in said)


def check(seen: ProbeResult, case: Case, step: spec.Raw, mode: str) -> None:
    """The packets' fate against the case's own words, and the oracle's."""
    expected = spec.expected_of(step, mode)
    source = step["packet"]["srcIP"]
    match expected.kind:
        case OutcomeKind.DELIVERED:
            assert seen.outcomes == {"delivered": seen.sent, "rejected": 0, "dropped": 0}, seen
            assert set(seen.backends) == {spec.receiver(case, backend) for backend in expected.backends}, seen
            kept = {spec.receiver(case, backend) for backend in expected.backends if not backend.masqueraded}
            arrived_unchanged = sum(seen.backends[name] for name in kept)
            rewritten = sum(count for address, count in seen.sources.items() if address in OWN_OF_NODE and address != source)
            if source in OWN_OF_NODE:  # masquerading to the address that the packet has already cannot be seen
                assert set(seen.sources) <= OWN_OF_NODE, seen
            else:
                assert seen.sources.get(source, 0) == arrived_unchanged, seen
                assert rewritten == seen.sent - arrived_unchanged, seen
        case OutcomeKind.REJECTED:
            assert seen.outcomes["rejected"] == seen.sent, seen
        case OutcomeKind.DROPPED:
            assert seen.outcomes["dropped"] == seen.sent, seen
        case OutcomeKind.NOT_HANDLED:
            assert not (set(seen.backends) & {spec.receiver_at(case, endpoint["ip"]) for endpoint in case.endpoints}) or (
                step["packet"]["to"] not in OWN_OF_NODE
            ), seen
    assert seen.verdict == "pass", seen


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", SINGLE, ids=lambda case: case.id)
def test_case(case: Case, mode: str, tmp_path: Path) -> None:
    with start(case, mode, tmp_path) as lab:
        check(probe(lab, case, case.packets[0]), case, case.steps[0], mode)


SHARED = [case for case in spec.load_combined() if case.id in ("c-same-ext-lb", "i-two-np-none", "j-sh-none", "j-sh-lb-ext")]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.id)
def test_services_that_share_an_address(case: Case, mode: str, tmp_path: Path) -> None:
    with start(case, mode, tmp_path) as lab:
        for step in case.steps:
            check(probe(lab, case, step["packet"]), case, step, mode)


@pytest.fixture(scope="module", params=[(setting, mode) for setting in SETTINGS for mode in MODES], ids="-".join)
def table(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, list[Case], str]]:
    """One lab a setting and mode: the table's rows of a setting share their objects."""
    setting, mode = request.param
    cases = [case for case in spec.load_verdicts() if case.id.split("/")[0] == setting]
    with start(cases[0], mode, tmp_path_factory.mktemp("table")) as lab:
        yield lab, cases, mode


def test_verdict_table(table: tuple[Lab, list[Case], str]) -> None:
    lab, cases, mode = table
    assert len(cases) == 27
    for case in cases:
        check(probe(lab, case, case.packets[0]), case, case.steps[0], mode)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", STEPPED, ids=lambda case: case.id)
def test_case_in_steps(case: Case, mode: str, tmp_path: Path) -> None:
    with start(case, mode, tmp_path) as lab, contextlib.ExitStack() as held:
        remembered, connection = "", None
        for step in case.steps:
            if packet := step.get("open_connection"):
                sender, to = str(spec.sender_of(packet, case)), f"{packet['to']}:{packet['port']}"
                connection = held.enter_context(lab.connect(sender, to, source=packet["srcIP"]))
                assert connection.result.verdict == "pass", connection.result
                remembered = spec.address_of(case, connection.backend)
            if "use_connection" in step:
                assert connection is not None
                assert remembered not in {endpoint["ip"] for endpoint in case.endpoints}
                assert connection.use(), connection.problem
            remembered = take(lab, case, step, mode, remembered)
            case = changed(lab, case, step, remembered)


def changed(lab: Lab, case: Case, step: spec.Raw, remembered: str) -> Case:
    """The case after a step that changes an endpoint; the lab is told."""
    match step:
        case {"remove_endpoint": which}:
            after = case.without(remembered if which == "X" else which)
        case {"set_endpoint": _, **conditions}:
            after = case.with_conditions(remembered, conditions)
        case _:
            return case
    slices = [one for one in spec.manifests_of(after) if one["kind"] == "EndpointSlice"]
    kept = {one["metadata"]["name"] for one in slices}
    for one in spec.manifests_of(case):
        if one["kind"] == "EndpointSlice" and one["metadata"]["name"] not in kept:
            lab.delete("endpointslice", one["metadata"]["name"])
    lab.apply(slices)
    return after


def get(lab: Lab, step: spec.Raw) -> None:
    """A health check, as a load balancer makes it."""
    seen = lab.probe("host/client", step["http_get"])
    assert seen.verdict == "pass", seen
    (answer,) = seen.document["http"]
    said = step["expect"]
    assert answer["status"] == said["status"], answer
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    for name, value in said.get("header", {}).items():
        assert headers[name.lower()] == value
    body = json.loads(answer["body"])
    assert body["serviceProxyHealthy"] is True
    assert body["localEndpoints"] == int(headers["x-load-balancing-endpoint-weight"])


def take(lab: Lab, case: Case, step: spec.Raw, mode: str, remembered: str) -> str:
    """Send what the step sends and check what it says; the endpoint to remember."""
    if "http_get" in step:
        get(lab, step)
    if "packet" not in step:
        return remembered
    said = step["expect"]
    port = 23456 if step.get("same_source_port") else None
    found: dict[str, int] = {}
    seen: ProbeResult | None = None
    for number in range(step.get("repeat", 1)):
        if number and (pause_s := step.get("sleep_between_s")):
            if len(found) >= said.get("distinct", 1):
                break
            time.sleep(pause_s)  # the case is about time that passes
        seen = probe(lab, case, step["packet"], count=1, source_port=port)
        assert seen.outcomes["delivered"] == (said.get("result") != "reject"), seen
        for backend in seen.backends:
            found[backend] = found.get(backend, 0) + 1
    assert seen is not None
    addresses = {spec.address_of(case, backend) for backend in found}
    if "distinct" in said:
        assert len(addresses) == said["distinct"], found
    if "not" in said:
        assert remembered not in addresses
    if "same_as" in said:
        assert addresses == {remembered}
    if said.get("endpoints"):
        check(seen, case, step, mode)
    return addresses.pop() if said.get("remember") else remembered
