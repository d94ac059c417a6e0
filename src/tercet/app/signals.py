"""SIGINT and SIGTERM as one exception, raised once: what is being taken down is not disturbed by a second Ctrl-C."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Asked(BaseException):
    """This process was asked to stop. Not an `Exception`: nobody may mistake it for a failure of what was under way."""


class StopSignals:
    """The handlers of this process."""

    def __init__(self) -> None:
        self._raised = False

    def listen(self) -> None:
        """Put the handlers in place; again after somebody else, such as `ray.init`, has put theirs."""
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if not self._raised:
            self._raised = True
            raise Asked(signal.Signals(number).name)


@contextmanager
def asked_to_stop() -> Iterator[StopSignals]:
    """While the context lasts, SIGINT and SIGTERM raise `Asked` in the main thread; before and after, what did."""
    former = [signal.getsignal(number) for number in SIGNALS]
    signals = StopSignals()
    signals.listen()
    try:
        yield signals
    finally:
        for number, handler in zip(SIGNALS, former, strict=True):
            signal.signal(number, handler)
