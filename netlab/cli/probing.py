"""probe, matrix, verify: send and compare. The work is the lab's; here are only its words for people."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import loading, output
from netlab.cli.output import LabOption, NamespaceOption, paint
from netlab.errors import InputError, NetlabError

if TYPE_CHECKING:
    from netlab.client import Lab

EXIT = {"pass": 0, "fail": 1, "inconclusive": 4}
COLOUR = {"pass": "green", "fail": "red", "inconclusive": "yellow"}
BAR = 24
"""Width of the longest bar, in characters."""


def probe(
    sender: Annotated[str, typer.Argument(metavar="FROM", help="pod/NAME, node/NAME, host/NAME, deploy/NAME, rc/NAME@2.")],
    to: Annotated[str, typer.Argument(metavar="TO", help="The same, svc/NAME[:PORT], IP[:PORT], NAME[:PORT] or http://...")],
    count: Annotated[int, typer.Option("--count", "-c", min=1, metavar="N", help="How many flows.")] = 1,
    protocol: Annotated[str | None, typer.Option(metavar="tcp|udp|sctp|icmp|http")] = None,
    source: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Send from this address of the sender.")] = None,
    source_port: Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535)] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", callback=output.above_zero, help="Silence until then counts as dropped.")
    ] = 1.0,
    form: Annotated[str | None, typer.Option("-o", "--output", metavar="json")] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.1, metavar="N", help="A load: N requests a second, whatever becomes of them.")
    ] = None,
    for_: Annotated[str | None, typer.Option("--for", metavar="TIME", help="How long: 5s, 500ms (with --rate).")] = None,
    keep_alive: Annotated[bool, typer.Option("--keep-alive", help="Use HTTP connections again (with --rate).")] = False,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> int:
    """Send real packets, watch where they land, and judge. Exit code 0 pass, 1 fail, 4 inconclusive.

    \b
    Examples:
      netlab probe pod/client svc/kubia --count 300
      netlab probe host/client 192.168.0.170:30123
      netlab probe node/node-171 10.96.0.10:53 --protocol udp
      netlab probe host/client svc/kubia --source 203.0.113.50 -o json
      netlab probe host/client svc/kubia --protocol http --rate 200 --for 5s

    With --rate a load is sent and counted at the sender: what was answered, refused, reset or not in time, by whom, how fast,
    and for how long nobody answered.
    """
    output.choose(form, ("json",), "-o")
    if rate is not None:
        if count != 1 or source_port is not None:
            raise InputError("--rate sends until --for is over: it goes with neither --count nor --source-port")
        options = {"protocol": protocol, "source": source, "timeout_s": timeout, "namespace": namespace}
        return loading.load(output.attach(lab), sender, to, rate, for_, keep_alive, form, options)
    if for_ is not None or keep_alive:
        raise InputError("--for and --keep-alive belong to a load: say how many requests a second with --rate")
    protocol = output.choose(protocol and protocol.lower(), ("tcp", "udp", "sctp", "icmp", "http"), "--protocol")
    result = output.attach(lab).probe(
        sender, to, count=count, protocol=protocol, source=source, source_port=source_port, timeout_s=timeout, namespace=namespace
    )
    document = result.json()
    if form == "json":
        output.print_json(document)
    else:
        print(probe_text(document, output.coloured()), end="")
    return EXIT[document["verdict"]]


def probe_text(result: Mapping[str, Any], colour: bool) -> str:
    """One probe result for people: verdict, outcomes, a bar a backend, sources, and why."""
    from netlab.model import variant_of

    verdict = paint(result["verdict"].upper(), COLOUR[result["verdict"]], colour)
    ends = ", ".join(f"{number} {word}" for word, number in result["outcomes"].items() if number)
    rows = [
        f"{result['from']} -> {result['to']}  ({variant_of(result)})",
        f"  {verdict}  {ends or 'nothing sent'} of {result['sent']}",
    ]
    route = result.get("route") or {}
    behind = bool(route.get("backends"))  # an Ingress controller sent the requests on: who answered is there, and not itself
    backends, sources = (route if behind else result)["backends"], (route if behind else result)["sources"]
    most, width = max(backends.values(), default=1), max(map(len, backends), default=0)
    for name, number in backends.items():
        rows.append(f"    {name:<{width}}  {number:>5}  {paint('█' * max(1, round(BAR * number / most)), 'blue', colour)}")
    if sources:
        seen = ", ".join(f"{address} ({number})" for address, number in sources.items())
        rows.append(f"  seen from {seen}")
    if route:
        rows.append(f"  {route_text(route, result)}")
    spread = result.get("distribution")
    if spread and spread.get("p") is not None:
        rows.append(f"  spread: {spread['test']} p = {spread['p']:.3g} (fails below {spread['alpha']:g})")
    if result["verdict"] != "pass" or not backends:
        rows.append(f"  expected: {expected_text(result.get('expected') or {})}")
    rows += [f"  why: {line}" for line in result["why"]]
    rows += [f"  note: {line}" for line in result.get("notes", ())]
    return "".join(row + "\n" for row in rows)


def route_text(route: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    """Which way requests took: `through haproxy of pod/NS/NAME, which saw ADDRESS: ingress default/web, svc/default/web:80`."""
    saw = f", which saw {', '.join(result['sources'])}" if result["sources"] else ""
    parts = [
        f"ingress {route['ingress']}" if route["ingress"] else "no Ingress",
        *([route["service"]] if route["service"] else []),
    ]
    end = "" if route["backends"] else f": {route.get('why') or 'no pod answered'}"
    return f"through {route['proxy']} of {route['controller']}{saw}: {', '.join(parts)}{end}"


def expected_text(expected: Mapping[str, Any]) -> str:
    backends = expected.get("backends") or []
    to = f" to {', '.join(backends[:4])}{f' and {len(backends) - 4} more' if len(backends) > 4 else ''}" if backends else ""
    return f"{expected.get('outcome', 'nothing')}{to}{', masqueraded' if expected.get('masqueraded') else ''}"


MARKS = {"delivered": "ok", "rejected": "rej", "dropped": "drop", "not-handled": "drop"}
"""What a cell of the matrix shows."""


def matrix(
    senders: Annotated[
        str | None, typer.Option("--from", metavar="SELECTOR", help="Senders: targets with commas, or a label selector of pods.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="SELECTOR", help="Destinations: the same, and svc/NAME.")] = None,
    form: Annotated[str, typer.Option("-o", "--output", metavar="table|json|junit")] = "table",
    proxy: Annotated[
        str | None,
        typer.Option(metavar="all", help="Every proxy mode side by side: the lab, and a twin of it for each other mode."),
    ] = None,
    lab: LabOption = None,
) -> int:
    """Probe every pair: expected against seen.

    With --proxy all every disagreement between the modes is listed, and explained by the known difference that it is; one that is
    not explained makes the exit code 1.

    \b
    Examples:
      netlab matrix
      netlab matrix --from app=client --to svc/kubia
      netlab matrix -o junit > matrix.xml
      netlab matrix --proxy all --from node/node-170 --to 10.96.0.1:81
    """
    output.choose(form, ("table", "json", "junit"), "-o")
    output.choose(proxy, ("all",), "--proxy")
    running = output.attach(lab)
    if proxy is not None:
        return compared(running, ends(running, senders, services=False), ends(running, to, services=True), form)
    with output.progress("sending between all pairs"):
        seen = running.matrix(ends(running, senders, services=False), ends(running, to, services=True))
    results = [one.json() for one in seen]
    if not results:
        raise InputError("no pair of sender and destination fits: `netlab get po,svc -A` shows what there is")
    match form:
        case "json":
            output.print_json(results)
        case "junit":
            print(junit(results, stories(running, results)))
        case _:
            print(matrix_text(results, output.coloured(), owners(running)), end="")
    return worst(results)


def compared(running: "Lab", senders: list[str] | None, to: list[str] | None, form: str) -> int:
    """`--proxy all`."""
    from netlab.cli import comparing

    output.choose(form, ("table", "json"), "-o with --proxy all")
    comparison = comparing.matrix(running, senders, to)
    if form == "json":
        output.print_json(comparison.json())
    else:
        print(comparing.text(comparison, output.coloured()), end="")
    return comparison.exit_code


def ends(running: "Lab", text: str | None, services: bool) -> list[str] | None:
    """The targets that `--from` or `--to` means: targets with commas, or the pods (and Services) with labels."""
    if text is None:
        return None
    if "/" in text or ":" in text or re.fullmatch(r"[0-9.,]+", text):
        return text.split(",")
    kinds = ("pods", "services") if services else ("pods",)
    found = [(kind, one["metadata"]) for kind in kinds for one in running.get(kind, None, None, text)]
    if not found:
        raise InputError(f"no pod has the labels {text!r}; targets are written pod/NAME, node/NAME, host/NAME, svc/NAME")
    return [f"{'pod' if kind == 'pods' else 'svc'}/{meta['namespace']}/{meta['name']}" for kind, meta in found]


def owners(running: "Lab") -> dict[str, str]:
    """Address -> the pod or Service that has it, as people write it."""
    pods = running.get("pods", None, None)
    services = running.get("services", None, None)
    found = {
        address: f"pod/{one['metadata']['name']}"
        for one in pods
        if not one["spec"].get("hostNetwork")
        for address in (one["status"].get("podIP", ""), *(each["ip"] for each in one["status"].get("podIPs") or ()))
    }
    return found | {
        address: f"svc/{one['metadata']['name']}"
        for one in services
        for address in (one["spec"].get("clusterIP", ""), *(one["spec"].get("clusterIPs") or ()))
    }


def worst(results: Sequence[Mapping[str, Any]]) -> int:
    """1 when one failed, otherwise 4 when one is inconclusive."""
    codes = {EXIT[one["verdict"]] for one in results}
    return 1 if 1 in codes else 4 if 4 in codes else 0


def seen_word(result: Mapping[str, Any]) -> str:
    """What happened to the flows of one pair, in one word; `mixed` when not the same to all."""
    happened = [word for word, number in result["outcomes"].items() if number]
    return MARKS[happened[0]] if len(happened) == 1 else "mixed" if happened else "-"


def cell(result: Mapping[str, Any]) -> str:
    """`ok` where seen is expected, otherwise `expected/seen`; `!` marks a failure, `?` missing evidence."""
    seen, expected = seen_word(result), MARKS.get((result.get("expected") or {}).get("outcome", ""), "-")
    mark = {"pass": "", "fail": "!", "inconclusive": "?"}[result["verdict"]]
    return f"{seen if seen == expected else f'{expected}/{seen}'}{mark}"


def matrix_text(results: Sequence[Mapping[str, Any]], colour: bool, names: Mapping[str, str] | None = None) -> str:
    """A grid: a row a sender, a numbered column a destination; below, what the numbers mean and why pairs did not pass."""
    senders = list(dict.fromkeys(one["from"] for one in results))
    ends = list(dict.fromkeys(one["to"] for one in results))
    found = {(one["from"], one["to"]): one for one in results}
    heads = [str(at + 1) for at in range(len(ends))]
    left = max(len("FROM"), *map(len, senders)) + 2
    wide = max(6, *(len(cell(one)) + 2 for one in results))
    rows = ["FROM".ljust(left) + "".join(head.ljust(wide) for head in heads).rstrip()]
    for sender in senders:
        row = sender.ljust(left)
        for end in ends:
            one = found.get((sender, end))
            shown = cell(one) if one else "-"
            row += (paint(shown, COLOUR[one["verdict"]], colour) if one else shown) + " " * (wide - len(shown))
        rows.append(row.rstrip())
    width = max(24, *map(len, ends))
    rows += ["", *(f"  {head:>3}  {named(end, names or {}, width)}" for head, end in zip(heads, ends, strict=True)), ""]
    tally = {word: sum(one["verdict"] == word for one in results) for word in EXIT}
    rows.append(", ".join(paint(f"{number} {word}", COLOUR[word], colour) for word, number in tally.items() if number))
    rows += [f"  {one['from']} -> {one['to']}: {line}" for one in results if one["verdict"] != "pass" for line in one["why"]]
    rows += [f"note: {line}" for line in dict.fromkeys(line for one in results for line in one.get("notes", ()))]
    return "".join(row + "\n" for row in rows)


def named(destination: str, names: Mapping[str, str], width: int = 24) -> str:
    """A destination with the object that has its address."""
    address = destination.partition("/")[0]
    owner = names.get(address) or names.get(address.rpartition(":")[0].strip("[]"))
    return f"{destination:<{width}}  {owner}" if owner else destination


def stories(running: "Lab", results: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """Sender and destination -> the explanation of a packet sent once more, of the first pairs that failed."""
    from netlab.observe import explain_text
    from netlab.scenario.exhibits import EXPLAINED

    found = {}
    for one in [one for one in results if one["verdict"] == "fail"][:EXPLAINED]:
        to, _, protocol = one["to"].rpartition("/")
        try:
            found[one["from"], one["to"]] = explain_text.text(running.explain(one["from"], to, protocol=protocol))
        except NetlabError as error:
            found[one["from"], one["to"]] = f"it cannot be explained: {error}"
    return found


def junit(results: Sequence[Mapping[str, Any]], told: Mapping[tuple[str, str], str] | None = None) -> str:
    """The results as a JUnit XML document: a test case a pair, inconclusive ones as errors. `told`: what `stories` gives."""
    from xml.etree import ElementTree

    from netlab.scenario.reports import printable

    count = {word: sum(one["verdict"] == word for one in results) for word in EXIT}
    numbers = {"tests": str(len(results)), "failures": str(count["fail"]), "errors": str(count["inconclusive"])}
    suite = ElementTree.Element("testsuite", {"name": "netlab matrix", **numbers})
    for one in results:
        case = ElementTree.SubElement(suite, "testcase", {"classname": one["from"], "name": f"{one['from']} -> {one['to']}"})
        if one["verdict"] != "pass":
            tag = "failure" if one["verdict"] == "fail" else "error"
            story = (told or {}).get((one["from"], one["to"]))
            message = printable("; ".join(one["why"]) or one["verdict"])
            ElementTree.SubElement(case, tag, {"message": message}).text = printable(
                "\n".join([*one["why"], *([story] if story else [])])
            )
    ElementTree.indent(suite)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode")


def verify(
    repair: Annotated[bool, typer.Option("--repair", help="Mend what differs.")] = False,
    form: Annotated[str | None, typer.Option("-o", "--output", metavar="json")] = None,
    lab: LabOption = None,
) -> int:
    """Compare the kernel with what was planned. Exit code 1 when there is drift that was not mended.

    With --repair the kernel is read again afterwards: what a second reading still finds was not mended.

    \b
    Examples:
      netlab verify
      netlab verify --repair
    """
    output.choose(form, ("json",), "-o")
    report = output.attach(lab).verify(repair=repair)
    if form == "json":
        output.print_json({"drift": list(report.drift), "repaired": report.repaired, "left": list(report.left)})
    else:
        for line in report.drift:
            print(line)
        done = output.number_of(len(report.drift), "difference") + (
            f", {report.repaired} repaired" if repair else "; `netlab verify --repair` mends them"
        )
        for line in report.left if repair else ():
            output.message(f"not mended: {line}")
        output.message(done if report.drift else paint("the kernel holds what was planned", "green", output.coloured(sys.stderr)))
    return 1 if report.left else 0
