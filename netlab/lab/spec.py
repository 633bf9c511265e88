"""What a lab is started with, and what it says of itself."""

from dataclasses import dataclass

from netlab.model import KubernetesObject, Topology


@dataclass(frozen=True, slots=True)
class LabSpec:
    """`directory` is the lab's private directory, already claimed; with `tether` the lab ends when its starter does."""

    name: str
    directory: str
    version: str
    topology: Topology
    objects: tuple[KubernetesObject, ...] = ()
    tether: bool = False
