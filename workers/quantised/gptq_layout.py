"""GPTQ's packed integers, as AutoGPTQ and GPTQModel store them. No maintained library unpacks them without a GPU's kernels.

Legend: K features in, N features out, G groups of K; W = 32 / bits codes share a word, the lowest bits first.

    qweight [K / W, N]    codes of W neighbours in K       scales [G, N]
    qzeros  [G, N / W]    zeros of W neighbours in N       g_idx  [K], the group of each
"""

from collections.abc import Mapping

import torch

from tercet.errors import ModelUnsupported
from tercet.workers.quantised.layout import Tensors

MARK = "qweight"
ZEROS_ARE_LESS_BY = {"gptq": 1, "gptq_v2": 0}
BITS = (2, 4, 8)


class GptqLayout:
    """See `Layout`."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """Raises ModelUnsupported for other packings."""
        bits, packing = settings.get("bits"), str(settings.get("checkpoint_format") or "gptq")
        if not isinstance(bits, int) or bits not in BITS:
            raise ModelUnsupported(f"its GPTQ weights have {bits} bits; {BITS} can be read")
        if packing not in ZEROS_ARE_LESS_BY:
            raise ModelUnsupported(
                f"its GPTQ weights are stored as {packing};"
                f" {' and '.join(ZEROS_ARE_LESS_BY)} can be read"
            )
        self._bits, self._less = bits, ZEROS_ARE_LESS_BY[packing]

    def weight(self, module: str, tensors: Tensors) -> torch.Tensor | None:
        """See `Layout`."""
        if MARK not in tensors:
            return None
        codes_KN = self._unpacked(tensors[MARK].T).T
        scales_GN = tensors["scales"].float()
        zeros_GN = (self._unpacked(tensors["qzeros"]) + self._less) & (2**self._bits - 1)
        k, groups = len(codes_KN), len(scales_GN)
        group_K = tensors.get("g_idx", torch.arange(k) // -(-k // groups)).long()
        if group_K.shape != (k,) or zeros_GN.shape != scales_GN.shape:
            raise ModelUnsupported(
                f"{module} is not stored with the {self._bits} bits of its quantization_config"
            )
        weight_KN: torch.Tensor = (codes_KN - zeros_GN[group_K]) * scales_GN[group_K]
        return weight_KN.T.contiguous()

    def _unpacked(self, words: torch.Tensor) -> torch.Tensor:
        """Codes along the last axis."""
        shifts = torch.arange(0, 32, self._bits, dtype=torch.int32)
        codes: torch.Tensor = (words[..., None] >> shifts) & (2**self._bits - 1)
        return codes.flatten(-2)
