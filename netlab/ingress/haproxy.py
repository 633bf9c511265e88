"""HAProxy: backends allocated ahead, routes in map files, and the runtime commands that lead from one table to the next.

Theory of operation: backends u0, u1, ... and servers s1, s2, ... of each exist from the start, most of them disabled. A Service
gets a free backend, an endpoint a free server of it; a route is an entry of a map file. So a change is a few commands on the
runtime socket and no reload: first servers come, then routes switch, then servers go, and nothing that was free before the
change is used twice in it. A table that does not fit any more, or other certificates, need a new configuration (and a reload
which hands the listening sockets over).

Matching: `host/path` is looked up in the exact map, `host/path/` in the prefix map, where the longest beginning wins: a prefix
ends at a slash in both, so that it covers whole elements only. First with the host, then with `*` for its first label, then
without.
All paths are relative: a Unix socket's holds only 107 bytes. Refuses to know sockets and processes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from netlab.ingresses import ADMIN_PORT, HTTP_PORT, HTTPS_PORT, Table
from netlab.model import NOTHING, Address

PROGRAM, PACKAGE = "haproxy", "haproxy"
LEAST_BACKENDS, LEAST_SERVERS = 16, 8
MAPS = ("exact", "prefix", "default")
_IN_MAINTENANCE = 0x23
"""The bits of srv_admin_state that keep a server out of use; that it was disabled by the configuration (0x04) does not."""
Server = tuple[Address, int]


@dataclass(frozen=True, slots=True)
class Allocation:
    """Who has what. `slots`: upstream -> number of its backend; `places`: number -> the endpoint of each of its servers."""

    backends: int = 0
    servers: int = 0
    slots: Mapping[str, int] = NOTHING
    places: Mapping[int, tuple[Server | None, ...]] = NOTHING


def command(executable: str) -> list[str]:
    """How it is started: in the directory of its files, in the foreground, as a child of whoever starts it."""
    return [executable, "-db", "-f", "haproxy.cfg"]


# ---------------------------------------------------------------- allocation


def fresh(table: Table) -> Allocation:
    """Room for twice of what there is, and for all of it with one endpoint each."""
    most = max((len(one.endpoints) for one in table.upstreams), default=0)
    size = Allocation(2 * _room(len(table.upstreams), LEAST_BACKENDS), _room(most, LEAST_SERVERS))
    found = allocated(table, size)
    assert found is not None
    return found


def _room(number: int, least: int) -> int:
    return int(max(least, 1 << max(0, 2 * number - 1).bit_length()))


def allocated(table: Table, before: Allocation) -> Allocation | None:
    """The allocation for the table that keeps what is there and takes only what was free; None where that is not enough.

    An upstream that moves leaves its servers where they were until the next change: requests that are tried again find them.
    """
    used = {*before.slots.values(), *before.places}
    slots: dict[str, int] = {}
    places: dict[int, tuple[Server | None, ...]] = {}
    for upstream in table.upstreams:
        number = before.slots.get(upstream.name)
        alone = len(upstream.endpoints) == 1 and not upstream.balanced
        if number is None or (upstream.endpoints and is_alone(number) != alone):
            if number is not None:
                left = before.places.get(number, ())
                places[number] = tuple(one if one in upstream.endpoints else None for one in left)
            number = next((one for one in range(before.backends) if is_alone(one) == alone and one not in used), None)
        if number is None:
            return None
        used.add(number)
        seats = _seated(upstream.endpoints, before.places.get(number, (None,) * before.servers))
        if seats is None:
            return None
        slots[upstream.name], places[number] = number, seats
    return replace(before, slots=slots, places=places)


def is_alone(number: int) -> bool:
    """Whether the backend is for one endpoint. Where there is no other, HAProxy waits a second before it tries again: once, so
    that a pod that was replaced meanwhile is found, and then the answer is 503. With others a refused request goes to the next
    one without waiting.
    """
    return number % 2 == 1


def _seated(endpoints: tuple[Server, ...], before: tuple[Server | None, ...]) -> tuple[Server | None, ...] | None:
    new = [one for one in dict.fromkeys(endpoints) if one not in before]
    free = [place for place, one in enumerate(before) if one is None]
    if len(new) > len(free):
        return None
    seats = [one if one in endpoints else None for one in before]
    for place, one in zip(free, new, strict=False):
        seats[place] = one
    return tuple(seats)


# ---------------------------------------------------------------- changes


def commands(old: tuple[Table, Allocation], new: tuple[Table, Allocation]) -> list[str]:
    """What is said on the runtime socket, in order. The two tables have the same certificates and the same room."""
    (was, before), (table, after) = old, new
    comes, goes = [], []
    for number in sorted(before.places.keys() | after.places.keys()):
        nobody = (None,) * after.servers
        pairs = zip(before.places.get(number, nobody), after.places.get(number, nobody), strict=True)
        for place, (left, right) in enumerate(pairs, 1):
            if left == right:
                continue
            if right is not None:
                comes.append(f"set server u{number}/s{place} addr {right[0]} port {right[1]}")
                comes.append(f"set server u{number}/s{place} state ready")
            else:
                goes.append(f"set server u{number}/s{place} state maint")
    return [*comes, *_map_commands(maps(was, before), maps(table, after)), *goes]


def _map_commands(old: Mapping[str, dict[str, str]], new: Mapping[str, dict[str, str]]) -> Iterator[str]:
    for name in MAPS:
        for key, value in new[name].items():
            if key not in old[name]:
                yield f"add map {name}.map {key} {value}"
            elif old[name][key] != value:
                yield f"set map {name}.map {key} {value}"
    for name in MAPS:
        yield from (f"del map {name}.map {key}" for key in old[name] if key not in new[name])


def maps(table: Table, allocation: Allocation) -> dict[str, dict[str, str]]:
    """The three maps: what is looked up -> the backend's name."""
    found: dict[str, dict[str, str]] = {name: {} for name in MAPS}
    for route in table.routes:
        key = f"{route.host}{route.path}" if route.exact else f"{route.host}{route.path}/"
        found["exact" if route.exact else "prefix"][key] = f"u{allocation.slots[route.upstream]}"
    if table.default:
        found["default"]["*"] = f"u{allocation.slots[table.default]}"
    return found


# ---------------------------------------------------------------- reading back


def drift(table: Table, allocation: Allocation, shown: Mapping[str, str], servers: str) -> list[str]:
    """How a running HAProxy differs. `shown`: what `show map` says of each map; `servers`: what `show servers state` says."""
    found = []
    for name, wanted in maps(table, allocation).items():
        seen = dict(line.split()[1:3] for line in shown[name].splitlines() if len(line.split()) > 2)
        for key in sorted(wanted.keys() | seen.keys()):
            if wanted.get(key) != seen.get(key):
                is_now, should = _named(allocation, seen.get(key)), _named(allocation, wanted.get(key))
                found.append(f"the {name} route {key} leads to {is_now}, not to {should}")
    lines = [line.split() for line in servers.splitlines() if line.strip()]
    header = next((line[1:] for line in lines if line[0] == "#"), [])
    for row in (dict(zip(header, line, strict=False)) for line in lines if line[0].isdigit() and len(line) > 5):
        if row["be_name"][:1] != "u" or not row["be_name"][1:].isdigit():
            continue
        places = allocation.places.get(int(row["be_name"][1:]), (None,) * allocation.servers)
        wanted_one = places[int(row["srv_name"][1:]) - 1]
        ready = not int(row["srv_admin_state"]) & _IN_MAINTENANCE
        is_here = f"{row['srv_addr']} port {row['srv_port']}" if ready else "nobody"
        should_be = f"{wanted_one[0]} port {wanted_one[1]}" if wanted_one is not None else "nobody"
        if is_here != should_be:
            found.append(f"server {row['srv_name']} of {_named(allocation, row['be_name'])} is {is_here}, not {should_be}")
    return found


def _named(allocation: Allocation, backend: str | None) -> str:
    owners = {f"u{number}": name for name, number in allocation.slots.items()}
    return "nobody" if backend is None else owners.get(backend, f"the unused backend {backend}")


# ---------------------------------------------------------------- files


def files(table: Table, allocation: Allocation, ipv6: bool = False) -> dict[str, str]:
    """Name in the directory -> text of everything that HAProxy reads when it starts."""
    found = {f"{name}.map": _map_text(entries) for name, entries in maps(table, allocation).items()}
    for number, certificate in enumerate(table.certificates):
        found[f"certificate-{number}.pem"] = certificate.pem
    lines = (f"certificate-{number}.pem {' '.join(one.hosts)}" for number, one in enumerate(table.certificates))
    found["crt-list"] = "".join(line.rstrip() + "\n" for line in lines)
    found["haproxy.cfg"] = configuration(table, allocation, ipv6)
    return found


def _map_text(entries: Mapping[str, str]) -> str:
    return "".join(f"{key} {value}\n" for key, value in entries.items())


def configuration(table: Table, allocation: Allocation, ipv6: bool = False) -> str:
    """haproxy.cfg. No `user`: in a lab of an ordinary user there is nobody else to become."""
    binds = [_bind(HTTP_PORT, ipv6)]
    if table.certificates:
        binds.append(f"{_bind(HTTPS_PORT, ipv6)} ssl crt-list crt-list")
    parts = [_HEAD, "frontend ingress", *(f"    bind {bind}" for bind in binds)]
    parts.append(_MATCHING)
    for number in range(allocation.backends):
        parts += _backend(number, allocation.places.get(number, (None,) * allocation.servers))
    parts.append(_TAIL.format(bind=_bind(ADMIN_PORT, ipv6)))
    return "\n".join(parts) + "\n"


def _bind(port: int, ipv6: bool) -> str:
    return f":{port},:::{port} v6only" if ipv6 else f":{port}"


def _backend(number: int, places: tuple[Server | None, ...]) -> Iterator[str]:
    yield f"backend u{number}"
    if is_alone(number):
        yield "    retries 1"
    for place, one in enumerate(places, 1):
        yield f"    server s{place} {_place(one)}" if one is not None else f"    server s{place} 127.0.0.1:1 disabled"


def _place(server: Server) -> str:
    return f"{server[0]}:{server[1]}"


_HEAD = """global
    stats socket unix@runtime.sock mode 600 level admin expose-fd listeners
    nbthread 1
    maxconn 4000
    no strict-limits
    hard-stop-after 30s
defaults
    mode http
    balance roundrobin
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout http-request 10s
    timeout http-keep-alive 60s
    timeout queue 2s
    retries 5
    option redispatch 1
    retry-on conn-failure empty-response
    option http-server-close
    option forwardfor"""
# A connection to a pod is closed after its answer: a kept one may belong to a pod that has gone by the next request.

_MATCHING = """    http-request set-var(txn.host) req.hdr(host),host_only,lower
    http-request set-var(txn.wild) var(txn.host),regsub(^[^.]+,*)
    http-request set-var(txn.path) path
    http-request set-var(txn.up) var(txn.host),concat(,txn.path),map_str(exact.map)
    http-request set-var(txn.up) var(txn.host),concat(,txn.path,/),map_beg(prefix.map) if !{ var(txn.up) -m found }
    http-request set-var(txn.up) var(txn.wild),concat(,txn.path),map_str(exact.map) if !{ var(txn.up) -m found }
    http-request set-var(txn.up) var(txn.wild),concat(,txn.path,/),map_beg(prefix.map) if !{ var(txn.up) -m found }
    http-request set-var(txn.up) var(txn.path),map_str(exact.map) if !{ var(txn.up) -m found }
    http-request set-var(txn.up) var(txn.path),concat(/),map_beg(prefix.map) if !{ var(txn.up) -m found }
    http-request set-var(txn.up) str(*),map_str(default.map) if !{ var(txn.up) -m found }
    http-request set-header X-Forwarded-Proto https if { ssl_fc }
    http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
    http-response set-header X-Netlab-Ingress haproxy
    use_backend %[var(txn.up)] if { var(txn.up) -m found }
    default_backend none"""

_TAIL = """backend none
    http-request return status 404 content-type text/plain string "default backend - 404\\n"
frontend admin
    bind {bind}
    http-request return status 200 content-type text/plain string "ok\\n" if {{ path /healthz }}
    stats enable
    stats uri /
    stats refresh 5s"""
