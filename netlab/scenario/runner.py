"""Runs scenarios: each in every proxy mode asked for, each mode in a lab of its own, its steps in order, one printed line a step.

Decides what an error of a step means: what netlab can explain is a FAIL with that explanation, a lab that is gone or anything
unexpected is INCONCLUSIVE (the runner alone may catch everything: a crashed judge is no verdict). Refuses to know how labs are
started: `up` is given.
"""

import functools
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from netlab.errors import InputError, LabGone, NetlabError, Problem
from netlab.manifest import Scenario, Source, Step, read_scenario
from netlab.model import Judgement, exact, mode_of
from netlab.scenario.exhibits import Exhibits
from netlab.scenario.steps import StepKind, kinds
from netlab.scenario.values import Context, Lab, ScenarioRun, StepResult, StepRun

LEAVE = "leave"
Up = Callable[..., Lab]
"""netlab.up: (topology, manifests, proxy=, fabric=) -> Lab."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run. `proxy`: None = what the file says, a mode, or `all`; `modes`: what `all` means; `out`: where lines go.

    `keep` leaves the last lab running. `paused` is called with the lab after a step that did not pass; LEAVE as its answer ends
    the run there and leaves the lab up. `exhibits`: what is kept beside the verdicts.
    """

    proxy: str | None = None
    modes: tuple[str, ...] = ()
    keep: bool = False
    out: TextIO | None = None
    paused: Callable[[Lab, StepRun], Any] | None = None
    exhibits: Exhibits = Exhibits()  # noqa: RUF009  # a frozen value


def read_all(paths: Sequence[Path]) -> tuple[tuple[Path, Scenario], ...]:
    """The scenarios of these files. Raises: InputError with all mistakes of all of them, before anything runs."""
    found: list[tuple[Path, Scenario]] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            found.append((path, read_scenario(Source(str(path), path.read_bytes()))))
        except InputError as error:
            problems += error.problems
        except OSError as error:
            problems.append(Problem(f"{path}: {error.strerror}"))
    if problems:
        raise InputError(tuple(problems))
    return tuple(found)


def run_all(paths: Sequence[Path], up: Up, options: Options) -> tuple[ScenarioRun, ...]:
    """Every scenario in every mode, in order. Raises: InputError, MachineError where a lab cannot be started."""
    todo = [(path, one, mode) for path, one in read_all(paths) for mode in modes_of(one, options)]
    done: list[ScenarioRun] = []
    for path, scenario, mode in todo:
        done.append(run(path, scenario, mode, up, options, keep=options.keep and (path, scenario, mode) == todo[-1]))
        if done[-1].left:
            break
    return tuple(done)


def modes_of(scenario: Scenario, options: Options) -> tuple[str, ...]:
    """The proxy modes to run a scenario in; '' is the topology's own."""
    wanted = (options.proxy,) if options.proxy else scenario.proxy or ("",)
    return tuple(dict.fromkeys(mode for one in wanted for mode in (options.modes if one == "all" else (one,))))


def run(path: Path, scenario: Scenario, mode: str, up: Up, options: Options, keep: bool = False) -> ScenarioRun:
    """One scenario in one mode, in a lab of its own."""
    directory = path.parent
    context = Context(directory, scenario.namespace)
    begun = context.clock()
    topology = str(directory / scenario.topology) if scenario.topology else None
    manifests = [str(directory / one) for one in scenario.manifests]
    lab = up(topology, manifests, proxy=exact(mode, modes_of(scenario, options)) or None, fabric=scenario.fabric or None)
    left = False
    try:
        _print(options.out, f"{heading(scenario.name, mode)}: lab {lab.name} is up ({context.clock() - begun:.2f} s)")
        cluster = options.exhibits.cluster(lab)
        steps, left = _steps(lab, scenario.steps, context, options, heading(scenario.name, mode), mode)
    finally:
        if not keep and not left:
            lab.down()
    return ScenarioRun(scenario.name, str(path), mode, steps, context.clock() - begun, cluster, left)


def _steps(
    lab: Lab, steps: Sequence[Step], context: Context, options: Options, name: str, mode: str, indent: str = ""
) -> tuple[tuple[StepRun, ...], bool]:
    """What was run, and whether the lab is to be left as it is. Steps inside a step do not pause: it does."""
    known = kinds()
    done: list[StepRun] = []
    inner = replace(options, paused=None, exhibits=Exhibits())
    context = replace(context, take=lambda lab, steps: _steps(lab, steps, context, inner, name, mode, indent + "    ")[0])
    for step in steps:
        if step.proxy and mode and mode not in step.proxy and mode_of(mode) not in step.proxy:
            continue
        running = functools.partial(run_step, lab, step, known, context)
        ran = options.exhibits.record(lab, name, len(done) + 1, step, running)
        done.append(ran)
        for line in lines(ran, len(done)):
            _print(options.out, indent + line)
        bad = ran.result.verdict is not Judgement.PASS
        if bad and options.paused is not None and options.paused(lab, ran) == LEAVE:
            return tuple(done), True
        if ran.result.details.get("lab") == "gone":
            break
    return tuple(done), False


def run_step(lab: Lab, step: Step, known: dict[str, StepKind], context: Context) -> StepRun:
    """One step, timed. Never raises but for what ends the whole program (KeyboardInterrupt)."""
    kind = known[step.kind]
    begun = context.clock()
    try:
        result = kind.run(lab, step.arguments, context)
    except LabGone as error:
        result = StepResult(Judgement.INCONCLUSIVE, (str(error),), "the lab is gone", {"lab": "gone"})
    except NetlabError as error:
        result = StepResult(Judgement.FAIL, (str(error),), "refused")
    except Exception as error:  # CONVENTIONS: here alone, and it is INCONCLUSIVE
        details = {"traceback": traceback.format_exc()}
        result = StepResult(Judgement.INCONCLUSIVE, (f"{type(error).__name__}: {error}",), "crashed", details)
    return StepRun(step, step.name or f"{step.kind} {kind.title(step.arguments)}".strip(), result, context.clock() - begun)


def heading(name: str, mode: str) -> str:
    return f"{name} [{mode}]" if mode else name


def lines(ran: StepRun, number: int) -> list[str]:
    """What is printed of a step: one line, and the reasons below it where it did not pass."""
    words = {Judgement.PASS: "pass", Judgement.FAIL: "FAIL", Judgement.INCONCLUSIVE: "INCONCLUSIVE"}
    seen = f": {ran.result.summary}" if ran.result.summary else ""
    first = f"  {words[ran.result.verdict]:<4} {number:>2} {ran.title}{seen} ({ran.seconds:.2f} s)"
    kept = [f"packets: {ran.exhibits['pcap']}"] if "pcap" in ran.exhibits else []
    kept += [f"no packets were recorded: {ran.exhibits['pcap_problem']}"] if "pcap_problem" in ran.exhibits else []
    return [first, *(f"          {line}" for reason in (*ran.result.why, *kept) for line in reason.splitlines())]


def _print(out: TextIO | None, line: str) -> None:
    if out is not None:
        print(line, file=out, flush=True)
