"""nginx: one configuration file, reloaded at every change; old workers finish what they have.

Matching: nginx takes a precise server name before a regular expression, and within a server the longest location. A host
therefore repeats what it inherits - the routes of its wildcard, then those for any host - as far as no route of its own covers
them: the most specific host that has a route for the path wins, as in the other proxies. Refuses to know processes.
"""

import re
from collections.abc import Iterator, Sequence

from netlab.ingresses import ADMIN_PORT, HTTP_PORT, HTTPS_PORT, Certificate, Route, Table, host_matches

PROGRAM, PACKAGE = "nginx", "nginx-light"
GENERATION_PATH = "/netlab/generation"


def command(directory: str, executable: str) -> list[str]:
    """How it is started: in the foreground, as a child of whoever starts it."""
    return [executable, "-p", directory, "-c", f"{directory}/nginx.conf", "-e", f"{directory}/error.log", "-g", "daemon off;"]


def files(directory: str, table: Table, generation: int, ipv6: bool = False) -> dict[str, str]:
    """Name in the directory -> text. `generation` is what the admin page says once this configuration is in force."""
    found = {}
    for number, certificate in enumerate(table.certificates):
        found[f"certificate-{number}.pem"] = certificate.pem
    found["nginx.conf"] = configuration(directory, table, generation, ipv6)
    return found


def configuration(directory: str, table: Table, generation: int, ipv6: bool = False) -> str:
    names = {one.name: f"u{number}" for number, one in enumerate(table.upstreams) if one.endpoints}
    parts = [_HEAD.format(directory=directory)]
    for one in table.upstreams:
        if one.endpoints:
            servers = "".join(f"    server {_place(str(address), port)} max_fails=0;\n" for address, port in one.endpoints)
            parts.append(f"  upstream {names[one.name]} {{\n{servers}  }}")
    hosts = list(dict.fromkeys(route.host for route in table.routes if route.host))
    for host in ("", *(h for h in hosts if not h.startswith("*.")), *(h for h in hosts if h.startswith("*."))):
        parts += _server(directory, table, host, names, ipv6)
    parts.append(_ADMIN.format(listen="".join(_listen(ADMIN_PORT, "", ipv6)), path=GENERATION_PATH, generation=generation))
    return "\n".join(parts) + "\n}\n"


def _place(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _listen(port: int, more: str, ipv6: bool) -> Iterator[str]:
    yield f"    listen {port}{more};\n"
    if ipv6:
        yield f"    listen [::]:{port}{more};\n"


def _server(directory: str, table: Table, host: str, names: dict[str, str], ipv6: bool) -> Iterator[str]:
    yield "  server {"
    first = " default_server" if not host else ""
    yield "".join(_listen(HTTP_PORT, first, ipv6)).rstrip()
    number = _certificate(table.certificates, host)
    if number is not None:
        yield "".join(_listen(HTTPS_PORT, f" ssl{first}", ipv6)).rstrip()
        pem = f"{directory}/certificate-{number}.pem"
        yield f"    ssl_certificate {pem}; ssl_certificate_key {pem};"
    yield f"    server_name {_server_name(host)};"
    routes = inherited(table.routes, host)
    rest = _target(names, table.default) if table.default else _NOT_FOUND
    for route in routes:
        target = _target(names, route.upstream)
        if route.exact:
            yield f"    location = {_quoted(route.path)} {{ {target} }}"
            bare = route.path.rstrip("/")
            if bare not in (route.path, "") and not any(other.path == bare for other in routes):
                # nginx would redirect a request without the slash to the one with it
                longest = max((o for o in routes if not o.exact and _under(o, bare)), key=lambda o: len(o.path), default=None)
                yield f"    location = {_quoted(bare)} {{ {_target(names, longest.upstream) if longest else rest} }}"
        elif not route.path:
            yield f"    location / {{ {target} }}"
        else:
            if not any(other.exact and other.path == route.path for other in routes):
                yield f"    location = {_quoted(route.path)} {{ {target} }}"
            yield f"    location {_quoted(route.path + '/')} {{ {target} }}"
    if not any(not route.path and not route.exact for route in routes):
        yield f"    location / {{ {rest} }}"
    yield "  }"


def inherited(routes: Sequence[Route], host: str) -> list[Route]:
    """The routes that a host answers by: its own, and those of less specific hosts that none of the former covers."""
    found: list[Route] = []
    wildcard = [one for one in dict.fromkeys(route.host for route in routes) if one.startswith("*.") and host_matches(one, host)]
    for level in dict.fromkeys((host, *wildcard, "")):
        found += [route for route in routes if route.host == level and not any(_covers(one, route) for one in found)]
    return found


def _covers(one: Route, other: Route) -> bool:
    """Whether every request that the other is for is taken by the first, which comes before it."""
    if one.exact:
        return other.exact and one.path == other.path
    return _under(one, other.path)


def _under(prefix: Route, path: str) -> bool:
    return path == prefix.path or path.startswith(f"{prefix.path}/")


def _target(names: dict[str, str], upstream: str) -> str:
    return f"proxy_pass http://{names[upstream]};" if upstream in names else _UNAVAILABLE


def _server_name(host: str) -> str:
    if not host:
        return '""'
    return f'"~^[^.]+{re.escape(host[1:])}$"' if host.startswith("*.") else host


def _certificate(certificates: Sequence[Certificate], host: str) -> int | None:
    """The number of the host's certificate; for no host in particular the first one."""
    for number, one in enumerate(certificates):
        if not host or any(host == name or host_matches(name, host) for name in one.hosts):
            return number
    return 0 if certificates else None


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_UNAVAILABLE = "return 503;"
_NOT_FOUND = 'default_type text/plain; return 404 "default backend - 404\\n";'
_HEAD = """user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log;
events {{ worker_connections 4000; }}
http {{
  access_log off;
  server_tokens off;
  merge_slashes off;
  server_names_hash_bucket_size 256;
  client_body_temp_path {directory}/temporary;
  proxy_temp_path {directory}/temporary;
  fastcgi_temp_path {directory}/temporary;
  uwsgi_temp_path {directory}/temporary;
  scgi_temp_path {directory}/temporary;
  proxy_http_version 1.1;
  proxy_connect_timeout 1s;
  proxy_next_upstream error timeout;
  proxy_set_header Host $http_host;
  proxy_set_header Connection "";
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  add_header X-Netlab-Ingress nginx always;"""
_ADMIN = """  server {{
{listen}    location = {path} {{ default_type text/plain; return 200 "{generation}\\n"; }}
    location = /healthz {{ default_type text/plain; return 200 "ok\\n"; }}
    location / {{ stub_status; }}
  }}"""
