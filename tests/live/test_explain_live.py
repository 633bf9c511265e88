"""Explanations of real packets against witnesses of other kinds: rule counters, nft's own monitor, tcpdump.

One lab a mode serves all rows; each row's verdict needs the oracle, the offline trace and the kernel to agree.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

import netlab
from netlab.client import Lab
from netlab.errors import MachineError, NetlabError
from tests.waiting import until

EXTRA = """
apiVersion: v1
kind: Service
metadata: {name: local}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: one}, ports: [{port: 80, targetPort: 8080, nodePort: 30200}]}
---
apiVersion: v1
kind: Service
metadata: {name: one}
spec: {selector: {app: one}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: one}}
spec: {nodeName: node-171, containers: [{name: c, image: luksa/kubia, ports: [{containerPort: 8080}]}]}
"""
TOPOLOGY = "topologies/two-node.yaml"
NODE = "node/node-170"


class Row(NamedTuple):
    """A flow, what becomes of it, and in which mode which chain does the decisive thing."""

    name: str
    sender: str
    to: str
    outcome: str
    kinds: tuple[str, ...] = ()
    chains: tuple[str, str] = ("", "")


ROWS = (
    Row("ClusterIP", "pod/client", "svc/kubia", "delivered", ("dnat",), ("KUBE-SEP-", "service-")),
    Row("ClusterIP from the node", "node/node-170", "svc/one", "delivered", ("dnat", "snat"), ("KUBE-SEP-", "service-")),
    Row("NodePort from outside", "host/client", "192.168.0.170:30123", "delivered", ("dnat", "snat"), ("KUBE-SEP-", "service-")),
    Row("hairpin", "pod/one", "svc/one", "delivered", ("dnat", "snat"), ("KUBE-POSTROUTING", "masquerading")),
    Row("Local where it lives", "host/client", "192.168.0.171:30200", "delivered", ("dnat",), ("KUBE-SEP-", "local-")),
    Row("Local elsewhere", "host/client", "192.168.0.170:30200", "dropped", (), ("KUBE-EXTERNAL-SERVICES", "nodeport-endpoints")),
    Row("no endpoints", "pod/client", "svc/nobody", "rejected", (), ("KUBE-SERVICES", "reject-chain")),
    Row("pod to pod", "pod/client", "pod/one:8080", "delivered"),
    Row("nobody listens", "pod/client", "pod/one:9", "rejected"),
)  # fmt: skip


@pytest.fixture(scope="module", params=["iptables", "nftables"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    extra = tmp_path_factory.mktemp("explain") / "extra.yaml"
    extra.write_text(EXTRA)
    try:
        with netlab.up(TOPOLOGY, ["manifests/kubia.yaml", "manifests/no-endpoints.yaml", extra], proxy=request.param) as running:
            running.matrix()  # the bridges have learned where everybody is: nothing is flooded any more
            yield running
    except MachineError as error:
        pytest.skip(f"this machine cannot run a lab: {error}")


def rules(document: dict[str, Any], netns: str) -> list[dict[str, Any]]:
    """The rules that the packet is said to have met there, on its way (not its answer)."""
    return [one for one in document["hops"] if one["netns"] == netns and one["event"] == "rule" and one["position"] is not None]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_the_three_answers_agree_and_the_story_is_whole(lab: Lab, row: Row) -> None:
    found = lab.explain(row.sender, row.to)
    assert (found["verdict"], found["outcome"]) == ("pass", row.outcome), found
    assert found["trace_agrees"], found["disagreements"]
    assert tuple((found["nat"] or {"kinds": ()})["kinds"]) == row.kinds
    assert all(event["evidence"] for event in (*found["hops"], *found["reply"]))
    stamps = [event["at"] for event in found["hops"] if event["event"] in ("sent", "received")]
    assert stamps == sorted(stamps)
    assert found["hops"][0]["netns"].split("/")[0] == row.sender.split("/")[0]
    chain = row.chains[found["proxy"] == "nftables"]
    named = [event for event in found["hops"] if (event["chain"] or "").startswith(chain or "?") and event["decisive"]]
    assert bool(named) == bool(chain), found["hops"]
    if row.outcome != "delivered":
        assert found["why"] and found["remedies"], found
    else:
        assert found["reply"][-1]["event"] == "delivered"


def test_nothing_is_left_behind(lab: Lab) -> None:
    lab.explain("pod/client", "svc/kubia")
    for node in ("node/node-170", "node/node-171"):
        assert "netlab-explain" not in lab.exec(node, ["nft", "list", "tables"]).stdout
    assert lab.verify().drift == []


def test_several_packets_are_explained_at_once(lab: Lab) -> None:
    found: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: found.append(lab.explain("pod/client", "svc/kubia"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(one["verdict"], one["trace_agrees"]) for one in found] == [("pass", True)] * 4, found


# ---------------------------------------------------------------- other witnesses


def counters(lab: Lab, node: str) -> dict[str, int]:
    """Rule as iptables-save prints it, with its table -> packets counted."""
    found, table = {}, ""
    for line in lab.exec(node, ["iptables-nft-save", "-c"]).stdout.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith("["):
            count, _, rule = line.partition("] ")
            found[f"{table} {rule}"] = int(count[1:].split(":")[0])
    return found


@pytest.mark.parametrize("row", ROWS[:7], ids=lambda row: row.name)
def test_the_rule_named_is_the_rule_whose_counter_moved(lab: Lab, row: Row) -> None:
    if lab.info()["proxy"] != "iptables":
        pytest.skip("kube-proxy's nftables rules have no counters; nft's monitor is asked instead")
    nodes = ("node/node-170", "node/node-171")
    before = {node: counters(lab, node) for node in nodes}
    found = lab.explain(row.sender, row.to)
    for node in nodes:
        after = counters(lab, node)
        moved = {rule for rule, count in after.items() if count > before[node].get(rule, 0)}
        named = {f"{one['table']} {one['rule']}" for one in rules(found, node)}
        assert named <= moved
        # nat sees the first packet only; in filter, the answer and the client's reset are counted too
        assert {rule for rule in moved if rule.startswith("nat ")} == {rule for rule in named if rule.startswith("nat ")}


Seen = TypeVar("Seen", bound=Sized)


def alongside(
    lab: Lab,
    command: list[str],
    files: Path,
    ready: Callable[[str], bool],
    work: Callable[[], Seen],
    read: Callable[[str], Seen],
) -> tuple[Seen, Seen]:
    """What `work` tells, and what a program that ran in the node meanwhile printed, as `read` reads it.

    The work begins when the program is ready (judged by its standard error). The program is interrupted when it has told
    as much as the work, and then nothing more for a moment: what it saw beyond that would be a surprise, and is returned.
    """
    pid, out, err = files / "pid", files / "out", files / "err"
    shell = 'echo $$ >"$0" && out=$1 err=$2 && shift 2 && exec "$@" >"$out" 2>"$err"'
    thread = threading.Thread(target=lambda: lab.exec(NODE, ["sh", "-c", shell, *map(str, (pid, out, err)), *command]))
    thread.start()
    until(err.exists, f"{command} never began")
    try:
        until(lambda: ready(err.read_text()), f"{command} was never ready")
        told = work()
        until(lambda: len(read(out.read_text())) >= len(told), f"{command} saw less than {told}")
        text = ""
        while text != (text := out.read_text()):
            time.sleep(0.3)
    finally:
        lab.exec(NODE, ["kill", "-INT", pid.read_text().strip()])
        thread.join()
    return told, read(text)


@pytest.mark.skipif(shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin") is None, reason="nft is not installed")
@pytest.mark.parametrize("row", [ROWS[0], ROWS[5], ROWS[6]], ids=lambda row: row.name)
def test_nft_monitor_saw_the_same_rules(lab: Lab, row: Row, tmp_path: Path) -> None:
    if lab.info()["proxy"] != "nftables":
        pytest.skip("nft does not print iptables' rules as iptables does; their counters are asked instead")

    def listening(_: str = "") -> bool:
        return bool(re.search(r" 12 +\d+ +00000100 ", lab.exec(NODE, ["cat", "/proc/net/netlink"]).stdout))

    def work() -> set[str]:
        return {f"{one['chain']} rule {one['rule']}" for one in rules(lab.explain(row.sender, row.to), NODE)}

    def read(text: str) -> set[str]:
        lines = [line for line in text.splitlines() if " ip kube-proxy " in line]
        first = [line for line in lines if line.split()[2] == lines[0].split()[2]]  # of the packet itself; answers have other ids
        return {re.sub(r" \(verdict .*", "", line.split(" ip kube-proxy ", 1)[1]) for line in first if " rule " in line}

    assert not listening()
    told, seen = alongside(lab, ["nft", "monitor", "trace"], tmp_path, listening, work, read)
    assert told and told == seen


@pytest.mark.skipif(os.geteuid() != 0, reason="tcpdump gives up its privileges, which an ordinary user's namespaces do not allow")
@pytest.mark.skipif(shutil.which("tcpdump", path="/usr/sbin:/sbin:/usr/bin") is None, reason="tcpdump is not installed")
def test_tcpdump_saw_the_same_hops(lab: Lab, tmp_path: Path) -> None:
    def work() -> list[tuple[str, ...]]:
        return [
            (one["device"], one["direction"], "{src}.{sport}".format(**one["packet"]), "{dst}.{dport}".format(**one["packet"]))
            for one in lab.explain("host/client", "192.168.0.170:30123")["hops"]
            if one["netns"] == NODE and one["event"] in ("sent", "received")
        ]

    def read(text: str) -> list[tuple[str, ...]]:
        lines = [line.split() for line in text.splitlines() if " IP " in line]
        return [(words[1], words[2].lower(), words[4], words[6].rstrip(":")) for words in lines]

    command = ["tcpdump", "-lni", "any", "--immediate-mode", "tcp[tcpflags] == tcp-syn"]
    told, seen = alongside(lab, command, tmp_path, lambda notes: "listening on" in notes, work, read)
    assert told and told == seen


# ---------------------------------------------------------------- surprises


def test_a_foreign_rule_is_named_and_fails() -> None:
    with netlab.up(TOPOLOGY, ["manifests/kubia.yaml"], proxy="iptables") as lab:
        lab.exec("node/node-170", ["iptables", "-I", "FORWARD", "-p", "tcp", "--dport", "8080", "-j", "DROP"], check=True)
        found = lab.explain("pod/client", "svc/kubia")
        end = found["hops"][-1]
        assert (found["verdict"], found["outcome"], found["trace_agrees"]) == ("fail", "dropped", False)
        assert (end["event"], end["netns"], end["chain"], end["position"], end["planned"]) == (
            "dropped", "node/node-170", "FORWARD", 0, False,
        )  # fmt: skip
        assert "--dport 8080 -j DROP" in end["rule"] and "netlab verify" in found["remedies"][0]


def test_legacy_rules_are_told_without_the_kernels_trace(tmp_path: Path) -> None:
    if shutil.which("iptables-legacy-restore", path="/usr/sbin:/sbin:/usr/bin") is None:
        pytest.skip("iptables-legacy is not installed")
    topology = tmp_path / "legacy.yaml"
    text = Path(TOPOLOGY).read_text()
    topology.write_text(text.replace("networks:", "cluster: {proxy: {mode: iptables, backend: legacy}}\nnetworks:", 1))
    try:
        running = netlab.up(topology, ["manifests/kubia.yaml"])
    except NetlabError as error:
        pytest.skip(f"no iptables-legacy in this kernel: {error}")
    with running as lab:
        found = lab.explain("pod/client", "svc/kubia")
        assert (found["verdict"], found["outcome"], found["traced"]) == ("pass", "delivered", [])
        assert "iptables-legacy" in found["notes"][0] and found["nat"]["kinds"] == ["dnat"]
        assert not rules(found, "node/node-170")


# ---------------------------------------------------------------- the command line and the page


def run(lab: Lab, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "netlab", "--lab", lab.name, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_command_line_in_every_format(lab: Lab) -> None:
    text = run(lab, "explain", "pod/client", "svc/kubia")
    assert text.returncode == 0 and "DELIVERED" in text.stdout and "svc/default/kubia" in text.stdout
    assert json.loads(run(lab, "explain", "pod/client", "svc/nobody", "-o", "json").stdout)["outcome"] == "rejected"
    assert run(lab, "explain", "pod/client", "svc/kubia", "-o", "mermaid").stdout.startswith("sequenceDiagram")
    assert run(lab, "explain", "pod/client", "svc/nothing").returncode == 2
    for form, start in (("text", "+-"), ("svg", "<svg"), ("dot", "digraph"), ("mermaid", "flowchart"), ("html", "<!doctype")):
        drawn = run(lab, "graph", "-o", form)
        assert drawn.returncode == 0 and drawn.stdout.lstrip().startswith(start), drawn
