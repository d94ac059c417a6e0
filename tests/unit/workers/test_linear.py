import gc
import shutil
import weakref

import pytest
import torch
from torch import nn

from tercet.workers.linear import (
    PackedEmbedding,
    PackedLinear,
    SharedLinear,
    accelerate_linears,
)

DTYPES = [torch.float32, torch.bfloat16]


class Attention(nn.Module):
    """Projections as families name them; biases may be missing on some."""

    def __init__(self, biases: tuple[bool, bool, bool] = (True, True, True)) -> None:
        super().__init__()
        self.q_proj = nn.Linear(32, 48, bias=biases[0])
        self.k_proj = nn.Linear(32, 16, bias=biases[1])
        self.v_proj = nn.Linear(32, 16, bias=biases[2])
        self.o_proj = nn.Linear(48, 32, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        projected = torch.cat([self.q_proj(x), self.k_proj(x), self.v_proj(x)], dim=-1)
        return self.o_proj(projected[..., :48]) + projected[..., 48:]  # type: ignore[no-any-return]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [1, 3, 16, 130])
@pytest.mark.parametrize("biases", [(True, True, True), (False, False, False), (True, False, True)])
@torch.inference_mode()
def test_merged_and_packed_layers_compute_the_same(
    dtype: torch.dtype, rows: int, biases: tuple[bool, bool, bool]
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Attention(biases)).to(dtype)
    x = torch.randn(1, rows, 32, dtype=dtype)
    expected = model(x)
    accelerate_linears(model)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-2
    torch.testing.assert_close(model(x), expected, atol=tolerance, rtol=tolerance)


def test_siblings_share_one_product_and_others_are_packed() -> None:
    model = nn.Sequential(Attention())
    accelerate_linears(model)
    kinds = {name: type(child) for name, child in model[0].named_children()}
    assert kinds["q_proj"] is kinds["k_proj"] is kinds["v_proj"] is SharedLinear
    assert kinds["o_proj"] is PackedLinear
    unpacked = [p for p in model.parameters() if p.dim() < 4]
    assert not unpacked, "the weights should be gone"


@torch.inference_mode()
def test_siblings_called_with_other_inputs_still_give_their_own_answer() -> None:
    torch.manual_seed(0)
    layer = nn.Sequential(Attention())[0]
    x, y = torch.randn(2, 1, 4, 32).unbind()
    expected = [layer.q_proj(x), layer.k_proj(y), layer.v_proj(x), layer.q_proj(x), layer.q_proj(x)]
    accelerate_linears(layer)
    ours = [layer.q_proj(x), layer.k_proj(y), layer.v_proj(x), layer.q_proj(x), layer.q_proj(x)]
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other)


@torch.inference_mode()
def test_nothing_is_kept_after_all_siblings_were_served() -> None:
    layer = Attention()
    accelerate_linears(layer)
    x = torch.randn(1, 4, 32)
    parts = [layer.q_proj(x), layer.k_proj(x), layer.v_proj(x)]
    watched = [weakref.ref(tensor) for tensor in (x, *parts)]
    del x, parts
    gc.collect()
    assert [watch() for watch in watched] == [None] * 4


class Tied(nn.Module):
    """A vocabulary that is no multiple of a panel, embedded and scored by one matrix."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding, self.head = embedding, nn.Linear(32, 100, bias=False)
        self.head.weight = embedding.weight


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_a_tied_embedding_reads_its_rows_from_the_packed_head(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    model = Tied(nn.Embedding(100, 32)).to(dtype)
    ids = torch.randint(0, 100, (1, 9))
    expected = model.embedding(ids)
    accelerate_linears(model)
    assert type(model.embedding) is PackedEmbedding
    assert torch.equal(model.embedding(ids), expected)
    assert len(list(model.parameters())) == 1, "the matrix is kept once"


def test_an_embedding_that_scales_keeps_its_own_weight() -> None:
    class Scaled(nn.Embedding):
        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(ids)

    model = Tied(Scaled(100, 32))
    accelerate_linears(model)
    assert type(model.embedding) is Scaled
    assert type(model.head) is PackedLinear


@pytest.mark.parametrize("dtype", DTYPES)
@torch.inference_mode()
def test_no_rows_give_no_rows(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(8, 24)).to(dtype)
    accelerate_linears(model)
    assert model(torch.empty(1, 0, 8, dtype=dtype)).shape == (1, 0, 24)


@torch.inference_mode()
def test_without_a_compiler_layers_are_merged_and_run_in_torch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, x = nn.Sequential(Attention()), torch.randn(1, 3, 32)
    expected = model(x)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    accelerate_linears(model)
    assert type(model[0].o_proj) is nn.Linear
    assert "no g++" in caplog.text
    torch.testing.assert_close(model(x), expected)


def test_layers_that_compute_something_else_are_left_alone() -> None:
    class Doubling(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(Doubling(4, 4), nn.Linear(4, 4).half())
    accelerate_linears(model)
    assert type(model[0]) is Doubling
    assert type(model[1]) is nn.Linear, "half precision has no packed product"
