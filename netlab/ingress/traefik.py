"""Traefik, through its file provider: one file that it reads when it starts and one that it watches. JSON, which is YAML.

Matching: every route is a router with a priority of its own, so that the most specific host and then the longest path win,
whatever Traefik would find longer. Not tested: the program is in no package registry that this project uses.
"""

import json
from collections.abc import Iterator
from typing import Any

from netlab.ingresses import ADMIN_PORT, HTTP_PORT, HTTPS_PORT, Route, Table

PROGRAM, PACKAGE = "traefik", ""
ABSENT = "it is in no Debian package; get its binary from the Traefik project and put it on PATH"


def command(directory: str, executable: str) -> list[str]:
    """How it is started: in the foreground, as a child of whoever starts it."""
    return [executable, f"--configFile={directory}/traefik.yml"]


def files(directory: str, table: Table) -> dict[str, str]:
    """Name in the directory -> text. `routes.yml` is the one that is watched."""
    found = {f"certificate-{number}.pem": one.pem for number, one in enumerate(table.certificates)}
    return found | {"traefik.yml": static(directory), "routes.yml": json.dumps(dynamic(directory, table), indent=1)}


def static(directory: str) -> str:
    entry_points = {"web": f":{HTTP_PORT}", "websecure": f":{HTTPS_PORT}", "traefik": f":{ADMIN_PORT}"}
    return json.dumps(
        {
            "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
            "entryPoints": {name: {"address": address} for name, address in entry_points.items()},
            "api": {"dashboard": True, "insecure": True},
            "ping": {},
            "providers": {"file": {"filename": f"{directory}/routes.yml", "watch": True}, "providersThrottleDuration": "0s"},
        },
        indent=1,
    )


def dynamic(directory: str, table: Table) -> dict[str, Any]:
    """routes.yml: a router a route, twice where there is TLS, and a service an upstream."""
    routers: dict[str, Any] = {}
    for number, (rule, priority, upstream) in enumerate(_rules(table)):
        routers[f"r{number}"] = {"rule": rule, "priority": priority, "service": upstream, "entryPoints": ["web"]}
        if table.certificates:
            routers[f"r{number}-tls"] = {**routers[f"r{number}"], "entryPoints": ["websecure"], "tls": {}}
    names = {one.name: f"u{number}" for number, one in enumerate(table.upstreams)}
    for router in routers.values():
        router["service"] = names[router["service"]]
    services = {
        names[one.name]: {
            "loadBalancer": {"servers": [{"url": f"http://{_place(str(address), port)}"} for address, port in one.endpoints]}
        }
        for one in table.upstreams
    }
    found: dict[str, Any] = {"http": {"routers": routers, "services": services}} if routers else {}
    if table.certificates:
        pems = [f"{directory}/certificate-{number}.pem" for number in range(len(table.certificates))]
        found["tls"] = {"certificates": [{"certFile": pem, "keyFile": pem} for pem in pems]}
    return found


def _rules(table: Table) -> Iterator[tuple[str, int, str]]:
    """(rule, priority, upstream): the host's rank, then the path's length, then exact before prefix."""
    for route in table.routes:
        rank = 0 if not route.host else 1 if route.host.startswith("*.") else 2
        priority = rank * 1_000_000 + 2 * len(route.path) + 10 + int(route.exact)
        yield " && ".join((*_host(route), _path(route))), priority, route.upstream
    if table.default:
        yield "PathPrefix(`/`)", 1, table.default


def _host(route: Route) -> tuple[str, ...]:
    if not route.host:
        return ()
    if route.host.startswith("*."):
        escaped = route.host[2:].replace(".", "\\.")
        return (f"HostRegexp(`^[^.]+\\.{escaped}$`)",)
    return (f"Host(`{route.host}`)",)


def _path(route: Route) -> str:
    if route.exact:
        return f"Path(`{route.path}`)"
    return f"(Path(`{route.path}`) || PathPrefix(`{route.path}/`))" if route.path else "PathPrefix(`/`)"


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
