"""The steps, one module a kind. A module NAME here makes `NAME:` a step of scenarios (its fields: manifest/own_fields.py).

Each has `run(lab, arguments, context) -> StepResult` and `title(arguments) -> str`, the few words that name it in print.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from netlab.scenario.values import Context, Lab, StepResult

Arguments = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StepKind:
    """One step module."""

    run: Callable[[Lab, Arguments, Context], StepResult]
    title: Callable[[Arguments], str]


def kinds() -> dict[str, StepKind]:
    """The kinds of steps by their module's name."""
    found = {info.name: import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__)}
    return {name: StepKind(module.run, module.title) for name, module in found.items() if hasattr(module, "run")}
