"""Tells the DNS server which names there are, and gives a new agent what the one before it held.

A DNS server takes names in while the holder goes on. An agent that dies soon again is told later and later; one that
dies of what it is told is left alone in the end, so that a lab outlives what kills its agents.
"""

from collections.abc import Callable, Sequence
from typing import Any

from netlab import dns
from netlab.errors import KernelError, NetlabError
from netlab.kernel.keeping import Keeping
from netlab.lab.agents import Agents
from netlab.lab.loop import Loop
from netlab.model import Cluster
from netlab.ops import Identity, Listener

RETRY_S = 1.0
MOST_DEATHS = 6
"""How often in a row an agent may die before it knows what it must. One that dies of something else is always told again."""

TOLD_ANEW = ("loader", "responder", "dns")


class Names:
    """What the DNS server of one lab was told; nothing as long as there is none."""

    def __init__(self, agents: Agents, log: Callable[[str], None]) -> None:
        self._agents, self._log = agents, log
        self._zone: dns.Zone | None = None

    def start(self) -> None:
        if self._zone is None:
            self._zone = dns.Zone()
            _ = self._agents.dns

    def restart(self) -> None:
        """Its process is another one, which knows nothing."""
        self._zone = dns.Zone()

    def tell(self, cluster: Cluster, early: bool = False) -> None:
        """Send what is new; `wait` waits until it is known.

        `early`: before anything is planned or made, and so without names for pods that are not there yet.
        """
        if self._zone is not None:
            zone = dns.zone(cluster, self._zone)
            if early:
                zone = dns.without_new_endpoints(self._zone, zone)
            if changes := dns.changes(self._zone, zone):
                self._agents.tell_dns(self._told, "update", changes)
            self._zone = zone

    def wait(self) -> None:
        if self._zone is not None:
            self._agents.wait_for_dns()

    def listen(self, wanted: Sequence[tuple[str, Listener]]) -> None:
        self.start()
        self._agents.tell_dns(self._told, "listen", wanted)

    def close(self, identities: Sequence[Identity]) -> None:
        self._agents.tell_dns(self._told, "close", identities)

    def _told(self, ok: bool, answer: Any) -> None:
        problems = [str(answer)] if not ok else answer if isinstance(answer, list) else []
        for problem in problems:
            self._log(problem)


class GivingAgain:
    """Gives new agents what those before them held: at once after a first death, later and later if it dies soon again.

    Nobody waits for the answer. While one agent is being told, its next death is only noted: nothing recurses.
    """

    def __init__(self, loop: Loop, tell: Callable[[str], None], log: Callable[[str], None]) -> None:
        self._loop, self._tell, self._log = loop, tell, log
        self._kept = {name: Keeping() for name in TOLD_ANEW}
        self._deaths = dict.fromkeys(TOLD_ANEW, 0)
        self._waits: set[str] = set()
        """Those that are being told, or for which a timer runs."""

    def restarted(self, name: str) -> None:
        """The agent has died, and another has been started in its place."""
        if name not in TOLD_ANEW:
            return self._log(f"the {name} process died")
        delay_s = self._kept[name].ended()
        self._kept[name].started()
        self._deaths[name] += 1
        self._log(f"the {name} process died and was started again")
        if name in self._waits:
            return None
        if self._deaths[name] <= MOST_DEATHS:
            return self._later(name, delay_s) if delay_s else self._give(name)
        return self._give_up(name)

    def _later(self, name: str, delay_s: float) -> None:
        self._waits.add(name)
        self._loop.after(delay_s, lambda: self._give(name))

    def _give(self, name: str) -> None:
        self._waits.add(name)
        try:
            self._tell(name)
        except NetlabError as error:
            if self._deaths[name] > MOST_DEATHS:
                return self._give_up(name)
            self._log(f"the new {name} process does not know all that it must, trying again in {RETRY_S:g} s: {error}")
            return self._later(name, RETRY_S)
        self._deaths[name] = 0  # what ends it now is something else
        return self._waits.discard(name)

    def _give_up(self, name: str) -> None:
        self._waits.discard(name)
        died = f"the {name} process died {self._deaths[name]} times in a row of what it must know, and is not told again"
        error = KernelError(f"{died}: what it does for the lab is missing; `netlab verify --repair` tries once more")
        self._log(str(error))
