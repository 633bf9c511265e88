"""YAML text to plain JSON data, safely, and the line and column of everything in it on demand.

Theory of operation: libyaml's event stream is consumed in one loop with a stack of its own, so that nesting costs no
C or Python stack and stops at a limit before anything is built. A first pass makes plain dicts and lists and no
marks, since most input is right. Only when something has to be said about a file is it read a second time, with
marks. Aliases share the anchor's object; what they would expand to is counted, and bounded. Refuses to know what the
data means.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from netlab.errors import InputError, Problem
from netlab.manifest.scalars import NotFinite, key_text, number, resolve
from netlab.manifest.source import LIMIT_BYTES, Source
from netlab.memory import no_collection

LIMIT_DEPTH = 100
LIMIT_NODES = 3_000_000
"""5,000 objects of a cluster with all their managedFields are some 2,200,000."""
LIMIT_EXPANSION = 500_000
"""Nodes that aliases may stand for, all together: hand-written files need a few hundred."""

_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "bool", "float", "null", "map", "seq", "timestamp")}
_NO_KEY = object()
_AGAIN = -1
"""As a line: say it better after a second reading, with marks."""

Mark = tuple[int, int, int, int]
"""Line and column of the key, then of the value; counted from 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """One YAML document of a source (or one JSON document, without a source)."""

    name: str
    data: Any
    source: Source | None = None
    index: int = 0


@dataclass(slots=True)
class Marks:
    """Where things stand in a source: the documents as read again, and a Mark for each entry of each container (by `id`)."""

    documents: list[Any] = field(default_factory=list)
    starts: list[tuple[int, int]] = field(default_factory=list)
    entries: dict[int, dict[Any, Mark]] = field(default_factory=dict)
    merged: list[Any] = field(default_factory=list)
    """Keeps what `<<` consumed alive, so that no `id` is given twice."""

    def locate(self, index: int, path: list[Any], key: bool) -> tuple[int, int]:
        """Line and column of what `path` leads to in document `index` (`key`: of its key), or of the nearest that exists."""
        here, line, column = self.documents[index], *self.starts[index]
        for number_, step in enumerate(path):
            mark = self.entries.get(id(here), {}).get(step)
            if mark is None:
                return line, column
            at_key = key and number_ == len(path) - 1
            line, column = (mark[0], mark[1]) if at_key else (mark[2], mark[3])
            here = here[step]
        return line, column


class _Wrong(Exception):
    """Reading stops here: what is wrong, at which line and column."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        super().__init__(message)
        self.message, self.line, self.column = message, line, column


def read_documents(source: Source) -> tuple[Document, ...]:
    """The documents of `source`, empty ones left out.

    Raises: InputError with one problem: what follows a YAML mistake is guesswork.
    """
    try:
        text = _text(source)
        roots = _build(text, None)
        return tuple(Document(source.shown, root, source, index) for index, root in enumerate(roots) if root is not None)
    except _Wrong as wrong:
        if wrong.line == _AGAIN:
            wrong = _again(source, wrong)
        raise InputError((Problem(wrong.message, file=source.shown, line=wrong.line, column=wrong.column),)) from None


def read_marks(source: Source) -> Marks:
    """The marks of a source that `read_documents` has accepted."""
    marks = Marks()
    _build(_text(source), marks)
    return marks


def _again(source: Source, first: _Wrong) -> _Wrong:
    try:
        read_marks(source)
    except _Wrong as wrong:
        return wrong
    return first


def _text(source: Source) -> str:
    data = source.data
    if len(data) > LIMIT_BYTES:
        raise _Wrong(f"larger than {LIMIT_BYTES // 2**20} MiB, the most that is read; split the file")
    nul = data.find(b"\0")
    if nul >= 0 and not data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _Wrong("a NUL byte, which YAML does not allow", *_place(data, nul))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Wrong(f"not UTF-8 (byte 0x{data[error.start]:02x}); save the file as UTF-8", *_place(data, error.start)) from None


def _place(data: bytes, offset: int) -> tuple[int, int]:
    before = data[:offset]
    return before.count(b"\n") + 1, len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1


def _feed(text: str, take: Callable[[Any], None]) -> None:
    """Gives `take` every event of the text; the first YAML mistake ends it."""
    import yaml

    end = yaml.StreamEndEvent
    try:
        next_event = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text).get_event
        while type(event := next_event()) is not end:
            take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        raise _Wrong(_syntax(error, text, line, column), line, column) from None
    except yaml.reader.ReaderError as error:
        data = text.encode("utf-8", "surrogatepass")
        raise _Wrong(f"not YAML: {error.reason}", *_place(data, error.position or 0)) from None
    except yaml.YAMLError as error:
        raise _Wrong(f"not YAML: {error}", 1, 1) from None


def _syntax(error: Any, text: str, line: int, column: int) -> str:
    lines = text.split("\n")
    shown = lines[line - 1] if line <= len(lines) else ""
    if "\t" in shown[: max(column, 1)] and not shown[: max(column - 1, 0)].strip(" \t-"):
        return "a tab where YAML wants spaces; indent with spaces"
    if "{{" in shown or "{%" in shown:
        return "not YAML but a template; render it first (`helm template`)"
    context = f"{error.context}, " if error.context else ""
    return f"not YAML: {context}{error.problem or 'cannot be read'}"


def _build(text: str, marks: Marks | None) -> list[Any]:
    builder = _Builder(marks)
    with no_collection():
        _feed(text, builder.take)
    if marks is not None:
        marks.documents = builder.roots
    return builder.roots


class _Builder:
    """Takes events one by one. `take` is one chain of tests, not a method a kind: it runs 200,000 times for 5,000 objects."""

    def __init__(self, marks: Marks | None) -> None:
        import yaml

        self.scalar, self.alias = yaml.ScalarEvent, yaml.AliasEvent
        self.map_start, self.seq_start = yaml.MappingStartEvent, yaml.SequenceStartEvent
        self.map_end, self.seq_end, self.document_start = yaml.MappingEndEvent, yaml.SequenceEndEvent, yaml.DocumentStartEvent
        self.marks = marks
        self.roots: list[Any] = []
        self.stack: list[tuple[Any, Any, str | None, int]] = []
        self.container: Any = None
        self.key: Any = _NO_KEY
        self.key_mark: Any = None
        self.anchor: str | None = None
        self.first = 0
        self.nodes = 0
        self.expansion = 0
        self.anchors: dict[str, tuple[Any, int] | None] = {}
        self.cache: dict[str, Any] = {}

    def take(self, event: Any) -> None:
        kind = type(event)
        if kind is self.scalar:
            value = self.scalar_value(event)
            if event.anchor is not None:
                self.anchors[event.anchor] = (value, 1 + len(event.value) // 64)
            self.put(value, event)
        elif kind is self.map_start:
            self.open({}, event)
        elif kind is self.map_end or kind is self.seq_end:
            self.close(event)
        elif kind is self.seq_start:
            self.open([], event)
        elif kind is self.alias:
            self.put(self.aliased(event), event)
        elif kind is self.document_start:
            self.anchors = {}

    def scalar_value(self, event: Any) -> Any:
        self.nodes += 1
        if self.nodes > LIMIT_NODES:
            raise _wrong(f"more than {LIMIT_NODES} values", event)
        text = event.value
        if not event.implicit[0]:
            return text if event.implicit[1] or event.tag == "!" else _tagged(event)
        value = self.cache.get(text, _NO_KEY)
        if value is _NO_KEY:
            try:
                value = self.cache[text] = resolve(text)
            except NotFinite:
                raise _wrong(f"{text} is no number that Kubernetes can hold; quote it to make it a string", event) from None
        return value

    def aliased(self, event: Any) -> Any:
        found = self.anchors.get(event.anchor, ())
        if found is None:
            raise _wrong(f"the alias *{event.anchor} stands inside its own anchor", event)
        if not found:
            raise _wrong(f"the alias *{event.anchor} has no anchor &{event.anchor} before it", event)
        value, weight = found
        self.expansion += weight
        if self.expansion > LIMIT_EXPANSION:
            raise _wrong(f"aliases expand to more than {LIMIT_EXPANSION} values", event)
        return value

    def put(self, value: Any, event: Any) -> None:
        """A finished scalar or alias: the next key, a mapping's value, a list's item or a whole document."""
        container = self.container
        if type(container) is dict and self.key is _NO_KEY:
            self.take_key(value, event)
            return
        if self.marks is not None:
            self.mark(event)
        self.add(value)

    def add(self, value: Any) -> None:
        container = self.container
        if type(container) is dict:
            container[self.key] = value
            self.key = _NO_KEY
        elif type(container) is list:
            container.append(value)
        else:
            self.roots.append(value)

    def take_key(self, value: Any, event: Any) -> None:
        key = value if type(value) is str else key_text(value) if not isinstance(value, dict | list) else None
        if key is None:
            raise _wrong("a mapping key must be a plain word; is this a template ({{ }}) that was not rendered?", event)
        if key in self.container:
            if self.marks is None:
                raise _Wrong("duplicate key", _AGAIN)
            line, column = self.marks.entries[id(self.container)][key][:2]
            raise _wrong(f"the key {key} is there twice, first at line {line}, column {column}", event)
        self.key, self.key_mark = key, event.start_mark

    def mark(self, event: Any) -> None:
        assert self.marks is not None
        container, start = self.container, event.start_mark
        line, column = start.line + 1, start.column + 1
        if type(container) is dict:
            entry = (self.key_mark.line + 1, self.key_mark.column + 1, line, column)
            self.marks.entries[id(container)][self.key] = entry
        elif type(container) is list:
            self.marks.entries[id(container)][len(container)] = (line, column, line, column)
        else:
            self.marks.starts.append((line, column))

    def open(self, new: Any, event: Any) -> None:
        if event.tag is not None and event.tag != "!" and _TAGS.get(event.tag) not in ("map", "seq"):
            raise _wrong(f"the YAML tag {event.tag} is not read; write the value plainly", event)
        if type(self.container) is dict and self.key is _NO_KEY:
            raise _wrong("a mapping key must be a plain word; is this a template ({{ }}) that was not rendered?", event)
        if len(self.stack) >= LIMIT_DEPTH:
            raise _wrong(f"nested deeper than {LIMIT_DEPTH} levels", event)
        if self.nodes > LIMIT_NODES:
            raise _wrong(f"more than {LIMIT_NODES} values", event)
        if self.marks is not None:
            self.mark(event)
            self.marks.entries[id(new)] = {}
        if event.anchor is not None:
            self.anchors[event.anchor] = None
        self.nodes += 1
        self.stack.append((self.container, self.key, self.anchor, self.first))
        self.container, self.key, self.anchor, self.first = new, _NO_KEY, event.anchor, self.nodes + self.expansion

    def close(self, event: Any) -> None:
        done = self.container
        if self.anchor is not None:
            self.anchors[self.anchor] = (done, self.nodes + self.expansion - self.first + 1)
        if type(done) is dict and "<<" in done:
            self.merge(done, event)
        self.container, self.key, self.anchor, self.first = self.stack.pop()
        self.add(done)

    def merge(self, into: dict[str, Any], event: Any) -> None:
        """`<<: *anchor` (or a list of them): keys that are not given here. go-yaml has it, so manifests use it."""
        merged = into.pop("<<")
        for source in merged if isinstance(merged, list) else [merged]:
            if not isinstance(source, dict):
                raise _wrong("`<<` merges mappings only", event)
            for key, value in source.items():
                if key not in into:
                    into[key] = value
                    if self.marks is not None:
                        self.marks.entries[id(into)][key] = self.marks.entries[id(source)][key]
        if self.marks is not None:
            self.marks.merged.append(merged)


def _wrong(message: str, event: Any) -> _Wrong:
    return _Wrong(message, event.start_mark.line + 1, event.start_mark.column + 1)


def _tagged(event: Any) -> Any:
    match _TAGS.get(event.tag):
        case "str" | "timestamp":
            return event.value
        case "int" | "float" if not isinstance(found := number(event.value[:64]), str):
            return found
        case "bool" | "null" if not isinstance(value := resolve(event.value[:64]), str):
            return value
        case _:
            raise _wrong(f"the YAML tag {event.tag} is not read; write the value plainly", event)
