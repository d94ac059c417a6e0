"""The thread that packs what is published for readers that asked for it, so that neither the engine nor the event loop does."""

import threading
from collections.abc import Callable
from queue import SimpleQueue

from tercet.clock import Clock
from tercet.ids import BlockId
from tercet.workers.move import Pack, Packed, Unstage
from tercet.workers.transfer.packing import Packer
from tercet.workers.transfer.staging import Slots


class PackingThread:
    """Carries out `Pack` and `Unstage`, which come from one thread, the event loop; `deliver` and `crashed` are called on ours.

    An order that waits has its slots, so no more wait than there are slots.
    """

    def __init__(
        self,
        packer: Packer,
        deliver: Callable[[Packed], None],
        crashed: Callable[[BaseException], None],
        clock: Clock,
        name: str,
    ) -> None:
        self._packer = packer
        self._slots = Slots(packer.staging.slots)
        self._deliver = deliver
        self._crashed = crashed
        self._clock = clock
        self._orders: SimpleQueue[tuple[Pack, tuple[BlockId, ...]] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, name=f"packing {name}", daemon=True)

    @property
    def kept(self) -> int:
        """Slots that are kept for readers."""
        return self._slots.kept

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after what it was given. Idempotent; blocks so long."""
        self._orders.put(None)
        if self._thread.is_alive():
            self._thread.join()

    def pack(self, order: Pack) -> bool:
        """Answered by `Packed`, unless there is no room: then nothing happens."""
        slots = self._slots.take(len(order.blocks))
        if slots is not None:
            self._orders.put((order, slots))
        return slots is not None

    def unstage(self, command: Unstage) -> None:
        """Who reads these slots from now on finds other words as soon as something else is packed there."""
        self._slots.give_back(command.slots)

    def _main(self) -> None:
        try:
            while (given := self._orders.get()) is not None:
                self._deliver(self._pack(*given))
        except BaseException as exc:
            self._crashed(exc)

    def _pack(self, order: Pack, slots: tuple[BlockId, ...]) -> Packed:
        began_s = self._clock.now_s()
        words = self._packer.pack(slots, order.blocks, order.generations, order.codec)
        taken_s = self._clock.now_s() - began_s
        return Packed(order.request, order.epoch, order.number, slots, words or (), taken_s)
