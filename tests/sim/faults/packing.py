"""Packed KV of a simulated worker: the production packer, slots and orders, without their thread, on a codec that loses nothing."""

from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue

import numpy as np
import torch

from faults import kv
from faults.process import Process
from tercet.ids import BlockId
from tercet.workers.arrivals import PullTerms
from tercet.workers.move import Pack, Packed, PackingTerms
from tercet.workers.packing_thread import PackingThread
from tercet.workers.transfer.base import Memory
from tercet.workers.transfer.codec_choice import Codec, CodecChoice
from tercet.workers.transfer.packing import Packer
from tercet.workers.transfer.staging import Slots

PACKED_BYTES = 2 * kv.BLOCK_TOKENS
UNPACKING = 1 << 40
STAGED = 1 << 41
STAGED_WORDS = 1 << 42
"""Where these memories begin; others begin at 0."""
PACKED_SHARE = 0.8
"""Of all moves, where anything is packed."""


class Rows:
    """Slots, addressed as the packer does: by their numbers and bytes."""

    def __init__(self, slots: int) -> None:
        self.rows = kv.memory(slots)

    def __getitem__(self, place: tuple[slice, slice]) -> list[list[int]]:
        return self.rows[place[0]]


class SimStaging:
    """Takes the place of `Staging`."""

    def __init__(self, slots: int, first: int, first_word: int) -> None:
        self.slots, self.packed_bytes, self.packed = slots, PACKED_BYTES, Rows(slots)
        self.generations = np.zeros(slots, dtype=np.uint64)
        self.memory = Memory(first, PACKED_BYTES, slots, first_word)


class SimKv:
    """As much of a `KvPool` as packing needs; its tensor is a list of blocks."""

    layers = kv_heads = block_tokens = head_dim = 1
    device = torch.device("cpu")

    def __init__(self, memory: kv.Memory, generations: object) -> None:
        self.memory, self.generations, self.blocks = memory, generations, len(memory)
        self.tensor = self.geometry = self

    def view(self, *shape: int) -> kv.Memory:
        return self.memory


class SimKernel:
    """Copies."""

    def pack(
        self, pages: kv.Memory, chosen: torch.Tensor, rows: list[list[int]], codes: object
    ) -> None:
        for row, block in zip(rows, chosen.tolist(), strict=True):
            row[:] = pages[block]


class SimPacker(Packer):
    """The production steps on simulated memory."""

    def __init__(self, engine: object, slots: int) -> None:
        self._kv, self._kernel = SimKv(engine.memory, engine.generations), SimKernel()
        self.staging = SimStaging(slots, STAGED, STAGED_WORDS)


class SimPacking(PackingThread):
    """Packs one order after the other, each some time after it was given, in place of a thread."""

    def __init__(self, process: Process, slots: int, deliver: Callable[[Packed], None]) -> None:
        packer = SimPacker(process.engine, slots)
        super().__init__(packer, deliver, None, process.network.timeline, process.name)
        self.staging, self.slots = packer.staging, self._slots
        self._process, self._busy = process, False
        self._orders: SimpleQueue[tuple[Pack, tuple[BlockId, ...]]] = SimpleQueue()

    def pack(self, order: Pack) -> bool:
        taken = super().pack(order)
        if taken and not self._busy:
            self._wait()
        return taken

    def _wait(self) -> None:
        self._busy = True
        self._process.loop.call_later(self._process.network.chaos.packing_s(), self._turn)

    def _turn(self) -> None:
        self._busy = False
        order, slots = self._orders.get_nowait()
        self._process.world.invariants.staged(self._process, slots)
        packed = self._pack(order, slots)
        self._process.network.story.tell(self._process, f"  packs {order.blocks}: {packed}")
        self._process.loop.call_soon(self._deliver, packed)
        if not self._orders.empty():
            self._wait()


class SimUnpacker:
    """A `Decoder`."""

    def __init__(self, process: Process, slots: int) -> None:
        self.staging = SimStaging(slots, UNPACKING, 0)
        self.slots, self.memory = Slots(slots), self.staging.memory
        self._process = process

    def take(self, count: int) -> tuple[BlockId, ...] | None:
        return self.slots.take(count)

    def give_back(self, slots: Iterable[BlockId]) -> None:
        self.slots.give_back(slots)

    def decode(self, slots: Sequence[BlockId], blocks: Sequence[BlockId], codec: Codec) -> None:
        self._process.world.invariants.written(self._process, blocks)
        for slot, block in zip(slots, blocks, strict=True):
            self._process.engine.memory[block][:] = self.staging.packed.rows[slot]


class SimChoice(CodecChoice):
    """Packs by chance."""

    def __init__(self, dice: object) -> None:
        super().__init__(())
        self._dice = dice

    def choose(self, peer: str, kv_bytes: int) -> Codec:
        return Codec.FP8 if self._dice.random() < PACKED_SHARE else Codec.NONE

    def observe(self, peer: str, seen: object) -> None:
        """Nothing is learned."""


def packing_terms(blocks_max: int) -> PackingTerms:
    return PackingTerms(frozenset({Codec.FP8}), blocks_max=blocks_max)


def pull_terms(terms: PullTerms, dice: object, blocks_max: int) -> PullTerms:
    return terms._replace(choice=SimChoice(dice), packed_blocks_max=blocks_max)
