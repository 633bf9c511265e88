"""taint and drain: keep pods off a node, and move away those that are there.

Which pods a drain evicts, leaves or stumbles over is decided here, as kubectl does (pkg/drain/filters.go): pods of DaemonSets
stay, pods that nobody would replace, and those that would lose data, need the user's word. There are no PodDisruptionBudgets in
a lab, so that an eviction is a deletion.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import output
from netlab.cli.output import LabOption
from netlab.errors import ApiError, InputError, Problem

if TYPE_CHECKING:
    from netlab.client import Lab

Json = dict[str, Any]
MIRROR = "kubernetes.io/config.mirror"


def taint(
    words: Annotated[
        list[str], typer.Argument(metavar="node NODE... KEY[=VALUE]:EFFECT...", help="KEY[:EFFECT]- takes one away.")
    ],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="A taint of the same key and effect is replaced.")] = False,
    everything: Annotated[bool, typer.Option("--all", help="Every node.")] = False,
    selector: Annotated[str, typer.Option("-l", "--selector", metavar="SELECTOR", help="Nodes with these labels.")] = "",
    lab: LabOption = None,
) -> None:
    """Add taints to nodes, or take them away. NoExecute evicts pods that do not tolerate it.

    \b
    Examples:
      netlab taint node node-171 dedicated=db:NoSchedule
      netlab taint node/node-171 broken:NoExecute
      netlab taint node node-171 dedicated-
    """
    names, add, remove = split(words)
    running = output.attach(lab)
    if everything or selector:
        names += [one["metadata"]["name"] for one in running.get("nodes", None, None, selector)]
    if not names:
        raise InputError("no node is named: netlab taint node NODE... KEY[=VALUE]:EFFECT, or --all, or -l SELECTOR")
    for name in names:
        running.taint(name, add, remove, overwrite)
        print(f"node/{name} {'modified' if (add and remove) or overwrite else 'tainted' if add else 'untainted'}")


def split(words: Sequence[str]) -> tuple[list[str], list[Json], list[Json]]:
    """Names of nodes, taints to add, taints to remove. Raises InputError with all that is wrong."""
    from netlab.model import TAINT_EFFECTS

    names: list[str] = []
    add: list[Json] = []
    remove: list[Json] = []
    wrong: list[Problem] = []
    for at, word in enumerate(words):
        if at == 0 and word in ("node", "nodes", "no"):
            continue
        if found := re.fullmatch(r"([^=:]+)(?::([A-Za-z]+))?-", word):
            remove.append({"key": found[1], "effect": found[2] or ""})
        elif found := re.fullmatch(r"([^=:]+)(?:=([^:]*))?:([A-Za-z]+)", word):
            add.append({"key": found[1], "value": found[2] or "", "effect": found[3]})
        elif "=" in word or ":" in word:
            wrong.append(Problem(f"{word}: a taint is KEY=VALUE:EFFECT, KEY:EFFECT, or to take it away KEY- or KEY:EFFECT-"))
        else:
            names.append(output.node_name(word))
    effects = [one["effect"] for one in (*add, *remove) if one["effect"]]
    wrong += [
        Problem(f"{effect}: invalid taint effect, it is one of {', '.join(TAINT_EFFECTS)}")
        for effect in effects
        if effect not in TAINT_EFFECTS
    ]
    if not add and not remove and not wrong:
        wrong.append(Problem("at least one taint is wanted: KEY=VALUE:EFFECT"))
    if wrong:
        raise InputError(tuple(wrong))
    return names, add, remove


def drain(
    nodes: Annotated[list[str], typer.Argument(metavar="NODE...", help="node/NAME, or its name alone.")],
    daemons: Annotated[bool, typer.Option("--ignore-daemonsets", help="Pods of DaemonSets stay.")] = False,
    data: Annotated[bool, typer.Option("--delete-emptydir-data", help="Pods with emptyDir volumes go, too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Pods that no controller replaces go, too.")] = False,
    grace: Annotated[
        int, typer.Option("--grace-period", metavar="SECONDS", help="How long pods may take; -1: as they say.")
    ] = -1,
    pods: Annotated[str, typer.Option("--pod-selector", metavar="SELECTOR", help="Only pods with these labels.")] = "",
    lab: LabOption = None,
) -> None:
    """Cordon nodes and evict their pods.

    \b
    Examples:
      netlab drain node-171 --ignore-daemonsets
      netlab drain node-170 --ignore-daemonsets --force --delete-emptydir-data
    """
    running = output.attach(lab)
    names = list(dict.fromkeys(map(output.node_name, nodes)))
    for name in names:  # all of them first: what leaves one must not come to the next
        print(f"node/{name} {'cordoned' if running.cordon(name, True) else 'already cordoned'}", flush=True)
    refused: list[Problem] = []
    for name in names:
        there = [one for one in running.get("pods", None, None, pods) if one["spec"].get("nodeName") == name]
        chosen = sorting(there, daemons, data, force)
        if chosen.refused:
            refused += (Problem(f'unable to drain node "{name}": it stays cordoned'), *map(Problem, chosen.refused))
            continue
        output.warn(chosen.warnings)
        evict(running, chosen.evicted, None if grace < 0 else float(grace))
        print(f"node/{name} drained")
    if refused:
        raise InputError(tuple(refused))


def evict(running: "Lab", pods: Iterable[Json], grace_s: float | None) -> None:
    """Delete the pods, and wait until they are gone."""
    leaving = []
    for one in pods:
        name, namespace = one["metadata"]["name"], one["metadata"]["namespace"]
        print(f"evicting pod {namespace}/{name}", flush=True)
        try:
            leaving.append(running.delete("pods", name, namespace, "background", grace_s=grace_s, wait=False))
        except ApiError as error:
            if error.code != 404:  # it went by itself
                raise
    for one in leaving:
        running.wait_gone(one)
        print(f"pod/{one['metadata']['name']} evicted", flush=True)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What becomes of a node's pods. `refused`: why nothing is done at all."""

    evicted: tuple[Json, ...]
    warnings: tuple[str, ...]
    refused: tuple[str, ...]


def sorting(pods: Iterable[Json], daemons: bool, data: bool, force: bool) -> Chosen:
    """Which pods go, in kubectl's order of reasons and in its words."""
    evicted: list[Json] = []
    groups: dict[str, list[str]] = {"daemon": [], "data": [], "alone": []}
    for one in pods:
        meta = one["metadata"]
        label = f"{meta['namespace']}/{meta['name']}"
        owner = next((ref["kind"] for ref in meta.get("ownerReferences") or () if ref.get("controller")), "")
        over = (one.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if MIRROR in (meta.get("annotations") or {}):
            continue
        if owner == "DaemonSet" and not over:
            groups["daemon"].append(label)
            continue
        if not over and any("emptyDir" in volume for volume in one["spec"].get("volumes") or ()):
            groups["data"].append(label)
        if not over and not owner:
            groups["alone"].append(label)
        evicted.append(one)
    told = {kind: ", ".join(sorted(names)) for kind, names in groups.items() if names}
    refused, warnings = [], []
    for kind, allowed, refusal, option, warning in (
        ("alone", force, "Pods that declare no controller (use --force", "override", "deleting Pods that declare no controller"),
        ("data", data, "Pods with local storage (use --delete-emptydir-data", "override", ""),
        ("daemon", daemons, "DaemonSet-managed Pods (use --ignore-daemonsets", "ignore", "ignoring DaemonSet-managed Pods"),
    ):
        if kind in told and not allowed:
            refused.append(f"cannot delete {refusal} to {option}): {told[kind]}")
        elif kind in told and warning:
            warnings.append(f"{warning}: {told[kind]}")
    return Chosen(tuple(evicted), tuple(warnings), tuple(refused))
