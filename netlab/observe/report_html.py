"""A running lab as one self-contained page: drawing, nodes, Services and their endpoints, pods, a matrix, drift, rules in short.

Pure: what was asked of the lab comes in as values (`Findings`). Decides what is worth a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from netlab.dns import pods_in_words
from netlab.endpoints import endpoints_of
from netlab.model import Cluster, Key
from netlab.observe import graph, graph_svg, results_html
from netlab.observe.page import details, page, pill, reasons, table
from netlab.ops import Ruleset, VirtualServer
from netlab.plan import Plan
from netlab.ruleset import Table


@dataclass(frozen=True, slots=True)
class Findings:
    """What a report is made of. `matrix`: probe results, None when it was not asked for; `left_out`: what of it, and why.

    `drift`: how the kernel differs from the plan; `facts`: of the lab and the machine, for the head.
    """

    name: str
    cluster: Cluster
    plan: Plan
    matrix: Sequence[Mapping[str, Any]] | None
    left_out: str
    drift: Sequence[str]
    facts: Sequence[str]

    @property
    def verdict(self) -> str:
        seen = {one["verdict"] for one in self.matrix or ()} | ({"fail"} if self.drift else set())
        return next((word for word in ("fail", "inconclusive") if word in seen), "pass")


def render(found: Findings) -> str:
    """The page."""
    cluster = found.cluster
    mode = cluster.topology.cluster.proxy.variant
    head = (
        f"<header><h1>Lab {escape(found.name)}</h1><p>{pill(found.verdict)} <span class='soft'>proxy {escape(mode)} · "
        f"{len(cluster.nodes)} nodes, {pods_in_words(cluster)}, {len(cluster.services)} Services · "
        f"{escape(' · '.join(found.facts))}</span></p></header>"
    )
    parts = {
        "Topology": f"<figure>{graph_svg.svg(graph.graph(cluster), services=False)}</figure>",
        "Services and endpoints": _services(cluster),
        "Does it work": _matrix(found),
        "Is it as planned": _drift(found.drift),
        f"Rules of {mode}": _rules(found.plan),
        "Nodes and hosts": _nodes(cluster),
        "Pods": _pods(cluster),
    }
    links = "".join(f'<a href="#part{number}">{escape(name)}</a>' for number, name in enumerate(parts))
    body = "".join(
        f'<section id="part{at}"><h2>{escape(name)}</h2>{inside}</section>' for at, (name, inside) in enumerate(parts.items())
    )
    return page(f"netlab: {found.name}", f"{head}<nav>{links}</nav>{body}")


def _services(cluster: Cluster) -> str:
    """A line a port; its endpoints below, when it is opened."""
    rows = []
    shown = [one for key, one in cluster.services.items() if key != Key("default", "kubernetes")]
    for number, service in enumerate(shown):
        row = (
            graph.letter(number),
            graph.label(service.ref),
            service.type.value,
            ", ".join(map(str, service.cluster_ips)) or "headless",
        )
        for port in service.ports:
            families = service.ip_families or ("IPv4",)
            known = [one for family in families for one in endpoints_of(cluster, service, port, family)]
            ready = sum(one.ready for one in known)
            used = {one.node for one in known if one.ready}
            nodes = [name for name in cluster.nodes if name in used]
            where = ", ".join(f"{one.address}:{one.port}{'' if one.ready else ' (not ready)'}" for one in known[:8])
            more = f" and {len(known) - 8} more" if len(known) > 8 else ""
            opened = f" → nodes {port.node_port}" if port.node_port else ""
            on = ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")
            rows.append(
                (*row, f"{port.port}/{port.protocol.lower()}{opened}", f"{ready} of {len(known)}", where + more or "none",
                 on, ", ".join(graph.policies(service)))
            )  # fmt: skip
    heads = ("", "Service", "type", "cluster IP", "port", "ready", "endpoints", "on", "policies")
    return table(heads, rows) or '<p class="soft">none</p>'


def _matrix(found: Findings) -> str:
    if found.matrix is None:
        return f'<p class="soft">not asked: {escape(found.left_out)}</p>'
    if not found.matrix:
        return '<p class="soft">no pair of sender and destination</p>'
    verdicts = results_html.verdicts([one["verdict"] for one in found.matrix])
    labels = results_html.labels(found.cluster)
    note = f'<p class="soft">{escape(found.left_out)}</p>' if found.left_out else ""
    return f"<p>{verdicts} <span class='soft'>one flow a pair, sent now</span></p>{note}{results_html.grid(found.matrix, labels)}"


def _drift(drift: Sequence[str]) -> str:
    if not drift:
        return f"<p>{pill('pass', 'no drift')} <span class='soft'>the kernel holds what was planned, read back now</span></p>"
    return f"<p>{pill('fail', f'{len(drift)} differences')}</p>{reasons(drift[:100])}"


def _rules(plan: Plan) -> str:
    """How many rules each node has, by table."""
    rows = []
    for op in plan.ops.values():
        if isinstance(op, Ruleset):
            for one in op.value.tables:
                rows.append((op.netns, op.value.dialect, *_counts(one)))
    rows.sort()
    total = sum(int(row[5]) for row in rows)
    shown = _virtual_servers([op for op in plan.ops.values() if isinstance(op, VirtualServer)])
    heads = ("where", "dialect", "family", "table", "chains", "rules", "sets and maps", "elements")
    inside = table(heads, rows, frozenset((4, 5, 6, 7)))
    if not rows:
        return shown or '<p class="soft">none: this mode has no rules of its own</p>'
    return details(f"{total} rules in {len(rows)} tables", inside, opened=len(rows) <= 16) + shown


def _virtual_servers(found: Sequence[VirtualServer]) -> str:
    """How many virtual servers IPVS has in each node, and how many real servers behind them; '' for none."""
    rows = []
    for netns in dict.fromkeys(one.netns for one in found):
        here = [one for one in found if one.netns == netns]
        rows.append((netns, str(len(here)), str(sum(len(one.real_servers) for one in here))))
    return table(("where", "IPVS virtual servers", "real servers"), rows, frozenset((1, 2)))


def _counts(one: Table) -> tuple[str, ...]:
    elements = sum(len(each.elements) for each in one.maps) + sum(len(each.elements) for each in one.sets)
    elements += sum(len(targets) for each in one.data_maps for _, targets in each.elements)
    rules = sum(len(chain.rules) for chain in one.chains)
    sets = len(one.maps) + len(one.sets) + len(one.data_maps)
    return one.family, one.name, str(len(one.chains)), str(rules), str(sets), str(elements)


def _nodes(cluster: Cluster) -> str:
    nodes = [
        (f"node/{name}", ", ".join(map(str, node.addresses)), ", ".join(map(str, node.pod_cidrs)),
         str(sum(pod.node == name for pod in cluster.pods.values())))
        for name, node in cluster.nodes.items()
    ]  # fmt: skip
    hosts = [
        (f"host/{host.name}", ", ".join(map(str, host.addresses)), "; ".join(f"{to} via {via}" for to, via in host.routes), "")
        for host in cluster.topology.hosts
    ]
    return table(("machine", "addresses", "pod CIDR, routes", "pods"), [*nodes, *hosts], frozenset((3,)))


def _pods(cluster: Cluster) -> str:
    rows = [
        (graph.label(pod.ref), pod.node or "-", ", ".join(map(str, pod.addresses)), pod.phase,
         "ready" if pod.ready else "not ready", str(pod.restarts))
        for pod in sorted(cluster.pods.values(), key=lambda pod: (pod.meta.namespace, pod.meta.name))
    ]  # fmt: skip
    heads = ("pod", "node", "address", "phase", "", "restarts")
    return details(f"{len(rows)} pods", table(heads, rows, frozenset((5,))), opened=len(rows) <= 30)
