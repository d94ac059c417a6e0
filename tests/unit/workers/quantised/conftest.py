"""Quantised checkpoints, written here by hand in the layouts that others write, beside plain ones of the same weights."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

INTERMEDIATE = 96
SMALL: dict[str, object] = dict(
    vocab_size=64,
    hidden_size=64,
    intermediate_size=INTERMEDIATE,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=128,
    initializer_range=0.3,
    bos_token_id=0,
    eos_token_id=None,
    pad_token_id=0,
    attention_bias=True,
)
GROUP = 16
BLOCK = (48, 40)
"""Divides no layer's weight."""
CODES = torch.float8_e4m3fn
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Stored:
    """What a layout stores of a weight, and the weight that this is."""

    tensors: Tensors
    plain: torch.Tensor


@dataclass(frozen=True)
class Written:
    """A layout: its part of config.json, and what it does to a weight `[out, in]`."""

    settings: dict[str, object]
    store: Callable[[torch.Tensor], Stored]


def by_channel(weight: torch.Tensor) -> Stored:
    scale = weight.abs().amax(1, keepdim=True) / 448
    codes = (weight / scale).to(CODES)
    return Stored({"weight": codes, "weight_scale": scale}, codes.float() * scale)


def by_tensor(weight: torch.Tensor) -> Stored:
    scale = weight.abs().amax() / 448
    codes = (weight / scale).to(CODES)
    tensors = {"weight": codes, "weight_scale": scale, "input_scale": torch.tensor(0.1)}
    return Stored(tensors, codes.float() * scale)


def by_block(name: str, block: tuple[int, int] = BLOCK) -> Callable[[torch.Tensor], Stored]:
    def store(weight: torch.Tensor) -> Stored:
        rows, k = weight.shape
        grid = torch.empty(-(-rows // block[0]), -(-k // block[1]))
        wide = torch.empty_like(weight)
        for i, j in product(range(grid.shape[0]), range(grid.shape[1])):
            down = slice(i * block[0], (i + 1) * block[0])
            across = slice(j * block[1], (j + 1) * block[1])
            grid[i, j] = wide[down, across] = weight[down, across].abs().max() / 448
        codes = (weight / wide).to(CODES)
        return Stored({"weight": codes, name: grid}, codes.float() * wide)

    return store


def words(codes: torch.Tensor, bits: int = 4) -> torch.Tensor:
    """Unsigned codes along the last axis, packed into int32, the first in the lowest bits."""
    per_word = 32 // bits
    parts = codes.long().unflatten(-1, (-1, per_word)) << (bits * torch.arange(per_word))
    return parts.sum(-1).to(torch.uint32).view(torch.int32)


@dataclass(frozen=True)
class Integers:
    """Codes 0 … 2^bits - 1 of groups of K, with zeros that are codes too; all `[N, …]`."""

    codes: torch.Tensor
    scales: torch.Tensor
    zeros: torch.Tensor
    plain: torch.Tensor


def integers(weight: torch.Tensor, bits: int = 4, symmetric: bool = False) -> Integers:
    """Scales are what fp16 can hold."""
    groups = weight.unflatten(1, (-1, GROUP))
    low, high, top = groups.amin(2), groups.amax(2), 2**bits - 1
    if symmetric:
        high = groups.abs().amax(2)
        low = -high
    scales = ((high - low) / top).half().float()
    zeros = torch.full_like(low, 2 ** (bits - 1)) if symmetric else (-low / scales).round()
    zeros = zeros.clamp(0, top)
    codes = ((groups / scales[..., None]).round() + zeros[..., None]).clamp(0, top)
    plain = ((codes - zeros[..., None]) * scales[..., None]).flatten(1)
    return Integers(codes.flatten(1).int(), scales, zeros.int(), plain)


def packed(symmetric: bool) -> Callable[[torch.Tensor], Stored]:
    def store(weight: torch.Tensor) -> Stored:
        made = integers(weight, symmetric=symmetric)
        tensors = {
            "weight_packed": words(made.codes),
            "weight_scale": made.scales.bfloat16() if symmetric else made.scales.half(),
            "weight_shape": torch.tensor(weight.shape),
        }
        plain = made.plain
        if symmetric:
            scales = made.scales.bfloat16().float()
            plain = ((made.codes - 8).unflatten(1, (-1, GROUP)) * scales[..., None]).flatten(1)
        else:
            tensors["weight_zero_point"] = words(made.zeros.T).T.contiguous()
        return Stored(tensors, plain)

    return store


def int8(weight: torch.Tensor) -> Stored:
    scale = weight.abs().amax(1, keepdim=True) / 127
    codes = (weight / scale).round().to(torch.int8)
    return Stored({"weight": codes, "weight_scale": scale}, codes.float() * scale)


def by_width(weight: torch.Tensor) -> Stored:
    """Layers of the feed-forward part, which alone have such a side, in 4 bits."""
    return packed(symmetric=True)(weight) if INTERMEDIATE in weight.shape else by_channel(weight)


def awq(weight: torch.Tensor) -> Stored:
    made = integers(weight)

    def ordered(codes: torch.Tensor) -> torch.Tensor:
        return words(codes.T.unflatten(1, (-1, 8))[..., AWQ_ORDER].flatten(1))

    tensors = {
        "qweight": ordered(made.codes),
        "qzeros": ordered(made.zeros),
        "scales": made.scales.T.half().contiguous(),
    }
    return Stored(tensors, made.plain)


def gptq(bits: int, less: int, shuffled: bool = False) -> Callable[[torch.Tensor], Stored]:
    def store(weight: torch.Tensor) -> Stored:
        k = weight.shape[1]
        order = torch.arange(k)
        if shuffled:
            order = torch.randperm(k, generator=torch.Generator().manual_seed(k))
        made = integers(weight[:, order], bits)
        back = order.argsort()
        tensors = {
            "qweight": words(made.codes[:, back], bits).T.contiguous(),
            "qzeros": words((made.zeros.T - less) % 2**bits, bits),
            "scales": made.scales.T.half().contiguous(),
            "g_idx": (back // GROUP).int(),
        }
        return Stored(tensors, made.plain[:, back])

    return store


def compressed(form: str, weights: dict[str, object], **more: object) -> dict[str, object]:
    inputs = {"num_bits": 8, "type": weights["type"], "strategy": "token", "dynamic": True}
    group: dict[str, object] = {"targets": ["Linear"], "weights": weights}
    if form != "pack-quantized":
        group["input_activations"] = inputs
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
        "version": "0.12.0",
        **more,
    }


FP8: dict[str, object] = dict(num_bits=8, type="float")
MIXED: dict[str, object] = {
    "wide": dict(
        targets=["Linear"],
        format="float-quantized",
        weights=dict(num_bits=8, type="float", strategy="channel"),
    ),
    "narrow": dict(
        targets=["re:.*mlp.*"],
        format="pack-quantized",
        weights=dict(num_bits=4, type="int", strategy="group", group_size=GROUP),
    ),
}
INT4: dict[str, object] = dict(num_bits=4, type="int", strategy="group", group_size=GROUP)
GPTQ: dict[str, object] = dict(quant_method="gptq", group_size=GROUP, sym=False)
LAYOUTS = {
    "compressed fp8 by channel": Written(
        compressed("float-quantized", dict(FP8, strategy="channel")), by_channel
    ),
    "compressed fp8 by tensor": Written(
        compressed("float-quantized", dict(FP8, strategy="tensor")), by_tensor
    ),
    "compressed fp8 by block": Written(
        compressed("float-quantized", dict(FP8, strategy="block", block_structure=list(BLOCK))),
        by_block("weight_scale"),
    ),
    "compressed int4": Written(compressed("pack-quantized", dict(INT4)), packed(symmetric=True)),
    "compressed int4 with zeros": Written(
        compressed("pack-quantized", dict(INT4, symmetric=False)), packed(symmetric=False)
    ),
    "compressed mixed": Written(
        compressed("mixed-precision", dict(FP8), config_groups=MIXED), by_width
    ),
    "compressed int8": Written(
        compressed("int-quantized", dict(num_bits=8, type="int", strategy="channel")), int8
    ),
    "fp8 by block": Written(
        dict(quant_method="fp8", activation_scheme="dynamic", weight_block_size=list(BLOCK)),
        by_block("weight_scale_inv"),
    ),
    "fp8 by block of 128": Written(
        dict(quant_method="fp8", weight_block_size=[48, 128]),
        by_block("weight_scale_inv", (48, 128)),
    ),
    "fp8 by tensor": Written(dict(quant_method="fp8", activation_scheme="static"), by_tensor),
    "fbgemm": Written(dict(quant_method="fbgemm_fp8", activation_scale_ub=1200.0), by_channel),
    "awq": Written(
        dict(quant_method="awq", bits=4, group_size=GROUP, zero_point=True, version="gemm"), awq
    ),
    "gptq": Written(dict(GPTQ, bits=4), gptq(4, less=1)),
    "gptq in another order": Written(
        dict(GPTQ, bits=4, desc_act=True), gptq(4, less=1, shuffled=True)
    ),
    "gptq v2": Written(dict(GPTQ, bits=8, checkpoint_format="gptq_v2"), gptq(8, less=0)),
}


@dataclass(frozen=True)
class Pair:
    """Two checkpoints of one model."""

    quantised: Path
    plain: Path


Save = Callable[..., Pair]


@pytest.fixture
def save_pair(tmp_path: Path) -> Save:
    """Writes both; linear layers but for the head are quantised."""

    def save(layout: str, family: str = "llama", **options: object) -> Pair:
        written = LAYOUTS[layout]
        pair = Pair(tmp_path / "quantised", tmp_path / "plain")
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **(SMALL | options)))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.5)
        model.save_pretrained(pair.plain)
        model.save_pretrained(pair.quantised)
        plain = load_file(pair.plain / "model.safetensors")
        stored: Tensors = {}
        for name, tensor in list(plain.items()):
            module, _, kind = name.rpartition(".")
            if kind == "weight" and module.endswith("_proj"):
                made = written.store(tensor)
                stored |= {f"{module}.{part}": each for part, each in made.tensors.items()}
                plain[name] = made.plain.contiguous()
            else:
                stored[name] = tensor
        meta = {"format": "pt"}
        save_file(plain, pair.plain / "model.safetensors", meta)
        save_file(stored, pair.quantised / "model.safetensors", meta)
        described = json.loads((pair.quantised / "config.json").read_bytes())
        described["quantization_config"] = written.settings
        (pair.quantised / "config.json").write_text(json.dumps(described))
        return pair

    return save
