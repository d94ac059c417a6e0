"""How long a request goes on asking: which workers said no, when to ask them again, and when to give up."""

from tercet.errors import NoWorkers, Overloaded, Unavailable
from tercet.ids import WorkerId

WAIT_S_MIN = 0.02
"""First delay before everybody is asked again; doubles up to `WAIT_S_MAX`."""
WAIT_S_MAX = 0.5
RETRY_AFTER_S = 1.0
"""What a client is told when no worker would take its request."""


class Patience:
    """Counts waits, not time: the sum of all delays without progress between them stays below `wait_s_max`."""

    def __init__(self, wait_s_max: float) -> None:
        self.avoid: set[WorkerId] = set()
        """Workers that said no since everybody was asked last."""
        self._wait_s_max = wait_s_max
        self._waits, self._waited_s, self._refused = 0, 0.0, False

    def refused_by(self, worker: WorkerId) -> None:
        """It has no room now."""
        self.avoid.add(worker)
        self._refused = True

    def wait_s(self) -> float | None:
        """Delay until everybody may be asked again; None when patience is at its end."""
        delay_s = min(WAIT_S_MAX, WAIT_S_MIN * 2.0 ** min(self._waits, 10))
        if self._waited_s + delay_s > self._wait_s_max:
            return None
        self._waits += 1
        self._waited_s += delay_s
        self.avoid.clear()
        return delay_s

    def progress(self) -> None:
        """A token came: what was waited for is over."""
        self._waits, self._waited_s, self._refused = 0, 0.0, False

    def complaint(self, reason: str) -> Unavailable:
        """What to tell the client at the end of patience: full workers, or none at all."""
        if self._refused:
            return Overloaded("every worker is full", RETRY_AFTER_S)
        return NoWorkers(reason, RETRY_AFTER_S)
