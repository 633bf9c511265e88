"""Lets go of pods that are ending (ending.py): when their last connection is over, when their time is up, or when others need
their place. The responder knows which connections are open.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from netlab import plan
from netlab.errors import NetlabError
from netlab.lab.ending import Ending
from netlab.model import Cluster
from netlab.ops import Identity

if TYPE_CHECKING:
    from netlab.lab.holder import Lab

ENDING_S = 0.05
"""How often it is asked whether connections of pods that are gone are over."""

RETRY_S = 1.0


class LettingGo:
    """Of one lab. `ending` is who is not gone yet; the lab's cluster and its plan say the same."""

    def __init__(self, lab: "Lab") -> None:
        self._lab = lab
        self.ending = Ending()
        self._looks = False
        self._draining: Sequence[str] = ()
        """Where connections of closed listeners are open, as the responder said last."""

    def close(self, identities: Sequence[tuple[str, Identity]]) -> None:
        """Close these listeners (namespace, identity) of the responder's: gently where the pod is ending."""
        for gently in (True, False):
            if closed := [identity for netns, identity in identities if (netns in self.ending) is gently]:
                self._draining = self._lab.agents.call("responder", "close", closed, gently)

    def make_way(self, cluster: Cluster) -> None:
        """For what this cluster wants."""
        self._let_go(self.ending.in_the_way(cluster))

    def look(self) -> None:
        """Let go of those whose last connection is over, now and again later."""
        if self.ending:
            self._let_go(self.ending.over(self._draining, self._lab.loop.now()))
        self._look_later(ENDING_S)

    def _look_later(self, delay_s: float) -> None:
        if self.ending and not self._looks:
            self._looks = True
            self._lab.loop.after(delay_s, self._look_again)

    def _look_again(self) -> None:
        self._looks = False
        if not self.ending:
            return
        try:
            self._draining = self._lab.agents.call("responder", "draining")
            self.look()
        except NetlabError as error:  # nobody waits for the answer, and the lab goes on
            self._lab.log(f"pods that are gone were not let go of, trying again in {RETRY_S:g} s: {error}")
            self._look_later(RETRY_S)

    def _let_go(self, over: Sequence[str]) -> None:
        """Cut what is left of these pods, and remove their namespaces. Raises NetlabError: then they are ending still."""
        if not over:
            return
        if busy := [netns for netns in over if netns in self._draining]:
            self._lab.agents.call("responder", "cut", busy)
        ending = self.ending.without(over)
        new = ending.keep(self._lab.bare)
        difference = plan.diff(self._lab.plan, new)
        self._lab.kernel.apply(difference.removed, difference.added)  # links and what is on them: nothing else was kept
        self.ending, self._lab.plan = ending, new
        self._lab.cluster = self._lab.cluster.with_(ending=ending.pods)
