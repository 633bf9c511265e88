"""The document of `explain` for a terminal, and as a Mermaid sequence diagram. Pure: JSON in, text out.

Decides what is left out: rules that held and did nothing are counted, not shown, unless everything is asked for.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from netlab.model import variant_of

Document = Mapping[str, Any]
Event = Mapping[str, Any]
COLOURS = {"green": "32", "red": "31", "yellow": "33", "blue": "36", "bold": "1", "dim": "2", "magenta": "35"}
OUTCOME = {"delivered": "green", "rejected": "red", "dropped": "red"}
VERDICT = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
WIDTH = 110


class Paint:
    """Colours, or none."""

    def __init__(self, on: bool) -> None:
        self._on = on

    def __call__(self, text: str, *colours: str) -> str:
        if not self._on or not text:
            return text
        return f"\x1b[{';'.join(COLOURS[colour] for colour in colours)}m{text}\x1b[0m"


def text(document: Document, colour: bool = False, everything: bool = False) -> str:
    """The story as a column of places, each with what happened to the packet there."""
    paint = Paint(colour)
    start = document["hops"][0]["at"] if document["hops"] else 0
    first = next((event["at"] for event in document["hops"] if event["at"]), start)
    rows = [*_head(document, paint), ""]
    rows += _way(document["hops"], first, paint, everything, document)
    if document["reply"]:
        rows += ["", f"  {paint('the way back', 'bold')}"]
        rows += _way(document["reply"], first, paint, everything, document)
    rows += ["", *_foot(document, paint)]
    return "".join(row.rstrip() + "\n" for row in rows)


# ---------------------------------------------------------------- head and foot


def _head(document: Document, paint: Paint) -> Iterator[str]:
    outcome = document["outcome"]
    yield f"{paint(document['from'], 'bold')} -> {paint(document['to'], 'bold')}  ({variant_of(document)})"
    parts = [paint(outcome.upper(), OUTCOME[outcome], "bold")]
    if document["arrived_at"]:
        parts[0] += f" {'to' if outcome == 'delivered' else 'at'} {document['arrived_at']}"
    choice = document["choice"]
    if choice and choice["backends"] > 1:
        parts.append(f"one of {choice['backends']} endpoints, {choice['how']}, odds {choice['odds']}")
    elif choice:
        parts.append(choice["how"])
    took = _took(document)
    if took:
        parts.append(f"{took} there and back" if document["reply"] else took)
    yield f"  {' · '.join(parts)}"


def _took(document: Document) -> str:
    stamps = [event["at"] for event in (*document["hops"], *document["reply"]) if event["at"]]
    return _time(max(stamps) - min(stamps)) if len(stamps) > 1 else ""


def _time(nanoseconds: int) -> str:
    return f"{nanoseconds / 1000:.0f} µs" if nanoseconds < 1_000_000 else f"{nanoseconds / 1_000_000:.1f} ms"


def _foot(document: Document, paint: Paint) -> Iterator[str]:
    for line in document["why"]:
        yield f"  {paint('why', 'bold')}      {line}"
    for line in document["remedies"]:
        yield f"  {paint('to live', 'bold')}  {line}"
    for netns, rows in document["conntrack"].items():
        for row in rows:
            yield f"  {paint('conntrack', 'bold')}  {netns}: {conntrack(row)}"
    for line in carried(document):
        yield f"  {paint('carried', 'bold')}  {line}"
    copies = [one["netns"] for one in document.get("flooded", ()) if one["event"] == "received"]
    if copies:
        yield f"  {paint('flooded', 'bold')}  copies went to {', '.join(dict.fromkeys(copies))}, which ignored them"
    for line in document["notes"]:
        yield f"  {paint('note', 'yellow')}     {line}"
    agreed = (
        paint("the offline trace agrees", "green") if document["trace_agrees"] else paint("the offline trace disagrees", "red")
    )
    met = dict.fromkeys(event["netns"] for event in document["hops"] if event["netns"] in document["traced"])
    told = f", kernel trace of {', '.join(met)}" if met else ""
    verdict = paint(document["verdict"].upper(), VERDICT[document["verdict"]], "bold")
    if document["verdict"] == "pass" and document["outcome"] != "delivered":
        agreed = f"{document['outcome']}, as Kubernetes has it; {agreed}"
    yield f"  {verdict}  {agreed}; rests on packet sockets{told}, routes, conntrack"
    for line in document["disagreements"]:
        yield f"    {paint('!', 'red')} {line}"


def carried(document: Document) -> Iterator[str]:
    """The ways of the datagrams that carried the packet between nodes."""
    ways: dict[str, list[str]] = {}
    for event in document.get("carried", ()):
        place = f"{event['device']} of {event['netns']}"
        ways.setdefault(shown(event["packet"]), []).append(place)
    for packet, places in ways.items():
        yield f"in {packet}: {', '.join(dict.fromkeys(places))}"


def conntrack(row: Mapping[str, Any]) -> str:
    """One conntrack entry on one line."""
    status = " ".join(word for word in row["status"] if word.endswith("NAT") or word in ("ASSURED", "SEEN_REPLY"))
    there = f"{end(row['src'], row['sport'])} -> {end(row['dst'], row['dport'])}"
    back = f"{end(row['reply_src'], row['reply_sport'])} -> {end(row['reply_dst'], row['reply_dport'])}"
    state = f" {row['state']}" if row["state"] else ""
    return f"{row['protocol']}{state} {there}, answered {back}{'  ' + status if status else ''}"


# ---------------------------------------------------------------- the column


def _way(events: Sequence[Event], first: int, paint: Paint, everything: bool, document: Document) -> Iterator[str]:
    stays = grouped(events)
    for number, stay in enumerate(stays):
        netns = stay[0]["netns"]
        begun = next((event["at"] for event in stay if event["at"]), first)
        last = number == len(stays) - 1
        mark = paint(*_mark(stay, last))
        packet = shown(stay[0]["packet"])
        yield f"{paint(f'{(begun - first) / 1000:>8.0f} µs', 'dim')}  {mark} {paint(netns, 'bold')}  {paint(packet, 'dim')}"
        line = paint(" " if last else "│", "dim")
        for row in _inside(stay, paint, everything):
            yield f"             {line}   {row}"


def _mark(stay: Sequence[Event], last: bool) -> tuple[str, str]:
    end = stay[-1]["event"]
    if end in ("dropped", "rejected"):
        return "✗", "red"
    if end in ("delivered", "relayed"):
        return "◆", "green"
    return ("○", "dim") if stay[0]["netns"].startswith("lan/") else ("●", "blue")


def _inside(stay: Sequence[Event], paint: Paint, everything: bool) -> Iterator[str]:
    """The lines of one stay: interfaces side by side, decisive rules, rewriting, route, end."""
    devices: list[str] = []
    ends = stay[-1]["event"] in ("dropped", "rejected")
    hidden = [one for one in stay if one["event"] == "rule" and not (everything or one.get("decisive"))]
    for event in stay:
        if event["event"] in ("sent", "received"):
            devices.append(f"{event['device']} {'out' if event['event'] == 'sent' else 'in'}")
            continue
        if any(event is one for one in hidden) or (ends and event["event"] == "rule" and event["verdict"] == "drop"):
            continue
        if event is stay[-1] and hidden:
            yield from _idle(hidden, paint)
            hidden = []
        if devices:
            yield paint(", ".join(devices), "dim")
            devices = []
        yield from _line(event, paint, everything)
    if devices:
        yield paint(", ".join(devices), "dim")
    if hidden:
        yield from _idle(hidden, paint)


def _idle(hidden: Sequence[Event], paint: Paint) -> Iterator[str]:
    many = "1 more rule or policy" if len(hidden) == 1 else f"{len(hidden)} more rules or policies"
    yield paint(f"({many} that changed nothing: --all shows them)", "dim")


def _line(event: Event, paint: Paint, everything: bool) -> Iterator[str]:
    match event["event"]:
        case "rule":
            owner = f"  {paint(event['owner'], 'magenta')}" if event["owner"] else ""
            place = f"{event['hook']:<11} {event['table']} {event['chain']}"
            number = f" #{event['position'] + 1}" if event["position"] is not None else ""
            stranger = "" if event["planned"] else paint(" not netlab's rule", "red")
            yield f"{paint(place + number, 'blue')}: {event['did'] or event['verdict']}{owner}{stranger}"
            if event["rule"] and (everything or not _only_jumps(event)):
                yield f"            {paint(_cut(event['rule'], everything), 'dim')}"
        case "nat":
            yield paint(event["text"], "yellow")
        case "route":
            yield event["text"]
        case "delivered" | "relayed":
            yield paint(event["text"], "green")
        case "dropped" | "rejected":
            yield paint(event["text"], "red", "bold")
            if event["rule"]:
                yield f"            {paint(event['rule'], 'red')}"


def _only_jumps(event: Event) -> bool:
    return event["verdict"] in ("jump", "goto") and event["planned"]


def _cut(rule: str, everything: bool) -> str:
    return rule if everything or len(rule) <= WIDTH else rule[: WIDTH - 1] + "…"


def grouped(events: Sequence[Event]) -> list[list[Event]]:
    """Events in runs of one namespace."""
    found: list[list[Event]] = []
    for event in events:
        if not found or found[-1][0]["netns"] != event["netns"]:
            found.append([])
        found[-1].append(event)
    return found


def shown(packet: Mapping[str, Any]) -> str:
    return f"{end(packet['src'], packet['sport'])} -> {end(packet['dst'], packet['dport'])} {packet['proto']}"


def end(address: str, port: int) -> str:
    if not port:
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


# ---------------------------------------------------------------- Mermaid


def mermaid(document: Document) -> str:
    """A sequence diagram: a participant a namespace, an arrow a link, a note what rules, routes and rewriting did."""
    rows = ["sequenceDiagram"]
    places = list(dict.fromkeys(event["netns"] for event in (*document["hops"], *document["reply"])))
    alias = {netns: f"p{number}" for number, netns in enumerate(places)}
    rows += [f"    participant {alias[netns]} as {_plain(netns)}" for netns in places]
    for events, arrow in ((document["hops"], "->>"), (document["reply"], "-->>")):
        stays = grouped(events)
        for number, stay in enumerate(stays):
            notes = [line for line in map(_note, stay) if line]
            if notes:
                rows.append(f"    Note over {alias[stay[0]['netns']]}: {'<br/>'.join(notes)}")
            end = stay[-1]
            if end["event"] in ("dropped", "rejected"):
                rows.append(f"    {alias[end['netns']]}--x{alias[end['netns']]}: {end['event']}")
            elif number + 1 < len(stays):
                to = stays[number + 1][0]["netns"]
                rows.append(f"    {alias[end['netns']]}{arrow}{alias[to]}: {_plain(shown(stays[number + 1][0]['packet']))}")
    return "\n".join(rows) + "\n"


def _note(event: Event) -> str:
    match event["event"]:
        case "rule":
            return _plain(f"{event['chain']}: {event['did']}") if event.get("decisive") else ""
        case "nat" | "dropped" | "rejected" | "delivered" | "relayed" | "route":
            return _plain(event["text"])
        case _:
            return ""


def _plain(words: str) -> str:
    """Mermaid ends a line's text at a semicolon, and reads # as an entity."""
    return words.replace(";", ",").replace("#", "no. ").replace("->", "to")
