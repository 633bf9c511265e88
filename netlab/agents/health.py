"""What the Service proxy's health checks answer: values in, an HTTP answer out.

The bodies are those of kube-proxy, but for `status`, when each family's rules were last loaded: who answers here loads none.

Source: kubernetes pkg/proxy/healthcheck/{service_health,proxy_health}.go, v1.36.
"""

import json
from datetime import UTC, datetime
from typing import Any

from netlab.agents.answers import Answer, Request
from netlab.ops import Health

WEIGHT = "X-Load-Balancing-Endpoint-Weight"
_NOSNIFF = ("X-Content-Type-Options", "nosniff")


def http_answer(request: Request, health: Health, now: float, since: float) -> Answer:
    """A Service's count of local endpoints, 503 when there is none; or how the proxy is (`/livez` does not look at the node).

    `now` and `since`, when what is told was last changed, are seconds since the epoch.
    """
    if health.service is None:
        return _proxy(request.path, health, now, since)
    namespace, name = health.service
    document = {
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": health.local_endpoints,
        "serviceProxyHealthy": True,
    }
    headers = (_NOSNIFF, (WEIGHT, str(health.local_endpoints)))
    return Answer(json.dumps(document, indent="\t"), 200 if health.local_endpoints else 503, "application/json", headers)


def _proxy(path: str, health: Health, now: float, since: float) -> Answer:
    match path:
        case "/healthz":
            well, told = health.eligible, {"nodeEligible": health.eligible}
        case "/livez":
            well, told = True, {}
        case _:
            return Answer("404 page not found\n", 404, headers=(_NOSNIFF,))
    # Of one that is well, lastUpdated has always been the present, whether anything changed or not.
    times: dict[str, Any] = {"lastUpdated": _time(now if well else since), "currentTime": _time(now)}
    body = json.dumps({**times, **told, "healthy": True}, separators=(",", ":"))
    return Answer(body, 200 if well else 503, "application/json", (_NOSNIFF,))


def _time(seconds: float) -> str:
    """RFC 3339, as Go writes a time."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
