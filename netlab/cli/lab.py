"""up, ls, down: labs as a whole; exec, shell: what runs inside them."""

import os
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import output
from netlab.cli.output import FilesOption, LabOption, NamespaceOption
from netlab.errors import InputError, LabGone, Problem

if TYPE_CHECKING:
    from netlab.client import Lab, LabInfo


TargetArgument = Annotated[
    str, typer.Argument(metavar="TARGET", help="pod/NAME, node/NAME, host/NAME, deploy/NAME, rc/NAME@2, ...")
]


def up(
    context: typer.Context,
    topology: Annotated[
        str | None, typer.Argument(metavar="TOPOLOGY", help="A topology file; the default topology without one.")
    ] = None,
    files: FilesOption = None,
    name: Annotated[str | None, typer.Option(metavar="LAB", help="The lab's name; otherwise the topology's.")] = None,
    proxy: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="iptables, ipvs, nftables, nftables-maps or userspace, whatever the topology says."),
    ] = None,
    fabric: Annotated[str | None, typer.Option(metavar="NAME", help="bridge or routed, whatever the topology says.")] = None,
    named: Annotated[bool, typer.Option("--named", help="Publish the namespaces for `ip netns exec` (root only).")] = False,
    form: Annotated[str | None, typer.Option("-o", "--output", metavar="json")] = None,
) -> None:
    """Build a lab and print its name. Returns when its pods answer.

    \b
    Examples:
      netlab up
      netlab up -f manifests/kubia.yaml --proxy nftables
      netlab up topologies/two-node.yaml -f manifests/ --name second
      kubectl get svc,endpointslices,pods,nodes -A -o yaml | netlab up -f -
    """
    output.choose(form, ("json",), "-o")
    from netlab import client
    from netlab.lab import start
    from netlab.lab.inputs import read_inputs

    starting = context.obj or start.fork_holder()
    try:
        value, objects, warnings = read_inputs(topology, files or (), proxy=proxy, fabric=fabric)
    except BaseException:
        starting.cancel()
        raise
    output.warn(warnings)
    with output.progress(f"building lab {name or value.name}"):
        lab = client.launch(starting, name or value.name, value, objects, named=named)
    if form == "json":
        output.print_json(described(next(one for one in client.labs() if one.name == lab.name)))
    else:
        print(lab.name, flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from here on the lab is up, which the exit code has to say
    lab.release()
    output.message(
        f"{output.number_of(lab.started['nodes'], 'node')}, {output.number_of(lab.started['pods'], 'pod')}, "
        f"proxy {value.cluster.proxy.variant}; `netlab down` takes it down"
    )
    output.warn(lab.started.get("problems") or [])
    if lab.started["ready"] < lab.started["pods"]:
        tell_waiting(lab.get("pods", namespace=None))


def tell_waiting(pods: Sequence[dict[str, Any]], most: int = 5) -> None:
    """Name the pods that were not ready when the lab had settled; some of those asked for now may be by now."""
    from netlab.cli.tables import pod_status, ready_condition

    waiting = [pod for pod in pods if not ready_condition(pod) and pod["status"].get("phase") != "Succeeded"]
    if not waiting:
        return
    shown = [f"{pod['metadata']['namespace']}/{pod['metadata']['name']} ({pod_status(pod)})" for pod in waiting[:most]]
    more = f" and {len(waiting) - most} more" if len(waiting) > most else ""
    verb = "is" if len(waiting) == 1 else "are"
    output.message(
        f"{output.number_of(len(waiting), 'pod')} {verb} not ready: {', '.join(shown)}{more}; `netlab describe po NAME` says why"
    )


def described(info: object) -> dict[str, object]:
    """A LabInfo as a JSON object."""
    keys = ("name", "pid", "proxy", "nodes", "pods", "age_s", "directory", "version")
    layout = getattr(info, "layout", "chains")
    return {key: getattr(info, key) for key in keys} | ({"layout": layout} if layout != "chains" else {})


def _variant(info: "LabInfo") -> str:
    from netlab.model import variant_of

    return variant_of(described(info))


def ls(form: Annotated[str | None, typer.Option("-o", "--output", metavar="json|name")] = None) -> None:
    """The labs that run.

    \b
    Examples:
      netlab ls
      netlab ls -o json
    """
    output.choose(form, ("json", "name"), "-o")
    from netlab import client
    from netlab.cli.tables import age, align

    found = client.labs()
    match form:
        case "json":
            output.print_json([described(one) for one in found])
        case "name":
            print("".join(f"{one.name}\n" for one in found), end="")
        case _:
            if not found:
                output.message("no lab is running; `netlab up` starts one")
                return
            rows = [[one.name, str(one.nodes), str(one.pods), _variant(one), str(one.pid), age(one.age_s)] for one in found]
            print(align([["NAME", "NODES", "PODS", "PROXY", "PID", "AGE"], *rows]), end="")


def down(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="LAB", help="Labs to take down; the only one without a name.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All labs of this user.")] = False,
    lab: LabOption = None,
) -> None:
    """Take labs down. Nothing of them is left.

    \b
    Examples:
      netlab down
      netlab down second
      netlab down --all
    """
    from netlab import client
    from netlab.lab import directory

    if everything and names:
        raise InputError("--all and names exclude each other")
    wanted: list[str | None] = [one.name for one in client.labs()] if everything else [*(names or [])] or [lab]
    missing = []
    for name in wanted:
        try:
            path = directory.find(directory.base(os.environ), name or os.environ.get("NETLAB_LAB"))
        except LabGone as error:
            missing.append(str(error))
            continue
        client.end(path)  # of whatever version it is
        output.message(f"{path.name} is down")
    if missing:
        raise InputError(tuple(map(Problem, missing)))


def exec_(
    target: TargetArgument,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND", help="Any program of this machine, and its arguments.")],
    container: Annotated[str | None, typer.Option("-c", "--container", metavar="CONTAINER")] = None,
    namespace: NamespaceOption = "default",
    tty: Annotated[bool, typer.Option("-i", "-t", "--stdin", "--tty", hidden=True)] = False,
    lab: LabOption = None,
) -> int:
    """Run any program of this machine inside a pod, node or host. Its exit code is ours.

    \b
    Failures of netlab itself are 125, a program that cannot be run 126, one that is not found 127.
    \b
    Examples:
      netlab exec pod/client -- curl -s http://kubia
      netlab exec client -- cat /etc/resolv.conf
      netlab exec node/node-170 -- iptables-save -t nat
      netlab exec host/client -- ip route
      netlab exec rc/kubia@2 -- ss -tln
    """
    pod = target if "/" in target else f"pod/{target}"  # as kubectl takes it
    return run_inside(output.attach(lab), pod, command, container, namespace)


def run_inside(lab: "Lab", target: str, command: list[str], container: str | None, namespace: str) -> int:
    """The program's exit code; the terminal, its signals and job control are the program's own."""
    sys.stdout.flush()
    return lab.exec_replace(target, command, namespace, container)


def shell(target: TargetArgument, namespace: NamespaceOption = "default", lab: LabOption = None) -> int:
    """An interactive shell inside a pod, node or host.

    \b
    Examples:
      netlab shell node/node-170
      netlab shell pod/client
    """
    program = os.environ.get("SHELL") or "/bin/sh"
    return run_inside(output.attach(lab), target, [program], None, namespace)
