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
        slot_bytes = -(-packed_bytes // SLOT_ALIGNMENT) * SLOT_ALIGNMENT
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


class Ring:
    """Slots given out for ever, oldest first. A slot's word rises before it is given again, so readers that are too late
    notice."""

    def __init__(self, generations: Words) -> None:
        self._generations = generations
        self._next = 0

    def take(self, count: int) -> list[int]:
        slots = len(self._generations)
        assert 0 < count <= slots, f"{count=} {slots=}"
        taken = [(self._next + i) % slots for i in range(count)]
        self._next = (self._next + count) % slots
        self._generations[taken] += np.uint64(1)
        return taken


class Slots:
    """Slots that are kept until they are given back."""

    def __init__(self, slots: int) -> None:
        self._free = deque(map(BlockId, range(slots)))

    def __len__(self) -> int:
        return len(self._free)

    def take(self, count: int) -> tuple[BlockId, ...] | None:
        """Slots, as far as possible neighbours; None when there are not so many."""
        if count > len(self._free):
            return None
        return tuple(sorted(self._free.popleft() for _ in range(count)))

    def give_back(self, slots: Iterable[BlockId]) -> None:
        self._free.extend(slots)
