"""What steps, runner and reports pass to each other. `Lab` is what steps use of the client, so that tests can stand in for it."""

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from netlab.manifest import Step
from netlab.model import Cluster, Judgement


class ProbeResult(Protocol):
    """A probe result as the contract has it."""

    @property
    def sender(self) -> str: ...
    @property
    def to(self) -> str: ...
    @property
    def sent(self) -> int: ...
    @property
    def outcomes(self) -> Mapping[str, int]: ...
    @property
    def backends(self) -> Mapping[str, int]: ...
    @property
    def sources(self) -> Mapping[str, int]: ...
    @property
    def verdict(self) -> str: ...
    @property
    def why(self) -> Sequence[str]: ...
    def json(self) -> dict[str, Any]: ...


class Report(Protocol):
    """What `verify` found."""

    @property
    def drift(self) -> Sequence[str]: ...
    @property
    def repaired(self) -> int: ...


class Lab(Protocol):
    """netlab.client.Lab, as far as steps need it."""

    @property
    def name(self) -> str: ...
    def probe(self, sender: str, to: str, count: int = 1, **options: Any) -> ProbeResult: ...
    def matrix(
        self, senders: Sequence[str] | None = None, to: Sequence[str] | None = None, **options: Any
    ) -> Sequence[ProbeResult]: ...
    def scale(self, kind: str, name: str, replicas: int, namespace: str = "default") -> None: ...
    def exec(self, target: str, command: Sequence[str], **options: Any) -> "subprocess.CompletedProcess[str]": ...
    def fault(self, kind: str, target: str | None = None, **arguments: Any) -> Any: ...
    def verify(self, repair: bool = False) -> Report: ...
    def apply_files(self, *paths: str | Path) -> Sequence[Mapping[str, str]]: ...
    def delete(self, kind: str, name: str, namespace: str = "default", cascade: str = "background") -> None: ...
    def get(
        self, kind: str, name: str | None = None, namespace: str | None = "default", selector: str = ""
    ) -> list[dict[str, Any]]: ...
    def request(self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> Any: ...
    def endpoints(self, service: str, namespace: str = "default") -> Mapping[str, None]: ...
    def cluster(self) -> Cluster: ...
    def down(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Context:
    """What a step may use besides the lab. `directory` is the scenario's own; relative paths of the file start there."""

    directory: Path
    namespace: str = "default"
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True, slots=True)
class StepResult:
    """What a step answers. `summary` is what its printed line says was seen; `details` goes into the JSON report."""

    verdict: Judgement
    why: tuple[str, ...] = ()
    summary: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def judged(why: Sequence[str], summary: str, details: Mapping[str, Any] | None = None) -> StepResult:
    """PASS when nothing is wrong, otherwise FAIL with the reasons."""
    return StepResult(Judgement.FAIL if why else Judgement.PASS, tuple(why), summary, details or {})


@dataclass(frozen=True, slots=True)
class StepRun:
    """A step that was run, `seconds` long. `title` names it for people."""

    step: Step
    title: str
    result: StepResult
    seconds: float


@dataclass(frozen=True, slots=True)
class ScenarioRun:
    """One scenario in one proxy mode ('' = the topology's own)."""

    name: str
    file: str
    proxy: str
    steps: tuple[StepRun, ...]
    seconds: float

    @property
    def verdict(self) -> Judgement:
        return worst(run.result.verdict for run in self.steps)


def worst(verdicts: Any) -> Judgement:
    """FAIL before INCONCLUSIVE before PASS; PASS for none."""
    found = set(verdicts)
    return next((one for one in (Judgement.FAIL, Judgement.INCONCLUSIVE) if one in found), Judgement.PASS)


def exit_code(runs: Sequence[ScenarioRun]) -> int:
    """0 when every expectation held, 1 when one failed, 4 when evidence is missing."""
    return {Judgement.PASS: 0, Judgement.FAIL: 1, Judgement.INCONCLUSIVE: 4}[worst(run.verdict for run in runs)]
