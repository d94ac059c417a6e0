"""What a worker needs to move KV packed: staging memory for either side, and on what terms each of them packs."""

from collections.abc import Callable
from dataclasses import dataclass

from tercet.config import TransferConfig
from tercet.errors import OptionError
from tercet.workers.arrivals import PullTerms
from tercet.workers.kv_pool import KvPool
from tercet.workers.move import PackingTerms
from tercet.workers.transfer.codec_choice import BYTES_MIN, Codec, CodecChoice, Profile
from tercet.workers.transfer.packing import Packer, Unpacker, measured_profile, slot_bytes

PART_BYTES = 8 * 2**20
"""Of KV in one order: a few milliseconds of packing, after which the reader can begin."""
PULL_BYTES = 32 * 2**20
"""Of KV in one pull: unpacking it holds up the transfer's thread for some 5 ms."""
SLOT_SHARES = 4
"""One order or one pull takes at most one in so many slots: while some are read others are packed, also for somebody else."""

Measure = Callable[[KvPool, Codec], Profile]


@dataclass(frozen=True, slots=True)
class Codecs:
    """For one pool; `profiles` are those of the codecs allowed, the preferred one first."""

    packer: Packer
    unpacker: Unpacker
    profiles: tuple[Profile, ...]

    @property
    def share(self) -> int:
        """Slots that one order or pull may take."""
        return max(1, self.packer.staging.slots // SLOT_SHARES)


def open_codecs(
    kv: KvPool, config: TransferConfig, measure: Measure = measured_profile
) -> Codecs | None:
    """Allocate staging memory and measure the codecs, which takes milliseconds; None where none is allowed.

    Raises OptionError when `staging_bytes` has no room for a block.
    """
    if not config.codecs:
        return None
    slots = config.staging_bytes // slot_bytes(kv)
    if not slots:
        reason = f"{config.staging_bytes} bytes hold no packed block, which has {slot_bytes(kv)}"
        raise OptionError("transfer.staging_bytes", reason)
    profiles = tuple(measure(kv, Codec(name)) for name in config.codecs)
    return Codecs(Packer(kv, slots), Unpacker(kv, slots), profiles)


def packing_terms(codecs: Codecs | None, block_bytes: int) -> PackingTerms:
    """As a source."""
    if codecs is None:
        return PackingTerms()
    return PackingTerms(
        frozenset(profile.codec for profile in codecs.profiles),
        blocks_min=-(-BYTES_MIN // block_bytes),
        blocks_max=max(1, min(PART_BYTES // block_bytes, codecs.share)),
    )


def pull_terms(codecs: Codecs | None, block_tokens: int, block_bytes: int) -> PullTerms:
    """As a destination."""
    if codecs is None:
        return PullTerms(block_tokens, block_bytes, CodecChoice(()))
    blocks_max = max(1, min(PULL_BYTES // block_bytes, codecs.share))
    return PullTerms(block_tokens, block_bytes, CodecChoice(codecs.profiles), blocks_max)
