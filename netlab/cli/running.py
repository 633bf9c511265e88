"""run: scenarios. The runner does the work; this chooses the files, starts the labs and writes the reports."""

import contextlib
import os
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import output
from netlab.errors import InputError, InputWarning

if TYPE_CHECKING:
    from netlab.client import Lab
    from netlab.scenario.runner import Options
    from netlab.scenario.values import Lab as AnyLab
    from netlab.scenario.values import StepRun


def run(
    scenarios: Annotated[list[str], typer.Argument(metavar="SCENARIO", help="Scenario files, or directories of them.")],
    proxy: Annotated[
        str | None, typer.Option(metavar="MODE|all", help="Only this mode, or all; otherwise what the file says.")
    ] = None,
    junit: Annotated[str | None, typer.Option(metavar="FILE", help="Write a JUnit XML report.")] = None,
    html: Annotated[
        str | None, typer.Option(metavar="FILE", help="Write a page: topology, steps, evidence, failures explained.")
    ] = None,
    pcap: Annotated[
        str | None, typer.Option(metavar="DIR", help="Record every interface; keep a pcapng for each step that does not pass.")
    ] = None,
    pcap_all: Annotated[bool, typer.Option("--pcap-all", help="With --pcap: keep those of steps that passed, too.")] = False,
    form: Annotated[str | None, typer.Option("-o", "--output", metavar="json")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the last lab running.")] = False,
    pause: Annotated[
        bool,
        typer.Option(
            "--pause-on-fail", help="Where a step does not pass: a shell, with the lab alive. Without a terminal, stop there."
        ),
    ] = False,
) -> int:
    """Run scenarios, one line a step. Exit code 0 when every expectation held, 1 when one failed, 4 when evidence is missing.

    With --proxy all the modes are compared, probe by probe: every disagreement is listed with the known difference that explains
    it, and one that none explains is a failure.

    \b
    Examples:
      netlab run scenarios/nodeport.yaml
      netlab run scenarios/ --proxy all --junit report.xml --html report.html
      netlab run scenarios/nodeport.yaml --pcap packets --pause-on-fail
    """
    output.choose(form, ("json",), "-o")
    files = files_of(scenarios)
    from netlab import client
    from netlab.cli import comparing
    from netlab.kernel import tools
    from netlab.proxy import names, variants
    from netlab.scenario import reports, runner, side_by_side
    from netlab.scenario.exhibits import Exhibits
    from netlab.scenario.values import exit_code

    output.choose(proxy, (*names(), "all"), "--proxy")
    out = sys.stderr if form == "json" else sys.stdout
    if pcap_all and not pcap:
        raise InputError("--pcap-all needs --pcap DIR")
    for path in filter(None, (junit, html)):
        write(path, "")  # a place that cannot be written to is said before anything is built
    if pcap:
        try:
            Path(pcap).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{pcap}: {error.strerror}") from None
    kept = Exhibits(html is not None or junit is not None, Path(pcap) if pcap else None, pcap_all)
    every = variants()
    if proxy == "all" or any("all" in scenario.proxy for _, scenario in runner.read_all(files)):
        every, left_out = tools.runnable(every)
        for sentence in left_out:
            output.message(sentence)
    options = runner.Options(proxy, every, keep, out, paused if pause else None, kept)
    output.warn((*unused(files, options), *without_effect(files)))
    with warnings.catch_warnings(action="ignore", category=InputWarning):  # of each lab; they have just been told, once
        runs = runner.run_all(files, untethered if keep else client.up, options)
    compared = side_by_side.compared(runs)
    if junit:
        write(junit, reports.junit(runs))
    if html:
        write(html, reports.html(runs, compared, output.facts()))
    compared = compared if proxy == "all" else ()
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


def unused(files: Sequence[Path], options: "Options") -> tuple[str, ...]:
    """A warning for each option of a topology that no mode of the run looks at."""
    from netlab import manifest
    from netlab.lab import inputs
    from netlab.model import exact
    from netlab.scenario import runner

    modes: dict[Path, tuple[str, ...]] = {}
    for path, scenario in runner.read_all(files):
        if scenario.topology:
            at = path.parent / scenario.topology
            own = runner.modes_of(scenario, options)
            modes[at] = (*modes.get(at, ()), *(exact(mode, own) for mode in own))
    found: list[str] = []
    for path, names in modes.items():
        if path.is_file():  # one that is not there is told of when its lab is built
            config = manifest.read_topology(manifest.Source(str(path), path.read_bytes())).cluster.proxy
            found += inputs.unused(path, [config.as_variant(name) if name else config for name in names])
    return tuple(found)


def without_effect(files: Sequence[Path]) -> tuple[str, ...]:
    """A warning for each thing in the run's manifests that netlab does not act on. A file that is wrong is told of later."""
    from netlab import manifest
    from netlab.scenario import runner

    paths = dict.fromkeys(str(path.parent / one) for path, scenario in runner.read_all(files) for one in scenario.manifests)
    found: list[str] = []
    for one in paths:
        with contextlib.suppress(InputError):
            found += manifest.read_objects(manifest.read_paths([one], lambda: b"")).warnings
    return tuple(dict.fromkeys(found))


def untethered(topology: str | None, manifests: Sequence[str], **options: Any) -> "Lab":
    """netlab.up, but for a lab that outlives this process, as `--keep` wants."""
    from netlab import client
    from netlab.lab import start
    from netlab.lab.inputs import read_inputs

    value, objects, _ = read_inputs(topology, manifests, **options)
    lab = client.launch(start.spawn_holder(), f"{value.name}-{os.getpid()}", value, objects)
    lab.release()
    return lab


def paused(lab: "AnyLab", step: "StepRun") -> str | None:
    """A shell of the user's, with the lab alive and meant by every `netlab` in it; the run goes on when it ends.

    Without a terminal there is nobody to wait for: the lab stays up, and the run ends here.
    """
    from netlab.client import Lab
    from netlab.scenario.runner import LEAVE

    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        if isinstance(lab, Lab):
            lab.release()
        output.message(f"`{step.title}` did not pass: lab {lab.name} is left up; `netlab down {lab.name}` takes it down")
        return LEAVE
    output.message(
        f"`{step.title}` did not pass: a shell, every `netlab` in it means lab {lab.name}; `exit` goes on with the run"
    )
    subprocess.run([os.environ.get("SHELL") or "/bin/sh"], env={**os.environ, "NETLAB_LAB": lab.name}, check=False)
    return None


def write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
