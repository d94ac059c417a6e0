"""Copies between a GPU and pinned host memory while the GPU computes: a stream for each direction, an event for each order.

The stream that computes never waits for a copy: steps that read what was fetched, or write where something was saved, are launched
after the host has seen the event. A copy waits for the steps that were launched before it: not every runner has the host wait for
a step's end, and its blocks may have been given away by then. The two directions never touch the same block, on either side.
"""

from collections import deque
from weakref import finalize

import torch

from tercet.errors import ModelUnsupported
from tercet.workers.host_tier.copies import Copies, Direction
from tercet.workers.kv_pool import KvPool


class StreamCopier:
    """See `Copier`."""

    def __init__(self, kv: KvPool, host: KvPool) -> None:
        assert kv.geometry == host.geometry, (kv.geometry, host.geometry)
        self._device, self._host = kv.tensor, host.tensor
        pin(self._host)
        unpin = torch.cuda.cudart().cudaHostUnregister  # type: ignore[no-untyped-call]
        finalize(self, unpin, self._host.data_ptr()).atexit = False
        self._streams = {way: torch.cuda.Stream(kv.device) for way in Direction}  # type: ignore[no-untyped-call]
        self._under_way: dict[Direction, deque[tuple[int, torch.cuda.Event]]] = {
            way: deque() for way in Direction
        }

    def submit(self, copies: Copies) -> None:
        stream = self._streams[copies.direction]
        stream.wait_stream(torch.cuda.current_stream(self._device.device))
        with torch.cuda.stream(stream):
            for block, slot, length in copies.spans:
                device = self._device[block : block + length]
                host = self._host[slot : slot + length]
                if copies.direction is Direction.SAVE:
                    host.copy_(device, non_blocking=True)
                else:
                    device.copy_(host, non_blocking=True)
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(stream)
        self._under_way[copies.direction].append((copies.number, event))

    def done(self) -> list[int]:
        done: list[int] = []
        for orders in self._under_way.values():
            while orders and orders[0][1].query():  # type: ignore[no-untyped-call]
                done.append(orders.popleft()[0])
        return done

    def wait(self) -> None:
        """For a fetch before a save: somebody waits for that."""
        for way in (Direction.FETCH, Direction.SAVE):
            if self._under_way[way]:
                self._under_way[way][0][1].synchronize()
                return


def pin(host: torch.Tensor) -> None:
    """Keep this memory where it is, so that a device copies while nobody waits. Raises ModelUnsupported.

    Registered, not allocated pinned: torch's allocator would round the size up to a power of two.
    """
    error = torch.cuda.cudart().cudaHostRegister(host.data_ptr(), host.nbytes, 0)  # type: ignore[no-untyped-call]
    if int(error) != 0:
        raise ModelUnsupported(
            f"{host.nbytes / 2**30:.1f} GiB of host memory cannot be pinned (CUDA error"
            f" {int(error)}): set a smaller engine.host_kv_blocks, or a larger limit of locked memory"
        )
