"""Row group `up`: from the shell to answering pods and back, the wiring alone, and what others need for the same."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from netlab.cli.bench import peers
from netlab.cli.bench.rows import Row, timed
from netlab.errors import KernelError

if TYPE_CHECKING:
    from netlab.plan import Plan

PODS = 12
MANIFEST = f"""apiVersion: apps/v1
kind: Deployment
metadata: {{name: bench}}
spec:
  replicas: {PODS}
  selector: {{matchLabels: {{app: bench}}}}
  template:
    metadata: {{labels: {{app: bench}}}}
    spec:
      containers: [{{name: main, image: luksa/kubia, ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: bench}}
spec:
  selector: {{app: bench}}
  ports: [{{port: 80, targetPort: 8080}}]
"""


def rows(runs: int) -> Sequence[Row]:
    with tempfile.TemporaryDirectory() as directory:
        manifest = Path(directory) / "bench.yaml"
        manifest.write_text(MANIFEST)
        ups, downs = zip(*(up_and_down(manifest, f"bench-{os.getpid()}-{run}") for run in range(runs)), strict=True)
        plan = planned(manifest)
    batch = peers.ip_batch(plan, runs)
    wiring = peers.wiring(plan, runs)
    mininet = peers.mininet(hosts=PODS, runs=min(runs, 3))
    return [
        Row(f"netlab up, {PODS} pods", tuple(ups)),
        Row("netlab down", tuple(downs)),
        Row("netlab wiring alone", wiring.seconds, wiring.note, ("ip -batch", "mininet")),
        Row("ip -batch", batch.seconds, batch.note or "the same namespaces, links, addresses, routes, neighbours"),
        Row("mininet", mininet.seconds, mininet.note or f"one bridge, {PODS} hosts, started"),
    ]


def up_and_down(manifest: Path, name: str) -> tuple[float, float]:
    """Wall times of both commands, as a shell sees them."""
    return timed(lambda: command("up", "-f", str(manifest), "--name", name)), timed(lambda: command("down", name))


def command(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-m", "netlab", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise KernelError(f"netlab {arguments[0]} failed in the benchmark: {done.stderr.strip()}")


def planned(manifest: Path) -> "Plan":
    """The plan that `up` installs, for the peers to build the same."""
    from netlab import controllers, plan
    from netlab.lab.inputs import read_inputs

    topology, objects, _ = read_inputs(None, [str(manifest)])
    return plan.build(controllers.initial(topology, objects))
