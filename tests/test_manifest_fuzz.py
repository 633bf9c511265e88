"""Whatever the bytes, the readers return or raise InputError, and soon."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netlab.errors import InputError
from netlab.manifest import Source, adapt_topology, object_from_json, read_objects, read_scenario, read_topology, to_json
from netlab.model import Cluster

ROOT = Path(__file__).parent.parent
SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)


def _seeds() -> list[Any]:
    files = [*sorted((ROOT / "manifests").glob("*.yaml")), *sorted((ROOT / "topologies").glob("*.yaml"))]
    found = [document for path in files for document in yaml.safe_load_all(path.read_text())]
    dump = yaml.safe_load((ROOT / "tests" / "dumps" / "kubeadm.yaml").read_text())
    by_kind = {item["kind"]: item for item in dump["items"]}
    return [*found, *by_kind.values(), {**dump, "items": dump["items"][:4]}]


SEEDS = _seeds()
WORDS = st.sampled_from(
    [
        "",
        "a",
        "None",
        "ClientIP",
        "10.0.0.1",
        "10.0.0.0/8",
        "fd00::1",
        "1::/64",
        "x" * 300,
        "\x7f",
        "é",
        "a/b/c",
        "-1",
        "1e9",
        "80",
        "http",
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS, st.text(max_size=5))
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(WORDS, inner, max_size=3)), max_leaves=6
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in entries for place in _places(item, (*path, key)))]


def _replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = _replaced(copy[path[0]], path[1:], new)
    return copy


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    """A good document with up to three values replaced by others."""
    document = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(1, 3))):
        document = _replaced(document, draw(st.sampled_from(_places(document))), draw(VALUES))
    return document


def _read_everything(data: bytes) -> None:
    for reader in (read_topology, read_scenario):
        try:
            reader(Source("x", data))
        except InputError as error:
            assert str(error)
    try:
        loaded = read_objects([Source("x", data)])
        topology = adapt_topology(None, loaded.objects)
    except InputError as error:
        assert all(problem.message for problem in error.problems)
        return
    for entry in loaded.objects:
        json.dumps(to_json(entry, Cluster(topology)))


@SETTINGS
@given(mutated())
def test_good_documents_with_a_value_replaced(document: Any) -> None:
    _read_everything(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "replace"))
    with suppress(InputError):
        object_from_json(document)


@SETTINGS
@given(st.binary(max_size=200))
def test_bytes(data: bytes) -> None:
    _read_everything(data)


@SETTINGS
@given(
    st.lists(st.sampled_from([*"[]{}:,-?&*!|>'\"%@`#\n\t ab1<~", "<<: ", "*a", "&a ", "- ", "---\n", "kind: Pod\n"]), max_size=40)
)
def test_yaml_punctuation(parts: list[str]) -> None:
    _read_everything("".join(parts).encode())
