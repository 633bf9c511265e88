"""report: a running lab as one page."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from netlab.cli import output
from netlab.cli.output import LabOption

if TYPE_CHECKING:
    from netlab.client import Lab
    from netlab.model import Cluster

PAIRS = 2500
"""Pairs up to which the whole matrix is sent; above it, one pod a node speaks for its node."""
EXIT = {"pass": 0, "fail": 1, "inconclusive": 4}


def report(
    file: Annotated[str, typer.Option("-o", "--output", metavar="FILE.html", help="Where to write it; - is standard output.")],
    matrix: Annotated[bool, typer.Option("--matrix/--no-matrix", help="Send a flow for every pair, or none.")] = True,
    lab: LabOption = None,
) -> int:
    """Write the running lab as one page.

    A self-contained file: drawing, Services and endpoints, a matrix sent now, drift from the plan, rules in short, pods.
    Exit code 1 when a pair is not as Kubernetes promises or the kernel differs from the plan.

    \b
    Examples:
      netlab report -o lab.html
      netlab report --no-matrix -o - > lab.html
    """
    from netlab.observe import report_html

    if file != "-":
        output.writable(file)
    running = output.attach(lab)
    cluster = running.cluster()
    results, left_out = pairs(running, cluster) if matrix else (None, "--no-matrix")
    with output.progress("reading the kernel back"):
        drift = running.verify().drift
    found = report_html.Findings(running.name, cluster, running.plan(), results, left_out, drift, output.facts())
    text = report_html.render(found)
    if file == "-":
        sys.stdout.write(text)
    else:
        Path(file).write_text(text)
        output.message(f"{found.verdict}: {file}, {len(text) // 1024} KiB")
    return EXIT[found.verdict]


def pairs(running: "Lab", cluster: "Cluster") -> tuple[list[dict[str, Any]], str]:
    """The matrix, and what of it was left out. In a large lab the first pod of each node sends, to Services and to each other."""
    from netlab.dns import is_server

    pods = [pod for pod in cluster.pods.values() if pod.phase == "Running" and pod.addresses]
    pods = [pod for pod in pods if not is_server(pod.meta.namespace, pod.meta.labels)]
    machines = [*(f"node/{name}" for name in cluster.nodes), *(f"host/{host.name}" for host in cluster.topology.hosts)]
    everything = (len(pods) + len(machines)) * (len(pods) + len(cluster.services))
    with output.progress("sending the matrix"):
        if everything <= PAIRS:
            return [one.json() for one in running.matrix()], ""
        speakers = list({pod.node: str(pod.ref) for pod in reversed(pods)}.values())
        services = [
            f"svc/{key.namespace}/{key.name}"
            for key, one in cluster.services.items()
            if one.cluster_ips and not one.headless and one.ports and key != ("default", "kubernetes")
            if not is_server(key.namespace, one.meta.labels)
        ]
        senders, to = [*speakers, *machines][: PAIRS // 10], [*speakers, *services]
        room = max(1, PAIRS // max(1, len(senders)))
        note = f"{everything} pairs in all: one pod of each node speaks for it" + (
            f"; {len(to) - room} targets left out" if len(to) > room else ""
        )
        return [one.json() for one in running.matrix(senders, to[:room])], note
