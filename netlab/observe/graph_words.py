"""The lab's graph in the words of other drawing programs: Mermaid's flowchart and Graphviz' dot. Pure."""

from collections.abc import Iterator

from netlab.observe.graph import Graph, Machine, PodBox

ROW = 4
"""How many nodes stand side by side at most."""


def mermaid(graph: Graph) -> str:
    """A Mermaid flowchart: a subgraph a node, a dotted arrow from each Service to its endpoints."""
    return "\n".join([f"flowchart {_direction(graph)}", *_mermaid(graph)]) + "\n"


def _mermaid(graph: Graph) -> Iterator[str]:
    ids = _Ids()
    for lan in graph.lans:
        yield f'    {ids(lan.netns)}[["{lan.name} {lan.cidr}"]]'
        if lan.router:
            yield f'    {ids("router")}{{{{"router {lan.router}"}}}} --- {ids(lan.netns)}'
    for number, line in enumerate(graph.impaired):
        yield f'    impaired{number}>"{line}"]'
    for host in graph.hosts:
        yield f'    {ids(host.netns)}["{host.netns}<br/>{"<br/>".join(host.addresses[:4])}"]'
        yield from (f"    {ids(host.netns)} --- {ids(f'lan/{lan}')}" for lan in host.lans)
    for node in graph.nodes:
        yield f'    subgraph {ids(node.netns)}["{node.netns} {", ".join(node.addresses)}"]'
        yield f'        {ids(node.netns + " bridge")}[/"{node.bridge}"/]'
        for pod in node.pods:
            yield f'        {ids(node.netns + " bridge")} --- {ids(_key(node, pod))}("{_pod(pod, "<br/>")}")'
        yield "    end"
        yield from (f"    {ids(f'lan/{lan}')} --- {ids(node.netns)}" for lan in node.lans)
    for service in graph.services:
        lines = (service.name, ", ".join(service.addresses), ", ".join(service.ports), *service.policies)
        yield f'    {ids(f"svc/{service.name}")}("{"<br/>".join(lines)}")'
        for node, pod in _endpoints(graph, service.number):
            yield f"    {ids(f'svc/{service.name}')} -.-> {ids(_key(node, pod))}"
        yield f"    style {ids(f'svc/{service.name}')} stroke:{service.colour},stroke-width:3px"


def dot(graph: Graph) -> str:
    """A Graphviz graph: a cluster a node, a dashed edge from each Service to its endpoints."""
    rows = [
        "digraph netlab {",
        "  graph [rankdir="
        + _direction(graph)
        + ", fontname=Helvetica, label="
        + _quoted(chr(10).join((graph.title, *graph.impaired)))
        + "];",
        "  node [fontname=Helvetica, shape=box, style=rounded]; edge [dir=none];",
    ]
    for lan in graph.lans:
        rows.append(
            f'  {_quoted(lan.netns)} [shape=rect, style=filled, fillcolor="#56B4E9", label={_quoted(f"{lan.name} {lan.cidr}")}];'
        )
        if lan.router:
            words = _quoted(f"router\n{lan.router}")
            rows.append(f"  {_quoted('router/router')} [shape=hexagon, label={words}];")
            rows.append(f"  {_quoted('router/router')} -> {_quoted(lan.netns)};")
    for host in graph.hosts:
        rows.append(f"  {_quoted(host.netns)} [label={_quoted(chr(10).join((host.netns, *host.addresses[:4])))}];")
        rows += [f"  {_quoted(host.netns)} -> {_quoted(f'lan/{lan}')};" for lan in host.lans]
    for number, node in enumerate(graph.nodes):
        title = f"{node.netns} {', '.join(node.addresses)}"
        rows.append(f"  subgraph cluster_{number} {{ label={_quoted(title)};")
        rows.append(f"    {_quoted(node.netns)} [shape=parallelogram, label={_quoted(node.bridge)}];")
        for pod in node.pods:
            rows.append(f"    {_quoted(_key(node, pod))} [label={_quoted(_pod(pod, chr(10)))}];")
            rows.append(f"    {_quoted(node.netns)} -> {_quoted(_key(node, pod))};")
        rows.append("  }")
        rows += [f"  {_quoted(f'lan/{lan}')} -> {_quoted(node.netns)};" for lan in node.lans]
    for service in graph.services:
        lines = (service.name, ", ".join(service.addresses), ", ".join(service.ports), *service.policies)
        look = f'shape=ellipse, color="{service.colour}", penwidth=2'
        rows.append(f"  {_quoted(f'svc/{service.name}')} [{look}, label={_quoted(chr(10).join(lines))}];")
        for node, pod in _endpoints(graph, service.number):
            edge = f'[style=dashed, dir=forward, color="{service.colour}"]'
            rows.append(f"  {_quoted(f'svc/{service.name}')} -> {_quoted(_key(node, pod))} {edge};")
    return "\n".join((*rows, "}", ""))


def _direction(graph: Graph) -> str:
    """Downwards, or to the right: then many nodes stand one below the other, and the page can be scrolled."""
    return "TB" if len(graph.nodes) <= ROW else "LR"


def _endpoints(graph: Graph, number: int) -> Iterator[tuple[Machine, PodBox]]:
    for node in graph.nodes:
        yield from ((node, pod) for pod in node.pods if number in pod.services)


def _key(node: Machine, pod: PodBox) -> str:
    return pod.netns or f"{node.netns} {pod.name}"


def _pod(pod: PodBox, newline: str) -> str:
    name = f"{pod.count} x {pod.name}" if pod.count > 1 else pod.name
    return newline.join((name, pod.address + ("" if pod.ready else " (not ready)")))


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


class _Ids:
    """Short ids, because Mermaid's may hold no slash."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, key: str) -> str:
        return self._known.setdefault(key, f"n{len(self._known)}")


def services_text(graph: Graph) -> str:
    """The Services for a terminal: address and ports, endpoints, policies."""
    rows = []
    for service in graph.services:
        where = f" on {', '.join(service.nodes)}" if service.nodes else ""
        ports = ", ".join(service.ports)
        rows.append(f"{service.letter:<2} svc/{service.name}  {', '.join(service.addresses)}  {ports}")
        facts = [f"{service.ready} of {service.endpoints} endpoints ready{where}", *service.policies]
        rows.append(f"     {'; '.join(facts)}")
    return "".join(row + "\n" for row in rows)
