"""fault: break something on purpose, to see what notices. Decides what `--for` undoes, and how a link may be named."""

import contextlib
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import output
from netlab.cli.output import LabOption, NamespaceOption
from netlab.errors import InputError, NetlabError

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
ForOption = Annotated[
    float | None,
    typer.Option("--for", metavar="SECONDS", callback=output.above_zero, help="Undo it then, or at Ctrl-C."),
]
NeverForOption = Annotated[float | None, typer.Option("--for", hidden=True)]


def link_of(running: "Lab", text: str) -> tuple[str, str | None]:
    """(target, device) of a link in either spelling: TARGET[:DEVICE], or the topology's HOST/LAN."""
    from netlab.lab import link_faults

    return link_faults.link_of(running.cluster, text)


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

    def turn(way: str) -> str:
        running.fault(f"link-{way}", target=target, device=device, namespace=namespace)
        return f"{link} is {way}"

    if seconds is None:
        output.message(f"{turn('down')}; `netlab fault link-up {link}` sets it up again")
        return
    for_a_while(seconds, lambda: turn("down"), lambda: turn("up"))
    output.message(f"{link} is up")


def for_a_while(seconds: float, begin: Callable[[], str], end: Callable[[], object]) -> None:
    """Undone when the time is up, and at Ctrl-C or SIGTERM (as `timeout` sends) before it. `begin` says what is so meanwhile."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        output.message(f"{begin()} for {seconds:g} s")
        time.sleep(seconds)
    except NetlabError:  # it did not begin: there is nothing to undo
        raise
    except BaseException:
        with contextlib.suppress(NetlabError):  # it had not begun yet, or the lab is gone: that is not what to tell of
            end()
        raise
    end()


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

    def begin() -> str:
        return f"{running.fault(kind, target=node)['target']} {'are' if pair(node) else 'is'} {word}"

    if seconds is None:
        output.message(f"{begin()}; `netlab fault heal {node}` brings it back")
        return
    for_a_while(seconds, begin, lambda: running.fault("heal", target=node))
    output.message(f"{node} is back")


def pair(node: str) -> bool:
    """Whether the argument names two machines: A/B."""
    return "/" in node and not node.startswith(("node/", "nodes/"))


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
    """Cut a node off. It goes on with what it last knew, and nobody reaches it. A/B: only these two do not reach each other.

    \b
    Examples:
      netlab fault partition node-171
      netlab fault partition node-170/node-171
      netlab fault partition node-171 --for 20
    """
    outage("partition", node, seconds, lab, "parted" if pair(node) else "cut off")


@app.command("heal")
def heal(
    node: Annotated[str | None, typer.Argument(metavar="NODE|A/B", help="node/NAME, or a parted pair; all without one.")] = None,
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
    output.message(back(done) if done else "every node is in reach")


def back(healed: str) -> str:
    """What is said of `node/a, node/b, node/c and node/d`: nodes, then pairs."""
    parts = healed.split(", ")
    said = [f"{part} {'reach each other again' if ' and ' in part else 'is back'}" for part in parts]
    return "; ".join(said)


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
    place = f"node/{target}" if target and "/" not in target else target  # as kill-node and partition take it
    output.attach(lab).fault("flush-conntrack", place, namespace=namespace)
    output.message(f"conntrack is empty on {place or 'every node'}")


# ---------------------------------------------------------------- impaired links

DirectionOption = Annotated[
    str, typer.Option("--direction", metavar="both|out|in", help="Of what TARGET sends (out), of what it gets (in), or both.")
]


def impair(kind: str, link: str, value: str, seconds: float | None, lab: str | None, **options: str | None) -> None:
    """One part of a link's impairment is set, the others stay; with `seconds` for that long."""
    running = output.attach(lab)
    undo: list[Any] = []

    def begin() -> str:
        undo[:] = running.fault(kind, target=link, value=value, **options)["undo"]
        return f"{link}: {kind} {value}"

    if seconds is None:
        output.message(f"{begin()}; `netlab fault clear {link}` ends it")
        return
    for_a_while(seconds, begin, lambda: end(running, undo))
    output.message(f"{link} is as it was")


def end(running: "Lab", undo: list[Any]) -> None:
    """Back to what was in force before; nothing where it never began."""
    if undo:
        running.fault("restore", undo=undo)


def impairing(kind: str, metavar: str, what: str, example: str) -> Callable[..., None]:
    """The command of one impairment that takes one value."""

    def command(
        link: LinkArgument,
        value: Annotated[str, typer.Argument(metavar=metavar)],
        direction: DirectionOption = "both",
        seconds: ForOption = None,
        namespace: NamespaceOption = "default",
        lab: LabOption = None,
    ) -> None:
        impair(kind, link, value, seconds, lab, direction=direction, namespace=namespace)

    command.__doc__ = f"""{what}

    \b
    Examples:
      netlab fault {kind} client/lan {example}
      netlab fault {kind} node/node-170 {example} --direction out --for 10
    """
    return command


app.command("rate")(
    impairing("rate", "RATE", "Limit a link's bandwidth; what exceeds it waits up to 50 ms, then is lost.", "10mbit")
)
app.command("loss")(impairing("loss", "SHARE", "Lose a share of a link's packets, at random.", "1%"))
app.command("duplicate")(impairing("duplicate", "SHARE", "Send a share of a link's packets twice.", "1%"))
app.command("reorder")(
    impairing("reorder", "SHARE", "Let a share of a link's packets overtake the others, which a delay holds back.", "25%")
)
app.command("corrupt")(impairing("corrupt", "SHARE", "Flip one bit in a share of a link's packets.", "0.1%"))


@app.command("delay")
def delay(
    link: LinkArgument,
    value: Annotated[str, typer.Argument(metavar="TIME")],
    jitter: Annotated[str | None, typer.Option("--jitter", metavar="TIME", help="The delay varies by up to this.")] = None,
    direction: DirectionOption = "both",
    seconds: ForOption = None,
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> None:
    """Delay a link's packets, each way: a round trip takes twice as long.

    \b
    Examples:
      netlab fault delay client/lan 10ms
      netlab fault delay client/lan 50ms --jitter 10ms --for 10
      netlab fault delay pod/client 20ms --direction out
    """
    impair("delay", link, value, seconds, lab, jitter=jitter, direction=direction, namespace=namespace)


@app.command("clear")
def clear(
    link: Annotated[str | None, typer.Argument(metavar="TARGET[:DEVICE]|HOST/LAN", help="One link; all without it.")] = None,
    seconds: NeverForOption = None,
    direction: DirectionOption = "both",
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> None:
    """End the impairments of links: they are as the topology says again.

    \b
    Examples:
      netlab fault clear
      netlab fault clear client/lan
    """
    refuse_for(seconds, "clear is how they are undone")
    output.attach(lab).fault("clear", target=link, direction=direction, namespace=namespace)
    output.message(f"{link or 'every link'} is as the topology says")
