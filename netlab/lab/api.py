"""The lab's API: Kubernetes' own paths, objects and status codes, and netlab's verbs under /netlab/v1.

    GET    /api/v1/[namespaces/NS/]PLURAL[/NAME]      also /apis/GROUP/VERSION/...; ?labelSelector=
    POST   .../PLURAL                                 create (409 when it is there)
    PUT    .../PLURAL/NAME                            replace
    PATCH  .../PLURAL/NAME                            merge patch, or apply (content type application/apply-patch+yaml, JSON body)
    DELETE .../PLURAL/NAME                            ?propagationPolicy=Orphan|Background
    /netlab/v1/...                                    see VERBS

This file decides how a request becomes a call and an error a Status; it knows nothing of packets, rules or namespaces.
"""

import json
import math
import pickle
import socket
from collections.abc import Callable, Iterator
from typing import Any, Literal

from netlab import controllers, manifest
from netlab.errors import ApiError, InputError, MissingEvidence, NetlabError
from netlab.lab import (
    bodies,
    explaining,
    following,
    forwarding,
    holding,
    http,
    loading,
    matrix,
    output,
    probing,
    rollouts,
    verbs,
    verifying,
)
from netlab.lab.bodies import Body, Later
from netlab.lab.holder import Lab
from netlab.manifest import kinds
from netlab.model import Key, KubernetesObject

REASONS = {400: "BadRequest", 404: "NotFound", 405: "MethodNotAllowed", 409: "Conflict", 422: "Invalid", 500: "InternalError"}


class Api:
    """Serves one lab on one listening socket."""

    def __init__(self, lab: Lab, listener: socket.socket) -> None:
        self._lab = lab
        self._server = http.Server(lab.loop, listener, self.handle)

    def handle(self, request: http.Request, respond: http.Respond) -> None:
        try:
            self.answer(request, respond)
        except NetlabError as error:
            respond(status_response(error))
        except Exception as error:  # a bug is an answer of its own, and the lab lives on
            import traceback

            traceback.print_exc()
            respond(status_response(ApiError(500, "InternalError", f"{'/'.join(request.path)}: {error!r}")))

    def answer(self, request: http.Request, respond: http.Respond) -> None:
        """Answer now or later. Raises NetlabError; anything else is a bug."""
        match request.path:
            case ("netlab", "v1", verb, *_):
                self._verb(verb, request, respond)
            case ("api", "v1", *rest) | ("apis", _, _, *rest):
                self._answer(request, respond, http.json_response(*self._objects(request, list(rest))))
            case ("healthz",) | ("livez",) | ("readyz",):
                respond(http.Response(200, b"ok", "text/plain"))
            case _:
                raise ApiError(404, "NotFound", "the server could not find the requested resource")

    def _answer(self, request: http.Request, respond: http.Respond, response: http.Response, settle: bool = True) -> None:
        """A change is answered when the lab has settled: what is new answers, and its rules are in the kernel."""
        if settle and request.method != "GET":
            self._lab.when_settled(lambda problem: respond(response if problem is None else status_response(problem)))
        else:
            respond(response)

    # ------------------------------------------------------------ Kubernetes objects

    def _objects(self, request: http.Request, rest: list[str]) -> tuple[Any, int]:
        namespace: str | None = None
        if len(rest) >= 3 and rest[0] == "namespaces":
            namespace, rest = rest[1], rest[2:]
        if not rest:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
        kind = self._kind(rest[0])
        name = rest[1] if len(rest) > 1 else None
        match request.method, name:
            case "GET", None:
                items = self._list(kind, namespace, request.query.get("labelSelector", ""))
                return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}, 200
            case "GET", str():
                return self._one(kind, namespace, name), 200
            case "POST" | "PUT" | "PATCH", _:
                return self._write(request, kind, namespace, name)
            case "DELETE", str():
                found = self._one(kind, namespace, name)
                policy = request.query.get("propagationPolicy", "Background")
                cascade: Literal["orphan", "background"] = "orphan" if policy == "Orphan" else "background"
                grace = _grace(request)
                self._lab.change(
                    controllers.delete(self._lab.now, kind.kind, self._key(kind, namespace, name), cascade, grace), grace
                )
                return found, 200
            case _:
                raise ApiError(405, "MethodNotAllowed", f"{request.method} is not supported on this path")

    def _kind(self, word: str) -> kinds.KindInfo:
        """The kind that a path names: a known one, or that of a custom resource which the lab holds."""
        for (kind, _), held in self._lab.cluster.others.items():
            made = kinds.custom(kind, held.api_version, bool(held.meta.namespace))
            if word.lower() in (made.plural, made.singular):
                return made
        return kinds.find(word)

    def _key(self, kind: kinds.KindInfo, namespace: str | None, name: str) -> Key:
        return Key((namespace or "default") if kind.namespaced else "", name)

    def _list(self, kind: kinds.KindInfo, namespace: str | None, selector: str) -> list[dict[str, Any]]:
        wanted = manifest.parse_selector(selector)
        if kind.plural == "events":
            return self._lab.recorder.items(namespace) if wanted.matches({}) else []  # Events have no labels
        cluster = self._lab.cluster
        found = [
            obj
            for obj in controllers.objects_of(cluster, kind.kind)
            if (namespace is None or not kind.namespaced or obj.meta.namespace == namespace) and wanted.matches(obj.meta.labels)
        ]
        found.sort(key=lambda obj: obj.meta.key)
        return [manifest.to_json(obj, cluster, self._lab.started) for obj in found]

    def _one(self, kind: kinds.KindInfo, namespace: str | None, name: str) -> dict[str, Any]:
        key = self._key(kind, namespace, name)
        for event in self._lab.recorder.items(key.namespace) if kind.plural == "events" else ():
            if event["metadata"]["name"] == name:
                return event
        obj = self._found(kind, key)
        if obj is None:
            raise ApiError(404, "NotFound", f'{kind.plural} "{name}" not found')
        return manifest.to_json(obj, self._lab.cluster, self._lab.started)

    def _found(self, kind: kinds.KindInfo, key: Key) -> KubernetesObject | None:
        """What `get` would show, Endpoints that follow from slices among it."""
        return next((obj for obj in controllers.objects_of(self._lab.cluster, kind.kind) if obj.meta.key == key), None)

    def _write(self, request: http.Request, kind: kinds.KindInfo, namespace: str | None, name: str | None) -> tuple[Any, int]:
        document = request.json()
        if not isinstance(document, dict):
            raise ApiError(400, "BadRequest", "the body must be one JSON object")
        metadata = document.get("metadata")
        if metadata is None:
            document = {**document, "metadata": (metadata := {})}
        if not isinstance(metadata, dict):
            raise ApiError(400, "BadRequest", f"metadata must be an object, not {metadata!r:.80}")
        if (name is None) != (request.method == "POST"):
            raise ApiError(405, "MethodNotAllowed", f"{request.method} is not supported on this path")
        if document.get("kind", kind.kind) != kind.kind:
            raise ApiError(400, "BadRequest", f"the object is a {document['kind']}, the path is for {kind.plural}")
        given = metadata.get("name", name)
        if name is not None and given != name:
            raise ApiError(400, "BadRequest", f"the name of the object ({given}) does not match the name on the URL ({name})")
        name = str(given)
        key = self._key(kind, namespace, name)
        exists = self._found(kind, key) is not None
        if request.method == "PATCH" and "apply-patch" not in request.headers.get("content-type", ""):
            document = _merged(self._one(kind, namespace, name), document)
        if request.method == "POST" and exists:
            raise ApiError(409, "AlreadyExists", f'{kind.plural} "{name}" already exists')
        if namespace and kind.namespaced:
            document = {**document, "metadata": {**document["metadata"], "namespace": namespace}}
        loaded = manifest.object_from_json(document)
        self._lab.change(controllers.apply(self._lab.now, loaded.objects))
        if controllers.find(self._lab.cluster, kind.kind, key) is None:  # gone with the change: relabelled, it was one too many
            return manifest.to_json(loaded.objects[0], self._lab.cluster, self._lab.started), 200
        return self._one(kind, namespace, name), 200 if exists else 201

    # ------------------------------------------------------------ netlab's verbs

    def _verb(self, verb: str, request: http.Request, respond: http.Respond) -> None:
        if verb == "events":
            following.follow(self._lab, request, respond)
            return
        body = bodies.checked(verb, request.json())
        later = lambda ok, answer: respond(http.json_response(answer) if ok else status_response(answer))  # noqa: E731
        if (call := LATER.get(verb)) is not None:
            call(self._lab, body, self._told(verb, later))
        elif verb == "state":
            respond(http.Response(200, pickle.dumps((self._lab.cluster, self._lab.plan)), "application/octet-stream"))
        elif (now := NOW.get(verb)) is not None:
            self._answer(request, respond, http.json_response(now(self._lab, body)), settle=verb in SETTLING)
        else:
            raise ApiError(404, "NotFound", f"no verb {verb}")

    def _told(self, verb: str, later: Later) -> Later:
        """`later`, its verdicts entered into the journal."""
        if verb not in JUDGED:
            return later

        def answered(ok: bool, answer: Any) -> None:
            if ok:
                self._lab.journal.judged(verb, _results(answer))
            later(ok, answer)

        return answered


def _results(answer: Any) -> Iterator[Any]:
    """The single results of a verb's answer. A text is read only if somebody wants them."""
    match answer:
        case http.Rendered(body):
            yield from json.loads(body)
        case list():
            yield from answer
        case _:
            yield answer


def _grace(request: http.Request) -> float | None:
    """gracePeriodSeconds of the query or of the DeleteOptions in the body; None: as the pod says."""
    body = request.json()
    if body is not None and not isinstance(body, dict):
        raise ApiError(400, "BadRequest", "the body must be one JSON object")
    given = request.query.get("gracePeriodSeconds") or (body or {}).get("gracePeriodSeconds")
    try:
        seconds = None if given is None else float(given)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if seconds is not None and not math.isfinite(seconds):
        raise ApiError(400, "BadRequest", f"gracePeriodSeconds: {given!r:.80} is no number")
    return None if seconds is None or seconds < 0 else seconds


JUDGED = ("probe", "matrix", "explain")
AnsweredLater = Callable[[Lab, Body, Later], None]
AnsweredNow = Callable[[Lab, Body], Any]

NOW: dict[str, AnsweredNow] = {
    "info": lambda lab, body: lab.info(),
    "apply": verbs.apply,
    "scale": verbs.scale,
    "rollout": rollouts.rollout,
    "cordon": verbs.cordon,
    "taint": verbs.taint,
    "place": verbs.place,
    "port-forward": forwarding.forward,
    "fault": verbs.fault,
    "endpoints": verbs.endpoints,
    "processes": verbs.processes,
    "problems": verbs.problems,
    "ingresses": lambda lab, body: lab.ingresses.state(),
    "daemons": lambda lab, body: lab.daemons.rows(),
    "namespaces": lambda lab, body: dict(lab.kernel.fds),
    "down": verbs.down,
}
SETTLING = ("apply", "scale", "fault", "cordon", "taint")
LATER: dict[str, AnsweredLater] = {
    "probe": probing.probe,
    "matrix": matrix.matrix,
    "connect": holding.connect,
    "use-connection": holding.use,
    "close-connection": holding.close,
    "load": loading.begin,
    "end-load": loading.end,
    "explain": explaining.explain,
    "exec": verbs.exec_,
    "rollout-status": rollouts.status,
    "logs": output.logs,
    "wait-gone": verbs.wait_gone,
    "observe": verbs.observe,
    "verify": verifying.verify,
    "flush-conntrack": verbs.flush_conntrack,
}


def status_response(error: NetlabError) -> http.Response:
    """A Kubernetes Status for the error; netlab's class and problems ride along in `details`."""
    code, reason = 500, "InternalError"
    match error:
        case ApiError():
            code, reason = error.code, error.reason
        case InputError():
            code, reason = 422, "Invalid"
        case MissingEvidence():
            code, reason = 504, "Timeout"
    return http.json_response(
        {
            "apiVersion": "v1",
            "kind": "Status",
            "status": "Failure",
            "code": code,
            "reason": reason or REASONS.get(code, ""),
            "message": str(error),
            "details": {"exitCode": error.exit_code},
        },
        code,
    )


def _merged(into: Any, patch: Any) -> Any:
    """RFC 7386 merge patch."""
    if not isinstance(patch, dict) or not isinstance(into, dict):
        return patch
    result = dict(into)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result
