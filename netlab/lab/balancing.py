"""Mode ipvs in a lab: virtual servers are given to the loader, and real servers that leave are asked after until they are gone.

Decides when. Refuses to know how a virtual server is loaded (kernel/virtual_servers.py); the periodic sync is in resync.py.
"""

from collections.abc import Callable, Iterable
from typing import Any

from netlab.lab.agents import Agents
from netlab.lab.loop import Loop
from netlab.ops import VirtualServer

SWEEP_S = 1.0
"""kube-proxy looks once a minute; a lab is watched by someone who waits."""


class Balancing:
    """The virtual servers of one lab."""

    def __init__(self, loop: Loop, agents: Agents, path_of: Callable[[str], str], log: Callable[[str], None]) -> None:
        self._loop, self._agents, self._path_of, self._log = loop, agents, path_of, log
        self._sweeping = False

    def load(self, wanted: Iterable[VirtualServer]) -> None:
        """Make them, or make them so."""
        self._tell(wanted, ())

    def unload(self, gone: Iterable[VirtualServer]) -> None:
        self._tell((), gone)

    def _tell(self, wanted: Iterable[VirtualServer], gone: Iterable[VirtualServer]) -> None:
        todo: dict[str, tuple[list[VirtualServer], list[VirtualServer]]] = {}
        for at, some in enumerate((wanted, gone)):
            for op in some:
                todo.setdefault(op.netns, ([], []))[at].append(op)
        if todo:
            rows = [(self._path_of(netns), *both) for netns, both in todo.items()]
            self._swept(True, self._agents.call("loader", "virtual_servers", rows))

    def _sweep(self) -> None:
        self._sweeping = False
        self._agents.loader.request(self._swept, "sweep")

    def _swept(self, ok: bool, leaving: Any) -> None:
        """Look again while a real server is leaving."""
        if not ok:
            self._log(f"real servers that leave were not looked after: {leaving}")
        elif leaving and not self._sweeping:
            self._sweeping = True
            self._loop.after(SWEEP_S, self._sweep)
