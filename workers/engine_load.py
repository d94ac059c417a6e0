"""An engine's figures at one moment, as the rest of the worker reports them."""

import msgspec

from tercet.latency import Coefficients
from tercet.wire import TierFigures


class EngineLoad(msgspec.Struct, frozen=True):
    """The part of a `LoadReport` that the engine knows; the words mean what they mean there."""

    waiting: int
    running: int
    holding: int
    pulling: int
    pending_prefill_tokens: int
    context_tokens: int
    blocks_total: int
    blocks_used: int
    quarantined_blocks: int
    retained_blocks: int
    prefill_coefficients: Coefficients
    decode_coefficients: Coefficients
    head_tokens: int
    urgent: int
    host: TierFigures
