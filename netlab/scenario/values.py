"""What steps, runner and reports pass to each other. `Lab` is what steps use of the client, so that tests can stand in for it."""

import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from netlab import demands
from netlab.manifest import Step
from netlab.model import Cluster, Judgement


class ProbeResult(demands.Result, Protocol):
    """A probe result as the contract has it."""

    @property
    def sender(self) -> str: ...
    @property
    def to(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def why(self) -> Sequence[str]: ...


class LoadResult(Protocol):
    """What became of a load's requests, as the contract has it."""

    @property
    def verdict(self) -> str: ...
    @property
    def why(self) -> Sequence[str]: ...
    def json(self) -> dict[str, Any]: ...


class Load(Protocol):
    """A load under way: stopped at the end of its block."""

    def __enter__(self) -> "Load": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> bool | None: ...
    def result(self, stop: bool = True) -> LoadResult: ...


class Report(Protocol):
    """What `verify` found."""

    @property
    def drift(self) -> Sequence[str]: ...
    @property
    def repaired(self) -> int: ...
    @property
    def left(self) -> Sequence[str]: ...


class Lab(Protocol):
    """netlab.client.Lab, as far as steps need it; arguments are as there."""

    @property
    def name(self) -> str: ...
    @property
    def probe(self) -> Callable[..., ProbeResult]: ...
    @property
    def load(self) -> Callable[..., Load]: ...
    @property
    def matrix(self) -> Callable[..., Sequence[ProbeResult]]: ...
    @property
    def exec(self) -> "Callable[..., subprocess.CompletedProcess[str]]": ...
    @property
    def fault(self) -> Callable[..., Any]: ...
    @property
    def verify(self) -> Callable[..., Report]: ...
    @property
    def scale(self) -> Callable[..., None]: ...
    @property
    def delete(self) -> Callable[..., Any]: ...
    @property
    def apply_files(self) -> Callable[..., Sequence[Mapping[str, str]]]: ...
    @property
    def get(self) -> Callable[..., list[dict[str, Any]]]: ...
    @property
    def request(self) -> Callable[..., Any]: ...
    @property
    def endpoints(self) -> Callable[..., Collection[str]]: ...
    @property
    def cluster(self) -> Callable[[], Cluster]: ...
    @property
    def rollout(self) -> Any: ...
    @property
    def explain(self) -> Callable[..., dict[str, Any]]: ...
    @property
    def down(self) -> Callable[[], None]: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a step may use besides the lab. `directory` is the scenario's own; relative paths of the file start there.

    take: run steps that stand inside a step, in order; the runner's.
    """

    directory: Path
    namespace: str = "default"
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    take: "Callable[[Lab, Sequence[Step]], Sequence[StepRun]]" = field(default=lambda lab, steps: _nobody(steps))


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step answers. `summary` is what its printed line says was seen; `details` goes into the JSON report."""

    verdict: Judgement
    why: tuple[str, ...] = ()
    summary: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def _nobody(steps: Sequence[Step]) -> "Sequence[StepRun]":
    """Without a runner no step can be taken, and none may be passed over."""
    assert not steps, "steps inside a step need a runner"
    return ()


def judged(why: Sequence[str], summary: str, details: Mapping[str, Any] | None = None) -> StepResult:
    """PASS when nothing is wrong, otherwise FAIL with the reasons."""
    return StepResult(Judgement.FAIL if why else Judgement.PASS, tuple(why), summary, details or {})


@dataclass(frozen=True, slots=True)
class StepRun:
    """A step that was run, `seconds` long. `title` names it for people; `exhibits`: what was kept of it (exhibits.py)."""

    step: Step
    title: str
    result: StepResult
    seconds: float
    exhibits: Mapping[str, Any] = field(default_factory=dict)

    def with_exhibits(self, exhibits: Mapping[str, Any]) -> "StepRun":
        return replace(self, exhibits=exhibits)


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """One scenario in one proxy mode ('' = the topology's own). `cluster`: as it began, where that was to be kept. `left`: the
    lab is still up, and the run ended there."""

    name: str
    file: str
    proxy: str
    steps: tuple[StepRun, ...]
    seconds: float
    cluster: Cluster | None = None
    left: bool = False

    @property
    def verdict(self) -> Judgement:
        return worst(run.result.verdict for run in self.steps)


def worst(verdicts: Iterable[Judgement]) -> Judgement:
    """FAIL before INCONCLUSIVE before PASS; PASS for none."""
    found = set(verdicts)
    return next((one for one in (Judgement.FAIL, Judgement.INCONCLUSIVE) if one in found), Judgement.PASS)


def exit_code(runs: Sequence[ScenarioRun]) -> int:
    """0 when every expectation held, 1 when one failed, 4 when evidence is missing."""
    return {Judgement.PASS: 0, Judgement.FAIL: 1, Judgement.INCONCLUSIVE: 4}[worst(run.verdict for run in runs)]
