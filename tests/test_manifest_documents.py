"""The YAML reader: values as Kubernetes reads them, places of mistakes, and input made to hurt."""

import pytest

from netlab.errors import InputError
from netlab.manifest.documents import LIMIT_DEPTH, read_documents, read_marks
from netlab.manifest.source import LIMIT_BYTES, Source

VALUES = [
    ("plain word", "web", "web"),
    ("integer", "80", 80),
    ("quoted number", '"80"', "80"),
    ("octal", "0777", 511),
    ("octal with o", "0o17", 15),
    ("no octal digit makes it a decimal", "09", 9.0),
    ("hexadecimal", "0x1F", 31),
    ("underscores", "1_000", 1000),
    ("float", "1.5", 1.5),
    ("exponent", "1e3", 1000.0),
    ("yes", "yes", True),
    ("on", "On", True),
    ("y", "y", True),
    ("no", "NO", False),
    ("off", "off", False),
    ("null", "~", None),
    ("empty", "", None),
    ("no base 60", "1:30", "1:30"),
    ("a date stays text", "2026-01-02", "2026-01-02"),
    ("an address stays text", "10.96.0.1", "10.96.0.1"),
    ("a version stays text", "1.36.2", "1.36.2"),
    ("tagged string", "!!str 80", "80"),
    ("tagged integer", "!!int '8'", 8),
    ("flow", "[1, a, {b: c}]", [1, "a", {"b": "c"}]),
    ("block text", "|\n  a\n  b\n", "a\nb\n"),
    ("huge integer", "99999999999999999999", 1e20),
]


@pytest.mark.parametrize(("text", "value"), [row[1:] for row in VALUES], ids=[row[0] for row in VALUES])
def test_a_scalar_means_what_kubernetes_reads(text: str, value: object) -> None:
    (document,) = read_documents(Source("x", f"a: {text}".encode()))
    assert document.data == {"a": value}
    assert type(document.data["a"]) is type(value)


def test_keys_become_strings_as_in_json() -> None:
    (document,) = read_documents(Source("x", b"1: a\non: b\n1.5: c\n"))
    assert document.data == {"1": "a", "true": "b", "1.5": "c"}


def test_several_documents_without_the_empty_ones() -> None:
    found = read_documents(Source("x", b"---\na: 1\n---\n# nothing\n---\nb: 2\n...\n"))
    assert [document.data for document in found] == [{"a": 1}, {"b": 2}]
    assert [document.index for document in found] == [0, 2]


def test_anchors_and_merge_keys() -> None:
    (document,) = read_documents(Source("x", b"base: &b {p: 1, q: 2}\nuse: {<<: *b, q: 3}\nboth: *b\n"))
    assert document.data == {"base": {"p": 1, "q": 2}, "use": {"p": 1, "q": 3}, "both": {"p": 1, "q": 2}}


@pytest.mark.parametrize(
    "text", [b"", b"# only a comment\n", b"---\n", b"\xef\xbb\xbf"], ids=["empty", "comment", "marker", "mark"]
)
def test_nothing_in_it(text: bytes) -> None:
    assert read_documents(Source("x", text)) == ()


def test_a_byte_order_mark_is_no_content() -> None:
    assert read_documents(Source("x", b"\xef\xbb\xbfa: 1"))[0].data == {"a": 1}


def test_json_with_tabs() -> None:
    assert read_documents(Source("x", b'{\n\t"a": [\n\t\t1\n\t]\n}\n'))[0].data == {"a": [1]}


def test_marks_lead_to_keys_values_and_the_nearest_container() -> None:
    source = Source("x", b"---\na: 1\n---\nspec:\n  ports:\n  - name: b\n    port: 80\n")
    marks = read_marks(source)
    assert marks.locate(1, ["spec", "ports", 0, "port"], True) == (7, 5)
    assert marks.locate(1, ["spec", "ports", 0, "port"], False) == (7, 11)
    assert marks.locate(1, ["spec", "ports", 0, "missing"], False) == (6, 5)
    assert marks.locate(0, ["a"], False) == (2, 4)


def _bomb() -> bytes:
    rows = ["a0: &a0 [l, l, l, l, l, l, l, l, l, l]"]
    rows += [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 12)]
    return "\n".join(rows).encode()


HOSTILE = [
    ("exploding anchors", _bomb(), "aliases expand to more than"),
    ("an anchor of long text", b"a: &a " + b"x" * 1_000_000 + b"\nb: [" + b"*a, " * 1000 + b"]", "aliases expand"),
    ("an alias inside its anchor", b"a: &a [*a]", "inside its own anchor"),
    ("an alias of nothing", b"a: *b", "has no anchor &b"),
    ("a merge of a word", b"a: {<<: b}", "merges mappings only"),
    ("deep flow lists", b"[" * 1_000_000, f"deeper than {LIMIT_DEPTH}"),
    ("deep flow mappings", b"{a: " * 1_000_000, f"deeper than {LIMIT_DEPTH}"),
    ("deep block lists", b"- " * 1_000_000, f"deeper than {LIMIT_DEPTH}"),
    ("deep keys", b"? " * 100_000, "plain word"),
    ("too large", b"a" * (LIMIT_BYTES + 1), "larger than 32 MiB"),
    ("a NUL byte", b"a: 1\nb: \0", "x:2:4: a NUL byte"),
    ("not UTF-8", b"a: 1\nb: \xff\xfe", "x:2:4: not UTF-8"),
    ("UTF-16", "a: 1".encode("utf-16"), "not UTF-8"),
    ("a control character", b"a: \x01", "not YAML: control characters"),
    ("duplicate keys", b"a: 1\nb: 2\na: 3\n", "x:3:1: the key a is there twice, first at line 1, column 1"),
    ("duplicate keys deep in a list", b"a:\n- {b: 1,\n   b: 2}", "x:3:4: the key b is there twice, first at line 2, column 4"),
    ("keys that become the same", b"yes: 1\non: 2\n", "the key true is there twice"),
    ("a tab", b"a:\n\tb: 1\n", "x:2:1: a tab where YAML wants spaces"),
    ("an open quote", b"a: 'b\n", "found unexpected end of stream"),
    ("two colons", b"a: b: c\n", "x:1:5: not YAML: mapping values are not allowed"),
    ("a template", b"a: {{ .Values.name }}\n", "template"),
    ("a template line", b"{{- if .x }}\na: 1\n", "template"),
    ("a Python object", b"a: !!python/object/apply:os.system [id]", "the YAML tag"),
    ("a tag of its own", b"a: !secret b", "the YAML tag"),
    ("infinity", b"a: .inf", "no number that Kubernetes can hold"),
    ("a wrong directive", b"%YAML 9.9\n---\na: 1", "not YAML"),
    ("a null key", b"~: 1", "plain word"),
]


@pytest.mark.parametrize(("data", "message"), [row[1:] for row in HOSTILE], ids=[row[0] for row in HOSTILE])
def test_hostile_input_gets_an_error_with_a_place(data: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read_documents(Source("x", data))
    assert message in str(caught.value)
    assert str(caught.value).startswith("x:")
    assert len(caught.value.problems) == 1


def test_the_pure_python_parser_does_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert read_documents(Source("x", b"a: [1, {b: c}]"))[0].data == {"a": [1, {"b": "c"}]}
    with pytest.raises(InputError, match="x:1:5: not YAML"):
        read_documents(Source("x", b"a: b: c"))
    with pytest.raises(InputError, match="x:1:4: not YAML: special characters"):
        read_documents(Source("x", b"a: \x01"))
