"""Cuts a loaded model down to one rank's part, by the plan that transformers has for its family.

The plan names projections: of a `colwise` one a rank keeps rows of the weight, that is heads or columns of the hidden
layer; of a `rowwise` one the columns that read them, and the parts' outputs are added up. Everything else is the same on
every rank, but for the vocabulary head, which rank 0 alone has, as it alone draws tokens.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel

from tercet.errors import ModelUnsupported
from tercet.workers.parallel.group import Group

COLWISE, ROWWISE = "colwise", "rowwise"
WHOLE = {"replicated_with_grad_allreduce"}
"""Styles of modules that work on single heads, with one weight for all of them."""


class SummedLinear(nn.Module):
    """A layer that has read a part of its input: the outputs of all ranks together are its output."""

    def __init__(self, linear: nn.Linear, group: Group) -> None:
        super().__init__()
        self.linear = linear
        self._group = group

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._group.sum(self.linear(x))


@torch.no_grad()
def shard(model: PreTrainedModel, group: Group) -> None:
    """Cuts in place, before layers are packed. Raises ModelUnsupported where the family or its sizes do not allow it."""
    _check_heads(model, group.ranks)
    parts = list(_parts(model))
    if not parts:
        raise ModelUnsupported(
            f"tensor_parallel is {group.ranks}, but transformers has no plan for how to share out"
            f" {model.config.model_type}"
        )
    for part in parts:
        if part.style not in (COLWISE, ROWWISE) or type(part.module) is not nn.Linear:
            raise ModelUnsupported(
                f"{model.config.model_type} cannot be served with tensor_parallel {group.ranks}:"
                f" {part.name} is {type(part.module).__name__} and {part.style!r} in its plan"
            )
        cut = _colwise if part.style == COLWISE else _rowwise
        setattr(model.get_submodule(part.parent), part.key, cut(part, group))
    if group.rank:
        model.set_output_embeddings(nn.Identity())


class _Part(NamedTuple):
    name: str
    module: nn.Module
    style: str

    @property
    def parent(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def key(self) -> str:
        return self.name.rpartition(".")[2]


def _parts(model: PreTrainedModel) -> Iterator[_Part]:
    """The modules that the family's plan shares out, but for the vocabulary on either side."""
    vocabulary = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    for name, module in model.named_modules():
        style = model.tp_plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", name))
        if style is not None and style not in WHOLE and id(module) not in vocabulary:
            yield _Part(name, module, str(style))


def _check_heads(model: PreTrainedModel, ranks: int) -> None:
    config = model.config.get_text_config(decoder=True)
    heads = int(config.num_attention_heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    if kv_heads % ranks or heads % ranks:
        raise ModelUnsupported(
            f"tensor_parallel is {ranks}, but {heads} heads and {kv_heads} KV heads of"
            f" {config.model_type} cannot be shared out evenly; a divisor of {kv_heads} can be used"
        )


def _colwise(part: _Part, group: Group) -> nn.Module:
    linear = _linear(part)
    bias = None if linear.bias is None else _slice(linear.bias, 0, part, group)
    return _with(_slice(linear.weight, 0, part, group), bias)


def _rowwise(part: _Part, group: Group) -> nn.Module:
    linear = _linear(part)
    bias = linear.bias if group.rank == 0 else None  # it must be added once
    return SummedLinear(_with(_slice(linear.weight, 1, part, group), bias), group)


def _linear(part: _Part) -> nn.Linear:
    assert isinstance(part.module, nn.Linear), part
    return part.module


def _slice(whole: torch.Tensor, axis: int, part: _Part, group: Group) -> torch.Tensor:
    """A copy, so that the whole can be let go."""
    size = whole.shape[axis]
    if size % group.ranks:
        raise ModelUnsupported(
            f"tensor_parallel is {group.ranks}, by which the {size} of {part.name} cannot be divided"
        )
    length = size // group.ranks
    return whole.narrow(axis, group.rank * length, length).clone()


def _with(weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Linear:
    with torch.device("meta"):
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias, requires_grad=False)
    return linear
