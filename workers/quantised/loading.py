"""Loads a quantised checkpoint: as transformers would, from the plain weights, had they been stored."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedConfig, PreTrainedModel

from tercet.errors import ModelUnsupported
from tercet.workers.quantised.fp8_weight import Fp8Linear, Fp8Weight
from tercet.workers.quantised.layout import Layout
from tercet.workers.quantised.stored_tensors import StoredTensors

UNUSED = {
    *("input_scale", "input_zero_point", "activation_scale", "input_scale_ub"),
    *("output_scale", "q_scale", "k_scale", "v_scale", "k_zero_point", "v_zero_point"),
}
"""Scales of activations and of KV: the former are found anew for each row, the latter is kept in the model's type."""
LEFT_OVER = ("qweight", "qzeros", "_scale", "_scale_inv", "_packed", "_zero_point", "g_idx")
"""Ends of names that only quantised weights have."""
NAMED_MAX = 3
GENERATION_FILE = "generation_config.json"


class Weights(NamedTuple):
    """`plain` has all tensors of the model; `fp8` those modules that are stored as 8-bit floats, as they are."""

    plain: dict[str, torch.Tensor]
    fp8: dict[str, Fp8Weight]


def read_weights(path: Path, layout: Layout, dtype: torch.dtype) -> Weights:
    """Raises ModelUnsupported, OSError, ValueError or KeyError."""
    weights = Weights({}, {})
    with StoredTensors(path) as stored:
        for module, tensors in stored.modules():
            prefix = f"{module}." if module else ""
            weight = layout.weight(module, tensors)
            if isinstance(weight, Fp8Weight):
                weights.fp8[module] = weight
                weight = weight.dense(dtype)
            if weight is not None:
                tensors = {name: each for name, each in tensors.items() if name == "bias"}
                weights.plain[f"{prefix}weight"] = weight.to(dtype)
            for name, tensor in tensors.items():
                if name not in UNUSED:
                    weights.plain[prefix + name] = tensor
    return weights


def load_plain(
    path: Path, config: PreTrainedConfig, dtype: torch.dtype, weights: Mapping[str, torch.Tensor]
) -> PreTrainedModel:
    """The model of these weights. Raises ModelUnsupported where some are missing, or have another shape."""
    plain = _unquantised(config)
    with torch.device("meta"):
        family = type(AutoModelForCausalLM.from_config(plain))
    model: PreTrainedModel
    model, told = family.from_pretrained(
        None,
        config=plain,
        state_dict=dict(weights),
        dtype=dtype,
        attn_implementation="eager",
        local_files_only=True,
        ignore_mismatched_sizes=True,  # they are told, and refused
        output_loading_info=True,
    )
    strange = {name for name in told["unexpected_keys"] if name.endswith(LEFT_OVER)}
    for what, names in (
        ("lack", told["missing_keys"]),
        ("have in another shape", {name for name, *_ in told["mismatched_keys"]}),
        ("have, though nothing reads them,", strange),
    ):
        if names:
            some = ", ".join(sorted(names)[:NAMED_MAX])
            raise ModelUnsupported(
                f"{path}: its quantised weights {what} {some} ({len(names)} in all)"
            )
    if (path / GENERATION_FILE).is_file():
        model.generation_config = GenerationConfig.from_pretrained(path, local_files_only=True)
    return model


@torch.no_grad()
def keep_fp8(model: PreTrainedModel, weights: Mapping[str, Fp8Weight]) -> bool:
    """Puts linear layers back into 8 bits; whether one of them rounds its inputs then.

    The vocabulary's head stays plain, as does what no kernel can multiply with or transformers has under another name.
    """
    rounds = False
    head = model.get_output_embeddings()
    modules = dict(model.named_modules())
    for name, weight in weights.items():
        linear = modules.get(name)
        if type(linear) is nn.Linear and linear is not head and weight.fits_kernels:
            assert linear.weight.shape == weight.codes_NK.shape, name
            parent, _, key = name.rpartition(".")
            setattr(modules[parent], key, Fp8Linear(weight, linear.bias))
            rounds |= weight.rounds(linear.weight.dtype)
    return rounds


def _unquantised(config: PreTrainedConfig) -> PreTrainedConfig:
    plain = copy.deepcopy(config)
    for each in (plain, plain.get_text_config(decoder=True)):
        if hasattr(each, "quantization_config"):
            del each.quantization_config
    return plain
