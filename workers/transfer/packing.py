"""Packing published blocks into memory that peers read, and unpacking what was read into blocks of our own."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from tercet.ids import BlockId
from tercet.kernels.kv_codec import best_kv_codec
from tercet.kernels.packed_kv import Codes, packed_bytes
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.transfer.base import Memory
from tercet.workers.transfer.codec_choice import Codec, Profile
from tercet.workers.transfer.staging import Slots, Staging, aligned

CODES = {Codec.FP8: Codes.FP8, Codec.INT8: Codes.INT8}
PROFILE_BLOCKS = 4
PROFILE_ROUNDS = 5


class Packer:
    """The source's side. One thread at a time may call it; who keeps which slot is its caller's business."""

    def __init__(self, kv: KvPool, slots: int) -> None:
        self._kv, self._kernel = kv, best_kv_codec(kv.device, kv.geometry.dtype)
        self.staging = _staging(kv, slots)

    def pack(
        self,
        slots: Sequence[BlockId],
        blocks: Sequence[BlockId],
        generations: Sequence[int],
        codec: Codec,
    ) -> tuple[int, ...] | None:
        """Pack blocks that were published under these words, `blocks[i]` into `slots[i]`; None if any was reused meanwhile.

        Returns the slots' words. They rise before anything is written, so whoever still reads what lay there notices.
        """
        assert len(slots) == len(blocks) == len(generations), (slots, blocks, generations)
        self.staging.generations[list(slots)] += np.uint64(1)
        done = 0
        for first, count in _runs(slots):
            rows = self.staging.packed[first : first + count, : self.staging.packed_bytes]
            chosen = _numbers(blocks[done : done + count], self._kv.device)
            self._kernel.pack(_pages(self._kv), chosen, rows, CODES[codec])
            done += count
        _wait(self._kv.device)
        if (self._kv.generations[list(blocks)] != np.array(generations, dtype=np.uint64)).any():
            return None
        return tuple(self.staging.generations[list(slots)].tolist())


class Unpacker:
    """The destination's side: a `Decoder`."""

    def __init__(self, kv: KvPool, slots: int) -> None:
        self._kv, self._kernel = kv, best_kv_codec(kv.device, kv.geometry.dtype)
        self._staging = _staging(kv, slots)
        self._slots = Slots(slots)

    @property
    def memory(self) -> Memory:
        return self._staging.memory

    @property
    def kept(self) -> int:
        """Slots that something is read into; any thread may ask."""
        return self._slots.kept

    def take(self, count: int) -> tuple[BlockId, ...] | None:
        return self._slots.take(count)

    def give_back(self, slots: Iterable[BlockId]) -> None:
        self._slots.give_back(slots)

    def decode(self, slots: Sequence[BlockId], blocks: Sequence[BlockId], codec: Codec) -> None:
        rows = self._staging.packed[:, : self._staging.packed_bytes]
        packed = rows[slots[0] : slots[-1] + 1]
        if slots[-1] - slots[0] + 1 != len(slots):
            packed = rows[_numbers(slots, self._kv.device)]
        chosen = _numbers(blocks, self._kv.device)
        self._kernel.unpack(_pages(self._kv), chosen, packed, CODES[codec])
        _wait(self._kv.device)


def slot_bytes(kv: KvPool) -> int:
    """What one packed block of this pool takes in staging memory."""
    return aligned(packed_bytes(*_groups(kv.geometry)))


def measured_profile(kv: KvPool, codec: Codec) -> Profile:
    """What `codec` does to blocks of this geometry on this device: best of a few rounds, a few milliseconds in all."""
    kernel = best_kv_codec(kv.device, kv.geometry.dtype)
    scratch = KvPool(kv.geometry, PROFILE_BLOCKS, kv.device)
    pages = _pages(scratch)
    pages.normal_()
    staging = _staging(scratch, PROFILE_BLOCKS)
    chosen = _numbers(range(PROFILE_BLOCKS), kv.device)
    best_s = 0.0
    for step in (kernel.pack, kernel.unpack):
        best_s += min(_timed(step, pages, chosen, staging, codec) for _ in range(PROFILE_ROUNDS))
    return Profile(codec, kv.block_bytes / slot_bytes(kv), scratch.nbytes / best_s)


def _timed(
    step: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Codes], None],
    pages: torch.Tensor,
    chosen: torch.Tensor,
    staging: Staging,
    codec: Codec,
) -> float:
    rows = staging.packed[:, : staging.packed_bytes]
    _wait(pages.device)
    began_s = time.perf_counter()
    step(pages, chosen, rows, CODES[codec])
    _wait(pages.device)
    return time.perf_counter() - began_s


def _runs(slots: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Neighbours among them, as first and count: rows of a kernel must lie at equal distances."""
    first = 0
    for i in range(1, len(slots) + 1):
        if i == len(slots) or slots[i] != slots[i - 1] + 1:
            yield slots[first], i - first
            first = i


def _groups(geometry: KvGeometry) -> tuple[int, int]:
    """Groups of a block and elements of a group."""
    groups = geometry.layers * 2 * geometry.kv_heads
    return groups, geometry.block_tokens * geometry.head_dim


def _pages(kv: KvPool) -> torch.Tensor:
    return kv.tensor.view(kv.blocks, *_groups(kv.geometry))


def _staging(kv: KvPool, slots: int) -> Staging:
    return Staging(slots, packed_bytes(*_groups(kv.geometry)), kv.device)


def _numbers(blocks: Iterable[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(list(blocks), dtype=torch.int64, device=device)


def _wait(device: torch.device) -> None:
    """Kernels on a GPU run behind our back; what peers may read must be there."""
    if device.type == "cuda":
        torch.cuda.current_stream(device).synchronize()
