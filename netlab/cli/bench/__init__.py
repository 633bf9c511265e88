"""bench: how fast, always beside a peer or a floor measured in the same run. One module a row group; each has `rows(runs)`.

Nothing here is a test: numbers are printed, never judged. Peers run in namespaces of their own (`unshare`), never in the
machine's. `rows` of a group that is measured at several sizes takes them as `counts`.
"""

import importlib
import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from netlab.cli import output
from netlab.errors import InputError

app = typer.Typer(help="Measure, beside a peer in the same run.", no_args_is_help=True, rich_markup_mode=None)

RunsOption = Annotated[int, typer.Option("--runs", min=1, metavar="N", help="The median of so many runs.")]
MostOption = Annotated[int, typer.Option("--most", min=10, metavar="N", help="No larger size than this.")]
FormOption = Annotated[str | None, typer.Option("-o", "--output", metavar="json")]
PlotOption = Annotated[Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw the rows, too.")]
SaveOption = Annotated[Path | None, typer.Option("--save", metavar="FILE.json", help="Keep the rows, too.")]
PODS, SERVICES = (10, 100, 1_000), (10, 1_000, 10_000)


def measured(
    name: str, runs: int, form: str | None, plot: Path | None, save: Path | None, sizes: Sequence[int] = (), most: int = 0
) -> None:
    """Run one row group and print it: what, median, best, worst, CPU, the ratio to its peers, and how it grows."""
    output.choose(form, ("json",), "-o")
    for path in filter(None, (plot, save)):
        output.writable(path)  # before minutes of measuring
    counts = {"counts": tuple(size for size in sizes if size <= most)} if sizes else {}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` must not leave labs' input and captures behind
    rows = importlib.import_module(f"netlab.cli.bench.{name}").rows(runs, **counts)
    from netlab.cli.bench.rows import document, table

    if form == "json":
        output.print_json(document(rows))
    else:
        print(table(rows), end="")
    if plot is not None:
        from netlab.cli.bench.plot import svg

        _write(plot, svg(f"netlab bench {name}", rows))
    if save is not None:
        _write(save, json.dumps(document(rows), indent=1) + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None


@app.command()
def up(
    runs: RunsOption = 5, most: MostOption = 1_000, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None
) -> None:
    """`netlab up` of 10, 100 and 1,000 pods; the wiring alone, beside a C program, `ip`, pyroute2 and Mininet.

    \b
    Examples:
      netlab bench up --runs 3 --most 100
      netlab bench up --save up.json --plot up.svg
    """
    measured("up", runs, form, plot, save, PODS, most)


@app.command()
def down(
    runs: RunsOption = 5, most: MostOption = 1_000, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None
) -> None:
    """`netlab down` of 10, 100 and 1,000 pods, until process and socket are gone; beside `ip netns del` and Mininet.

    \b
    Example:
      netlab bench down --most 100
    """
    measured("down", runs, form, plot, save, PODS, most)


@app.command()
def ingress(runs: RunsOption = 100, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None) -> None:
    """An Ingress' route changed to another Service under 200 requests a second, by HAProxy and nginx; the lost are counted.

    \b
    Example:
      netlab bench ingress --runs 1000
    """
    measured("ingress", runs, form, plot, save)


@app.command("services")
def services_(  # the module keeps the name
    runs: RunsOption = 5, most: MostOption = 10_000, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None
) -> None:
    """One node's rules for 10, 1,000 and 10,000 Services of two endpoints, in every mode: load, one change, first packet.

    \b
    Example:
      netlab bench services
      netlab bench services --most 1000
    """
    measured("services", runs, form, plot, save, SERVICES, most)


@app.command()
def change(
    runs: RunsOption = 20, most: MostOption = 10_000, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None
) -> None:
    """One endpoint more and one less, until all kernels have it: while connections are made, among many Services and pods.

    \b
    Example:
      netlab bench change
    """
    measured("change", runs, form, plot, save, SERVICES, most)


@app.command()
def probe(
    runs: RunsOption = 10, most: MostOption = 1_000, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None
) -> None:
    """Probes of 1 and 300 flows in labs of 10, 100 and 1,000 pods, beside curl in the same pod.

    \b
    Example:
      netlab bench probe
    """
    measured("probe", runs, form, plot, save, PODS, most)


@app.command()
def matrix(
    runs: RunsOption = 3, most: MostOption = 200, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None
) -> None:
    """Everybody to everybody among 10, 50 and 200 pods, and 60 x 60 among 1,000; beside as many connections over loopback.

    \b
    Example:
      netlab bench matrix --most 50
    """
    measured("matrix", runs, form, plot, save, (10, 50, 200), most)


@app.command("exec")
def exec_(
    runs: RunsOption = 10, most: MostOption = 1_000, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None
) -> None:
    """`true` in a pod, from Python and from the shell, beside the same without a lab.

    \b
    Example:
      netlab bench exec --most 100
    """
    measured("programs", runs, form, plot, save, PODS, most)


@app.command()
def capture(
    runs: RunsOption = 5, most: MostOption = 100, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None
) -> None:
    """What recording everything costs a probe of 1,000 flows, beside tcpdump in two pods.

    \b
    Example:
      netlab bench capture --most 10
    """
    measured("recording", runs, form, plot, save, (10, 100), most)


@app.command()
def cli(runs: RunsOption = 10, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None) -> None:
    """What a command takes before it does anything, beside an empty Python program.

    \b
    Example:
      netlab bench cli
    """
    measured("shell", runs, form, plot, save)


@app.command()
def memory(
    runs: RunsOption = 3, most: MostOption = 1_000, form: FormOption = None, plot: PlotOption = None, save: SaveOption = None
) -> None:
    """What a lab of 10, 100 and 1,000 pods holds: its holder, its other processes, the kernel.

    \b
    Example:
      netlab bench memory --most 100
    """
    measured("memory", runs, form, plot, save, PODS, most)
