"""The labs that are measured: ten nodes, some pods, ten pods to a Deployment, and a Service for each Deployment.

Addresses have room for thousands of pods and Services. Decides nothing else, so that rows of different groups compare.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NODES = 10
A_DEPLOYMENT = 10


@dataclass(frozen=True, slots=True)
class Files:
    topology: Path
    manifest: Path


def topology(fabric: str = "routed", mode: str = "nftables", nodes: int = NODES, dns: bool = True) -> str:
    return f"""apiVersion: netlab/v1
kind: Topology
name: bench
cluster:
  podCIDR: 10.0.0.0/9
  serviceCIDR: 10.128.0.0/12
  fabric: {fabric}
  dns: {str(dns).lower()}
  proxy: {{mode: {mode}}}
nodes: {nodes}
"""


def manifest(pods: int) -> str:
    """A Deployment and a Service for every ten pods."""
    return "---\n".join(
        _deployment(number, min(A_DEPLOYMENT, pods - number * A_DEPLOYMENT)) for number in range(-(-pods // A_DEPLOYMENT))
    )


def _deployment(number: int, replicas: int) -> str:
    return f"""apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-{number}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web-{number}}}}}
  template:
    metadata: {{labels: {{app: web-{number}}}}}
    spec:
      containers: [{{name: main, image: luksa/kubia, ports: [{{containerPort: 8080}}]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web-{number}}}
spec:
  selector: {{app: web-{number}}}
  ports: [{{port: 80, targetPort: 8080}}]
"""


@contextmanager
def written(pods: int, fabric: str = "routed", mode: str = "nftables", dns: bool = True) -> Iterator[Files]:
    """Files of such a lab, for as long as the `with` lasts."""
    with tempfile.TemporaryDirectory(prefix="netlab-bench-") as directory:
        files = Files(Path(directory) / "topology.yaml", Path(directory) / "manifest.yaml")
        files.topology.write_text(topology(fabric, mode, dns=dns))
        files.manifest.write_text(manifest(pods))
        yield files
