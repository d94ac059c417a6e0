"""What llm-compressor writes, unpacked by the library that it writes with."""

from collections.abc import Mapping

import torch
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme
from compressed_tensors.utils.match import match_name

from tercet.errors import ModelUnsupported
from tercet.workers.quantised.fp8_weight import CODES, Fp8Weight
from tercet.workers.quantised.layout import Tensors

FORMATS = ("float-quantized", "int-quantized", "naive-quantized", "pack-quantized")
MARK = "weight_scale"
CLASS_TARGET = "Linear"


class CompressedLayout:
    """See `Layout`."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        """Raises ModelUnsupported for what is more than weights, and ValueError for what the library does not know."""
        if settings.get("transform_config"):
            raise ModelUnsupported(
                "its transform_config turns activations too, which is not done here"
            )
        sparsity = settings.get("sparsity_config")
        if isinstance(sparsity, dict) and sparsity.get("format", "dense") != "dense":
            raise ModelUnsupported(
                f"its sparsity_config stores weights as {sparsity['format']}; dense can be read"
            )
        self._config = QuantizationConfig.model_validate(settings)

    def weight(self, module: str, tensors: Tensors) -> Fp8Weight | torch.Tensor | None:
        """See `Layout`."""
        if MARK not in tensors:
            return None
        if "weight_g_idx" in tensors:
            raise ModelUnsupported(
                f"{module} has its columns in another order (weight_g_idx), which compressed-tensors"
                " no longer reads; quantise the model with actorder 'weight'"
            )
        scheme = self._scheme(module)
        name: str = scheme.format or self._config.format
        if name not in FORMATS:
            raise ModelUnsupported(
                f"{module} is stored as {name}; {', '.join(FORMATS)} can be read"
            )
        if "weight" in tensors and tensors["weight"].dtype == CODES:
            block = scheme.weights.block_structure or (1, scheme.weights.group_size or 1)
            rounds = scheme.input_activations is not None
            return Fp8Weight.of(tensors["weight"], tensors[MARK], (block[0], block[1]), rounds)
        # In fp32 the product is rounded once, to the model's type.
        state = {**tensors, MARK: tensors[MARK].float()}
        weight: torch.Tensor = BaseCompressor.get_value_from_registry(name).decompress(
            state, scheme
        )["weight"]
        return weight

    def _scheme(self, module: str) -> QuantizationScheme:
        """The group that names the module, or else the one for all linear layers."""
        groups = [group for group in self._config.config_groups.values() if group.weights]
        for group in groups:
            if any(match_name(module, target) for target in group.targets):
                return group
        for group in groups:
            if CLASS_TARGET in group.targets:
                return group
        raise ModelUnsupported(f"{module} has a {MARK}, but no group of quantization_config")
