"""run: scenarios. The runner does the work; this chooses the files, starts the labs and writes the reports."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import output
from netlab.errors import InputError

if TYPE_CHECKING:
    from netlab.client import Lab
    from netlab.scenario.values import Lab as AnyLab
    from netlab.scenario.values import StepRun


def run(
    scenarios: Annotated[list[str], typer.Argument(metavar="SCENARIO", help="Scenario files, or directories of them.")],
    proxy: Annotated[
        str | None, typer.Option(metavar="MODE|all", help="Only this mode, or all; otherwise what the file says.")
    ] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write a JUnit XML report.")] = None,
    form: Annotated[str | None, typer.Option("-o", "--output", metavar="json")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the last lab running.")] = False,
    pause: Annotated[
        bool, typer.Option("--pause-on-fail", help="Stop where a step does not pass, with the lab alive, until Enter.")
    ] = False,
) -> int:
    """Run scenarios, one line a step. Exit code 0 when every expectation held, 1 when one failed, 4 when evidence is missing.

    With --proxy all the modes are compared, probe by probe: every disagreement is listed with the known difference that explains
    it, and one that none explains is a failure.

    \b
    Examples:
      netlab run scenarios/nodeport.yaml
      netlab run scenarios/ --proxy all --junit report.xml
    """
    output.choose(form, ("json",), "-o")
    files = files_of(scenarios)
    from netlab import client
    from netlab.cli import comparing
    from netlab.kernel import tools
    from netlab.proxy import modes
    from netlab.scenario import reports, runner, side_by_side
    from netlab.scenario.values import exit_code

    output.choose(proxy, (*modes(), "all"), "--proxy")
    out = sys.stderr if form == "json" else sys.stdout
    every = modes()
    if proxy == "all" or any("all" in scenario.proxy for _, scenario in runner.read_all(files)):
        every, left_out = tools.runnable(every)
        for sentence in left_out:
            output.message(sentence)
    options = runner.Options(proxy, every, keep, out, paused if pause else None)
    runs = runner.run_all(files, untethered if keep else client.up, options)
    if junit:
        write(junit, reports.junit(runs))
    compared = side_by_side.compared(runs) if proxy == "all" else ()
    if form == "json":
        output.print_json({**reports.document(runs), **({"comparisons": [one.json() for one in compared]} if compared else {})})
    for one in compared:
        print(f"\n{one.name}: {comparing.summary(one.comparison, output.coloured())}", end="", file=out)
    return max((exit_code(runs), *(one.exit_code for one in compared)), key=(0, 4, 1).index)


def files_of(paths: Sequence[str]) -> list[Path]:
    """Scenario files, directories replaced by the YAML files in them."""
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found += sorted(one for one in path.iterdir() if one.suffix in (".yaml", ".yml"))
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"{path}: no such file or directory")
    if not found:
        raise InputError("no scenario files (*.yaml) found")
    return found


def untethered(topology: str | None, manifests: Sequence[str], **options: Any) -> "Lab":
    """netlab.up, but for a lab that outlives this process, as `--keep` wants."""
    from netlab import client
    from netlab.lab import start
    from netlab.lab.inputs import read_inputs

    value, objects, _ = read_inputs(topology, manifests, **options)
    lab = client.launch(start.spawn_holder(), f"{value.name}-{os.getpid()}", value, objects)
    lab.release()
    return lab


def paused(lab: "AnyLab", step: "StepRun") -> None:
    """Wait for Enter while the lab is alive; without a terminal there is nobody to wait for."""
    output.message(f"paused at `{step.title}`: look around with --lab {lab.name}, then press Enter")
    if sys.stdin.isatty():
        sys.stdin.readline()


def write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
