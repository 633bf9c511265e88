"""kubectl's ways to choose and order objects: selectors of fields and labels, --sort-by, -L, --all, -w."""

from typing import Any

import pytest

from netlab.cli import choosing, keeping_on, objects, showing, tables
from netlab.errors import ApiError, InputError
from tests.test_cli import FakeLab, lab, run
from tests.test_cli_tables import NOW, made

__all__ = ["lab"]

PODS = [
    made(
        "Pod", "b", labels={"app": "web", "example.com/tier": "front"}, spec={"nodeName": "node-2"}, status={"phase": "Running"}
    ),
    made("Pod", "c", labels={"app": "db"}, spec={}, status={"phase": "Pending"}),
    made("Pod", "a", spec={"nodeName": "node-1", "containers": [{"name": "z"}]}, status={"phase": "Running"}),
]


def names(items: Any) -> list[str]:
    return [tables.name_of(item) for item in items]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "bca"),
        ("status.phase=Running", "ba"),
        ("status.phase==Running", "ba"),
        ("status.phase!=Running", "c"),
        ("spec.nodeName=node-1", "a"),
        ("spec.nodeName=", "c"),
        ("metadata.name=b,status.phase=Running", "b"),
        ("metadata.name=b,status.phase=Pending", ""),
    ],
)
def test_field_selectors(text: str, found: str) -> None:
    fits = choosing.by_fields("pods", text)
    assert "".join(names(pod for pod in PODS if fits(pod))) == found


@pytest.mark.parametrize("kind", ["replicasets", "replicationcontrollers", "namespaces", "events"])
def test_fields_of_other_kinds(kind: str) -> None:
    about = {
        "kind": "Pod",
        "namespace": "shop",
        "name": "a",
        "uid": "u",
        "apiVersion": "v1",
        "resourceVersion": "7",
        "fieldPath": "p",
    }
    items = {
        "replicasets": (made("ReplicaSet", "x", status={"replicas": 2}), {"status.replicas": "2"}),
        "replicationcontrollers": (made("ReplicationController", "x", status={}), {"status.replicas": "0"}),
        "namespaces": (made("Namespace", "x", status={"phase": "Active"}), {"status.phase": "Active"}),
        "events": (
            {
                **made("Event", "x"), "involvedObject": about, "type": "Warning", "reason": "BackOff",
                "source": {"component": "kubelet"}, "reportingComponent": "kubelet",
            },
            {f"involvedObject.{key}": value for key, value in about.items()}
            | {"type": "Warning", "reason": "BackOff", "source": "kubelet", "reportingComponent": "kubelet"},
        ),
    }  # fmt: skip
    item, fields = items[kind]
    for field, value in fields.items():
        assert choosing.by_fields(kind, f"{field}={value}")(item), field
        assert not choosing.by_fields(kind, f"{field}=other")(item), field


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        ("pods", "status.phaze=Running", 'field label not supported for pods: "status.phaze"; there is metadata.name'),
        ("services", "status.phase=Running", 'field label not supported for services: "status.phase"'),
        ("pods", "Running", "expected FIELD=VALUE"),
    ],
)
def test_field_selectors_that_are_none(kind: str, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says.replace(".", r"\.")):
        choosing.by_fields(kind, text)


@pytest.mark.parametrize(
    ("path", "order"),
    [(".metadata.name", "abc"), ("metadata.name", "abc"), ("{.metadata.name}", "abc"), (".spec.nodeName", "cab"),
     ("{$.spec.containers[0].name}", "bca"), (".metadata.labels.app", "acb"), (r".metadata.labels.example\.com/tier", "cab"),
     (".metadata.labels['example.com/tier']", "cab")],
)  # fmt: skip
def test_sort_by(path: str, order: str) -> None:
    assert "".join(names(choosing.sorted_by(PODS, path))) == order


def test_sort_by_numbers_and_mistakes() -> None:
    counted = [made("ReplicaSet", name, spec={"replicas": number}) for name, number in (("x", 10), ("y", 9), ("z", 100))]
    assert names(choosing.sorted_by(counted, ".spec.replicas")) == ["y", "x", "z"]
    for path, says in ((".spec.nodename", "no object has such a field"), ("", "expected a path"), (".a[b", "expected a path")):
        with pytest.raises(InputError, match=says):
            choosing.sorted_by(PODS, path)


def test_labels_as_columns() -> None:
    wanted = choosing.label_columns(["app,example.com/tier", "zone"])
    rows = [line.split("  ") for line in tables.text(PODS, NOW, label_columns=wanted).splitlines()]
    assert [[cell.strip() for cell in row if cell.strip()][5:] for row in rows] == [
        ["APP", "TIER", "ZONE"],
        ["web", "front"],
        ["db"],
        [],
    ]


# ---------------------------------------------------------------- the verbs


def test_get_shows_what_there_is_and_then_says_what_there_is_not(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    def get(kind: str, name: str | None, *_: Any) -> list[Any]:
        if kind == "services":
            raise ApiError(404, "NotFound", f'services "{name}" not found')
        return [PODS[0]]

    lab.__dict__["get"] = get
    code, out, err = run("get", "po,svc", "b", capsys=capsys)
    assert (code, names(PODS[:1])[0] in out) == (2, True)
    assert 'services "b" not found (NotFound)' in err
    code, out, err = run("get", "po", "pod/b", capsys=capsys)
    assert (code, out) == (2, "") and "there is no need to name a kind before KIND/NAME: `get pod/b`" in err


def test_kinds_of_machines_take_a_machine() -> None:
    assert [*objects.asked("routes", ["node/node-170", "pod/a"])] == [("routes", "node/node-170"), ("routes", "pod/a")]
    with pytest.raises(InputError, match="no need to name a kind"):
        objects.asked("routes,pods", ["node/node-170"])


def test_delete_by_label_and_all_of_a_kind(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answers = {"get": PODS[:2], "delete": PODS[0]}
    code, out, _ = run("delete", "po", "-l", "app in (web,db)", "--no-wait", capsys=capsys)
    assert (code, out) == (0, 'pod "b" deleted\npod "c" deleted\n')
    assert lab.asked[0] == ("get", ("pods", None, "default", "app in (web,db)"), {})
    assert [asked[1][:3] for asked in lab.asked[1:]] == [("pods", "b", "default"), ("pods", "c", "default")]
    lab.asked.clear()
    code, out, _ = run("delete", "pods", "--all", "-n", "shop", "--no-wait", capsys=capsys)
    assert lab.asked[0] == ("get", ("pods", None, "shop", ""), {})
    lab.answers = {"get": []}
    code, out, err = run("delete", "po", "-l", "app=x", capsys=capsys)
    assert (code, out, err) == (0, "", "No resources found\n")
    lab.answers = {"get": PODS[:1], "delete": ApiError(404, "NotFound", 'pods "b" not found')}
    for option in (["-l", "app=x"], ["--all"]):  # it went along with its owner
        assert run("delete", "rc,po", *option, capsys=capsys) == (0, "", "")
    for arguments in (["delete", "po", "b", "--all"], ["delete", "pod/b", "-l", "a=b"], ["delete", "--all"]):
        code, _, err = run(*arguments, capsys=capsys)
        assert (code, "give KIND[,KIND...] and no names" in err) == (2, True)


class Stream:
    """Says three times that something happened."""

    def __init__(self) -> None:
        self.left = 3

    def ready(self, _: float | None) -> list[Any]:
        self.left -= 1
        if not self.left:
            raise EOFError
        return []


def test_watching_gives_what_changed_and_what_went() -> None:
    ready = {**PODS[1], "status": {"phase": "Running"}}
    states = iter([[PODS[0], PODS[1]], [PODS[0], ready], [PODS[0]]])
    known = keeping_on.keyed([("pods", PODS[:1])])
    seen: list[list[str]] = []
    with pytest.raises(EOFError):
        for changed in keeping_on.changes(Stream(), [("pods", None)], lambda *_: next(states), known):  # type: ignore[arg-type]  # a stand-in
            seen.append([f"{tables.name_of(one)} {one['status']['phase']}" for one in changed])
    assert seen == [["c Pending"], ["c Running"], ["c Running"]]


def test_a_pod_that_is_gone_is_shown_as_terminating() -> None:
    over = {**PODS[0], "status": {"phase": "Succeeded", "reason": "Completed"}}
    shown = [tables.text([keeping_on.ended(one)], NOW).splitlines()[1].split()[2] for one in (PODS[0], over)]
    assert shown == ["Terminating", "Completed"]
    service = made("Service", "x")
    assert keeping_on.ended(service) == service


def test_watching_follows_one_kind_of_kubernetes(lab: FakeLab, capsys: pytest.CaptureFixture[str]) -> None:
    lab.answers = {"get": PODS}
    for kind, says in (("po,svc", "only specify a single resource type"), ("all", "only specify a single resource type")):
        code, _, err = run("get", kind, "-w", capsys=capsys)
        assert (code, says in err) == (2, True)
    how = showing.Shown(False, "default", False, False, ())
    with pytest.raises(InputError, match="netlab events"):
        keeping_on.follow(lab, [("links", None)], lambda *_: [], [], how, None)  # type: ignore[arg-type]  # a stand-in
