"""run: scenarios. The runner does the work; this prints its lines and writes its reports."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from netlab.cli import output
from netlab.errors import InputError


def run(
    scenarios: Annotated[list[str], typer.Argument(metavar="SCENARIO", help="Scenario files, or directories of them.")],
    proxy: Annotated[
        str | None, typer.Option(metavar="MODE|all", help="Only this mode, or all; otherwise what the file says.")
    ] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write a JUnit XML report.")] = None,
    form: Annotated[str | None, typer.Option("-o", "--output", metavar="json")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the last lab running.")] = False,
    pause: Annotated[
        bool, typer.Option("--pause-on-fail", help="Stop at the first failure with the lab alive, until Enter.")
    ] = False,
) -> int:
    """Run scenarios, one line a step. Exit code 0 when every expectation held, 1 when one failed, 4 when evidence is missing.

    \b
    Examples:
      netlab run scenarios/nodeport.yaml
      netlab run scenarios/ --proxy all --junit report.xml
    """
    output.choose(form, ("json",), "-o")
    files = files_of(scenarios)
    from netlab.cli import scenarios as runs

    return runs.run(files, proxy, junit, form == "json", keep, pause, sys.stderr if form == "json" else sys.stdout)


def files_of(paths: list[str]) -> list[Path]:
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
