"""cordon and uncordon: whether new pods are placed on a node."""

from typing import Annotated

import typer

from netlab.cli import output
from netlab.cli.output import LabOption

NodesArgument = Annotated[list[str], typer.Argument(metavar="NODE...", help="node/NAME, or its name alone.")]


def cordon(nodes: NodesArgument, lab: LabOption = None) -> None:
    """Place no new pods on a node; those that are there stay.

    \b
    Examples:
      netlab cordon node-170
    """
    turn(nodes, True, lab)


def uncordon(nodes: NodesArgument, lab: LabOption = None) -> None:
    """Place pods on a node again.

    \b
    Examples:
      netlab uncordon node-170
    """
    turn(nodes, False, lab)


def turn(nodes: list[str], unschedulable: bool, lab: str | None) -> None:
    running = output.attach(lab)
    word = "cordoned" if unschedulable else "uncordoned"
    for node in nodes:
        name = output.node_name(node)
        changed = running.cordon(name, unschedulable)
        print(f"node/{name} {word if changed else f'already {word}'}")
