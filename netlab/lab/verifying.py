"""`verify`: how the kernel differs from the plan, and mending it. Reads the kernel back; never trusts what was remembered.

What was repaired is what a second reading no longer finds: an op that was made again is no proof. Some of it takes a moment (a
daemon that starts, routes that are learned), so it reads again until nothing is left or SETTLING_S have passed. Where nothing of
that kind is left and nothing new can be tried, QUIET_S without a change are enough: the kernel tells of links within a second.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from netlab import plan
from netlab.errors import NetlabError
from netlab.kernel.features import has_sctp
from netlab.lab.bodies import Body, Later
from netlab.lab.holder import Lab
from netlab.model import Protocol
from netlab.ops import Announcement, Daemon, Identity, IngressProxy, Learned, Listener, Process, Relay, Ruleset, VirtualServer

Drift = list[tuple[str, Identity | None]]
SETTLING_S, QUIET_S = 8.0, 1.5
PAUSE_S = 0.25
SETTLING = Daemon | Learned | Process | Relay | IngressProxy | Announcement
"""What programs do, in their own time."""


def verify(lab: Lab, body: Body, later: Later) -> None:
    """{"repair": bool} -> {"drift": [sentence], "repaired": n, "left": [sentence]}: what was found, mended, and differs still."""

    def found(drift: Drift) -> None:
        if not (body.get("repair") and drift):
            return later(True, document(drift, drift))
        repairing = Repairing(lab, drift, later)
        repairing.mend(drift)
        return repairing.read()

    _read(lab, found, later)


@dataclass(slots=True)
class Repairing:
    """A repair under way: reads until nothing is left, or nothing changes any more, or for SETTLING_S.

    What comes to light only then (the routes of a link that was made again) is repaired, too.
    """

    lab: Lab
    first: Drift
    later: Later
    tried: set[Identity] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    last: frozenset[tuple[str, Identity | None]] = frozenset()
    begun: float = field(init=False)
    changed: float = field(init=False)
    """When a reading was another than the one before, or something was tried."""

    def __post_init__(self) -> None:
        self.begun = self.changed = self.lab.loop.now()

    def mend(self, drift: Drift) -> None:
        new = [identity for identity in _identities(drift) if identity not in self.tried]
        if not new:
            return
        self.tried |= {*new}
        try:
            repair(self.lab, new)
        except NetlabError:
            self._one_by_one(new)
        self.changed = self.lab.loop.now()

    def _one_by_one(self, identities: Sequence[Identity]) -> None:
        """What cannot be mended must not keep the rest from it: what is too much first, then what is missing in making order."""
        order = {identity: at for at, identity in enumerate(self.lab.plan.ops)}
        for identity in sorted(identities, key=lambda one: order.get(one, -1)):
            try:
                repair(self.lab, [identity])
            except NetlabError as error:
                self.refused.append(f"cannot be mended: {error}")

    def read(self) -> None:
        _read(self.lab, self._found, self.later)

    def _found(self, drift: Drift) -> None:
        now = self.lab.loop.now()
        if frozenset(drift) != self.last:
            self.last, self.changed = frozenset(drift), now
        still = now >= self.changed + QUIET_S and self.tried.issuperset(_identities(drift)) and not self._settles(drift)
        if not drift or still or now >= self.begun + SETTLING_S:
            return self.later(True, document(self.first, drift, self.refused))
        self.mend(drift)
        return self.lab.loop.after(PAUSE_S, self.read)

    def _settles(self, drift: Drift) -> bool:
        """Whether some of it may go by itself. What was not learned has no identity."""
        ops = self.lab.plan.ops
        learning = any(isinstance(op, Learned) for op in ops.values())
        return any(learning if identity is None else isinstance(ops.get(identity), SETTLING) for _, identity in drift)


def document(first: Drift, last: Drift, refused: Sequence[str] = ()) -> dict[str, Any]:
    """The answer, from the first reading and the last one: repaired is what the last one no longer says. `refused`: why not."""
    drift, left = [sentence for sentence, _ in first], [sentence for sentence, _ in last]
    return {"drift": drift, "repaired": sum(one not in left for one in drift), "left": [*left, *(refused if left else ())]}


def _read(lab: Lab, found: Callable[[Drift], None], later: Later) -> None:
    def read(ok: bool, answer: Any) -> None:
        if not ok:
            return later(False, answer)
        return found(answer + _listener_drift(lab) + lab.relays.drift() + lab.ingresses.drift() + lab.speaking.drift())

    paths = {netns: lab.netns_path(netns) for netns in lab.kernel.fds}
    lab.agents.work(read, "verify", paths, lab.plan)


def _identities(drift: Drift) -> list[Identity]:
    return list(dict.fromkeys(identity for _, identity in drift if identity is not None))


def _listener_drift(lab: Lab) -> Drift:
    servers: tuple[Literal["responder", "dns"], ...] = ("responder", "dns") if "dns" in lab.agents.pids() else ("responder",)
    open_now = {tuple(identity) for server in servers for identity in lab.agents.call(server, "listening")}
    return [
        (f"{op.netns}: nothing listens on {op.protocol} port {op.port}", op.identity)
        for op in lab.plan.ops.values()
        if isinstance(op, Listener) and op.identity not in open_now and (op.protocol is not Protocol.SCTP or has_sctp())
    ]


def repair(lab: Lab, identities: Sequence[Identity]) -> None:
    """Make the named ops again, whatever the kernel holds in their place."""
    wanted = [lab.plan.ops[identity] for identity in dict.fromkeys(identities) if identity in lab.plan.ops]
    extra = [identity for identity in identities if identity not in lab.plan.ops]
    others = Ruleset | VirtualServer | Listener | Process | Relay | Daemon | Announcement
    lab.kernel.repair([op for op in wanted if not isinstance(op, others | IngressProxy)], extra)
    lab.ingresses.repair(op for op in wanted if isinstance(op, IngressProxy))
    lab.apply(plan.Diff((), tuple(op for op in wanted if isinstance(op, others)), ()))


def repair_or_log(lab: Lab, identities: Sequence[Identity]) -> None:
    """As `repair`, where nobody waits for the answer."""
    try:
        repair(lab, identities)
    except NetlabError as error:
        lab.log(f"cannot be mended: {error}")
