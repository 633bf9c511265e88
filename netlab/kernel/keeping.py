"""How soon a program that ended is started again: at once, and if it ends again soon, after a delay that doubles.

For whatever keeps a real program alive: daemons (lab/daemons.py), the proxies of Ingress controllers (agents/ingress.py).
"""

import time
from dataclasses import dataclass

FIRST_DELAY_S, LONGEST_DELAY_S, STEADY_S = 0.1, 5.0, 10.0


@dataclass(slots=True)
class Keeping:
    """The starts of one program."""

    restarts: int = 0
    _delay_s: float = 0.0
    _started: float = 0.0

    def started(self) -> None:
        self._started = time.monotonic()

    def ended(self) -> float:
        """The program has ended by itself: seconds until it shall be started again."""
        if time.monotonic() - self._started > STEADY_S:
            self._delay_s = 0.0
        self.restarts += 1
        delay_s = self._delay_s
        self._delay_s = min(max(2 * delay_s, FIRST_DELAY_S), LONGEST_DELAY_S)
        return delay_s
