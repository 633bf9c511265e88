"""How `get` prints objects: kubectl's tables, JSON, YAML or names."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from netlab.cli import kernel_objects, output

Json = dict[str, Any]


def print_objects(found: Sequence[tuple[str, list[Json]]], form: str, single: bool) -> None:
    """As json, yaml or names; `single`: the object itself, not a List of one."""
    items = [item for _, group in found for item in group]
    if form == "name":
        from netlab.cli.tables import name_of, qualified

        print("".join(f"{qualified(item)}/{name_of(item)}\n" for item in items), end="")
        return
    whole = {"apiVersion": "v1", "kind": "List", "items": items, "metadata": {"resourceVersion": ""}}
    document = items[0] if single and items else whole
    output.print_json(document) if form == "json" else output.print_yaml(document)


@dataclass(frozen=True, slots=True)
class Shown:
    """How `get` lays tables out."""

    everywhere: bool
    namespace: str
    wide: bool
    labels: bool
    columns: tuple[str, ...]


def show(found: Sequence[tuple[str, list[Json]]], how: Shown, quiet: bool = False) -> None:
    """The tables, a blank line between kinds, or (unless `quiet`) kubectl's sentence when there is nothing."""
    groups = merged(found)
    if not groups and not quiet:
        output.message("No resources found" if how.everywhere else f"No resources found in {how.namespace} namespace.")
    for at, items in enumerate(groups):
        print(("\n" if at else "") + table_of(items, how, prefix=len(groups) > 1), end="", flush=True)


def table_of(items: Sequence[Json], how: Shown, prefix: bool) -> str:
    """The table of objects of one kind, netlab's own kinds among them."""
    from netlab.cli import tables

    if items[0]["kind"] in kernel_objects.FROM_THE_KERNEL.values():
        return kernel_objects.text(items)
    namespaced = how.everywhere and bool(tables.meta(items[0]).get("namespace"))
    return tables.text(items, datetime.now(UTC), how.wide, namespaced, prefix, how.labels, how.columns)


def merged(found: Sequence[tuple[str, list[Json]]]) -> list[list[Json]]:
    """Objects grouped by kind, in the order asked for; kinds without objects are left out."""
    groups: dict[str, list[Json]] = {}
    for kind, items in found:
        if items:
            groups.setdefault(kind, []).extend(items)
    return list(groups.values())
