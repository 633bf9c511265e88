"""What a lab is started with, and what it says of itself."""

from dataclasses import dataclass

from netlab.model import Cluster, KubernetesObject, Topology

RELEASE = b"R"
"""What the starter says when the lab shall outlive it; otherwise the lab ends with its starter."""


@dataclass(frozen=True, slots=True)
class LabSpec:
    """`directory`: the lab's private one, already claimed. `cluster`: begin with it, not with topology and objects."""

    name: str
    directory: str
    version: str
    topology: Topology
    objects: tuple[KubernetesObject, ...] = ()
    cluster: Cluster | None = None
