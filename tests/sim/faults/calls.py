"""Calls over Ray: to an actor and back. None is lost as long as both ends live, but any may be late."""

from collections.abc import Callable

from faults.process import Process
from tercet.errors import PeerLost


class Call:
    """One call, until it is answered or one of its ends is gone. Made and awaited on the caller's loop."""

    def __init__(self, caller: Process, open_calls: "dict[Call, None]") -> None:
        self._caller = caller
        self._open = open_calls
        self.future = caller.loop.create_future()
        open_calls[self] = None

    def answer(self, value: object = None) -> None:
        self._end(self._returns_s(), self._settle, value)

    def refuse(self, error: Exception) -> None:
        self._end(self._returns_s(), self._fail, error)

    def lose(self, who: object, notices_s: float) -> None:
        """The other end is gone."""
        self._end(notices_s, self._fail, PeerLost(f"{who} is gone"))

    def _returns_s(self) -> float:
        return self._caller.network.chaos.returns_s()

    def _end(self, delay_s: float, how: Callable[..., None], what: object) -> None:
        if self._open.pop(self, self) is None:
            self._caller.loop.call_later(delay_s, how, what)

    def _settle(self, value: object) -> None:
        if not self.future.done():
            self.future.set_result(value)

    def _fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)
