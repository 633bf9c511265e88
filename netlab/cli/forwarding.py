"""port-forward: kubectl's words over netlab/forwarding.py."""

from typing import Annotated

import typer

from netlab.cli import output
from netlab.cli.output import LabOption, NamespaceOption


def port_forward(
    target: Annotated[str, typer.Argument(metavar="KIND/NAME", help="pod/NAME, svc/NAME, deploy/NAME, rc/NAME, ...")],
    ports: Annotated[list[str], typer.Argument(metavar="[LOCAL:]PORT...", help="Numbers or names; `:PORT` picks a free one.")],
    address: Annotated[str, typer.Option(help="Where to listen: addresses of this machine, with commas.")] = "127.0.0.1",
    namespace: NamespaceOption = "default",
    lab: LabOption = None,
) -> int:
    """Reach a port of a pod from this machine, until Ctrl-C. Of a Service or a workload one pod is chosen.

    \b
    Examples:
      netlab port-forward pod/web 8080:80
      netlab port-forward svc/kubia :80
      netlab port-forward deploy/web 8080:http --address 127.0.0.2
    """
    import sys

    from netlab.forwarding import Forward, Forwarding

    running = output.attach(lab)
    name = target if "/" in target else f"pod/{target}"
    found = running.verb("port-forward", target=name, ports=ports, namespace=namespace)
    wanted = [Forward(local, remote) for local, remote in found["ports"]]
    addresses = ["127.0.0.1" if one == "localhost" else one for one in address.split(",") if one]
    forwarding = Forwarding(running, found, lambda line: print(line, flush=True), lambda line: print(line, file=sys.stderr))
    try:
        forwarding.listen(addresses, wanted)
        forwarding.run()
    finally:
        forwarding.close()
    return 0
