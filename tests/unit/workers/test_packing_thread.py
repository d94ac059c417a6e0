"""Orders to pack are carried out one after the other, slots are kept until they are told free, and a bug is not silent."""

import queue

import pytest
import torch

from tercet.clock import MonotonicClock
from tercet.config import TransferConfig
from tercet.errors import OptionError
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers.codecs import open_codecs, packing_terms, pull_terms
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.move import Pack, Packed, PackingTerms, Unstage
from tercet.workers.packing_thread import PackingThread
from tercet.workers.transfer.codec_choice import BYTES_MIN, Codec
from tercet.workers.transfer.packing import Packer, slot_bytes

GEOMETRY = KvGeometry(layers=2, kv_heads=1, head_dim=16, block_tokens=8, dtype=torch.float32)
SLOTS = 4


class Bench:
    def __init__(self) -> None:
        self.kv = KvPool(GEOMETRY, 8)
        self.answers: queue.SimpleQueue[Packed] = queue.SimpleQueue()
        self.crashes: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self.thread = PackingThread(
            Packer(self.kv, SLOTS), self.answers.put, self.crashes.put, MonotonicClock(), "p0:1"
        )
        self.thread.start()

    def order(self, number: int, *blocks: int, words: tuple[int, ...] = ()) -> Pack:
        ids = tuple(map(BlockId, blocks))
        return Pack(RequestId("r"), Epoch(0), number, ids, words or (0,) * len(ids), Codec.INT8)


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.thread.stop()


def test_slots_are_kept_until_they_are_told_free(bench):
    assert bench.thread.pack(bench.order(1, 0, 1, 2))
    packed = bench.answers.get(timeout=60)
    assert (packed.number, packed.slots, packed.generations) == (1, (0, 1, 2), (1, 1, 1))
    assert not bench.thread.pack(bench.order(2, 3, 4)), "one slot is left"
    assert bench.thread.pack(bench.order(3, 3))
    assert bench.answers.get(timeout=60).slots == (3,)
    assert bench.thread.kept == SLOTS
    bench.thread.unstage(Unstage(packed.slots))
    assert bench.thread.kept == 1
    assert bench.thread.pack(bench.order(4, 5))
    again = bench.answers.get(timeout=60)
    assert (again.slots, again.generations) == ((0,), (2,)), "its word has risen"


def test_a_block_that_was_reused_is_answered_without_words(bench):
    bench.kv.generations[1] = 7
    assert bench.thread.pack(bench.order(1, 0, 1))
    packed = bench.answers.get(timeout=60)
    assert (packed.slots, packed.generations) == ((0, 1), ())


def test_what_was_ordered_before_the_stop_is_still_answered(bench):
    for number in range(SLOTS):
        assert bench.thread.pack(bench.order(number, number))
    bench.thread.stop()
    assert [bench.answers.get_nowait().number for _ in range(SLOTS)] == list(range(SLOTS))
    bench.thread.stop()


def test_a_bug_is_reported(bench):
    assert bench.thread.pack(bench.order(1, 0, words=(0, 0)))
    assert isinstance(bench.crashes.get(timeout=60), AssertionError)


# ---- its terms -------------------------------------------------------------------------------------------------------


def test_without_a_codec_nothing_is_allocated_asked_for_or_packed():
    assert open_codecs(KvPool(GEOMETRY, 1), TransferConfig()) is None
    assert packing_terms(None, 4096) == PackingTerms()
    assert pull_terms(None, 8, 4096).choice.choose("p", 2**30) is Codec.NONE


def test_terms_follow_from_the_codecs_and_the_memory_allowed():
    kv = KvPool(GEOMETRY, 1)
    config = TransferConfig(codecs=("int8",), staging_bytes=9 * slot_bytes(kv))
    codecs = open_codecs(kv, config)
    assert codecs is not None
    assert codecs.packer.staging.slots == 9
    terms = packing_terms(codecs, kv.block_bytes)
    assert (terms.codecs, terms.blocks_max) == (frozenset({Codec.INT8}), 2)
    assert terms.blocks_min == BYTES_MIN // kv.block_bytes
    assert pull_terms(codecs, 8, kv.block_bytes).packed_blocks_max == 2


def test_staging_memory_without_room_for_a_block_is_refused_by_the_options_name():
    config = TransferConfig(codecs=("fp8",), staging_bytes=100)
    with pytest.raises(OptionError, match=r"transfer\.staging_bytes: 100 bytes hold no packed"):
        open_codecs(KvPool(GEOMETRY, 1), config)
