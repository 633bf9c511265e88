"""Where input comes from: files, directories and standard input, as bytes with the name that errors show.

Decides which files of a directory are read. Refuses to know what is in them.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from netlab.errors import InputError, Problem

SUFFIXES = (".yaml", ".yml", ".json")
LIMIT_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """One input. `name` is shown in errors (`-` as `<stdin>`)."""

    name: str
    data: bytes

    @property
    def shown(self) -> str:
        return "<stdin>" if self.name == "-" else self.name


def read_paths(paths: Sequence[str], stdin: Callable[[], bytes]) -> tuple[Source, ...]:
    """The files behind `paths`: a directory stands for its *.yaml, *.yml and *.json in order of name, `-` for standard input.

    Raises: InputError with one problem for every path that cannot be read.
    """
    sources: list[Source] = []
    problems: list[Problem] = []
    standard_input: bytes | None = None
    for path in paths:
        if path == "-":
            if standard_input is None:
                standard_input = stdin()
                sources.append(Source("-", standard_input))
            continue
        try:
            sources.extend(_read(name) for name in _files(path))
        except (OSError, ValueError) as error:
            problems.append(Problem(_reason(error), file=str(getattr(error, "filename", None) or path)))
    if problems:
        raise InputError(tuple(problems))
    return tuple(sources)


def _files(path: str) -> list[Path]:
    place = Path(path)
    if not place.is_dir():
        return [place]
    files = sorted(entry for entry in place.iterdir() if entry.suffix.lower() in SUFFIXES and entry.is_file())
    if not files:
        raise ValueError("the directory holds no *.yaml, *.yml or *.json file")
    return files


def _read(path: Path) -> Source:
    with path.open("rb") as file:
        return Source(str(path), file.read(LIMIT_BYTES + 1))


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file or directory"
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot be read: {os.strerror(error.errno)}"
    return str(error)
