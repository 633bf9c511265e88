"""How many answers of a probe make it turn: the kubelet's successThreshold and failureThreshold, as a value of its own."""

from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class Counts:
    """`up`: what the probe says now. `was_up`: it said so once, since the container started."""

    success_threshold: int
    failure_threshold: int
    up: bool = False
    was_up: bool = False
    successes: int = 0
    failures: int = 0
    counted_at: float | None = None

    def is_time(self, now: float, period_s: float) -> bool:
        """Whether a failure now is one that the manifest has asked for; the first is."""
        if self.counted_at is not None and now < self.counted_at + period_s:
            return False
        self.counted_at = now
        return True

    def took(self, success: bool, early: bool = False) -> Literal["", "up", "down"]:
        """Take one answer in. `up` or `down` where the probe turns; a threshold of failures says `down` each time it is met.

        `early`: asked before its time, so that a failure does not count.
        """
        if success:
            self.successes, self.failures = self.successes + 1, 0
            if self.successes < self.success_threshold or (self.up and self.was_up):
                return ""
            self.up = self.was_up = True
            return "up"
        self.successes = 0
        if early:
            return ""
        self.failures += 1
        if self.failures < self.failure_threshold:
            return ""
        self.failures, self.up = 0, False
        return "down"
