"""docs/mode-userspace.md shows the rules of a real node."""

import re
from pathlib import Path

import netlab
from netlab.manifest import default_topology
from tests.clusters import without_dns

PAGE = Path(__file__).parents[2] / "docs" / "mode-userspace.md"


def test_the_rules_on_the_page_are_those_of_a_lab() -> None:
    shown = re.search(r"<!-- rules -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert shown is not None
    with netlab.up(without_dns(default_topology()), manifests=["manifests/kubia.yaml"], proxy="userspace") as lab:
        saved = lab.exec("node/node-170", ["iptables-save", "-t", "nat"], check=True).stdout
    there = [line for line in saved.splitlines() if line.startswith("-A ")]
    assert sorted(shown[1].splitlines()) == sorted(there)
