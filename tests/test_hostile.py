"""Names that are no names: refused wherever they would become part of a rule, a path, a file or a line. No lab."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from netlab import client, manifest
from netlab.errors import InputError, LabGone
from netlab.lab import directory

HOSTILE = (
    "../x",
    "a/b",
    "..",
    ".",
    "a b",
    "a\nb",
    "$(x)",
    "-A",
    "--help",
    "a\0b",
    "x" * 300,
    "ü",
    "%s",
    "a;b",
    "a'b",
    'a"b',
    "\x1b[31m",
)
CONTROL = ("a\nb", "a\0b", "\x1b[31m", "a\tb")


def topology(**changed: Any) -> bytes:
    node = {"addresses": ["192.168.50.10"], "podCIDR": "10.244.1.0/24"}
    lan = {"cidr": "192.168.50.0/24", "router": "192.168.50.1"}
    made = {"apiVersion": "netlab/v1", "kind": "Topology", "name": "t", "networks": {"lan": lan}, "nodes": {"n": node}}
    return json.dumps(made | changed).encode()


@pytest.mark.parametrize("field", ["bridgeInterface", "interfaceNamePrefix"])
def test_interfaces_of_rules(field: str) -> None:
    """`cni0" accept` closed the quotes of a rule and began another."""

    def read(name: str) -> Any:
        local = {"bridgeInterface": "BridgeInterface", "interfaceNamePrefix": "InterfaceNamePrefix"}[field]
        return manifest.read_topology(manifest.Source("t.yaml", topology(cluster={"proxy": {"detectLocal": local, field: name}})))

    for name in (*HOSTILE, 'cni0" accept', "x" * 16):
        with pytest.raises(InputError, match="no name of an interface"):
            read(name)
    for name in ("cni0", "br-1234", "veth", "eth0.100", "_x", "x" * 15):
        assert read(name)


@pytest.mark.parametrize("key", [name for name in HOSTILE if name != "a/b"])
def test_keys_of_taints(key: str) -> None:
    node = {"addresses": ["192.168.50.10"], "podCIDR": "10.244.1.0/24", "taints": [{"key": key, "effect": "NoSchedule"}]}
    with pytest.raises(InputError, match=r"no valid (key|name)"):
        manifest.read_topology(manifest.Source("t.yaml", topology(nodes={"n": node})))


@pytest.mark.parametrize("taint", [{"key": "a"}, {"effect": "NoSchedule"}, {"key": "a", "effect": "Never"}, {}])
def test_a_taint_that_is_not_whole_is_an_error_and_no_crash(taint: dict[str, str]) -> None:
    node = {"addresses": ["192.168.50.10"], "podCIDR": "10.244.1.0/24", "taints": [taint]}
    with pytest.raises(InputError, match="taints"):
        manifest.read_topology(manifest.Source("t.yaml", topology(nodes={"n": node})))


@pytest.mark.parametrize("name", CONTROL)
def test_names_of_scenarios_are_lines(name: str) -> None:
    made = {"apiVersion": "netlab/v1", "kind": "Scenario", "name": name, "steps": ["verify"]}
    with pytest.raises(InputError, match="control character") as refused:
        manifest.read_scenario(manifest.Source("s.yaml", json.dumps(made).encode()))
    assert str(refused.value).isprintable()
    assert manifest.read_scenario(manifest.Source("s.yaml", json.dumps(made | {"name": "ünlike any other"}).encode()))


def pod(**container: Any) -> dict[str, Any]:
    spec = {"containers": [{"name": "c", "image": "x", **container}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


@pytest.mark.parametrize("name", ["", "A=B", "a\nb", "a\0b", "ü"])
def test_names_of_variables(name: str) -> None:
    with pytest.raises(InputError, match="no name of a variable"):
        manifest.object_from_json(pod(env=[{"name": name, "value": "1"}]))
    assert manifest.object_from_json(pod(env=[{"name": "spring.profiles-active", "value": "1"}]))


def test_a_working_directory_is_a_path() -> None:
    with pytest.raises(InputError, match="zero byte"):
        manifest.object_from_json(pod(workingDir="/a\0b"))
    assert manifest.object_from_json(pod(workingDir="/a b"))


@pytest.mark.parametrize("path", ["/a\0b", "/a\x1b[31m", "/a\nb", '/a";', "/a b"])
def test_paths_of_ingresses(path: str) -> None:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    rule = {"host": "a.example", "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}
    made = {"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": {"rules": [rule]}}
    with pytest.raises(InputError, match="no path of a URL"):
        manifest.object_from_json(made)


@pytest.mark.parametrize("text", ["{}", '{"pid": 1, "protocol": 9}', '{"version": "9.0"}'])
def test_a_lab_of_a_version_that_says_less(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed, and refused in words: what it wrote of itself may be other than what is asked for."""
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    at, lock = directory.claim(directory.base({"XDG_RUNTIME_DIR": str(tmp_path)}), "old")
    (at / "info").write_text(text)
    assert [one.name for one in client.labs()] == ["old"]
    with pytest.raises(LabGone, match=r"lab old was started by netlab .*`netlab down old`"):
        client.Lab.attach("old")
    (at / "info").write_text("[1]")
    with pytest.raises(LabGone, match="lab old is gone"):
        client.Lab.attach("old")
    os.close(lock)
    directory.sweep(tmp_path / "netlab")
    assert not at.exists()
