"""fault: break something on purpose, to see what notices. Decides what `--for` undoes, and how a link may be named."""

import signal
import time
from typing import TYPE_CHECKING, Annotated

import typer

from netlab.cli import output
from netlab.cli.output import LabOption, NamespaceOption
from netlab.errors import InputError

if TYPE_CHECKING:
    from netlab.client import Lab

app = typer.Typer(help="Break something on purpose.", no_args_is_help=True, rich_markup_mode=None)

LinkArgument = Annotated[
    str,
    typer.Argument(
        metavar="TARGET[:DEVICE]|HOST/LAN",
        help="node/NAME, pod/NAME, host/NAME: all its links, or one: node/a:eth1, or as topologies name it: a/lan-b.",
    ),
]
ForOption = Annotated[float | None, typer.Option("--for", min=0.0, metavar="SECONDS", help="Undo it then, or at Ctrl-C.")]
NeverForOption = Annotated[float | None, typer.Option("--for", hidden=True)]


def split_device(text: str) -> tuple[str, str | None]:
    """(target, device) of `node/a:eth1`; None, all links, where no device is given."""
    target, colon, device = text.partition(":")
    if colon and not device:
        raise InputError(f"{text!r}: the device's name is missing after the colon, such as {target}:eth0")
    return target, device or None


def link_of(running: "Lab", text: str) -> tuple[str, str | None]:
    """(target, device) of a link in either spelling: TARGET[:DEVICE], or the topology's HOST/LAN."""
    from netlab import targets

    end, slash, lan = text.partition("/")
    if not slash or end.lower() in targets.KINDS or ":" in lan:
        return split_device(text)
    return on_lan(running, text, end, lan)


def on_lan(running: "Lab", text: str, end: str, lan: str) -> tuple[str, str]:
    """(target, device) of the interface that the node or host `end` has in `lan`."""
    from netlab.ipam import attachments
    from netlab.manifest.problems import did_you_mean

    cluster = running.cluster()
    machines = {host.name: (f"host/{host.name}", host.addresses) for host in cluster.topology.hosts}
    machines |= {name: (f"node/{name}", node.addresses) for name, node in cluster.nodes.items()}
    if end not in machines:
        meant = did_you_mean(end, machines)
        hint = f"did you mean {meant}/{lan}?" if meant else "links are named node/NAME, pod/NAME, host/NAME or HOST/LAN"
        raise InputError(f"{text!r}: there is no node or host {end}; {hint}")
    target, addresses = machines[end]
    own = {one.lan: one.device for one in attachments(cluster.topology, addresses)}
    if lan not in own:
        raise InputError(f"{text!r}: {target} has no link to {lan}; it has {', '.join(f'{end}/{one}' for one in own) or 'none'}")
    return target, own[lan]


def refuse_for(seconds: float | None, why: str) -> None:
    if seconds is not None:
        raise InputError(f"--for is for faults that can be undone: {why}")


@app.command("link-down")
def link_down(
    link: LinkArgument, seconds: ForOption = None, namespace: NamespaceOption = "default", lab: LabOption = None
) -> None:
    """Set a link down.

    \b
    Examples:
      netlab fault link-down node/node-170
      netlab fault link-down node/node-a:eth1
      netlab fault link-down client/lan-a --for 10
    """
    running = output.attach(lab)
    target, device = link_of(running, link)

    def turn(way: str) -> None:
        running.fault(f"link-{way}", target=target, device=device, namespace=namespace)

    if seconds is None:
        turn("down")
        output.message(f"{link} is down; `netlab fault link-up {link}` sets it up again")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` must not leave it down
    try:
        turn("down")
        output.message(f"{link} is down for {seconds:g} s")
        time.sleep(seconds)
    except KeyboardInterrupt:
        turn("up")
        raise
    turn("up")
    output.message(f"{link} is up")


@app.command("link-up")
def link_up(
    link: LinkArgument, seconds: NeverForOption = None, namespace: NamespaceOption = "default", lab: LabOption = None
) -> None:
    """Set a link up again.

    \b
    Examples:
      netlab fault link-up node/node-170
      netlab fault link-up client/lan-a
    """
    refuse_for(seconds, "link-up is how link-down is undone")
    running = output.attach(lab)
    target, device = link_of(running, link)
    running.fault("link-up", target=target, device=device, namespace=namespace)
    output.message(f"{link} is up")


@app.command("kill-pod")
def kill_pod(
    pod: Annotated[str, typer.Argument(metavar="TARGET", help="pod/NAME, or a workload: its first pod.")],
    seconds: NeverForOption = None,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> None:
    """Kill a pod at once. Its workload makes another.

    \b
    Examples:
      netlab fault kill-pod rc/kubia
      netlab fault kill-pod pod/client
    """
    refuse_for(seconds, "a pod that was killed stays dead, and its workload makes another at once")
    done = output.attach(lab).fault("kill-pod", target=pod, namespace=namespace)
    output.message(f"{done['target']} is killed")


NodeArgument = Annotated[str, typer.Argument(metavar="NODE", help="node/NAME, or its name alone.")]


def outage(kind: str, node: str, seconds: float | None, lab: str | None, word: str) -> None:
    """Put a node out of reach, for a while or until it is healed."""
    running = output.attach(lab)
    target = running.fault(kind, target=node)["target"]
    if seconds is None:
        output.message(f"{target} is {word}; `netlab fault heal {target}` brings it back")
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `timeout` must not leave it away
    try:
        output.message(f"{target} is {word} for {seconds:g} s")
        time.sleep(seconds)
    finally:
        running.fault("heal", target=target)
    output.message(f"{target} is back")


@app.command("kill-node")
def kill_node(node: NodeArgument, seconds: ForOption = None, lab: LabOption = None) -> None:
    """Kill a node: its links and its programs. It turns NotReady, and its pods are replaced elsewhere (docs/workloads.md).

    \b
    Examples:
      netlab fault kill-node node-170
      netlab fault kill-node node/node-171 --for 20
    """
    outage("kill-node", node, seconds, lab, "dead")


@app.command("partition")
def partition(node: NodeArgument, seconds: ForOption = None, lab: LabOption = None) -> None:
    """Cut a node off. It goes on with what it last knew, and nobody reaches it.

    \b
    Examples:
      netlab fault partition node-171
      netlab fault partition node-171 --for 20
    """
    outage("partition", node, seconds, lab, "cut off")


@app.command("heal")
def heal(
    node: Annotated[str | None, typer.Argument(metavar="NODE", help="node/NAME; every node without one.")] = None,
    seconds: NeverForOption = None,
    lab: LabOption = None,
) -> None:
    """Bring a node back that was killed or cut off.

    \b
    Examples:
      netlab fault heal node-170
      netlab fault heal
    """
    refuse_for(seconds, "heal is how kill-node and partition are undone")
    done = output.attach(lab).fault("heal", target=node)["target"]
    output.message(f"{done} is back" if done else "every node is in reach")


@app.command("flush-conntrack")
def flush_conntrack(
    target: Annotated[str | None, typer.Argument(metavar="TARGET", help="A node, pod or host; all nodes without one.")] = None,
    seconds: NeverForOption = None,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> None:
    """Forget all connections.

    \b
    Examples:
      netlab fault flush-conntrack
      netlab fault flush-conntrack node/node-170
    """
    refuse_for(seconds, "what conntrack has forgotten does not come back")
    output.attach(lab).fault("flush-conntrack", target, namespace=namespace)
    output.message(f"conntrack is empty on {target or 'every node'}")
