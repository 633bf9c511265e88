"""HTTP probes that pass an Ingress controller: which Service and pods must answer, and whether they did.

The evidence: the request carries a token, which the stacks of the pods are watched for (so that the pod and the source that it
saw are known), and pods of the built-in responder name themselves in every answer; the proxy names itself. It is judged after
the flow to the proxy, and can only make that verdict worse.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from netlab.expect.http import HttpAnswer, controller_at, expect_http
from netlab.ingress import table
from netlab.ingresses import Controller
from netlab.lab.receiving import Names, name_of, receivers
from netlab.model import NOTHING, Address, Cluster, Judgement, Key, Observation
from netlab.targets import Destination

POD_HEADER, PROXY_HEADER = "x-netlab-pod", "x-netlab-ingress"


@dataclass(frozen=True, slots=True)
class Behind:
    """What was seen of requests behind the controller: receiver -> requests, source address -> requests."""

    backends: Mapping[str, int] = NOTHING
    sources: Mapping[str, int] = NOTHING


def split(cluster: Cluster, to: Destination, seen: Observation, names: Names) -> tuple[Observation, Behind]:
    """What was seen of the flow to the controller, and what of the requests that it sent on; all where none stands there."""
    if controller_at(cluster, to.address, to.port) is None or not seen.arrivals:
        return seen, Behind()
    near = {key: number for key, number in seen.arrivals.items() if key[:2] == (to.address, to.port)}
    far = {key: number for key, number in seen.arrivals.items() if key not in near}
    twice = "arrived more than once"  # as it must: at the controller, and behind it
    evidence = tuple(line for line in seen.evidence if twice not in line)
    flow, behind = _counted(near, names), _counted(far, names)
    return replace(seen, arrivals=near, backends=flow.backends, sources=flow.sources, evidence=evidence), behind


def _counted(arrivals: Mapping[tuple[Address, int, Address], int], names: Names) -> Behind:
    backends, sources = Counter[str](), Counter[str]()
    for (address, port, source), number in sorted(arrivals.items(), key=lambda one: tuple(map(str, one[0]))):
        backends[name_of(address, port, names)] += number
        sources[str(source)] += number
    return Behind(dict(backends), dict(sources))


def told(
    cluster: Cluster, document: Mapping[str, Any], to: Destination, responses: Sequence[Any], behind: Behind, names: Names
) -> dict[str, Any]:
    """The probe result with `route`, where it went through an Ingress controller; otherwise as it is."""
    controller = controller_at(cluster, to.address, to.port)
    if controller is None or not responses:
        return dict(document)
    answer = expect_http(cluster, controller, to.url_host, to.path or "/")
    wanted = {name_of(address, port, names) for address, port in answer.endpoints}
    verdict, why = judged(cluster, controller, answer, wanted, responses, behind)
    route = {
        "controller": str(controller.pod),
        "proxy": controller.proxy,
        "ingress": "/".join(answer.ingress) if answer.ingress else None,
        "service": answer.service or None,
        "expected": {"status": answer.status or "of the backend", "backends": sorted(wanted)},
        "backends": dict(behind.backends),
        "sources": dict(behind.sources),
    }
    if answer.why:
        route["why"] = answer.why
    worst = next(one for one in ("fail", "inconclusive", "pass") if one in (document["verdict"], str(verdict)))
    return {**document, "route": route, "verdict": worst, "why": [*document["why"], *why]}


def judged(
    cluster: Cluster, controller: Controller, answer: HttpAnswer, wanted: set[str], responses: Sequence[Any], behind: Behind
) -> tuple[Judgement, list[str]]:
    """By the answers' status and names, and by where the requests were seen to arrive."""
    wrong: dict[str, None] = {}
    for name, number in behind.backends.items():
        if name not in wanted:
            wrong[f"{number} requests arrived at {name}, which is no endpoint of {answer.service or 'any route'}"] = None
    for one in responses:
        wrong |= dict.fromkeys(_faults(cluster, controller, answer, wanted, one))
    if wrong:
        return Judgement.FAIL, list(wrong)
    answered, arrived = sum(not one.problem for one in responses), sum(behind.backends.values())
    if not answer.status and arrived < answered:
        return Judgement.INCONCLUSIVE, [
            f"of {answered} answered requests only {arrived} were seen to arrive behind {controller.proxy}"
        ]
    return Judgement.PASS, []


def _faults(cluster: Cluster, controller: Controller, answer: HttpAnswer, wanted: set[str], one: Any) -> Iterator[str]:
    """What is wrong with one answer."""
    if one.problem:
        yield f"no answer came through {controller.proxy}: {one.problem}"
        return
    pod = _pod(cluster, one.headers.get(POD_HEADER, ""), wanted)
    if not one.headers.get(PROXY_HEADER) and (pod or not answer.status):
        yield f"the answer did not pass {controller.proxy}"
    if answer.status:
        if one.status != answer.status or pod:
            yield f"{pod or 'the proxy'} answered {one.status}, expected {answer.status}: {answer.why}"
    elif not pod and one.status in (404, 502, 503, 504) and one.headers.get("server") is None:
        yield f"the proxy answered {one.status}, expected an answer of {answer.service}"
    elif pod and pod not in wanted:
        yield f"{pod} answered, which is no endpoint of {answer.service}"


def _pod(cluster: Cluster, name: str, wanted: set[str]) -> str:
    """The pod of that name: one that may answer, else any."""
    if not name:
        return ""
    named = [str(pod.ref) for key, pod in cluster.pods.items() if key.name == name]
    return next((one for one in named if one in wanted), named[0] if named else f"pod/?/{name}")


def endpoints(cluster: Cluster, to: Destination) -> tuple[tuple[Address, int], ...]:
    """Who may answer a request that passes an Ingress controller; () where none stands there, or no endpoint may."""
    controller = controller_at(cluster, to.address, to.port)
    return expect_http(cluster, controller, to.url_host, to.path or "/").endpoints if controller is not None else ()


def passing(cluster: Cluster, to: Destination, port: int) -> tuple[str, ...]:
    """What `explain` says of a packet that ends at an Ingress controller: the request goes on from there."""
    controller = controller_at(cluster, to.address, port)
    if controller is None:
        return ()
    where = (
        f"{controller.proxy} of {controller.pod} takes the connection and sends requests on in its own, from {controller.netns}"
    )
    if not to.url_host:
        return (f"{where}; to whom depends on host and path: explain http://HOST/PATH",)
    answer = expect_http(cluster, controller, to.url_host, to.path or "/")
    rule = f"ingress {'/'.join(answer.ingress)}" if answer.ingress else "no Ingress"
    if answer.status:
        return (f"{where}; for {to.url_host}{to.path} {rule} counts: {answer.status}, {answer.why}",)
    names = receivers(cluster)
    ends = ", ".join(sorted(name_of(address, number, names) for address, number in answer.endpoints))
    return (f"{where}; for {to.url_host}{to.path} {rule} counts: {answer.service}, to {ends}",)


def problems_by_ingress(cluster: Cluster) -> dict[Key, list[str]]:
    """What will not work of each Ingress, one sentence each; those without a problem are left out."""
    found: dict[Key, list[str]] = {}
    for key, text in table.problems(cluster):
        found.setdefault(key, []).append(f"ingress {'/'.join(key)}: {text}")
    return found


def problems_of(cluster: Cluster) -> list[str]:
    """The same of all Ingresses."""
    return [text for texts in problems_by_ingress(cluster).values() for text in texts]
