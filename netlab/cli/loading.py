"""probe --rate: a load's result for people."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from netlab.cli import output
from netlab.cli.output import paint
from netlab.errors import InputError

if TYPE_CHECKING:
    from netlab.client import Lab

EXIT = {"pass": 0, "fail": 1, "inconclusive": 4}
COLOUR = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
LOST = ("refused", "timed_out", "reset", "wrong_status")
BAR = 24
LISTED = 5
DEFAULT_FOR = "5s"


def load(
    lab: "Lab",
    sender: str,
    to: str,
    rate: float,
    for_: str | None,
    keep_alive: bool,
    form: str | None,
    options: Mapping[str, Any],
) -> int:
    """Send it, print what it showed; the exit code is the verdict's."""
    from netlab.manifest.formats import period, seconds  # the readers of manifests know the whole model

    if problem := period(for_ or DEFAULT_FOR):
        raise InputError(f"--for {for_}: {problem}")
    protocol = output.choose(
        options["protocol"] and options["protocol"].lower(), ("http", "tcp", "udp"), "--protocol with --rate"
    )
    for_s = seconds(for_ or DEFAULT_FOR)
    asked = {**options, "protocol": protocol}
    with (
        lab.load(sender, to, rate, for_s=for_s, keep_alive=keep_alive, **asked) as under_way,
        output.progress(f"sending {rate:g} requests a second for {for_s:g} s"),
    ):
        document = under_way.result(stop=False).json()
    if form == "json":
        output.print_json(document)
    else:
        print(load_text(document, output.coloured()), end="")
    return EXIT[document["verdict"]]


def load_text(result: Mapping[str, Any], colour: bool) -> str:
    """Verdict, what became of the requests, a bar a backend, how fast, when nobody answered, and why."""
    from netlab.model import variant_of

    rate, latency = result["rate"], result["latency_ms"]
    verdict = paint(result["verdict"].upper(), COLOUR[result["verdict"]], colour)
    ends = [f"{result[word]} {word.replace('_', ' ')}" for word in ("answered", *LOST, "unsent") if result[word]]
    rows = [
        f"{result['from']} -> {result['to']}  ({variant_of(result)}, {result['protocol']}, "
        f"{rate['kept']:g} of {rate['asked']:g}/s for {result['seconds']:g} s)",
        f"  {verdict}  {', '.join(ends) or 'nothing sent'} of {result['sent']}",
    ]
    backends = result["backends"]
    most, width = max(backends.values(), default=1), max(map(len, backends), default=0)
    for name, number in backends.items():
        rows.append(f"    {name:<{width}}  {number:>5}  {paint('█' * max(1, round(BAR * number / most)), 'blue', colour)}")
    if result["answered"]:
        rows.append("  latency: " + ", ".join(f"{name} {value:g} ms" for name, value in latency.items()))
    longest = sorted(result["outages"], key=lambda one: -one["length_ms"])
    for one in sorted(longest[:LISTED], key=lambda one: one["at_ms"]):
        lost = output.number_of(one["lost"], "request")
        rows.append(f"  nobody answered for {one['length_ms']:g} ms, {one['at_ms']:g} ms after the beginning ({lost} lost)")
    if len(longest) > LISTED:
        rows.append(f"  and {output.number_of(len(longest) - LISTED, 'shorter outage')}")
    if result["retried"]:
        rows.append(f"  {output.number_of(result['retried'], 'request')} sent again: an idle connection had been closed")
    rows += [f"  why: {line}" for line in result["why"]]
    return "".join(row + "\n" for row in rows)
