"""What modes make on a node beside rules: ipvs a device with addresses, virtual servers and sysctls, userspace a proxy process.

Row group `services` loads and changes it together with the rules; the lab's own loaders do it.
"""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from netlab.kernel import agent
from netlab.kernel.virtual_servers import VirtualServers
from netlab.ops import DeviceAddress, Dummy, Op, Relay, Sysctl, VirtualServer

if TYPE_CHECKING:
    from netlab.kernel.apply import Kernel


class Beside:
    """Of one namespace; what it holds now is remembered, and only differences are made."""

    def __init__(self, kernel: "Kernel", netns: str) -> None:
        self._kernel, self._servers = kernel, VirtualServers()
        self._path = f"/proc/{os.getpid()}/fd/{kernel.fds[netns]}"
        self._ops: dict[tuple[str, ...], Op] = {}
        self._proxy: agent.Agent | None = None

    def make(self, ops: Sequence[Op]) -> None:
        """Hold these ops, and nothing else of their kinds."""
        wanted: dict[tuple[str, ...], Op] = {
            op.identity: op for op in ops if isinstance(op, Dummy | DeviceAddress | Sysctl | VirtualServer | Relay)
        }
        added = [op for identity, op in wanted.items() if self._ops.get(identity) != op]
        gone = [op for identity, op in self._ops.items() if identity not in wanted]
        plain = [[op for op in some if not isinstance(op, VirtualServer | Relay)] for some in (gone, added)]
        if plain[0] or plain[1]:
            self._kernel.apply(*plain)
        servers = [[op for op in some if isinstance(op, VirtualServer)] for some in (added, gone)]
        if servers[0] or servers[1]:
            self._servers.load([(self._path, servers[0], servers[1])])
        for op in added:
            if isinstance(op, Relay):
                self._relay().call("configure", op, False)
        self._ops = wanted

    def forget(self) -> None:
        """Hold nothing: the next `make` begins from nothing."""
        self.make([op for op in self._ops.values() if isinstance(op, Sysctl)])
        if self._proxy is not None:
            self._proxy.sock.close()
            self._proxy = None

    def _relay(self) -> agent.Agent:
        if self._proxy is None:
            from netlab.agents import relay

            path = self._path
            self._proxy = agent.spawn("proxy", lambda sock: relay.serve(sock, path))
        return self._proxy
