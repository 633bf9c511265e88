"""The lab drawn as SVG: hosts above their LAN, the LAN as a bar, nodes below it with their bridge and pods, Services beneath.

Decides places and sizes. Pure; the style sheet has a light and a dark scheme. `Layout.places` says where each namespace is drawn,
for whoever moves something over the picture (explain_html.py).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from netlab.observe.graph import PALETTE, Graph, LanBar, Machine, PodBox, ServiceRow, letter

POD_W, POD_H, GAP, PAD = 186, 38, 10, 14
SMALL_W, SMALL_H, SMALL_GAP = 172, 24, 6
"""A pod among more than MANY on its node: its name alone, the address on pointing at it. Two such nodes fit side by side."""
MANY = 16
DEEP = "#0072B2"
"""The one colour of PALETTE on which white letters have more contrast (5.2) than dark ones."""
MACHINE_W = 226
LINE = 15
NARROW, WIDE = "ijlIft.,:;'|!()[] /-", "mwMW@%…"
PAGE_W = 1180
ROW_H = 44
STYLE = """
:root{color-scheme:light dark}
.nl{--bg:#fff;--ink:#1b1f24;--soft:#57606a;--line:#8c959f;--box:#f6f8fa;--node:#eaf2fb;--lan:#0072B2;--pod:#fff;
 --bad:#D55E00;font:13px system-ui,sans-serif}
@media (prefers-color-scheme:dark){.nl{--bg:#0d1117;--ink:#e6edf3;--soft:#9da7b3;--line:#6e7681;--box:#161b22;
 --node:#12202f;--lan:#56B4E9;--pod:#0d1117;--bad:#ff9b57}}
.nl .page{fill:var(--bg)}.nl text{fill:var(--ink)}.nl .soft{fill:var(--soft);font-size:11px}.nl .name{font-weight:600}
.nl .box{fill:var(--box);stroke:var(--line)}.nl .node{fill:var(--node);stroke:var(--line)}.nl .pod{fill:var(--pod);
 stroke:var(--line)}
.nl .unready{stroke:var(--bad);stroke-dasharray:4 3}.nl .lan{fill:var(--lan)}.nl .bridge{fill:var(--line)}
 .nl .wire{stroke:var(--line);stroke-width:2;fill:none}
.nl .on{stroke:var(--lan);stroke-width:3}.nl .lan text,.nl text.inv{fill:var(--bg);font-weight:600}
 .nl text.tag{fill:#fff;font-size:10px;font-weight:700}.nl text.tag.dark{fill:#1b1f24}
"""


@dataclass(frozen=True, slots=True)
class Spot:
    """Where a namespace is drawn."""

    x: float
    y: float
    w: float
    h: float

    @property
    def centre(self) -> tuple[float, float]:
        return self.x + self.w / 2, self.y + self.h / 2


@dataclass(slots=True)
class Layout:
    """The drawing: shapes, the words above them, its size, and the places of namespaces."""

    shapes: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    places: dict[str, Spot] = field(default_factory=dict)
    width: float = PAGE_W
    height: float = 0

    def rect(self, kind: str, spot: Spot, netns: str = "", radius: int = 6) -> None:
        mark = f' data-netns="{escape(netns, quote=True)}"' if netns else ""
        self.shapes.append(
            f'<rect class="{kind}" x="{spot.x:g}" y="{spot.y:g}" width="{spot.w:g}" height="{spot.h:g}" rx="{radius}"{mark}/>'
        )
        if netns:
            self.places[netns] = spot

    def text(self, x: float, y: float, words: str, kind: str = "", room: float = 400, told: str = "") -> None:
        """`room`: how wide it may be. `told`: what is said on pointing at it; without it the whole words, where they were cut."""
        shown = cut(words, room, kind)
        title = f"<title>{escape(told or words)}</title>" if told or shown != words else ""
        self.words.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(shown)}{title}</text>')

    def lines(self, x: float, y: float, words: Sequence[str], kind: str, room: float) -> None:
        """One below the other."""
        for number, line in enumerate(words):
            self.text(x, y + LINE * number, line, kind, room)

    def wire(self, x1: float, y1: float, x2: float, y2: float) -> None:
        self.shapes.append(f'<path class="wire" d="M{x1:g} {y1:g}L{x2:g} {y2:g}"/>')


def width(words: str, kind: str = "") -> float:
    """How wide the words are at most, in whichever of the usual sans-serif fonts: measured in a wide one (DejaVu Sans)."""
    size = 11 if kind == "soft" else 14.3 if kind == "name" else 13  # bold is a tenth wider
    return size * sum(0.35 if one in NARROW else 0.98 if one in WIDE else 0.71 if one.isupper() else 0.64 for one in words)


def cut(words: str, room: float, kind: str = "") -> str:
    """As much as there is room for. A single word loses its middle: what tells pods of one owner apart stands at the end."""
    if width(words, kind) <= room:
        return words
    left, right = words, ""
    if " " not in words:
        right = words[-6:]
        left = words[:-6]
    while left and width(f"{left}…{right}", kind) > room:
        left = left[:-1]
    return f"{left}…{right}"


def named(name: str, room: float) -> str:
    """A pod's name: its namespace goes before any of it."""
    if width(name) <= room or "/" not in name:
        return cut(name, room)
    count, _, rest = name.rpartition(" ")
    return cut(f"{count} …/{rest.partition('/')[2]}".strip(), room)


def wrapped(words: str, room: float, kind: str = "") -> list[str]:
    """Lines for the words, broken behind commas and semicolons where they do not fit into one."""
    lines = [""]
    for part in re.split(r"(?<=[,;]) ", words):
        longer = f"{lines[-1]} {part}".strip()
        if lines[-1] and width(longer, kind) > room:
            lines.append(part)
        else:
            lines[-1] = longer
    return lines


def svg(graph: Graph, services: bool = True) -> str:
    """A whole SVG document."""
    layout = draw(graph, services)
    return document(layout, graph.title)


def document(layout: Layout, title: str, between: str = "", above: str = "") -> str:
    """`between` goes over the shapes and under the words."""
    size = f'viewBox="0 0 {layout.width:g} {layout.height:g}" width="{layout.width:g}" height="{layout.height:g}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nl" role="img" {size}><title>{escape(title)}</title>'
        f'<style>{STYLE}</style><rect class="page" width="100%" height="100%"/>'
        f"{''.join(layout.shapes)}{between}{''.join(layout.words)}{above}</svg>\n"
    )


def draw(graph: Graph, services: bool = True) -> Layout:
    """Places for everything. What is on two LANs is drawn below the first; its other wires reach up from the second."""
    layout = Layout()
    layout.text(PAD, 22, graph.title, "name", PAGE_W - 2 * PAD)
    y = 36.0
    drawn: set[str] = set()
    bars: dict[str, Spot] = {}
    row = sum(_node_width(node) + 4 * GAP for node in graph.nodes) + 2 * PAD
    widest = max((_node_width(node) + 2 * PAD for node in graph.nodes), default=0)
    least = PAGE_W if services and graph.services else 700
    layout.width = max(widest, min(max(row, least), PAGE_W))
    for lan in graph.lans:
        y = _lan(layout, graph, lan, y, drawn, bars)
    for lan in graph.lans:  # second legs
        for machine in (*graph.hosts, *graph.nodes):
            if lan.name in machine.lans[1:]:
                spot, bar = layout.places[machine.netns], bars[lan.name]
                x = spot.x + spot.w - 16
                layout.wire(x, min(spot.y + spot.h, bar.y), x, max(spot.y, bar.y + bar.h) if bar.y < spot.y else bar.y)
    if graph.down:
        layout.text(PAD, y + 16, f"set down: {', '.join(graph.down)}", "soft", layout.width - 2 * PAD)
        y += 26
    for line in graph.impaired:
        layout.text(PAD, y + 16, line, "soft", layout.width - 2 * PAD)
        y += 18
    if services and graph.services:
        y = _services(layout, graph.services, y + 8)
    layout.height = y + PAD
    return layout


def _lan(layout: Layout, graph: Graph, lan: LanBar, y: float, drawn: set[str], bars: dict[str, Spot]) -> float:
    hosts = [one for one in graph.hosts if one.lans[:1] == (lan.name,)]
    nodes = [one for one in graph.nodes if one.lans[:1] == (lan.name,)]
    if lan.router:
        hosts = [*hosts, Machine("router", "router/router", lan.routers, (lan.name,), graph.router)]
    top, bottom = y, y
    x = float(PAD)
    wires = []
    for host in hosts:
        if host.netns in drawn:
            continue
        if x + MACHINE_W > layout.width - PAD:
            x, top = float(PAD), bottom + GAP
        spot = Spot(x, top, MACHINE_W, 30 + LINE * len(_machine_words(host)))
        _machine(layout, host, spot)
        wires.append(spot)
        drawn.add(host.netns)
        bottom = max(bottom, spot.y + spot.h)
        x += MACHINE_W + 2 * GAP
    bar = Spot(PAD - 9, bottom + 22, layout.width - 2 * PAD + 9, 24)
    bars[lan.name] = bar
    for spot in wires:
        layout.wire(spot.centre[0], spot.y + spot.h, spot.centre[0], bar.y)
    layout.rect("lan", bar, lan.netns)
    if "router/router" in layout.places and lan.router and layout.places["router/router"] not in wires:
        words = f"router {lan.router}"
        layout.text(bar.x + bar.w - width(words) * 1.1 - 10, bar.y + 16, words, "inv", bar.w / 2)
    layout.text(bar.x + 10, bar.y + 16, f"{lan.name}  {lan.cidr}", "inv", bar.w / 2)
    return _nodes(layout, nodes, bar)


def _machine(layout: Layout, machine: Machine, spot: Spot) -> None:
    layout.rect("box", spot, machine.netns)
    room = spot.w - 16
    layout.text(spot.x + 10, spot.y + 19, machine.netns, "name", room)
    layout.lines(spot.x + 10, spot.y + 35, _machine_words(machine), "soft", room)


def _machine_words(machine: Machine) -> list[str]:
    """Addresses and routes; of many, how many there are more."""
    return [*_few(machine.addresses, 4), *_few(machine.notes, 4)]


def _few(words: Sequence[str], most: int) -> list[str]:
    return [*words] if len(words) <= most else [*words[: most - 1], f"and {len(words) - most + 1} more"]


def _columns(node: Machine) -> int:
    count = len(node.pods)
    return 1 if count <= 3 else 2 if count <= 8 else 3


def _pod_size(node: Machine) -> tuple[float, float, float]:
    """Width, height and the gap below."""
    return (SMALL_W, SMALL_H, SMALL_GAP) if len(node.pods) > MANY else (POD_W, POD_H, GAP)


def _node_width(node: Machine) -> float:
    return _columns(node) * (_pod_size(node)[0] + GAP) + 2 * PAD - GAP


def _node_height(node: Machine) -> float:
    rows = -(-len(node.pods) // _columns(node))
    _, height, gap = _pod_size(node)
    above, below = _node_words(node)
    more = LINE * (len(above) + len(below) - 2)
    return 78 + more + rows * (height + gap) + (LINE if not node.pods else 0)


def _node_words(node: Machine) -> tuple[list[str], list[str]]:
    """The lines above its bridge, and those below."""
    room = _node_width(node) - 2 * PAD
    return wrapped(", ".join((*node.addresses, *node.notes)), room, "soft"), wrapped(node.bridge, room, "soft")


def _nodes(layout: Layout, nodes: Sequence[Machine], bar: Spot) -> float:
    x, y, tallest = float(PAD), bar.y + bar.h + 26, 0.0
    trunk = bar.y + bar.h
    free = layout.width - 2 * PAD - sum(_node_width(node) for node in nodes)
    apart = min(90.0, free / len(nodes)) if nodes and free > 2 * GAP * len(nodes) else 2.0 * GAP
    for node in nodes:
        w, h = _node_width(node), _node_height(node)
        if x + w > layout.width - PAD and x > PAD:
            x, y, tallest = float(PAD), y + tallest + 26, 0.0
        spot = Spot(x, y, w, h)
        layout.wire(spot.x + 22, trunk if y == bar.y + bar.h + 26 else y - 14, spot.x + 22, spot.y)
        if y != bar.y + bar.h + 26:
            layout.wire(PAD - 7, y - 14, spot.x + 22, y - 14)
            layout.wire(PAD - 7, trunk, PAD - 7, y - 14)
        _node(layout, node, spot)
        tallest = max(tallest, h)
        x += w + apart
    return y + tallest + 18 if nodes else bar.y + bar.h + 18


def _node(layout: Layout, node: Machine, spot: Spot) -> None:
    layout.rect("node", spot, node.netns)
    count = f"  {node.pod_count} pods" if node.pod_count != len(node.pods) else ""
    above, below = _node_words(node)
    room = spot.w - 2 * PAD
    layout.text(spot.x + PAD, spot.y + 19, f"{node.netns}{count}", "name", room)
    layout.lines(spot.x + PAD, spot.y + 35, above, "soft", room)
    bridge = Spot(spot.x + PAD, spot.y + 31 + LINE * len(above), room, 5)
    layout.rect("bridge", bridge, "", 2)
    layout.lines(bridge.x, bridge.y + 18, below, "soft", room)
    first = bridge.y + 13 + LINE * len(below)
    columns = _columns(node)
    wide, high, gap = _pod_size(node)
    for number, pod in enumerate(node.pods):
        x = spot.x + PAD + (number % columns) * (wide + GAP)
        y = first + (number // columns) * (high + gap)
        _pod(layout, pod, Spot(x, y, wide, high))
    if not node.pods:
        layout.text(spot.x + PAD, first + 10, "no pods", "soft")


def _pod(layout: Layout, pod: PodBox, spot: Spot) -> None:
    kind = "pod" if pod.ready else "pod unready"
    if pod.count > 1:
        layout.rect(kind, Spot(spot.x + 4, spot.y + 4, spot.w, spot.h))
    layout.rect(kind, spot, pod.netns)
    shown = pod.services[:3]
    room = spot.w - 12 - (19 * len(shown) + 3 if shown else 4)
    name = f"{pod.count} x {pod.name}" if pod.count > 1 else pod.name
    if spot.h < POD_H:
        told = f"{name} {pod.address}" + ("" if pod.ready else ", not ready")
        layout.text(spot.x + 8, spot.y + 16, named(name, room), "" if pod.ready else "soft", room, told)
        for place, number in enumerate(reversed(shown)):
            _tag(layout, spot.x + spot.w - 13 - 18 * place, spot.y + 12, PALETTE[number % len(PALETTE)], letter(number))
        return
    layout.text(spot.x + 8, spot.y + 16, shown_name := named(name, room), "", room, name if shown_name != name else "")
    below = pod.address if pod.ready else f"{pod.address}  not ready"
    if pod.count > 1 and not pod.ready:
        below = f"{pod.ready_count} of {pod.count} ready"
    layout.text(spot.x + 8, spot.y + 31, below, "soft", spot.w - 14)
    for place, number in enumerate(reversed(shown)):
        _tag(layout, spot.x + spot.w - 14 - 19 * place, spot.y + 12, PALETTE[number % len(PALETTE)], letter(number))


def _tag(layout: Layout, x: float, y: float, colour: str, mark: str) -> None:
    layout.shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="8.5" fill="{colour}"/>')
    kind = "tag" if colour == DEEP else "tag dark"
    layout.words.append(f'<text class="{kind}" text-anchor="middle" x="{x:g}" y="{y + 3.5:g}">{mark}</text>')


def _services(layout: Layout, services: Sequence[ServiceRow], y: float) -> float:
    layout.text(PAD, y + 10, "Services; their endpoints carry the letter", "soft")
    y += 20
    for service in services:
        spot = Spot(PAD, y, layout.width - 2 * PAD, ROW_H - 6)
        layout.rect("box", spot, f"svc/{service.name}")
        _tag(layout, PAD + 18, y + 19, service.colour, service.letter)
        layout.text(PAD + 36, y + 16, service.name, "name", 226)
        layout.text(PAD + 36, y + 31, service.type, "soft")
        layout.text(PAD + 270, y + 16, ", ".join(service.addresses), "", 302)
        layout.text(PAD + 270, y + 31, ", ".join(service.ports), "soft", 302)
        where = f" on {', '.join(service.nodes)}" if service.nodes else ""
        room = layout.width - 2 * PAD - 590
        layout.text(PAD + 580, y + 16, f"{service.ready} of {service.endpoints} endpoints ready{where}", "", room)
        layout.text(PAD + 580, y + 31, ", ".join(service.policies), "soft", room)
        y += ROW_H
    return y
