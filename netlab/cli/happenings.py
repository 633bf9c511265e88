"""events: one stream of what changes in a lab."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import output
from netlab.cli.output import LabOption
from netlab.errors import InputError

if TYPE_CHECKING:
    from netlab.lab.naming import Names

TYPES = {
    "object": "bold", "endpoints": "blue", "rules": "yellow", "fault": "red", "link": "dim", "address": "dim", "route": "dim",
    "neighbour": "dim", "conntrack": "dim", "probe": "green", "lab": "red",
}  # fmt: skip
"""What there is, and its colour."""


def events(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    only: Annotated[str, typer.Option("--only", metavar="TYPE,...", help=f"Of {', '.join(TYPES)}.")] = "",
    seconds: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", callback=output.above_zero, help="End after so long.")
    ] = None,
    last: Annotated[int, typer.Option("--last", min=0, metavar="N", help="Begin with the last N that the lab remembers.")] = 0,
    form: Annotated[str | None, typer.Option("-o", "--output", hidden=True)] = None,
    lab: LabOption = None,
) -> int:
    """Show what changes, as it does.

    Objects, endpoints, rules and verdicts come from the lab itself, everything else from the kernel in every namespace. Runs
    until Ctrl-C (exit code 130), or for some seconds.

    \b
    Examples:
      netlab events
      netlab events --only object,endpoints,rules --json
      netlab events --for 10 --last 50
    """
    if form is not None:
        raise InputError(f"-o {form}: events have no end, and so are no document: --json gives one JSON object a line")
    wanted = chosen(only)
    from netlab.cli.following import Following
    from netlab.lab.naming import names_of

    running = output.attach(lab)
    kernel = bool(wanted & {"link", "address", "route", "neighbour", "conntrack"})
    stream = Following(running, last, kernel)
    names: Names | None = None
    output.message(f"lab {running.name}: {', '.join(word for word in TYPES if word in wanted)}; Ctrl-C ends it")
    colour = output.coloured()
    for event in stream.events(None if seconds is None else time.monotonic() + seconds):
        if event["type"] == "object":
            names = None
        if event["type"] in wanted:
            if event["type"] == "conntrack" and names is None:
                names = names_of(running.cluster())
            shown = named(event, names)
            print(json.dumps(shown, ensure_ascii=False) if as_json else line(shown, colour), flush=True)
    return 0


def chosen(only: str) -> set[str]:
    """The types that were asked for. Raises InputError."""
    if not only:
        return set(TYPES)
    words = {word.strip() for word in only.split(",") if word.strip()}
    for word in sorted(words):
        output.choose(word, tuple(TYPES), "--only")
    if not words:
        raise InputError("--only takes words with commas: --only object,rules")
    return words


def named(event: dict[str, Any], names: "Names | None") -> dict[str, Any]:
    """A connection with the names of its ends; everything else as it is."""
    if event["type"] != "conntrack" or names is None:
        return event
    from netlab.lab.naming import named as with_names

    row = with_names(event["connection"], names)
    ends = row["names"]
    who = " -> ".join(part for part in (ends["src"] or row["src"], ends["dst"] or row["dst"]) if part)
    by = f", answered by {ends['reply_src']}" if ends["reply_src"] and ends["reply_src"] != ends["dst"] else ""
    return {**event, "connection": row, "text": f"{event['text']}  ({who}{by})"}


def line(event: dict[str, Any], colour: bool) -> str:
    """`12:00:00.123  rules      node/node-170: ...`"""
    at = event["at"]
    stamp = f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at % 1 * 1000):03}"
    return f"{stamp}  {output.paint(event['type'].ljust(10), TYPES.get(event['type'], 'dim'), colour)} {event['text']}"
