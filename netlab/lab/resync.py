"""The periodic sync of mode ipvs: what someone else changed in a node's proxy is put right, without being asked.

As kube-proxy's syncPeriod does (30 s). Decides which differences are the proxy's: rules, sets, virtual servers, the device
kube-ipvs0 and its addresses, IPVS's sysctls. All others are left to `netlab verify`. Reads in a worker, mends in the holder.
"""

from typing import TYPE_CHECKING, Any

from netlab.lab import verifying
from netlab.ops import Dummy
from netlab.plan import Plan

if TYPE_CHECKING:
    from netlab.lab.holder import Lab


class Resync:
    """Of one lab, from now on."""

    def __init__(self, lab: "Lab", period_s: float) -> None:
        self._lab, self._period_s = lab, period_s
        self._again()

    def _again(self) -> None:
        self._lab.loop.after(self._period_s, self._look)

    def _look(self) -> None:
        nodes = {f"node/{name}" for name in self._lab.cluster.nodes}
        paths = {netns: self._lab.netns_path(netns) for netns in self._lab.kernel.fds if netns in nodes}
        own = Plan({identity: op for identity, op in self._lab.plan.ops.items() if len(identity) > 1 and identity[1] in nodes})
        self._lab.agents.work(self._found, "verify", paths, own)

    def _found(self, ok: bool, answer: Any) -> None:
        self._again()
        if not ok:
            return self._lab.log(f"the periodic sync could not look: {answer}")
        devices = {op.device for op in self._lab.plan.ops.values() if isinstance(op, Dummy)}
        mine = [(sentence, identity) for sentence, identity in answer if identity is not None and _is_proxys(identity, devices)]
        for sentence, _ in mine[:20]:
            self._lab.log(f"the periodic sync mends: {sentence}")
        if mine:
            verifying.repair_or_log(self._lab, list(dict.fromkeys(identity for _, identity in mine)))
        return None


def _is_proxys(identity: tuple[str, ...], devices: set[str]) -> bool:
    match identity:
        case ("ruleset" | "virtual-server", *_):
            return True
        case ("sysctl", _, key):
            return key.startswith("net/ipv4/vs/")
        case ("link" | "address", _, device, *_):
            return device in devices
        case _:
            return False
