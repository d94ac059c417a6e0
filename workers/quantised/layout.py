"""What the rest knows of a layout."""

from collections.abc import Mapping
from typing import Protocol

import torch

from tercet.workers.quantised.fp8_weight import Fp8Weight

Tensors = Mapping[str, torch.Tensor]
"""What is stored of one module, by the names in it."""


class Layout(Protocol):
    """How one method of quantisation stores the weight of a layer."""

    def weight(self, module: str, tensors: Tensors) -> Fp8Weight | torch.Tensor | None:
        """The weight `[out, in]`, made of all tensors but a bias; None if this module is stored plainly.

        Raises ModelUnsupported, ValueError or KeyError where the tensors are not of this layout.
        """
        ...
