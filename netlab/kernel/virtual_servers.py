"""The loader of virtual servers, and the memory of those real servers that are leaving.

Runs in a child of the holder. Decides when a leaving real server goes: with its last connection, or after a quarter of an hour.
Refuses to know how a virtual server is said to the kernel (ipvs.py).
"""

import time
from collections.abc import Callable, Sequence

from netlab.errors import KernelError
from netlab.kernel import ipvs
from netlab.kernel.ipvs import Service, Target
from netlab.kernel.rules import opened
from netlab.ops import VirtualServer

DEADLINE_S = 900.0
"""kube-proxy's first graceful removal had this limit (rsGracefulDeletePeriod); today's waits without one."""
Todo = Sequence[tuple[str, Sequence[VirtualServer], Sequence[VirtualServer]]]
"""Of each namespace, by the path that opens it: what to make or change, and what to delete."""


class VirtualServers:
    """Keeps, for each namespace and virtual server, since when which real servers have been leaving."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._leaving: dict[tuple[str, Service], dict[Target, float]] = {}

    def load(self, todo: Todo) -> int:
        """Make and delete; how many real servers are leaving. Raises KernelError with every refusal, when all was tried."""
        failures: list[str] = []
        for path, wanted, gone in todo:
            try:
                with opened(path) as fd, ipvs.Table(fd) as table:
                    leaving = table.make(wanted)
                    table.delete(ipvs.service_of(op) for op in gone)
            except KernelError as error:
                failures.append(str(error))
                continue
            for op in (*wanted, *gone):
                service = ipvs.service_of(op)
                known = self._leaving.pop((path, service), {})
                if service in leaving:
                    now = self._clock()
                    self._leaving[path, service] = {target: known.get(target, now) for target in leaving[service]}
        if failures:
            raise KernelError("\n".join(failures))
        return self.leaving

    @property
    def leaving(self) -> int:
        """How many real servers are leaving."""
        return sum(map(len, self._leaving.values()))

    def sweep(self) -> int:
        """Let those go that may; how many are still leaving."""
        now = self._clock()
        for (path, service), targets in list(self._leaving.items()):
            late = {target for target, since in targets.items() if now - since > DEADLINE_S}
            try:
                with opened(path) as fd, ipvs.Table(fd) as table:
                    table.let_go(service, late, at_once=True)
                    staying = table.let_go(service, set(targets) - late, at_once=False)
            except KernelError:  # the namespace has gone, and all of it
                staying = set()
            if staying:
                self._leaving[path, service] = {target: targets[target] for target in staying}
            else:
                del self._leaving[path, service]
        return self.leaving
