"""Service proxies: what each node's rules must be for the Services of a Cluster. One module a mode, named as kube-proxy names it.

A mode is a module of this package with NAME and `plan(cluster, node)`, and LAYOUTS where it has several; the other modules are
what modes share.
Nothing here knows how rules are written down (rendering/) or loaded (kernel/).
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType

from netlab.errors import InputError
from netlab.model import Cluster, Layout, variant
from netlab.ops import Op
from netlab.proxy import health, host_ports


def modes() -> tuple[str, ...]:
    """The names of all modes, sorted."""
    return tuple(sorted(_modules()))


def variants() -> tuple[str, ...]:
    """What `all` means: every mode, and `nftables-maps` for a layout of its own, sorted."""
    return tuple(sorted(variant(mode, layout) for mode, module in _modules().items() for layout in layouts(module)))


def names() -> tuple[str, ...]:
    """What `--proxy` takes: `variants`, and `nftables-chains` for kube-proxy's own layout, whatever the topology says."""
    own = (f"{mode}-chains" for mode, module in _modules().items() if len(layouts(module)) > 1)
    return tuple(sorted({*variants(), *own}))


def layouts(module: ModuleType) -> tuple[Layout, ...]:
    return getattr(module, "LAYOUTS", ("chains",))


def plan(cluster: Cluster) -> tuple[Op, ...]:
    """The rules of every node, in the mode that the topology asks for. What no node changes is computed once for all of them.

    Raises: InputError when the topology names a mode that does not exist.
    """
    mode = cluster.topology.cluster.proxy.mode
    module = _modules().get(mode)
    if module is None:
        raise InputError(f"cluster.proxy.mode: {mode!r} is not a proxy mode; there are {', '.join(modes())}")
    found = _rules(module, cluster, frozenset(cluster.nodes) - frozenset(cluster.outages))
    for name, outage in cluster.outages.items():  # its proxy hears of nothing any more
        found += _rules(module, outage.known, frozenset((name,)))
    return found


def _rules(module: ModuleType, cluster: Cluster, nodes: frozenset[str]) -> tuple[Op, ...]:
    mine = (node for name, node in cluster.nodes.items() if name in nodes)
    rules = (op for node in mine for op in host_ports.plan(cluster, node, module.plan(cluster, node)))
    checks = (op for op in health.plan(cluster) if op.netns.removeprefix("node/") in nodes)
    return (*rules, *checks)


@cache
def _modules() -> dict[str, ModuleType]:
    found = (import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__))
    return {module.NAME: module for module in found if hasattr(module, "NAME")}
