"""Copies at once, from one pool in host memory to another: for workers without a device."""

from tercet.workers.host_tier.copies import Copies, Direction
from tercet.workers.kv_pool import KvPool


class PlainCopier:
    """See `Copier`."""

    def __init__(self, kv: KvPool, host: KvPool) -> None:
        assert kv.geometry == host.geometry, (kv.geometry, host.geometry)
        self._device, self._host = kv.tensor, host.tensor
        self._done: list[int] = []

    def submit(self, copies: Copies) -> None:
        for block, slot, length in copies.spans:
            device, host = self._device[block : block + length], self._host[slot : slot + length]
            if copies.direction is Direction.SAVE:
                host.copy_(device)
            else:
                device.copy_(host)
        self._done.append(copies.number)

    def done(self) -> list[int]:
        done, self._done = self._done, []
        return done

    def wait(self) -> None:
        pass
