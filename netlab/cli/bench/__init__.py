"""bench: how fast, always beside a peer or a floor measured in the same run. One module a row group; each has `rows(runs)`.

Nothing here is a test: numbers are printed, never judged. Peers run in namespaces of their own (`unshare`), never in the
machine's.
"""

import importlib
from typing import Annotated

import typer

from netlab.cli import output

app = typer.Typer(help="Measure, beside a peer in the same run.", no_args_is_help=True, rich_markup_mode=None)

RunsOption = Annotated[int, typer.Option("--runs", min=1, metavar="N", help="The median of so many runs.")]
FormOption = Annotated[str | None, typer.Option("-o", "--output", metavar="json")]


def measured(name: str, runs: int, form: str | None, **options: object) -> None:
    """Run one row group and print it: what, median, slowest, and the ratio to the first row."""
    output.choose(form, ("json",), "-o")
    rows = importlib.import_module(f"netlab.cli.bench.{name}").rows(runs, **options)
    if form == "json":
        output.print_json([row.json() for row in rows])
        return
    from netlab.cli.bench.rows import table

    print(table(rows), end="")


@app.command()
def up(runs: RunsOption = 10, form: FormOption = None) -> None:
    """`netlab up` and `down` of the default topology with 12 pods, beside `ip -batch` and Mininet.

    \b
    Example:
      netlab bench up --runs 5
    """
    measured("up", runs, form)


@app.command()
def change(runs: RunsOption = 100, form: FormOption = None) -> None:
    """One endpoint more and one less, until the kernel has it, with connections being made meanwhile.

    \b
    Example:
      netlab bench change
    """
    measured("change", runs, form)


@app.command()
def probe(runs: RunsOption = 10, form: FormOption = None) -> None:
    """Probes of 1 and 300 flows, beside curl in the same pod.

    \b
    Example:
      netlab bench probe
    """
    measured("probe", runs, form)


@app.command()
def ingress(runs: RunsOption = 100, form: FormOption = None) -> None:
    """An Ingress' route changed to another Service under 200 requests a second, by HAProxy and nginx; the lost are counted.

    \b
    Example:
      netlab bench ingress --runs 1000
    """
    measured("ingress", runs, form)


@app.command("services")
def services_(  # the module keeps the name
    runs: RunsOption = 5,
    most: Annotated[int, typer.Option("--most", min=10, metavar="N", help="No more Services than this.")] = 10_000,
    form: FormOption = None,
) -> None:
    """One node's rules for 10, 1,000 and 10,000 Services of two endpoints, in every mode: load, one change, first packet.

    \b
    Example:
      netlab bench services
      netlab bench services --most 1000
    """
    measured("services", runs, form, counts=tuple(count for count in (10, 1_000, 10_000) if count <= most))
