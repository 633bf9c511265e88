"""plan, schema: what would be done, without doing it."""

import sys
from typing import Annotated

import typer

from netlab.cli import output
from netlab.cli.output import FilesOption


def plan(
    topology: Annotated[
        str | None, typer.Argument(metavar="TOPOLOGY", help="A topology file; the default topology without one.")
    ] = None,
    files: FilesOption = None,
    proxy: Annotated[
        str | None, typer.Option(metavar="MODE", help="iptables, ipvs, nftables, nftables-maps or userspace.")
    ] = None,
    fabric: Annotated[str | None, typer.Option(metavar="NAME", help="bridge or routed.")] = None,
    diff: Annotated[str | None, typer.Option("--diff", metavar="LAB", help="Only how it differs from a running lab.")] = None,
) -> int:
    """Print what `up` would install. Links, addresses, routes, neighbours, rules, listeners; touches nothing.

    \b
    With --diff: what would change in a running lab; exit code 1 when something would.
    \b
    Examples:
      netlab plan
      netlab plan topologies/two-node.yaml -f manifests/kubia.yaml --proxy nftables
      netlab plan -f manifests/kubia.yaml --diff default
    """
    from netlab import controllers
    from netlab import plan as plans
    from netlab.lab.inputs import read_inputs

    value, objects, warnings = read_inputs(topology, files or (), proxy=proxy, fabric=fabric)
    output.warn(warnings)
    wanted = plans.build(controllers.initial(value, objects))
    if diff is None:
        sys.stdout.write(plans.text(wanted))
        return 0
    shown = plans.text_diff(plans.diff(output.attach(diff).plan(), wanted))
    sys.stdout.write(shown)
    return 1 if shown else 0


def schema(kind: Annotated[str, typer.Argument(metavar="topology|scenario")]) -> None:
    """Print the JSON Schema of a kind of file. Editors use it.

    \b
    Examples:
      netlab schema topology > topology.schema.json
      netlab schema scenario
    """
    from netlab import manifest

    match output.choose(kind, ("topology", "scenario"), "schema"):
        case "topology":
            output.print_json(manifest.schema("topology"))
        case _:
            output.print_json(manifest.schema("scenario"))
