"""Words for kinds, and label selectors as typed."""

import pytest

from netlab.errors import InputError
from netlab.manifest import kinds, parse_selector

WORDS = [
    ("po", "Pod"),
    ("pods", "Pod"),
    ("Pod", "Pod"),
    ("svc", "Service"),
    ("services", "Service"),
    ("rc", "ReplicationController"),
    ("rs", "ReplicaSet"),
    ("deploy", "Deployment"),
    ("deployments.apps", "Deployment"),
    ("ds", "DaemonSet"),
    ("sts", "StatefulSet"),
    ("ep", "Endpoints"),
    ("endpoints", "Endpoints"),
    ("endpointslice", "EndpointSlice"),
    ("endpointslices", "EndpointSlice"),
    ("no", "Node"),
    ("ns", "Namespace"),
    ("ing", "Ingress"),
    ("netpol", "NetworkPolicy"),
    ("cm", "ConfigMap"),
    ("sa", "ServiceAccount"),
    ("hosts", "Host"),
    ("links", "Link"),
    ("routes", "Route"),
    ("rules", "Rule"),
    ("conntrack", "Conntrack"),
]


@pytest.mark.parametrize(("word", "kind"), WORDS)
def test_kubectls_words(word: str, kind: str) -> None:
    assert kinds.find(word).kind == kind


@pytest.mark.parametrize(("word", "meant"), [("deplyo", "deploy"), ("servces", "services"), ("pdos", "pods")])
def test_a_wrong_word_gets_a_suggestion(word: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"did you mean {meant}"):
        kinds.find(word)


def test_a_kind_knows_its_group_and_scope() -> None:
    info = kinds.find("deploy")
    assert (info.api_version, info.group, info.version, info.plural, info.singular, info.namespaced) == (
        "apps/v1", "apps", "v1", "deployments", "deployment", True,
    )  # fmt: skip
    assert not kinds.find("node").namespaced


SELECTORS = [
    ("", {}, True),
    ("app=web", {"app": "web"}, True),
    ("app==web", {"app": "db"}, False),
    ("app!=web", {"app": "db"}, True),
    ("app!=web", {}, True),
    ("app!=web", {"app": "web"}, False),
    ("app in (web, db)", {"app": "db"}, True),
    ("app in (web,db),tier=x", {"app": "db"}, False),
    ("app notin (web)", {"app": "web"}, False),
    ("app", {"app": ""}, True),
    ("!app", {"app": "a"}, False),
    ("!app", {}, True),
    ("a=1,a=2", {"a": "2"}, False),
]


@pytest.mark.parametrize(("text", "labels", "holds"), SELECTORS)
def test_selectors(text: str, labels: dict[str, str], holds: bool) -> None:
    assert parse_selector(text).matches(labels) is holds


@pytest.mark.parametrize("text", ["app=web=x", "=web", "app in web", "a b", "app=a b"])
def test_selectors_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="selector"):
        parse_selector(text)
