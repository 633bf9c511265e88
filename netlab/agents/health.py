"""What the Service proxy's health checks answer: values in, an HTTP answer out.

Source: kubernetes pkg/proxy/healthcheck/{service_health,proxy_health}.go, v1.36.
"""

import json

from netlab.agents.answers import Answer, Request
from netlab.ops import Health

WEIGHT = "X-Load-Balancing-Endpoint-Weight"


def http_answer(request: Request, health: Health) -> Answer:
    """A Service's count of local endpoints, 503 when there is none; or how the proxy is (`/livez` does not look at the node)."""
    if health.service is None:
        return _proxy(request.path, health)
    namespace, name = health.service
    document = {
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": health.local_endpoints,
        "serviceProxyHealthy": True,
    }
    headers = (("X-Content-Type-Options", "nosniff"), (WEIGHT, str(health.local_endpoints)))
    return Answer(json.dumps(document), 200 if health.local_endpoints else 503, "application/json", headers)


def _proxy(path: str, health: Health) -> Answer:
    headers = (("X-Content-Type-Options", "nosniff"),)
    match path:
        case "/healthz":
            text = json.dumps({"nodeEligible": health.eligible})
            return Answer(text, 200 if health.eligible else 503, "application/json", headers)
        case "/livez":
            return Answer(json.dumps({"nodeEligible": health.eligible}), content_type="application/json", headers=headers)
        case _:
            return Answer("404 page not found\n", 404)
