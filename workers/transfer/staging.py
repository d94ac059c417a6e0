"""Memory for packed blocks: slots of equal size with a generation word each, allocated once, read from or read into."""

from collections import deque
from collections.abc import Iterable

import numpy as np
import torch

from tercet.ids import BlockId
from tercet.workers.kv_pool import zeroed_pages
from tercet.workers.transfer.base import HOST, Memory, Words

SLOT_ALIGNMENT = 64


class Staging:
    """`packed` is uint8 `[slots, slot_bytes]`, of which a packed block fills the first `packed_bytes` of each row."""

    def __init__(self, slots: int, packed_bytes: int, device: torch.device) -> None:
        assert slots >= 1, slots
        self.slots, self.packed_bytes = slots, packed_bytes
        slot_bytes = aligned(packed_bytes)
        if device.type == "cpu":
            pages = zeroed_pages(slots * slot_bytes)
            flat = torch.frombuffer(pages, dtype=torch.uint8)[: slots * slot_bytes]
        else:
            flat = torch.zeros(slots * slot_bytes, dtype=torch.uint8, device=device)
        self.packed = flat.view(slots, slot_bytes)
        self.generations: Words = np.frombuffer(
            zeroed_pages(slots * 8), dtype=np.uint64, count=slots
        )

    @property
    def memory(self) -> Memory:
        """What a transfer registers; slots are its blocks."""
        device = self.packed.device
        return Memory(
            self.packed.data_ptr(),
            self.packed.shape[1],
            self.slots,
            int(self.generations.ctypes.data),
            HOST if device.type == "cpu" else device.index or 0,
        )


def aligned(packed_bytes: int) -> int:
    """What a slot takes for so many bytes."""
    return -(-packed_bytes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT


class Slots:
    """Slots that are kept until they are given back; the one that is free for longest is taken first."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._free = deque(map(BlockId, range(slots)))

    @property
    def kept(self) -> int:
        return self._slots - len(self._free)

    def take(self, count: int) -> tuple[BlockId, ...] | None:
        """Slots, as far as possible neighbours; None when there are not so many."""
        if count > len(self._free):
            return None
        return tuple(sorted(self._free.popleft() for _ in range(count)))

    def give_back(self, slots: Iterable[BlockId]) -> None:
        self._free.extend(slots)
