"""`get hosts|links|routes|rules|conntrack|daemons`: netlab's own kinds as Kubernetes-like objects, and the cells of their tables.

Hosts come from the lab's topology. The others are read from the kernel at each call: one object a target holds all its rows
under `status.items`, as `ip -j` prints them (rules: `status.text`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from netlab.errors import InputError

if TYPE_CHECKING:
    from netlab.client import Lab
    from netlab.model import Cluster

Json = dict[str, Any]

KIND = {"hosts": "Host", "links": "Link", "routes": "Route", "rules": "Rule", "conntrack": "Conntrack", "daemons": "Daemon"}
"""They take a machine or pod in the place of a name: `get routes node/node-170`."""
FROM_THE_KERNEL = {kind: word for kind, word in KIND.items() if kind != "hosts"}


def fetch(lab: "Lab", kind: str, name: str | None) -> list[Json]:
    """The objects of one kind; `name` is a host's name, or the target to look into (default: every node)."""
    cluster = lab.cluster()
    if kind == "hosts":
        return hosts(cluster, name)
    if kind == "daemons":
        return daemons(lab, name)
    whole = {"router": "router/router"}
    targets = [whole.get(name, name if "/" in name else f"node/{name}")] if name else [f"node/{node}" for node in cluster.nodes]
    found = []
    for target in targets:
        from netlab.client import View

        seen = getattr(View(lab, target), kind)()
        status = {"text": seen} if kind == "rules" else {"items": seen}
        found.append({"apiVersion": "netlab/v1", "kind": KIND[kind], "metadata": {"name": target}, "status": status})
    return found


def daemons(lab: "Lab", name: str | None) -> list[Json]:
    """The programs that machines run besides pods, all of them or one machine's."""
    found = [one for one in lab.verb("daemons") if name in (None, one["target"], one["target"].partition("/")[2])]
    if name and not found:
        raise InputError(f"{name} runs no daemon")
    return [
        {"apiVersion": "netlab/v1", "kind": "Daemon", "metadata": {"name": target}, "status": {"items": rows}}
        for target in dict.fromkeys(one["target"] for one in found)
        for rows in [[one for one in found if one["target"] == target]]
    ]


def daemon_cells(row: Json) -> list[str]:
    return [row["name"], "Running" if row["pid"] else "Starting", str(row["restarts"]), str(row["pid"] or "-"), row["command"]]


def hosts(cluster: "Cluster", name: str | None) -> list[Json]:
    found = [one for one in cluster.topology.hosts if name in (None, one.name, f"host/{one.name}")]
    if name and not found:
        known = ", ".join(one.name for one in cluster.topology.hosts) or "none"
        raise InputError(f'hosts "{name}" not found (there is: {known})')
    return [
        {
            "apiVersion": "netlab/v1",
            "kind": "Host",
            "metadata": {"name": one.name},
            "spec": {"routes": {str(to): str(gateway) for to, gateway in one.routes}},
            "status": {"addresses": [str(address) for address in one.addresses]},
        }
        for one in found
    ]


def text(items: Sequence[Json]) -> str:
    """Links, routes, rules or conntrack entries for people."""
    from netlab.cli.tables import align

    if items[0]["kind"] == "Rule":
        return "".join(f"# {one['metadata']['name']}\n{one['status']['text'].rstrip()}\n" for one in items)
    heading, cells = TABLES[items[0]["kind"]]
    rows = [[one["metadata"]["name"], *cells(row)] for one in items for row in _each_way(one["status"]["items"])]
    return align([["TARGET", *heading], *rows])


def link_cells(row: Json) -> list[str]:
    return [
        row.get("ifname", ""),
        row.get("operstate", ""),
        row.get("address", ""),
        row.get("master", "") or "-",
        str(row.get("mtu", "")),
        impairment(row.get("impairment") or {}) or "-",
    ]


def impairment(ways: Json) -> str:
    """`delay 10ms` where both ways are alike, otherwise `out: delay 10ms; in: loss 1%`."""
    from netlab.model import Impairment

    said = {way: f"qdisc {value['qdisc']}" if "qdisc" in value else str(Impairment(**value)) for way, value in ways.items()}
    if len(said) == 2 and said["out"] == said["in"]:
        return said["out"]
    return "; ".join(f"{way}: {words}" for way, words in said.items())


def _each_way(rows: list[Json]) -> list[Json]:
    """A route with several next hops has a row for each."""
    return [{**row, **hop} for row in rows for hop in row.get("nexthops") or [{}]]


def route_cells(row: Json) -> list[str]:
    kind = row.get("type", "unicast")
    destination = row.get("dst", "")
    source = row.get("prefsrc", "") or "-"
    return [
        destination if kind == "unicast" else f"{kind} {destination}",
        row.get("gateway", "") or "-",
        row.get("dev", "") or "-",
        source,
        row.get("protocol", "") or "-",
    ]


def conntrack_cells(row: Json) -> list[str]:
    """One connection: its protocol and state, the original direction, who answers, and to whom where that is not the source."""
    there, back = (row.get("reply_dst"), row.get("reply_dport")), (row.get("src"), row.get("sport"))
    ends = [_end(row, "src", "sport"), _end(row, "dst", "dport"), _end(row, "reply_src", "reply_sport")]
    rewritten = _end(row, "reply_dst", "reply_dport") if there != back else "-"
    return [str(row.get("protocol", "")) or "-", str(row.get("state", "")) or "-", *ends, rewritten]


def _end(row: Json, address: str, port: str) -> str:
    """`10.96.0.80:80 svc/default/kubia:80`; ICMP has no ports."""
    where = str(row.get(address, ""))
    shown = f"[{where}]" if ":" in where else where
    name = (row.get("names") or {}).get(address, "")
    return " ".join(part for part in (f"{shown}:{row[port]}" if row.get(port) else where, name) if part) or "-"


TABLES = {
    "Link": (("DEVICE", "STATE", "MAC", "MASTER", "MTU", "IMPAIRED"), link_cells),
    "Route": (("DESTINATION", "GATEWAY", "DEVICE", "SOURCE", "PROTOCOL"), route_cells),
    "Daemon": (("DAEMON", "STATUS", "RESTARTS", "PID", "COMMAND"), daemon_cells),
    "Conntrack": (
        ("PROTOCOL", "STATE", "SOURCE", "DESTINATION", "ANSWERED-BY", "MASQUERADED-AS"),
        conntrack_cells,
    ),
}
