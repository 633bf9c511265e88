"""graph: the lab drawn, for a terminal, a browser or another program."""

import sys
from typing import Annotated

import typer

from netlab.cli import output
from netlab.cli.output import LabOption

FORMS = ("text", "svg", "mermaid", "dot", "html")


def graph(
    form: Annotated[str, typer.Option("-o", "--output", metavar="text|svg|mermaid|dot|html")] = "text",
    collapse: Annotated[
        int, typer.Option("--collapse", min=0, metavar="N", help="Above N pods on a node, show them by their owner.")
    ] = 16,
    lab: LabOption = None,
) -> None:
    """Draw the lab.

    Networks, router and hosts, nodes with their bridge and pods, Services with their endpoints and policies.

    \b
    Examples:
      netlab graph
      netlab graph -o svg > lab.svg
      netlab graph -o dot | dot -Tpdf > lab.pdf
    """
    output.choose(form, FORMS, "-o")
    from netlab.observe import graph as content

    cluster = output.attach(lab).cluster()
    drawn = content.graph(cluster, collapse)
    match form:
        case "svg":
            from netlab.observe import graph_svg

            sys.stdout.write(graph_svg.svg(drawn))
        case "html":
            from netlab.observe import graph_html

            sys.stdout.write(graph_html.page(drawn))
        case "mermaid" | "dot":
            from netlab.observe import graph_words

            sys.stdout.write(graph_words.mermaid(drawn) if form == "mermaid" else graph_words.dot(drawn))
        case _:
            from netlab.cli import drawing
            from netlab.observe import graph_words

            sys.stdout.write(drawing.draw(cluster, collapse=collapse, services=False) + "\n" + graph_words.services_text(drawn))
