"""`top`: what the kernel counted, by node, Service and pod, from one look to the next. Pure: samples in, rows and text out.

A connection belongs to a Service where its first destination is the Service's, which only the node that translates it sees; to a
pod where the pod is one of its ends and the node is the pod's own, so that nothing is counted twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Protocol

from netlab.model import Address, variant_of

Row = Mapping[str, Any]
COLUMNS = ("connections", "new_per_s", "rx_per_s", "tx_per_s", "dropped")
HEADS = {"connections": "CONNS", "new_per_s": "NEW/S", "rx_per_s": "RX/S", "tx_per_s": "TX/S", "dropped": "DROPS"}


class Naming(Protocol):
    """Whose an address is (lab/naming.py)."""

    def destination(self, address: Address, port: int, protocol: str) -> str: ...
    def owner(self, address: Address) -> str: ...


@dataclass(slots=True)
class Sums:
    """Of one node, Service or pod. `rx` of a Service are packets to it, `tx` those of its answers."""

    connections: int = 0
    new: int = 0
    rx: int = 0
    tx: int = 0
    dropped: int | None = 0


@dataclass(slots=True)
class Sample:
    """Everything at one moment. `at`: seconds of a monotonic clock. New and packets count up since the watch began."""

    at: float
    nodes: dict[str, Sums] = field(default_factory=dict)
    services: dict[str, Sums] = field(default_factory=dict)
    pods: dict[str, Sums] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """Connections as they come and go: what `Sample` needs besides what the kernel lists now."""

    begun: dict[str, int] = field(default_factory=dict)
    ended_rx: dict[str, int] = field(default_factory=dict)
    ended_tx: dict[str, int] = field(default_factory=dict)

    def event(self, node: str, action: str, row: Row, names: Naming, node_of: Mapping[str, str]) -> None:
        """A connection began or ended (a kernel notice)."""
        for key in owners(node, row, names, node_of):
            if action == "new":
                self.begun[key] = self.begun.get(key, 0) + 1
            elif "packets" in row:
                self.ended_rx[key] = self.ended_rx.get(key, 0) + row["packets"]
                self.ended_tx[key] = self.ended_tx.get(key, 0) + row["reply_packets"]


def owners(node: str, row: Row, names: Naming, node_of: Mapping[str, str]) -> list[str]:
    """The node, the Service and the pods that a connection in this node's table counts for."""
    protocol = str(row["protocol"])
    found = [node]
    asked = names.destination(ip_address(row["dst"]), row["dport"], protocol)
    if asked.startswith("svc/"):
        found.append(asked.removesuffix(" (node port)").rpartition(":")[0])
    ends = (names.owner(ip_address(row["src"])), names.owner(ip_address(row["reply_src"])))
    found += [pod for pod in dict.fromkeys(ends) if pod.startswith("pod/") and node_of.get(pod) == node.partition("/")[2]]
    return found


def tallied(sample: Sample, tally: Tally, tables: Mapping[str, Iterable[Row]], names: Naming, node_of: Mapping[str, str]) -> None:
    """Enter connections into the sample. Links have entered their packets for nodes and pods before."""
    for node, rows in tables.items():
        for row in rows:
            for key in owners(node, row, names, node_of):
                sums = _sums(sample, key)
                if sums is None:
                    continue
                sums.connections += 1
                if key.startswith("svc/") and "packets" in row:
                    sums.rx += row["packets"]
                    sums.tx += row["reply_packets"]
    for key, count in tally.begun.items():
        if (sums := _sums(sample, key)) is not None:
            sums.new = count
    for key, service in sample.services.items():
        service.rx += tally.ended_rx.get(key, 0)
        service.tx += tally.ended_tx.get(key, 0)


def _sums(sample: Sample, key: str) -> Sums | None:
    return (sample.nodes if key.startswith("node/") else sample.services if key.startswith("svc/") else sample.pods).get(key)


def document(now: Sample, before: Sample, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The two samples as one JSON document: rates over the time between them."""
    seconds = max(now.at - before.at, 1e-9)

    def row(name: str, sums: Sums, old: Sums) -> dict[str, Any]:
        return {
            "name": name,
            "connections": sums.connections,
            "new_per_s": round((sums.new - old.new) / seconds, 1),
            "rx_per_s": round(max(0, sums.rx - old.rx) / seconds, 1),
            "tx_per_s": round(max(0, sums.tx - old.tx) / seconds, 1),
            "dropped": sums.dropped,
            "new": sums.new, "rx": sums.rx, "tx": sums.tx,
        }  # fmt: skip

    tables = {
        kind: [row(name, sums, getattr(before, kind).get(name, Sums())) for name, sums in getattr(now, kind).items()]
        for kind in ("nodes", "services", "pods")
    }
    return {**facts, "seconds": round(seconds, 3), **tables}


def text(document: Mapping[str, Any], width: int, height: int, pods: str = "") -> str:
    """As a terminal shows it: the busiest first, as many as there is room for; what is left out is counted.

    `pods`: how many there are, in words.
    """
    rows = [_head(document, width, pods or f"{len(document['pods'])} pods")]
    kinds = ("nodes", "services", "pods")
    room = _room([len(document[kind]) for kind in kinds], max(3, height - 1 - 3 * len(kinds)))
    for kind, many in zip(kinds, room, strict=True):
        rows += ["", *_table(kind, document[kind], many, width)]
    return "".join(row[:width].rstrip() + "\n" for row in rows[:height])


def _head(document: Mapping[str, Any], width: int, pods: str) -> str:
    left = f"{document['lab']}  {variant_of(document)}  {len(document['nodes'])} nodes, {pods}"
    right = f"{document['time'][11:19]}, over {document['seconds']:.1f} s"
    return left + " " * max(2, width - len(left) - len(right)) + right


def _room(wanted: Sequence[int], lines: int) -> list[int]:
    """Lines for each table: small ones get all that they want, the rest is shared."""
    given, left = [0] * len(wanted), lines
    for number, at in enumerate(sorted(range(len(wanted)), key=lambda at: wanted[at])):
        given[at] = min(wanted[at], left // (len(wanted) - number))
        left -= given[at]
    return given


def _table(kind: str, rows: Sequence[Row], many: int, width: int) -> list[str]:
    busiest = sorted(
        rows, key=lambda row: (-row["rx_per_s"] - row["tx_per_s"] - row["new_per_s"], -row["connections"], row["name"])
    )
    name = max(20, width - 10 * len(COLUMNS) - 2)
    more = f"  ({len(rows) - many} more)" if len(rows) > many else ""
    out = [f"{kind.upper() + more:<{name}}" + "".join(f"{HEADS[column]:>10}" for column in COLUMNS)]
    for row in busiest[:many]:
        shown = row["name"].replace("/default/", "/", 1)
        cells = "".join(f"{_number(row[column]):>10}" for column in COLUMNS)
        out.append(f"{shown if len(shown) < name else shown[: name - 2] + '…':<{name}}{cells}")
    return out


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    if value >= 100_000:
        return f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"
