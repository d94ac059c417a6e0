"""A copier that is as late as can be: an order is carried out when somebody waits for it, and not before.

For tests of everything that goes on while copies are under way. Around a `ToyRunner`, a block that was given away too early,
or found before its content was there, changes the output.
"""

from collections import deque

from tercet.workers.host_tier.copies import Copier, Copies


class LateCopier:
    """Copies with another one. See `Copier`."""

    def __init__(self, copier: Copier) -> None:
        self._copier = copier
        self._submitted: deque[Copies] = deque()

    def submit(self, copies: Copies) -> None:
        self._submitted.append(copies)

    def done(self) -> list[int]:
        return self._copier.done()

    def wait(self) -> None:
        if self._submitted:
            self._copier.submit(self._submitted.popleft())
