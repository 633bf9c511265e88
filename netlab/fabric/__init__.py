"""How pods hang on a node, and how machines hang on LANs. A fabric is one module here with NAME and `plan(cluster)`."""

from importlib import import_module
from pkgutil import iter_modules

from netlab.errors import InputError
from netlab.model import Cluster
from netlab.ops import Op

_SHARED = frozenset({"impairments", "lan", "pods", "sysctls"})


def fabrics() -> tuple[str, ...]:
    """What `cluster.fabric` may be."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if module.name not in _SHARED))


def plan(cluster: Cluster) -> tuple[Op, ...]:
    """All namespaces, links, addresses and sysctls of the lab, as its fabric wires them. Raises: InputError."""
    name = cluster.topology.cluster.fabric
    if name not in fabrics():
        raise InputError(f"unknown fabric {name!r}; there is {', '.join(fabrics())}")
    ops: tuple[Op, ...] = import_module(f"{__name__}.{name}").plan(cluster)
    from netlab.fabric import impairments

    return (*ops, *impairments.plan(cluster, ops))
