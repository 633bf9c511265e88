"""fault: break something on purpose, to see what notices."""

from typing import Annotated

import typer

from netlab.cli import output
from netlab.cli.output import LabOption, NamespaceOption
from netlab.errors import InputError

app = typer.Typer(help="Break something on purpose.", no_args_is_help=True, rich_markup_mode=None)

LinkArgument = Annotated[
    str, typer.Argument(metavar="TARGET[:DEVICE]", help="node/NAME, pod/NAME, host/NAME; all its links, or one: node/a:eth1.")
]


def split_device(text: str) -> tuple[str, str | None]:
    """(target, device) of `node/a:eth1`; None, all links, where no device is given."""
    target, colon, device = text.partition(":")
    if colon and not device:
        raise InputError(f"{text!r}: the device's name is missing after the colon, such as {target}:eth0")
    return target, device or None


@app.command("link-down")
def link_down(link: LinkArgument, namespace: NamespaceOption = "default", lab: LabOption = None) -> None:
    """Set a link down.

    \b
    Examples:
      netlab fault link-down node/node-170
      netlab fault link-down node/node-a:eth1
    """
    target, device = split_device(link)
    output.attach(lab).fault("link-down", target=target, device=device, namespace=namespace)
    output.message(f"{link} is down; `netlab fault link-up {link}` sets it up again")


@app.command("link-up")
def link_up(link: LinkArgument, namespace: NamespaceOption = "default", lab: LabOption = None) -> None:
    """Set a link up again.

    \b
    Example:
      netlab fault link-up node/node-170
    """
    target, device = split_device(link)
    output.attach(lab).fault("link-up", target=target, device=device, namespace=namespace)
    output.message(f"{link} is up")


@app.command("kill-pod")
def kill_pod(
    pod: Annotated[str, typer.Argument(metavar="TARGET", help="pod/NAME, or a workload: its first pod.")],
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> None:
    """Kill a pod at once. Its workload makes another.

    \b
    Examples:
      netlab fault kill-pod rc/kubia
      netlab fault kill-pod pod/client
    """
    output.attach(lab).fault("kill-pod", target=pod, namespace=namespace)
    output.message(f"{pod} is killed")


@app.command("flush-conntrack")
def flush_conntrack(
    target: Annotated[str | None, typer.Argument(metavar="TARGET", help="A node, pod or host; all nodes without one.")] = None,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> None:
    """Forget all connections.

    \b
    Examples:
      netlab fault flush-conntrack
      netlab fault flush-conntrack node/node-170
    """
    output.attach(lab).fault("flush-conntrack", target, namespace=namespace)
    output.message(f"conntrack is empty on {target or 'every node'}")
