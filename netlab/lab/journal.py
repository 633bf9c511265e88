"""The holder's own change notifications: what happened last, and who wants to hear of what happens next.

Costs nothing to speak of while nobody listens: objects are compared by identity, rules are counted for listeners only. Kernel
events are not its business: whoever follows a lab listens to the kernel himself (cli/following.py), so that no burst of
connections ever passes through the holder.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from netlab.lab import changes
from netlab.model import Cluster
from netlab.plan import Diff

REMEMBERED = 500
Event = dict[str, Any]
Push = Callable[[Event], None]


class Journal:
    """Events of one lab."""

    def __init__(self) -> None:
        self._recent: deque[Event] = deque(maxlen=REMEMBERED)
        self._listeners: list[Push] = []

    def recent(self, count: int) -> list[Event]:
        """The last events, oldest first."""
        return list(self._recent)[-count:] if count > 0 else []

    def follow(self, push: Push) -> Callable[[], None]:
        """Call `push` with every event from now on; the answer ends it."""
        self._listeners.append(push)

        def stop() -> None:
            if push in self._listeners:
                self._listeners.remove(push)

        return stop

    def changed(self, before: Cluster, after: Cluster) -> None:
        self._tell(changes.changes(before, after))

    def loaded(self, difference: Diff, took_s: float) -> None:
        """Rules have been loaded."""
        if self._listeners:
            self._tell(changes.rules(difference, took_s))

    def judged(self, verb: str, results: Iterable[Any]) -> None:
        """A probe, a matrix or an explanation has its verdict."""
        if self._listeners:
            self._tell(_verdict(verb, one) for one in results)

    def lab(self, text: str) -> None:
        """Something that the lab's log says as well."""
        self._tell([{"type": "lab", "action": "log", "text": text}])

    def _tell(self, events: Iterable[Event]) -> None:
        now = time.time()
        for event in events:
            stamped = {"at": now, **event}
            self._recent.append(stamped)
            for push in tuple(self._listeners):
                push(stamped)


def _verdict(verb: str, result: Any) -> Event:
    outcomes = result.get("outcomes") or {result["outcome"]: 1}
    seen = ", ".join(f"{number} {word}" for word, number in outcomes.items() if number)
    event = {"type": "probe", "action": verb, "from": result["from"], "to": result["to"], "verdict": result["verdict"]}
    text = f"{verb} {result['from']} -> {result['to']}: {seen}, {result['verdict']}"
    return {**event, "outcomes": dict(outcomes), "text": text + (f": {result['why'][0]}" if result["why"] else "")}
