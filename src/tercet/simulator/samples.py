"""The state of a simulated cluster, looked at again and again: at most `SAMPLES_MAX` times, however long it runs."""

from array import array
from collections.abc import Callable, Sequence

from tercet.simulator.timeline import Alarm, Timeline

SAMPLES_MAX = 500
PERIOD_S = 1.0 / 16.0
"""At first; doubled whenever there would be too many samples, and every other one is forgotten."""

Look = Callable[[], Sequence[float]]
"""The same number of numbers each time."""


class Samples:
    """`times_s`, and a row of what was seen for each."""

    def __init__(self, timeline: Timeline, look: Look) -> None:
        self._timeline, self._look = timeline, look
        self._period_s = PERIOD_S
        self._alarm: Alarm | None = None
        self.times_s = array("d")
        self.rows: list[array[float]] = []

    def start(self) -> None:
        self._sample()
        self._alarm = self._timeline.call_later(self._period_s, self._tick)

    def stop(self) -> None:
        """Look a last time."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._timeline.now_s() > self.times_s[-1]:
            self._sample()

    def column(self, number: int) -> list[float]:
        return [row[number] for row in self.rows]

    def _tick(self) -> None:
        self._sample()
        if len(self.rows) >= SAMPLES_MAX - 1:
            self.times_s, self.rows = self.times_s[::2], self.rows[::2]
            self._period_s *= 2
        self._alarm = self._timeline.call_later(self._period_s, self._tick)

    def _sample(self) -> None:
        self.times_s.append(self._timeline.now_s())
        self.rows.append(array("d", self._look()))
