"""explain: send one packet and tell its story."""

import sys
from typing import Annotated, Any

import typer

from netlab.cli import output
from netlab.cli.output import LabOption, NamespaceOption
from netlab.cli.probing import EXIT

FORMS = ("text", "json", "mermaid", "html")


def explain(
    sender: Annotated[str, typer.Argument(metavar="FROM", help="pod/NAME, node/NAME, host/NAME, deploy/NAME, rc/NAME@2.")],
    to: Annotated[str, typer.Argument(metavar="TO", help="The same, svc/NAME[:PORT], IP[:PORT], NAME[:PORT].")],
    form: Annotated[str, typer.Option("-o", "--output", metavar="text|json|mermaid|html")] = "text",
    protocol: Annotated[str | None, typer.Option(metavar="tcp|udp|sctp|icmp")] = None,
    source: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Send from this address.")] = None,
    source_port: Annotated[int | None, typer.Option(metavar="PORT", min=1, max=65535)] = None,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", callback=output.above_zero, help="Silence until then counts as dropped.")
    ] = 0.3,
    live: Annotated[
        bool,
        typer.Option("--live", help="Send nothing: follow the next TCP connection, UDP datagram or ping of a program."),
    ] = False,
    wait: Annotated[
        float,
        typer.Option("--wait", min=0.1, max=300, metavar="SECONDS", callback=output.above_zero, help="How long --live waits."),
    ] = 30.0,
    everything: Annotated[bool, typer.Option("--all", "-a", help="Also rules that held and changed nothing.")] = False,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> int:
    """Send one packet and tell its story.

    Every interface that it crossed, the rules that it met and for whom they are there, routes, NAT, the answer's way back; and,
    if it died, by what, and what would have let it live.

    \b
    Examples:
      netlab explain pod/client svc/kubia
      netlab explain host/client 192.168.0.170:30123 --all
      netlab explain pod/client svc/kubia -o html > story.html
      netlab explain pod/client svc/kubia --live
    """
    output.choose(form, FORMS, "-o")
    protocol = output.choose(protocol and protocol.lower(), ("tcp", "udp", "sctp", "icmp"), "--protocol")
    running = output.attach(lab)
    asked: dict[str, Any] = {
        "protocol": protocol,
        "source": source,
        "source_port": source_port,
        "timeout_s": timeout,
        "namespace": namespace,
    }
    live_s = wait if live else None
    if live:
        meant = running.explain(sender, to, live_s=live_s, check=True, **asked)
        output.message(f"waiting up to {wait:g} s for a {meant['what']} from {meant['from']} to {meant['to']}: start it now")
    document = running.explain(sender, to, live_s=live_s, **asked)
    match form:
        case "json":
            output.print_json(document)
        case "html":
            from netlab.observe import explain_html

            sys.stdout.write(explain_html.page(document, running.cluster()))
        case _:
            from netlab.observe import explain_text

            if form == "mermaid":
                sys.stdout.write(explain_text.mermaid(document))
            else:
                sys.stdout.write(explain_text.text(document, output.coloured(), everything))
    return EXIT[document["verdict"]]
