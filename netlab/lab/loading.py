"""Loads through the API: begin one, end it, and say what it showed. The sending is an agent's, the counting and judging pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from netlab import expect
from netlab.errors import InputError
from netlab.lab import probing, routing_http
from netlab.lab.holder import Lab
from netlab.lab.probing import Body, Later, Question
from netlab.lab.receiving import Names, name_of, receivers
from netlab.model import Cluster, Key, Protocol
from netlab.plan import Plan
from netlab.probes import load
from netlab.probes.load import Allowed, LoadProtocol, LoadRecord, LoadRequest
from netlab.probes.values import HttpRequest, place
from netlab.targets import netns_of


@dataclass(frozen=True, slots=True)
class Loading:
    """A load under way, and how things stood when it began."""

    question: Question
    request: LoadRequest
    namespace: str
    cluster: Cluster
    plan: Plan
    allowed: Allowed


def begin(lab: Lab, body: Body, later: Later) -> None:
    """A probe's words and {"rate", "for_s", "keep_alive", "expect"} -> {"load": number}"""
    wanted = (body.get("protocol") or "").lower()
    if wanted and wanted not in ("http", "tcp", "udp"):
        raise InputError(f"no load of protocol {wanted!r}: http, tcp or udp")
    question = probing.ask(lab, {**body, "count": 1, "protocol": body.get("protocol")})
    request = _request(lab, question, wanted, body)
    loading = Loading(
        question, request, body.get("namespace") or "default", lab.cluster, lab.plan, allowed(body.get("expect") or {})
    )

    def begun(ok: bool, answer: Any) -> None:
        if not ok:
            lab.loads.pop(number, None)
        later(ok, {"load": number} if ok else answer)

    number = lab.agents.begin_load(begun, request)
    lab.loads[number] = loading


def _request(lab: Lab, question: Question, wanted: str, body: Body) -> LoadRequest:
    rate, for_s = float(body.get("rate") or 0), float(body.get("for_s") or load.MAXIMUM_S)
    if not 0 < rate <= load.MAXIMUM_RATE:
        raise InputError(f"rate {rate:g}: send more than 0 and at most {load.MAXIMUM_RATE:g} requests a second")
    if not 0 < for_s <= load.MAXIMUM_S:
        raise InputError(f"{for_s:g} s: a load lasts more than 0 and at most {load.MAXIMUM_S:g} seconds")
    destination = question.destination
    if destination.protocol not in (Protocol.TCP, Protocol.UDP):
        raise InputError(f"{destination.label}: a load is http, tcp or udp")
    protocol = wanted or ("http" if destination.url_host else "udp" if destination.protocol is Protocol.UDP else "tcp")
    return LoadRequest(
        netns=lab.netns_path(netns_of(lab.cluster, question.sender)),
        source=question.flow.source,
        destination=destination.address,
        port=destination.port,
        protocol=cast(LoadProtocol, protocol),
        rate=rate,
        timeout_s=question.timeout_s,
        for_s=for_s,
        keep_alive=bool(body.get("keep_alive")),
        http=HttpRequest(destination.path or "/", destination.url_host or place(destination.address, destination.port)),
        accepting=lab.cluster.topology.cluster.proxy.mode != "userspace",
    )


def allowed(words: Mapping[str, Any]) -> Allowed:
    """{"lost": 0 | {"max": n}, "outage_ms": x}. Raises InputError for anything else: it would tolerate what nobody meant."""
    lost = words.get("lost")
    lost = lost.get("max") if isinstance(lost, dict) and lost.keys() == {"max"} else lost
    outage_ms = words.get("outage_ms")
    unknown = [name for name in words if name not in ("lost", "outage_ms")]
    wrong = [one for one in (lost, outage_ms) if one is not None and (isinstance(one, bool) or not isinstance(one, int | float))]
    if unknown or wrong:
        raise InputError(f"expect {dict(words)!r}: there is lost, a number or {{'max': number}}, and outage_ms, a number")
    return Allowed(None if lost is None else int(lost), None if outage_ms is None else float(outage_ms))


def end(lab: Lab, body: Body, later: Later) -> None:
    """{"load", "stop"} -> what the load showed, once it is over: the document of docs/load.md."""
    number = int(body["load"])
    loading = lab.loads.get(number)
    if loading is None:
        raise InputError(f"there is no load {number}: it was ended before")

    def ended(ok: bool, answer: LoadRecord) -> None:
        lab.loads.pop(number, None)
        later(ok, result(lab, loading, answer) if ok else answer)

    lab.agents.end_load(ended, number, bool(body.get("stop", True)))


def result(lab: Lab, loading: Loading, record: LoadRecord) -> dict[str, Any]:
    """Named and judged: by the oracle's word at the beginning and at the end, or by what the user allows."""
    question, now = loading.question, lab.cluster
    after = expect.expect(now, question.flow, question.timeout_s)
    seen = load.seen(record, loading.request.rate)
    names = _names(loading, now)
    backends = {names(name): number for name, number in sorted(record.backends.items())}
    strangers: dict[str, int] = {}
    if (
        lab.plan is loading.plan and after.kind == "delivered"
    ):  # nothing has changed meanwhile: every answer must be an endpoint's
        by_address: Names = receivers(now)
        ends = routing_http.endpoints(now, question.destination) or tuple((one.address, one.port) for one in after.backends)
        known = {name_of(address, port, by_address) for address, port in ends}
        own = {str(pod.ref) for pod in now.pods.values()}
        strangers = {name: number for name, number in backends.items() if name in own and name not in known}
    expected = (_word(str(question.expected.kind)), _word(str(after.kind)))
    verdict, why = load.judged(seen, expected, loading.allowed, strangers)
    return {
        "from": str(question.sender),
        "to": question.destination.label,
        **now.topology.cluster.proxy.told,
        "protocol": loading.request.protocol,
        **seen,
        "backends": backends,
        "expected": {"before": expected[0], "after": expected[1]},
        "verdict": str(verdict),
        "why": why,
    }


def _word(kind: str) -> str:
    return "dropped" if kind == "not-handled" else kind


def _names(loading: Loading, now: Cluster) -> Callable[[str], str]:
    """A pod's own name to the name of results; pods that came and went meanwhile are taken to be of the load's namespace."""
    found = {key.name: str(pod.ref) for cluster in (loading.cluster, now) for key, pod in cluster.pods.items()}
    for cluster in (loading.cluster, now):
        found |= {key.name: str(pod.ref) for key, pod in cluster.pods.items() if key == Key(loading.namespace, key.name)}

    def named(name: str) -> str:
        return name if name == load.UNNAMED else found.get(name, f"pod/{loading.namespace}/{name}")

    return named
