"""The runs of one scenario in several modes, compared probe by probe. Knows what steps leave behind; refuses to explain."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from netlab.differences import Comparison, compare
from netlab.scenario.values import ScenarioRun, StepRun


@dataclass(frozen=True, slots=True)
class Compared:
    """One scenario in all its modes."""

    name: str
    file: str
    comparison: Comparison

    @property
    def exit_code(self) -> int:
        """1 when a disagreement is not explained. Whether verdicts are as a step wants them is the step's own business."""
        return 1 if any(pair.unexplained for pair in self.comparison.pairs) else 0

    def json(self) -> dict[str, Any]:
        document = self.comparison.json()
        del document["results"]  # they stand with their steps
        return {"name": self.name, "file": self.file, **document, "exitCode": self.exit_code}


def compared(runs: Sequence[ScenarioRun]) -> tuple[Compared, ...]:
    """Each scenario that ran in several modes and sent something, in the order in which they ran."""
    by_file: dict[str, list[ScenarioRun]] = {}
    for run in runs:
        by_file.setdefault(run.file, []).append(run)
    found = (
        Compared(some[0].name, file, compare({run.proxy: list(results(run)) for run in some})) for file, some in by_file.items()
    )
    return tuple(one for one in found if len(one.comparison.modes) > 1 and one.comparison.pairs)


def results(run: ScenarioRun) -> Iterator[Mapping[str, Any]]:
    """Every probe result of a run, in order."""
    for step in run.steps:
        yield from _results(step)


def _results(step: StepRun) -> Sequence[Mapping[str, Any]]:
    details = step.result.details
    match step.step.kind:
        case "probe" if "outcomes" in details:
            return [details]
        case "matrix":
            return list(details.get("results", ()))
        case _:
            return []
