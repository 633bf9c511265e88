"""Options of `cluster.proxy` that the mode in force does not know: kube-proxy ignores them in silence, netlab says so.

Decides only which option belongs to which modes. A warning and no error: one topology may serve several modes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from netlab.errors import Problem
from netlab.manifest.documents import read_documents
from netlab.manifest.problems import Place, Report, field_path, steps, written
from netlab.manifest.source import Source
from netlab.model import ProxyConfig, mode_of

_RULES = ("iptables", "ipvs", "nftables")
KNOWN_IN: dict[str, tuple[str, ...]] = {
    "backend": ("iptables", "ipvs", "userspace"),
    "layout": ("nftables",),
    "masqueradeAll": _RULES,
    "detectLocal": _RULES,
    "bridgeInterface": _RULES,
    "interfaceNamePrefix": _RULES,
    "nodePortAddresses": _RULES,
    "localhostNodePorts": ("iptables",),
    "scheduler": ("ipvs",),
    "strictARP": ("ipvs",),
    "syncPeriod": ("ipvs",),
}
"""The modes that look at an option; one that is not here is for all."""
_ABSENT: dict[str, Any] = {"masqueradeAll": False, "localhostNodePorts": False, "strictARP": False, "nodePortAddresses": []}
"""Values that ask for nothing: true in every mode."""
_DETECTORS = {"bridgeInterface": "BridgeInterface", "interfaceNamePrefix": "InterfaceNamePrefix"}


def unused_options(source: Source, configs: Sequence[ProxyConfig]) -> tuple[str, ...]:
    """A warning, `file:line:column: field: message`, for each option of a good topology file that none of these settings uses.

    `configs`: what the file says, in each mode that it is to run in.
    """
    report = Report()
    found = []
    for document in read_documents(source)[:1]:
        proxy: Place = ((document, "cluster"), "proxy")
        for place, message in _unused(proxy, configs):
            file, line, column = report.where(place, key=True)
            found.append(str(Problem(message, field_path(steps(place)[1]), file, line, column)))
    return tuple(found)


def _unused(proxy: Place, configs: Sequence[ProxyConfig]) -> Iterator[tuple[Place, str]]:
    given = written(proxy)
    modes = tuple(dict.fromkeys(mode_of(config.mode) for config in configs))
    for key, value in given.items() if isinstance(given, dict) else ():
        known = KNOWN_IN.get(key, modes)
        wanted = _DETECTORS.get(key)
        if value is None or value == _ABSENT.get(key):
            continue
        if not set(known) & set(modes):
            yield (proxy, key), f"has no effect in mode {' or '.join(modes)}, only in {', '.join(known)}"
        elif wanted and all(config.detect_local != wanted for config in configs):
            yield (proxy, key), f"has no effect without detectLocal: {wanted}"
        elif key == "layout" and all(config.layout != value for config in configs):
            yield (proxy, key), "`--proxy nftables-chains` is layout chains, `--proxy nftables-maps` is layout maps"
