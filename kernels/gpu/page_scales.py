"""What the codes of quantised pages are worth."""

from dataclasses import dataclass

import torch

QUANTISED = (torch.int8, torch.float8_e4m3fn)


@dataclass(frozen=True, slots=True)
class PageScales:
    """fp32, head by head: a key is its code times `k_G`, a value its code times `v_G`."""

    k_G: torch.Tensor
    v_G: torch.Tensor
