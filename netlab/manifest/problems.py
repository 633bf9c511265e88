"""Collects every mistake and every warning of one load, and finds line and column of each at the end.

A place is a linked tuple, `(parent, key)`, whose root is the Document: making one costs nothing on the way down, and
only a mistake pays for turning it into text. Refuses to know what is a mistake.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from netlab.errors import InputError, Problem
from netlab.manifest.documents import Document, Marks, read_marks

Place = tuple[Any, Any] | Document
LIMIT_PROBLEMS = 200
"""More than anyone reads; suggestions cost time, and hostile input must not buy it."""


def steps(place: Place) -> tuple[Document, list[Any]]:
    """The document of a place and the keys that lead there from its root."""
    path: list[Any] = []
    while isinstance(place, tuple):
        place, key = place
        path.append(key)
    path.reverse()
    return place, path


def written(place: Place) -> Any:
    """What stands at a place in the text, before any check; None where nothing does."""
    document, path = steps(place)
    here = document.data
    for step in path:
        try:
            here = here[step]
        except (KeyError, IndexError, TypeError):
            return None
    return here


def field_path(path: list[Any], indices: bool = True) -> str:
    """`spec.ports[0].name`, `metadata.labels[app.kubernetes.io/name]`; without indices `spec.ports[].name`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]" if indices else "[]"
        elif step.replace("-", "").replace("_", "").isalnum():
            text += f".{step}" if text else step
        else:
            text += f"[{shorten(step)}]"
    return text


def shorten(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """The candidate that was probably meant, or ''. Case and dashes do not count as differences."""
    if len(word) > 64:
        return ""
    plain: dict[str, str] = {}
    for candidate in candidates:
        plain.setdefault(_plain(candidate), candidate)
    found = get_close_matches(_plain(word), plain, n=1, cutoff=0.7 if len(word) > 4 else 0.6)
    return plain[found[0]] if found else ""


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")


class Report:
    """What is wrong and what is worth a warning, so far."""

    def __init__(self) -> None:
        self.found: list[tuple[Place, str, bool]] = []
        self.problems: list[Problem] = []
        self.not_acted_on: dict[str, list[Place]] = {}
        self.notes: dict[str, list[Place]] = {}
        self.more = 0
        self.files: list[str] = []
        """The order of the files, where it is known from the start."""
        self.marks: dict[int, Marks] = {}

    def problem(self, place: Place, message: str, key: bool = False) -> None:
        """Notes a mistake. `key`: it is the key that is wrong, not its value."""
        if len(self.found) < LIMIT_PROBLEMS:
            self.found.append((place, message, key))
        else:
            self.more += 1

    @property
    def full(self) -> bool:
        return len(self.found) >= LIMIT_PROBLEMS

    def unacted(self, place: Place) -> None:
        """Notes a field that Kubernetes knows, that can matter, and that netlab does not act on."""
        _, path = steps(place)
        name = field_path([step for step in path if not isinstance(step, int)])
        self.not_acted_on.setdefault(name.removeprefix("items."), []).append(place)

    def note(self, text: str, place: Place) -> None:
        """A warning that is given once, with the first of its places and how many there are."""
        self.notes.setdefault(text, []).append(place)

    def where(self, place: Place, key: bool = False) -> tuple[str, int, int]:
        """File, line and column of a place; 0, 0 where there is no text."""
        document, path = steps(place)
        source = document.source
        if source is None:
            return document.name, 0, 0
        if id(source) not in self.marks:
            self.marks[id(source)] = read_marks(source)
        line, column = self.marks[id(source)].locate(document.index, path, key)
        return document.name, line, column

    def finish(self) -> tuple[str, ...]:
        """The warnings. Raises: InputError with all problems, where there are any."""
        order = {name: index for index, name in enumerate(dict.fromkeys(self.files))}
        located: list[tuple[int, Problem]] = [(order.setdefault(problem.file, len(order)), problem) for problem in self.problems]
        for place, message, key in self.found:
            file, line, column = self.where(place, key)
            problem = Problem(message, field_path(steps(place)[1]), file, line, column)
            located.append((order.setdefault(file, len(order)), problem))
        if located:
            located.sort(key=lambda entry: (entry[0], entry[1].line, entry[1].column))
            problems = [problem for _, problem in located]
            if self.more:
                problems.append(Problem(f"and {self.more} more mistakes"))
            raise InputError(tuple(dict.fromkeys(problems)))
        notes = [f"{text}{self._first(places)}" for text, places in self.notes.items()]
        fields = [f"{name}{self._first(places)}" for name, places in self.not_acted_on.items()]
        if fields:
            notes.append("accepted, but netlab does not act on: " + ", ".join(fields))
        return tuple(notes)

    def _first(self, places: list[Place]) -> str:
        file, line, _ = self.where(places[0], key=True)
        times = f"{len(places)} times" if len(places) > 1 else ""
        return (
            (f" ({file}:{line}" + (f" and {len(places) - 1} more)" if times else ")")) if line else f" ({times})" if times else ""
        )
