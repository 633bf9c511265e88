"""demo: what `make demo` shows. Builds the default lab, probes a Service from everywhere, draws it, takes it down."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from netlab.cli import output
from netlab.cli.output import paint
from netlab.cli.probing import probe_text, worst
from netlab.errors import InputError

COUNT = 60
"""Flows a probe: of three backends one stays unseen once in 10^10 runs."""


def demo(
    manifest: Annotated[
        str, typer.Option("-f", "--filename", metavar="MANIFEST", help="What to bring up.")
    ] = "manifests/kubia.yaml",
    proxy: Annotated[
        str | None, typer.Option(metavar="MODE", help="iptables, ipvs, nftables, nftables-maps or userspace.")
    ] = None,
) -> int:
    """Show a lab: drawn, probed from everywhere, taken down.

    \b
    Example:
      netlab demo --proxy nftables
    """
    import netlab
    from netlab.cli.drawing import draw

    if not Path(manifest).exists():
        raise InputError(f"{manifest}: no such file; run this in the directory of netlab's sources, or give -f MANIFEST")
    colour = output.coloured()
    begun = time.monotonic()
    with netlab.up(None, [manifest], name=f"demo-{os.getpid()}", proxy=proxy) as lab:
        print(paint(f"lab {lab.name} is up after {time.monotonic() - begun:.2f} s", "bold", colour), end="\n\n")
        cluster = lab.cluster()
        print(draw(cluster))
        results = []
        for title, sender, to in flows(lab.get("services"), list(cluster.nodes)):
            print(paint(title, "bold", colour))
            result = lab.probe(sender, to, count=COUNT).json()
            results.append(result)
            print(probe_text(result, colour))
        begun = time.monotonic()
    print(f"the lab is down after {time.monotonic() - begun:.2f} s; nothing of it is left")
    return worst(results)


def flows(services: Sequence[Mapping[str, Any]], nodes: Sequence[str]) -> list[tuple[str, str, str]]:
    """What the demo sends: (title, sender, destination). NodePorts are tried on the last node."""
    service = next(one for one in services if one["metadata"]["name"] == "kubia")
    address = f"{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
    shown = [
        (f"ClusterIP {address}, from a pod", "pod/client", "svc/kubia"),
        (f"ClusterIP {address}, from a node", f"node/{nodes[-1]}", "svc/kubia"),
        (f"ClusterIP {address}, from an outside host", "host/client", "svc/kubia"),
    ]
    open_ports = [port["nodePort"] for one in services for port in one["spec"].get("ports", ()) if port.get("nodePort")]
    return [
        *shown,
        *(
            (f"NodePort {port} of {nodes[-1]}, from an outside host", "host/client", f"node/{nodes[-1]}:{port}")
            for port in open_ports
        ),
    ]
