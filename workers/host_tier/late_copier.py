"""A copier that is as late as can be: an order is carried out when somebody waits for it, and not before.

For tests of everything that goes on while copies are under way. Around a `ToyRunner`, a block that was given away too early,
or found before its content was there, changes the output.
"""

from collections import deque

from tercet.workers.host_tier.copies import Copier, Copies


class LateCopier:
    """Copies with another one, and no later than when `done` has been asked so many times. See `Copier`."""

    def __init__(self, copier: Copier, asked_max: int) -> None:
        self._copier, self._asked_max = copier, asked_max
        self._submitted: deque[Copies] = deque()
        self._asked = 0

    def submit(self, copies: Copies) -> None:
        self._submitted.append(copies)

    def done(self) -> list[int]:
        self._asked += 1
        if self._asked >= self._asked_max:
            self.wait()
        return self._copier.done()

    def wait(self) -> None:
        self._asked = 0
        if self._submitted:
            self._copier.submit(self._submitted.popleft())
