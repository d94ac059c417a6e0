"""How long a made-up worker takes, and how much it remembers: the same for every side."""

import msgspec


class Timing(msgspec.Struct, frozen=True):
    """One worker."""

    prefill_s: float = 100e-6
    """For each prompt token that is not cached."""
    decode_step_s: float = 2e-3
    kv_blocks: int = 6000
    block_tokens: int = 16

    def stretched(self, factor: float) -> "Timing":
        """The same worker in slow motion."""
        return msgspec.structs.replace(
            self, prefill_s=self.prefill_s * factor, decode_step_s=self.decode_step_s * factor
        )
