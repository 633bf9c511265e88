"""The error tree. A class exists only where a caller acts on it: each carries the exit code of the command line.

A message says what failed, where, the tool's own words, and the next step. Bugs are assertions, not these.
"""

from dataclasses import dataclass


class NetlabError(Exception):
    """Something that netlab can explain. `exit_code` is what the command line returns for it."""

    exit_code = 1


class ApiError(NetlabError):
    """The lab's API refused a request (a Kubernetes Status); `code` is the HTTP status, `reason` Kubernetes' word."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.exit_code = 2 if 400 <= code < 500 else 1

    def __reduce__(self) -> tuple[type, tuple[int, str, str]]:
        return (ApiError, (self.code, self.reason, str(self)))


class InputWarning(UserWarning):
    """Something in the user's files that netlab accepts and does not act on; file:line:column, field and why.

    `netlab.up` tells them by Python's `warnings`; the command line prints them.
    """


class InputError(NetlabError):
    """The user's input is wrong. `problems` holds every mistake found, in file order."""

    exit_code = 2

    def __init__(self, problems: "tuple[Problem, ...] | str") -> None:
        self.problems = (Problem(problems),) if isinstance(problems, str) else problems
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> "tuple[type, tuple[tuple[Problem, ...]]]":
        return (InputError, (self.problems,))


class MachineError(NetlabError):
    """This machine cannot do it: a tool, a kernel feature or a permission is missing. The message says how to get it."""

    exit_code = 3


class MissingTool(MachineError):
    """A program is missing that this lab asks for. Another lab may do without."""


class KernelError(NetlabError):
    """The kernel or a tool refused an operation that was expected to work."""


class MissingEvidence(NetlabError):
    """What was to be judged did not come about: neither right nor wrong can be said."""

    exit_code = 4


class LabGone(NetlabError):
    """No such lab is running, or its holder has gone."""

    exit_code = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: `file:line:column: field: message`; parts that are not known are left out."""

    message: str
    field: str = ""
    file: str = ""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{place}{self.field + ': ' if self.field else ''}{self.message}"
