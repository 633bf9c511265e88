"""Scenario files, and the JSON Schemas of both of netlab's own formats."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from netlab.errors import InputError
from netlab.manifest import Source, read_scenario, schema

ROOT = Path(__file__).parent.parent
EXAMPLE = """apiVersion: netlab/v1
kind: Scenario
name: nodeport
topology: ../topologies/default.yaml
manifests: [../manifests/nginx-nodeport.yaml]
proxy: [iptables, nftables]
steps:
- probe: {from: host/client, to: "192.168.0.170:30001", count: 60}
- scale: {target: deploy/dep01, replicas: 4}
- probe: {from: host/client, to: "192.168.0.171:30001", count: 200, expect: {outcome: delivered, masqueraded: true, backends: 4}}
- exec: {target: pod/client, command: [curl, -s, "http://mysvc:8080"], expect: {stdout: Welcome}}
- fault: {kill-pod: deploy/dep01}
- wait: {for: endpoints, of: svc/mysvc, count: 4, timeout: 5s}
- matrix: {}
- apply: ../manifests/kubia.yaml
- delete: svc/mysvc
- label: {target: pod/client, labels: {app: x, old: null}}
- name: nothing drifted
  verify:
"""


def test_the_contracts_example() -> None:
    scenario = read_scenario(Source("s.yaml", EXAMPLE.encode()))
    assert (scenario.name, scenario.topology, scenario.proxy) == (
        "nodeport",
        "../topologies/default.yaml",
        ("iptables", "nftables"),
    )
    assert scenario.manifests == ("../manifests/nginx-nodeport.yaml",)
    assert [(step.kind, step.line) for step in scenario.steps] == [
        ("probe", 8), ("scale", 9), ("probe", 10), ("exec", 11), ("fault", 12), ("wait", 13), ("matrix", 14), ("apply", 15),
        ("delete", 16), ("label", 17), ("verify", 18),
    ]  # fmt: skip
    assert scenario.steps[2].arguments["expect"] == {"outcome": "delivered", "masqueraded": True, "backends": 4}
    assert scenario.steps[7].arguments == {"manifests": ["../manifests/kubia.yaml"]}
    assert scenario.steps[8].arguments == {"target": "svc/mysvc"}
    assert scenario.steps[9].arguments["labels"] == {"app": "x", "old": None}
    assert scenario.steps[10].name == "nothing drifted"


HEAD = "name: a\nsteps:\n"
MISTAKES = [
    (
        "a misspelled step",
        HEAD + "- prob: {from: a, to: b}\n",
        "s.yaml:3:3: steps[0].prob: there is no step prob; did you mean probe?",
    ),
    ("an unknown step", HEAD + "- sleep: 5\n", "there is no step sleep; there are probe, scale"),
    ("a misspelled key", HEAD + "- probe: {from: a, too: b}\n", "steps[0].probe.too: unknown field; did you mean to?"),
    ("a missing key", HEAD + "- probe: {from: a}\n", "steps[0].probe.to: required"),
    ("two kinds in a step", HEAD + "- probe: {from: a, to: b}\n  matrix: {}\n", "a step has one kind, not 2"),
    ("text as a step", HEAD + "- do something\n", "a step is wanted"),
    ("an outcome", HEAD + "- probe: {from: a, to: b, expect: {outcome: deliverd}}\n", "did you mean delivered?"),
    ("a count in words", HEAD + "- probe: {from: a, to: b, count: many}\n", "must be a whole number"),
    ("a protocol", HEAD + "- probe: {from: a, to: b, protocol: TCP}\n", "did you mean tcp?"),
    ("a command in one string", HEAD + "- exec: {target: a, command: curl x}\n", "must be a list"),
    ("a delay of nothing", HEAD + "- fault: {delay: a}\n", "delay needs a value, like `{delay: a, value: ...}`"),
    ("no fault", HEAD + "- fault: {for: 5s}\n", "one fault is wanted"),
    ("two faults", HEAD + "- fault: {kill-pod: a, link-up: b}\n", "one fault is wanted"),
    ("a wait for nothing", HEAD + "- wait: {for: endpoints}\n", "required to wait for endpoints"),
    ("a timeout", HEAD + "- wait: {for: ready, of: a, timeout: soon}\n", "must be a time like 5s"),
    ("no time to wait", HEAD + "- wait: {for: ready, of: a, timeout: 0s}\n", "must be more than nothing"),
    ("no time for an answer", HEAD + "- probe: {from: pod/a, to: pod/b, timeout: 0}\n", "must be more than nothing"),
    ("a delete of nothing", HEAD + "- delete: {}\n", "either target or manifests"),
    ("no name", "steps: []\n", "name: required"),
    ("no steps", "name: a\n", "steps: required"),
    ("an unknown mode", "name: a\nproxy: nftable\nsteps: []\n", "is no proxy mode"),
    ("another kind", "kind: Senario\nname: a\nsteps: []\n", "did you mean Scenario?"),
]


@pytest.mark.parametrize(("text", "wanted"), [row[1:] for row in MISTAKES], ids=[row[0] for row in MISTAKES])
def test_a_mistake_is_named_with_its_place(text: str, wanted: str) -> None:
    with pytest.raises(InputError) as caught:
        read_scenario(Source("s.yaml", text.encode()))
    assert wanted in str(caught.value)
    assert len(caught.value.problems) == 1


# ---------------------------------------------------------------- schemas


@pytest.mark.parametrize("kind", ["topology", "scenario"])
def test_a_schema_is_a_schema(kind: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(json.dumps(schema(kind))))


@pytest.mark.parametrize("path", sorted((ROOT / "topologies").glob("*.yaml")), ids=lambda path: path.stem)
def test_topologies_fit_the_schema(path: Path) -> None:
    jsonschema.Draft202012Validator(schema("topology")).validate(yaml.safe_load(path.read_text()))


def test_the_scenario_fits_the_schema() -> None:
    jsonschema.Draft202012Validator(schema("scenario")).validate(yaml.safe_load(EXAMPLE))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("topology", "nodse: 3"),
        ("topology", "cluster: {proxy: {mode: iptable}}"),
        ("scenario", HEAD + "- prob: {from: a, to: b}"),
        ("scenario", HEAD + "- probe: {from: a}"),
    ],
)
def test_what_the_reader_refuses_the_schema_refuses(kind: Any, text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema(kind)).validate(yaml.safe_load(text))


LOAD = """name: a
proxy: all
steps:
- load:
    from: host/client
    to: svc/kubia
    rate: 200
    protocol: http
    while:
    - scale: {target: rc/kubia, replicas: 5}
    - name: once more
      proxy: nftables
      fault: {kill-pod: rc/kubia}
    expect: {lost: {max: 3}, outage: {max: 500ms}}
"""


def test_a_load_has_steps_of_its_own() -> None:
    (step,) = read_scenario(Source("s.yaml", LOAD.encode())).steps
    inner = step.arguments["while"]
    assert [(one.kind, one.line, one.name, one.proxy) for one in inner] == [
        ("scale", 10, "", ()),
        ("fault", 11, "once more", ("nftables",)),
    ]
    assert step.arguments["expect"] == {"lost": {"max": 3}, "outage": {"max": "500ms"}}


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    - scale", "    - scal", "s.yaml:10:7: steps[0].load.while[0].scal: there is no step scal; did you mean scale?"),
        ("max: 3", "max: -3", "s.yaml:14:20: steps[0].load.expect.lost: must not be negative"),
        (
            "replicas: 5",
            "replicas: x",
            's.yaml:10:43: steps[0].load.while[0].scale.replicas: must be a whole number, not the string "x"',
        ),
        ("proxy: all\n", "", "its steps are for some proxy modes only"),
        ("rate: 200", "rate: none", "steps[0].load.rate: must be a whole number"),
    ],
)
def test_mistakes_in_a_load(old: str, new: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read_scenario(Source("s.yaml", LOAD.replace(old, new).encode()))
    assert said in str(caught.value)


def test_a_load_says_how_long() -> None:
    with pytest.raises(InputError, match="how long"):
        read_scenario(Source("s.yaml", b"name: a\nsteps:\n- load: {from: a, to: b, rate: 1}\n"))


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("{kill-pod: rc/a, for: 5s}", "steps[0].fault.for: kill-pod takes none"),
        ("{link-up: node/a, for: 5s}", "link-up takes none: nothing undoes it"),
        ("{kill-node: a, value: 5ms}", "steps[0].fault.value: kill-node takes none"),
        ("{link-down: a/b, direction: in}", "steps[0].fault.direction: link-down takes none"),
        ("{partition: a, jitter: 5ms}", "steps[0].fault.jitter: partition takes none"),
    ],
)
def test_what_a_fault_does_not_take_is_a_mistake(fault: str, says: str) -> None:
    """It was read, and nothing came of it."""
    with pytest.raises(InputError) as caught:
        read_scenario(Source("s.yaml", f"name: a\nsteps:\n- fault: {fault}\n".encode()))
    assert says in str(caught.value)
    for fine in ("{clear: a/lan, direction: in}", "{link-down: a/lan, for: 5s}", "{kill-node: a, for: 5s}"):
        assert read_scenario(Source("s.yaml", f"name: a\nsteps:\n- fault: {fine}\n".encode()))
