"""How many KV blocks a GPU has room for. Pure but for the asking."""

from dataclasses import dataclass

import torch

from tercet.errors import ModelUnsupported


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Bytes of one device."""

    total: int
    others: int
    """What other processes have, and what CUDA itself needs."""
    peak: int
    """The most that this process has used at once, the weights included."""

    @classmethod
    def of(cls, device: torch.device) -> "DeviceMemory":
        """Since its peak was last reset."""
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
        return cls(total, total - free - own, torch.cuda.max_memory_allocated(device))


def blocks_that_fit(
    memory: DeviceMemory, share: float, block_bytes: int, context_blocks: int
) -> int:
    """As many blocks as fit into what is left of `share` of the memory at the peak.

    Raises ModelUnsupported where one whole context, of `context_blocks`, does not.
    """
    room = int(share * memory.total) - memory.others - memory.peak
    blocks = max(room, 0) // block_bytes
    if blocks < context_blocks:
        gib = 2.0**30
        raise ModelUnsupported(
            f"{share:.0%} of {memory.total / gib:.1f} GiB leave room for {blocks} KV blocks beside"
            f" {memory.peak / gib:.1f} GiB for weights and computing and {memory.others / gib:.1f}"
            f" GiB of others; one context needs {context_blocks}: set a smaller"
            " model.context_tokens_max, a smaller engine.step_tokens_max or a larger"
            " engine.memory_share"
        )
    return blocks
