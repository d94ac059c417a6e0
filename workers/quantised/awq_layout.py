"""AutoAWQ's 4 bits, in the order of its `gemm` kernels, put into compressed-tensors' order by that library."""

from collections.abc import Mapping

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.entrypoints.convert.converters import AutoAWQConverter

from tercet.errors import ModelUnsupported
from tercet.workers.quantised.layout import Tensors

MARK = "qweight"


class AwqLayout:
    """See `Layout`."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """Raises ModelUnsupported or ValueError for other bits and orders."""
        version = str(
            settings.get("version") or settings.get("checkpoint_format") or "gemm"
        ).lower()
        if version != "gemm":
            raise ModelUnsupported(f"its AWQ weights are stored for {version}; gemm can be read")
        self._converter = AutoAWQConverter(
            bits=settings.get("bits", settings.get("w_bit", 4)),
            group_size=settings.get("group_size", settings.get("q_group_size", 128)),
            zero_point=settings.get("zero_point", True),
            ignore=(),  # what has no 4 bits is told by its tensors
        )
        groups = self._converter.update_config(None).config_groups
        (self._scheme,) = groups.values()

    def weight(self, module: str, tensors: Tensors) -> torch.Tensor | None:
        """See `Layout`."""
        if MARK not in tensors:
            return None
        whole = {f"{module}.{name}": tensor for name, tensor in tensors.items()}
        whole[f"{module}.scales"] = tensors["scales"].float()
        prefix = f"{module}."
        state = {
            name.removeprefix(prefix): tensor
            for name, tensor in self._converter.process(whole).items()
        }
        compressor = BaseCompressor.get_value_from_registry(self._scheme.format)
        weight: torch.Tensor = compressor.decompress(state, self._scheme)["weight"]
        return weight
