"""HTTP probes that pass an Ingress controller: which Service and pods must answer, and whether they did.

The evidence is the answer itself: pods of the built-in responder name themselves in every response, and the proxy names itself.
It is judged after the probe of the flow to the proxy, and can only make that verdict worse.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from netlab.expect.http import HttpAnswer, controller_at, expect_http
from netlab.ingress import table
from netlab.ingresses import Controller
from netlab.lab.receiving import Names, name_of, receivers
from netlab.model import Address, Cluster, Judgement, Key
from netlab.targets import Destination

POD_HEADER, PROXY_HEADER = "x-netlab-pod", "x-netlab-ingress"


def told(
    cluster: Cluster,
    document: Mapping[str, Any],
    to: Destination,
    at: tuple[Address, int],
    responses: Sequence[Any],
    names: Names,
) -> dict[str, Any]:
    """The probe result with `route`, where it went through an Ingress controller; otherwise as it is."""
    controller = controller_at(cluster, *at)
    if controller is None or not responses:
        return dict(document)
    answer = expect_http(cluster, controller, to.url_host, to.path or "/")
    wanted = {name_of(address, port, names) for address, port in answer.endpoints}
    verdict, why, seen = judged(cluster, controller, answer, wanted, responses)
    route = {
        "controller": str(controller.pod),
        "proxy": controller.proxy,
        "ingress": "/".join(answer.ingress) if answer.ingress else None,
        "service": answer.service or None,
        "expected": {"status": answer.status or "of the backend", "backends": sorted(wanted)},
        "backends": seen,
    }
    if answer.why:
        route["why"] = answer.why
    worst = next(one for one in ("fail", "inconclusive", "pass") if one in (document["verdict"], str(verdict)))
    return {**document, "route": route, "verdict": worst, "why": [*document["why"], *why]}


def judged(
    cluster: Cluster, controller: Controller, answer: HttpAnswer, wanted: set[str], responses: Sequence[Any]
) -> tuple[Judgement, list[str], dict[str, int]]:
    """(verdict, reasons, pod -> answers that it gave)"""
    seen: dict[str, int] = {}
    wrong: dict[str, None] = {}
    unnamed = 0
    for one in responses:
        if one.problem:
            wrong[f"no answer came through {controller.proxy}: {one.problem}"] = None
            continue
        pod = _pod(cluster, one.headers.get(POD_HEADER, ""), wanted)
        if pod:
            seen[pod] = seen.get(pod, 0) + 1
        if not one.headers.get(PROXY_HEADER) and not (answer.status and not pod):
            wrong[f"the answer did not pass {controller.proxy}"] = None
        if answer.status and (one.status != answer.status or pod):
            wrong[f"{pod or 'the proxy'} answered {one.status}, expected {answer.status}: {answer.why}"] = None
        elif not answer.status and not pod:
            unnamed += one.status < 500
            if one.status in (404, 502, 503, 504):
                wrong[f"the proxy answered {one.status}, expected an answer of {answer.service}"] = None
        elif not answer.status and pod not in wanted:
            wrong[f"{pod} answered, which is no endpoint of {answer.service}"] = None
    if wrong:
        return Judgement.FAIL, list(wrong), seen
    if unnamed:
        return Judgement.INCONCLUSIVE, [f"{unnamed} answers do not say which pod gave them (a program of its own)"], seen
    return Judgement.PASS, [], seen


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
