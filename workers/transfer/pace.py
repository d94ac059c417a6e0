"""How long the transfer's thread may look away: not at all while bytes move, and ever longer when nothing happens. Pure."""

from dataclasses import dataclass

MOVED_CPU_S = 20e-6
"""A look that found nothing to move costs 2 to 4 µs of processor time, on a busy machine one in a hundred 16; one that
moved bytes of a stream costs 50 and more."""
MOVED_FACTOR = 4
"""So many times what a quiet look costs here counts as movement, where that is more: there may be many peers to look at."""
QUIET_WEIGHT = 0.05
EAGER_LOOKS = 8
"""Through shared memory words are here after one or two, sooner than the shortest sleep ends."""
PAUSE_S_MIN = 20e-6
ACTIVE_PAUSE_S = 0.0002
WATCHFUL_PAUSE_S = 0.001
IDLE_PAUSE_S = 0.010


@dataclass(slots=True)
class Pace:
    """Backends do not say whether they moved bytes, and a sleep while there are more stops a TCP stream; but it shows in what
    a look costs."""

    pause_s: float = IDLE_PAUSE_S
    eager: int = 0
    """Looks to come without a pause, whatever they find."""
    quiet_cpu_s: float = 0.0
    """Moving average of looks after long pauses."""

    def expect(self) -> None:
        """Something was asked of the backend just now: the answer may come soon."""
        self.eager = EAGER_LOOKS

    def looked(self, cpu_s: float) -> None:
        """A look at the backend took so much processor time."""
        moved = cpu_s > max(MOVED_CPU_S, MOVED_FACTOR * self.quiet_cpu_s)
        if self.pause_s >= WATCHFUL_PAUSE_S:
            self.quiet_cpu_s += QUIET_WEIGHT * (cpu_s - self.quiet_cpu_s)
        if moved or self.eager:
            self.pause_s, self.eager = 0.0, max(0, self.eager - 1)
        else:
            self.pause_s = max(PAUSE_S_MIN, 2 * self.pause_s)

    def next_pause_s(self, *, reading: bool, watchful: bool) -> float:
        """`reading`: reads of ours are in flight; `watchful`: peers may read from us, or late reads may end."""
        if not (reading or watchful):
            self.pause_s, self.eager = IDLE_PAUSE_S, 0
        limit_s = ACTIVE_PAUSE_S if reading else WATCHFUL_PAUSE_S if watchful else IDLE_PAUSE_S
        self.pause_s = min(self.pause_s, limit_s)
        return self.pause_s
