"""How machines learn the way to what is not on their links. A routing is one module here with NAME and `plan(cluster)`."""

from importlib import import_module
from pkgutil import iter_modules

from netlab.errors import InputError
from netlab.model import Cluster
from netlab.ops import Op
from netlab.routing import announcing, nat

_SHARED = frozenset({"announcing", "nat"})


def routings() -> tuple[str, ...]:
    """What `cluster.routing` may be."""
    return tuple(sorted(module.name for module in iter_modules(__path__) if module.name not in _SHARED))


def plan(cluster: Cluster) -> tuple[Op, ...]:
    """The routes of nodes, hosts and router. Raises: InputError."""
    name = cluster.topology.cluster.routing
    if name not in routings():
        raise InputError(f"unknown routing {name!r}; there is {', '.join(routings())}")
    ops: tuple[Op, ...] = import_module(f"{__name__}.{name}").plan(cluster)
    return (*ops, *announcing.plan(cluster), *nat.plan(cluster))
