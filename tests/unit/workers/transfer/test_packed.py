"""Blocks that travel packed arrive within their codec's error, and whatever became of the slots meanwhile is noticed."""

import queue
from typing import NamedTuple

import pytest
import torch

from tercet.config import TransferConfig
from tercet.ids import BlockId, Epoch, RequestId
from tercet.workers.kv_pool import KvGeometry, KvPool
from tercet.workers.transfer.base import JobId, Memory, Pulled, PullFailed, PullJob, TransferEvent
from tercet.workers.transfer.codec_choice import Codec
from tercet.workers.transfer.packing import Packer, Unpacker, measured_profile
from tercet.workers.transfer.thread import TransferThread

GEOMETRY = KvGeometry(layers=2, kv_heads=2, head_dim=16, block_tokens=8, dtype=torch.float32)
BLOCKS, SLOTS = 32, 12
CONFIG = TransferConfig(wait_s=0.5, net_devices="lo")
CODECS = [Codec.FP8, Codec.INT8]


def memory(kv: KvPool) -> Memory:
    return Memory(kv.address, kv.block_bytes, kv.blocks, kv.generation_address)


class Packed(NamedTuple):
    slots: tuple[int, ...]
    generations: tuple[int, ...]


class PackedPair:
    """A source that packs and a destination that unpacks."""

    def __init__(self, open_agent) -> None:
        self.source, self.destination = KvPool(GEOMETRY, BLOCKS), KvPool(GEOMETRY, BLOCKS)
        self.source.generations[:] = 1
        torch.manual_seed(1)
        self.source.tensor.normal_()
        self.packer, self.unpacker = Packer(self.source, SLOTS), Unpacker(self.destination, SLOTS)
        self.events: queue.SimpleQueue[TransferEvent] = queue.SimpleQueue()
        self.crashes: list[BaseException] = []
        self.numbers = iter(range(1000))
        self.sender = TransferThread(
            "source:1", memory(self.source), CONFIG, open_agent, self.events.put,
            self.crashes.append, staging=self.packer.staging.memory,
        )  # fmt: skip
        self.taker = TransferThread(
            "destination:1", memory(self.destination), CONFIG, open_agent, self.events.put,
            self.crashes.append, decoder=self.unpacker,
        )  # fmt: skip
        self.sender.start()
        self.taker.start()
        self.taker.add_peer("source:1", self.sender.region, self.sender.staged)

    def pack(self, blocks: list[int], codec: Codec, first: int = 0) -> Packed:
        """Into slots from `first` on, around the end."""
        slots = [BlockId((first + i) % SLOTS) for i in range(len(blocks))]
        words = [int(self.source.generations[block]) for block in blocks]
        packed = self.packer.pack(slots, [BlockId(block) for block in blocks], words, codec)
        assert packed is not None
        return Packed(tuple(slots), packed)

    def pull(self, local: list[int], packed: Packed, codec: Codec) -> TransferEvent:
        job = PullJob(
            JobId(RequestId("r"), Epoch(1), next(self.numbers)),
            "source:1",
            tuple(map(BlockId, packed.slots)),
            tuple(map(BlockId, local)),
            packed.generations,
            codec,
        )
        self.taker.pull(job)
        return self.events.get(timeout=60)

    def stop(self) -> None:
        self.taker.stop()
        self.sender.stop()
        assert not self.crashes


@pytest.fixture
def packed_pair(open_agent):
    pair = PackedPair(open_agent)
    yield pair
    pair.stop()


@pytest.mark.parametrize("codec", CODECS)
def test_packed_blocks_arrive_within_the_codecs_error_and_no_others_change(packed_pair, codec):
    local, remote = [3, 9, 4, 5, 20], [7, 1, 30, 31, 2]
    packed = packed_pair.pack(remote, codec)
    event = packed_pair.pull(local, packed, codec)
    assert isinstance(event, Pulled)
    assert event.codec is codec
    assert 5 * GEOMETRY.block_bytes > 3 * event.bytes, "a quarter, and scales"
    assert 0 < event.decode_s < event.seconds
    theirs, ours = packed_pair.source.tensor[remote], packed_pair.destination.tensor[local]
    assert (theirs - ours).abs().max() < theirs.abs().max() / (254 if codec is Codec.INT8 else 16)
    untouched = [block for block in range(BLOCKS) if block not in local]
    assert not packed_pair.destination.tensor[untouched].any()


@pytest.mark.parametrize("codec", CODECS)
def test_slots_need_not_be_neighbours_on_either_side(packed_pair, codec):
    for round_ in range(9):
        remote = [(5 * round_ + i) % BLOCKS for i in range(7)]
        packed_pair.destination.tensor.zero_()
        packed = packed_pair.pack(remote, codec, first=7 * round_)
        event = packed_pair.pull(list(range(7)), packed, codec)
        assert isinstance(event, Pulled)
        theirs, ours = packed_pair.source.tensor[remote], packed_pair.destination.tensor[:7]
        assert (theirs - ours).abs().max() < 0.3


def test_a_slot_packed_anew_since_it_was_published_is_not_unpacked(packed_pair):
    packed = packed_pair.pack([0, 1, 2], Codec.INT8)
    packed_pair.pack(list(range(3, 3 + SLOTS - 2)), Codec.INT8, first=3)
    event = packed_pair.pull([0, 1, 2], packed, Codec.INT8)
    assert isinstance(event, PullFailed)
    assert event.reason == "1 of 3 blocks were reused while they were read"
    assert not packed_pair.destination.tensor.any()


def test_a_block_reused_while_it_was_packed_is_not_published(packed_pair):
    words = [1, 1]
    packed_pair.source.generations[5] += 1
    blocks = [BlockId(4), BlockId(5)]
    assert packed_pair.packer.pack(blocks, blocks, words, Codec.FP8) is None


def test_more_blocks_than_there_is_room_for_are_refused_and_the_room_is_not_lost(packed_pair):
    packed = packed_pair.pack(list(range(SLOTS)), Codec.FP8)
    twice = Packed(packed.slots + packed.slots[:1], packed.generations + packed.generations[:1])
    event = packed_pair.pull(list(range(SLOTS + 1)), twice, Codec.FP8)
    assert isinstance(event, PullFailed)
    assert (event.reason, event.in_flight) == ("no room to unpack so many blocks", False)
    assert isinstance(packed_pair.pull(list(range(SLOTS)), packed, Codec.FP8), Pulled)


def test_a_peer_that_packs_nothing_fails_the_pull(packed_pair):
    packed = packed_pair.pack([0], Codec.FP8)
    packed_pair.taker.remove_peer("source:1")
    packed_pair.taker.add_peer("source:1", packed_pair.sender.region)
    event = packed_pair.pull([0], packed, Codec.FP8)
    assert isinstance(event, PullFailed)
    assert event.reason == "source:1 has no packed blocks"


@pytest.mark.parametrize("codec", CODECS)
def test_the_measured_profile_is_that_of_this_geometry(codec):
    profile = measured_profile(KvPool(GEOMETRY, 1), codec)
    assert profile.codec is codec
    assert 3.0 < profile.ratio < 4.0
    assert profile.bytes_per_s > 0
