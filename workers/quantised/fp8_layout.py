"""`fp8` as DeepSeek and Qwen store it, with a scale for each block of 128 x 128, and `fbgemm_fp8`, with one for each row."""

from collections.abc import Sequence

from tercet.errors import ModelUnsupported
from tercet.workers.quantised.fp8_weight import CODES, Fp8Weight
from tercet.workers.quantised.layout import Tensors

SCALES = ("weight_scale_inv", "weight_scale")


class Fp8Layout:
    """See `Layout`."""

    def __init__(self, block: Sequence[int] | None) -> None:
        self._block = None if block is None else (block[0], block[1])

    def weight(self, module: str, tensors: Tensors) -> Fp8Weight | None:
        """See `Layout`."""
        scales = [tensors[name] for name in SCALES if name in tensors]
        if not scales:
            return None
        codes_NK = tensors["weight"]
        if codes_NK.dtype != CODES or len(scales) > 1 or not scales[0].is_floating_point():
            raise ModelUnsupported(
                f"{module} stores weights of {codes_NK.dtype} with scales of {scales[0].dtype};"
                " float8_e4m3fn with floating-point scales can be read"
            )
        return Fp8Weight.of(codes_NK, scales[0], self._block, rounds_inputs=True)
