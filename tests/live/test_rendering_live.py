"""The rendered texts are loaded by the real tools in a fresh network namespace, as root and as an ordinary user.

Each change from one example state to another is loaded as a difference; what the kernel then lists must be what it lists after
the whole text of the new state.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from itertools import permutations
from pathlib import Path

import pytest

from netlab.model import Cluster
from netlab.proxy import iptables as iptables_mode
from netlab.proxy import nftables as nftables_mode
from netlab.rendering import iptables, nftables
from netlab.ruleset import Family, Ruleset
from tests.proxy_support import dual_stack, everything, ruleset, states

RUN = """
import json, subprocess, sys
for argv, text in json.load(sys.stdin):
    done = subprocess.run(argv, input=text, text=True, capture_output=True)
    print(json.dumps([done.returncode, done.stdout, done.stderr]))
    if done.returncode:
        break
"""
WAYS = ["root", "user"] if os.geteuid() == 0 else ["user"]


def in_namespace(way: str, commands: list[tuple[list[str], str]], directory: Path) -> list[str]:
    """Runs the commands in one new network namespace; the output of each. A command that fails fails the test."""
    flags = ["-n"] if way == "root" else ["-Ur", "unshare", "-n"]
    if subprocess.run(["unshare", *flags, "true"], check=False).returncode:
        pytest.skip(f"this machine does not let us: unshare {flags[0]}")
    environment = {**os.environ, "XTABLES_LOCKFILE": str(directory / "lock")}
    done = subprocess.run(
        ["unshare", *flags, sys.executable, "-c", RUN],
        input=json.dumps(commands), text=True, capture_output=True, check=True, env=environment, timeout=300,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for (argv, text), (code, _, error) in zip(commands, results, strict=False):
        assert code == 0, f"{argv}: {error}\n{text}"
    return [output for _, output, _ in results]


def need(program: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed")
    return found


def iptables_rules(cluster: Cluster) -> Ruleset:
    return ruleset(iptables_mode.plan(cluster, cluster.nodes["node-a"]))


def nftables_rules(cluster: Cluster) -> Ruleset:
    return ruleset(nftables_mode.plan(cluster, cluster.nodes["node-a"]))


# ---------------------------------------------------------------- iptables


def saved(text: str) -> dict[str, set[str]]:
    """iptables-save by table: chains and rules, each rule with its place in its chain."""
    tables: dict[str, set[str]] = {}
    places: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            current = tables.setdefault(line[1:], set())
            places = {}
        elif line.startswith(":"):
            current.add(line.split(" [")[0])
        elif line.startswith("-A"):
            chain = line.split()[1]
            places[chain] = places.get(chain, 0) + 1
            current.add(f"{places[chain]} {line}")
    return tables


def said(rules: Ruleset, family: Family = "ip") -> dict[str, set[str]]:
    """The same of what the renderer says will be shown."""
    return saved("".join(f"*{table}\n" + "\n".join(lines) + "\n" for table, lines in iptables.lines(rules, family).items()))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_iptables_whole_text_is_what_iptables_save_shows(way: str, backend: str, tmp_path: Path) -> None:
    restore, save = need(f"iptables-{backend}-restore"), need(f"iptables-{backend}-save")
    for cluster in states(mode="iptables").values():
        rules = iptables_rules(cluster)
        commands = [([restore, "--noflush"], iptables.text(rules)), ([save], "")]
        assert saved(in_namespace(way, commands, tmp_path)[1]) == said(rules)


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_iptables_dual_stack(backend: str, tmp_path: Path) -> None:
    rules = iptables_rules(dual_stack())
    old = iptables_rules(everything())
    families: list[tuple[str, Family]] = [(f"iptables-{backend}", "ip"), (f"ip6tables-{backend}", "ip6")]
    for tool, family in families:
        restore, save = need(f"{tool}-restore"), need(f"{tool}-save")
        commands = [([restore, "--noflush"], iptables.text(rules, old, family)), ([save], "")]
        if family == "ip":
            assert commands[0][1] == "", "another family changes nothing here"
            continue
        assert saved(in_namespace(WAYS[0], commands, tmp_path)[1]) == said(rules, family)


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_iptables_whole_text_twice_changes_nothing(backend: str, tmp_path: Path) -> None:
    restore, save = need(f"iptables-{backend}-restore"), need(f"iptables-{backend}-save")
    rules = iptables_rules(everything())
    commands = [([restore, "--noflush"], iptables.text(rules))] * 2 + [([save], "")]
    assert saved(in_namespace(WAYS[0], commands, tmp_path)[2]) == said(rules)


@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_iptables_whole_text_without_noflush_removes_what_is_not_ours(backend: str, tmp_path: Path) -> None:
    restore, save, tool = (need(f"iptables-{backend}{suffix}") for suffix in ("-restore", "-save", ""))
    rules = iptables_rules(everything())
    foreign = [([tool, "-N", "STRANGER"], ""), ([tool, "-I", "FORWARD", "-j", "STRANGER"], "")]
    commands = [([restore], iptables.text(rules)), *foreign, ([restore], iptables.text(rules)), ([save], "")]
    assert saved(in_namespace(WAYS[0], commands, tmp_path)[-1]) == said(rules)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", ["nft", "legacy"])
def test_iptables_difference_ends_where_the_whole_text_does(way: str, backend: str, tmp_path: Path) -> None:
    restore, save = need(f"iptables-{backend}-restore"), need(f"iptables-{backend}-save")
    pairs = list(permutations(map(iptables_rules, states(mode="iptables").values()), 2))
    commands: list[tuple[list[str], str]] = []
    for old, new in pairs:
        commands.append(([restore], iptables.text(old)))
        commands.append(([restore, "--noflush"], iptables.text(new, old)))
        commands.append(([save], ""))
    shown = in_namespace(way, commands, tmp_path)[2::3]
    for (old, new), text in zip(pairs, shown, strict=True):
        assert saved(text) == said(new), iptables.text(new, old)


# ---------------------------------------------------------------- nftables


def listed(text: str) -> dict[str, str]:
    """`nft list ruleset` by set, map and chain (their order is that of their making), elements in order."""
    blocks = re.findall(r"^\t((?:set|map|chain) \S+) \{\n(.*?)^\t\}", text, re.MULTILINE | re.DOTALL)
    rest = re.sub(r"^\t(?:set|map|chain) \S+ \{\n.*?^\t\}\n*", "", text, flags=re.MULTILINE | re.DOTALL)
    return {"": " ".join(rest.split()), **{name: _sorted_elements(body) for name, body in blocks}}


def _sorted_elements(body: str) -> str:
    def put(found: re.Match[str]) -> str:
        return "elements = { " + ", ".join(sorted(part.strip() for part in found[1].split(",\n"))) + " }"

    return re.sub(r"elements = \{(.*?)\}", put, body, flags=re.DOTALL)


@pytest.mark.parametrize("way", WAYS)
def test_nftables_difference_ends_where_the_whole_text_does(way: str, tmp_path: Path) -> None:
    nft = need("nft")
    rules = {name: nftables_rules(cluster) for name, cluster in states(mode="nftables").items()}
    show = ([nft, "list", "ruleset"], "")
    load = [nft, "-f", "-"]
    commands = [command for one in rules.values() for command in ((load, nftables.text(one)), show)]
    whole = dict(zip(rules, map(listed, in_namespace(way, commands, tmp_path)[1::2]), strict=True))
    assert len({str(one) for one in whole.values()}) == len(rules), "the examples differ"
    pairs = list(permutations(rules, 2))
    commands = []
    for old, new in pairs:
        commands += [(load, nftables.text(rules[old])), (load, nftables.text(rules[new], rules[old])), show]
    shown = in_namespace(way, commands, tmp_path)[2::3]
    for (old, new), text in zip(pairs, shown, strict=True):
        assert listed(text) == whole[new], nftables.text(rules[new], rules[old])


def test_nftables_whole_text_is_shown_rule_by_rule(tmp_path: Path) -> None:
    nft = need("nft")
    rules = nftables_rules(everything())
    (_, shown) = in_namespace(WAYS[0], [([nft, "-f", "-"], nftables.text(rules)), ([nft, "list", "ruleset"], "")], tmp_path)
    ours, theirs = listed(nftables.text(rules).split("\n", 2)[2]), listed(shown)
    chains = {name for name in ours if name.startswith("chain")}
    assert {name: ours[name] for name in chains} == {name: theirs[name] for name in chains}


def test_nftables_dual_stack(tmp_path: Path) -> None:
    nft = need("nft")
    old, new = nftables_rules(everything()), nftables_rules(dual_stack())
    show, load = ([nft, "list", "ruleset"], ""), [nft, "-f", "-"]
    commands = [(load, nftables.text(new)), show, (load, nftables.text(old)), (load, nftables.text(new, old)), show]
    commands += [(load, nftables.text(old, new)), show]
    _, whole, _, _, changed, _, back = in_namespace(WAYS[0], commands, tmp_path)
    assert "table ip6 kube-proxy" in whole
    assert sorted(changed.split("\n")) == sorted(whole.split("\n"))
    assert "ip6" not in back


def test_nftables_flush_text_removes_the_table_and_needs_none(tmp_path: Path) -> None:
    nft = need("nft")
    load = [nft, "-f", "-"]
    flush = (load, nftables.flush_text())
    commands = [flush, (load, nftables.text(nftables_rules(everything()))), flush, ([nft, "list", "ruleset"], "")]
    assert in_namespace(WAYS[0], commands, tmp_path)[-1] == ""
