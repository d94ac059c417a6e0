"""What no interpreter can tell: real sizes, real rounding, and that launches can be captured in a CUDA graph."""

import pytest
import torch

from tercet.kernels.gpu.decoded import decoded
from tercet.kernels.gpu.gated import Gate, gated, gated_twin
from tercet.kernels.gpu.residual_norm import residual_norm, residual_norm_twin
from tercet.kernels.gpu.rope_and_write import Places, Rotation, rope_and_write, rope_and_write_twin
from tercet.kernels.gpu.row_codes import row_codes, row_codes_twin
from tercet.kernels.gpu.sampling import SamplingScratch, sample, sample_twin
from tercet.kernels.gpu.skinny_gemm import GROUP, Scratch, skinny_gemm, skinny_gemm_twin
from tercet.kernels.gpu.token_shape import SamplingRows, SlotTables
from tercet.kernels.gpu.top_logprobs import top_logprobs, top_logprobs_twin
from tercet.workers.gpu.product import Product
from tercet.workers.gpu.weights import merged, multiplies_fp8
from tercet.workers.quantised.fp8_weight import CODES, Fp8Linear, Fp8Weight

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
needs_fp8 = pytest.mark.skipif(
    torch.cuda.is_available() and not multiplies_fp8(DEVICE), reason="this GPU has no 8-bit floats"
)
VOCAB, ROWS = 151_936, 16
CLOSE = {"atol": 2e-2, "rtol": 2e-2}


def normal(*shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    generator = torch.Generator(DEVICE).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def sampling_rows(first: int = 0, count: int = ROWS) -> SamplingRows:
    """Rows `first` … of a batch that mixes everything a request may ask for."""
    at = torch.arange(first, first + count, device=DEVICE)
    choose = {
        "temperature": [0.0, 1.0, 0.7, 1.3], "top_k": [0, 0, 40, 0, 1000, 1],
        "top_p": [1.0, 0.9, 0.5, 0.99], "min_p": [0.0, 0.0, 0.02],
        "repetition": [1.0, 1.2], "presence": [0.0, 0.0, 0.5], "frequency": [0.0, 0.3, -0.1],
    }  # fmt: skip
    value = {
        name: torch.tensor(values, dtype=torch.float64, device=DEVICE)[at % len(values)]
        for name, values in choose.items()
    }
    return SamplingRows(
        temperature_R=value["temperature"].float(),
        top_k_R=value["top_k"].int(),
        top_p_R=value["top_p"],
        min_p_R=value["min_p"].float(),
        repetition_R=value["repetition"].float(),
        presence_R=value["presence"].float(),
        frequency_R=value["frequency"].float(),
        seed_R=at * 0x1234567,
        position_R=at + 100,
        slot_R=at.int(),
    )


def slot_tables() -> SlotTables:
    tables = SlotTables.zeros(ROWS, VOCAB, DEVICE)
    for slot in range(ROWS):
        used = torch.arange(slot, 9000, 17, device=DEVICE)
        tables.take(slot, used[:200], used[100:].repeat(2), [(slot, -100.0)])
    return tables


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("flat", [0.3, 3.0])
def test_tokens_are_the_twins_and_those_of_rows_alone(dtype: torch.dtype, flat: float) -> None:
    logits, rows = flat * normal(ROWS, VOCAB, dtype=dtype), sampling_rows()
    scratch = SamplingScratch(ROWS, VOCAB, DEVICE)
    twin, mine = (
        sample_twin(logits, rows, slot_tables()),
        sample(logits, rows, scratch, slot_tables()),
    )
    # A random number that falls within rounding of the border between two tokens may give either.
    assert (mine.token_R != twin.token_R).sum() <= 1
    torch.testing.assert_close(mine.logprob_R, twin.logprob_R, atol=1e-3, rtol=1e-3)
    wanted = torch.full((ROWS,), 20, dtype=torch.int32, device=DEVICE)
    found, expected = (
        top_logprobs(logits, wanted, 20, scratch), top_logprobs_twin(logits, wanted, 20),
    )  # fmt: skip
    torch.testing.assert_close(found.logprob_RA, expected.logprob_RA, atol=1e-4, rtol=1e-4)
    for r in range(ROWS):
        alone = sample(logits[r : r + 1], sampling_rows(r, 1), scratch, slot_tables())
        assert torch.equal(alone.token_R[0], mine.token_R[r])
        assert torch.equal(alone.logprob_R[0], mine.logprob_R[r])


@pytest.mark.parametrize(("n", "k"), [(4096, 4096), (6144, 4096), (4096, 14336), (512, 896)])
def test_a_product_does_not_feel_how_many_rows_there_are(n: int, k: int) -> None:
    scratch, x, weight = Scratch(DEVICE), normal(64, k), normal(n, k) * k**-0.5
    together = skinny_gemm(x, weight, scratch)
    torch.testing.assert_close(together, skinny_gemm_twin(x, weight), **CLOSE)
    for m in (1, 2, 16, 17, 33):
        for first in (0, 64 - m):
            rows = slice(first, first + m)
            assert torch.equal(skinny_gemm(x[rows], weight, scratch), together[rows]), (m, first)
    for _ in range(100):  # whoever comes last, the sum is the same
        assert torch.equal(skinny_gemm(x, weight, scratch), together)


def coded_linear(n: int, k: int, groups: int) -> Fp8Linear:
    codes = (60 * normal(n, k).float()).clamp(-448, 448).to(CODES)
    scales = torch.rand(groups, n, device=DEVICE).T * k**-0.5 / 30
    return Fp8Linear(Fp8Weight(codes, scales, k if groups == 1 else GROUP, True), None)


@needs_fp8
@pytest.mark.parametrize(("n", "k"), [(6144, 4096), (4096, 14336), (512, 896)])
@pytest.mark.parametrize("by_block", [False, True])
def test_eight_bits_do_not_feel_how_many_rows_there_are(n: int, k: int, by_block: bool) -> None:
    linear = coded_linear(n, k, k // GROUP if by_block else 1)
    scratch, x = Scratch(DEVICE), normal(64, k)
    codes, scales = linear.stored.codes_NK, linear.stored.scales_NG
    together = skinny_gemm(x, codes, scratch, scales_NG=scales)
    twin = skinny_gemm_twin(x, codes, scales_NG=scales)
    torch.testing.assert_close(together, twin, **CLOSE)
    for m in (1, 2, 16, 17, 33):
        rows = slice(64 - m, 64)
        alone = skinny_gemm(x[rows], codes, scratch, scales_NG=scales)
        assert torch.equal(alone, together[rows]), m


@needs_fp8
@pytest.mark.parametrize("rows", [65, 256, 1000])
@pytest.mark.parametrize("by_block", [False, True])
def test_many_rows_are_multiplied_in_eight_bits_and_can_be_captured(
    rows: int, by_block: bool
) -> None:
    n, k = 1024, 2048
    linear = coded_linear(n, k, k // GROUP if by_block else 1)
    weight = merged([linear], Scratch(DEVICE))
    assert weight is not None
    product, x, residual = Product(weight, None), normal(rows, k), normal(rows, n)
    for _ in range(2):
        product.add(x, residual)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = product.add(x, residual)
    x.copy_(normal(rows, k + 1)[:, 1:])
    graph.replay()
    exact = x.float() @ linear.stored.dense(torch.float32).T + residual.float()
    error = float((out.float() - exact).norm() / exact.norm())
    assert error < 1e-2 if by_block else 1e-2 < error < 6e-2
    codes, twin = row_codes(x), row_codes_twin(x)
    torch.testing.assert_close(codes.scales_M1, twin.scales_M1)
    assert (codes.codes_MK.float() != twin.codes_MK.float()).float().mean() < 1e-2
    plain = decoded(linear.weight, linear.scales, linear.stored.group, torch.bfloat16)
    assert torch.equal(plain, linear.stored.dense(torch.bfloat16))


def test_a_layers_launches_can_be_captured_and_replayed() -> None:
    rows, hidden, heads, heads_kv, dim = 5, 1024, 8, 2, 128
    scratch, x, residual = Scratch(DEVICE), normal(rows, hidden), normal(rows, hidden)
    scale = 1 + normal(hidden)
    qkv_weight = normal((heads + 2 * heads_kv) * dim, hidden) * hidden**-0.5
    up_weight = normal(4 * hidden, hidden) * hidden**-0.5
    angles = torch.arange(100, device=DEVICE)[:, None] * 0.1 ** torch.arange(64, device=DEVICE)
    rotation = Rotation(torch.cat([angles.cos(), angles.sin()], dim=1).float().contiguous())
    at = torch.arange(rows, dtype=torch.int32, device=DEVICE)
    tables = (7 - at)[:, None].contiguous()
    places = Places(at + 3, at, tables, (at + 3)[None])
    pages, others = (
        torch.zeros(8, 2, heads_kv, 64, dim, dtype=x.dtype, device=DEVICE) for _ in "kv"
    )
    logits = normal(rows, VOCAB)
    sampling, chosen = SamplingScratch(rows, VOCAB, DEVICE), sampling_rows(0, rows)
    slots = slot_tables()

    def heads_of(qkv: torch.Tensor) -> tuple[torch.Tensor, ...]:
        parts = qkv.view(rows, -1, dim).split([heads, heads_kv, heads_kv], dim=1)
        return tuple(parts)

    def step() -> tuple[torch.Tensor, ...]:
        normed, total = residual_norm(x, residual, scale, 1e-6)
        q, k, v = heads_of(skinny_gemm(normed, qkv_weight, scratch))
        turned = rope_and_write(q, k, v, pages, places, rotation)
        product = skinny_gemm(normed, up_weight, scratch)
        fused = skinny_gemm(normed, up_weight, scratch, gate=Gate.SILU)
        token = sample(logits, chosen, sampling, slots).token_R
        return total, turned, gated(product, Gate.SILU), fused, token

    for _ in range(2):
        step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total, turned, gate, fused, token = step()
    x.copy_(2 * normal(rows, hidden + 1)[:, 1:])
    before = slots.uses_SV.clone()
    graph.replay()
    normed, expected_total = residual_norm_twin(x, residual, scale, 1e-6)
    q, k, v = heads_of(skinny_gemm_twin(normed, qkv_weight))
    expected = rope_and_write_twin(q, k, v, others, places, rotation)
    product = skinny_gemm_twin(normed, up_weight)
    torch.testing.assert_close(total, expected_total)
    loose = {"atol": 6e-2, "rtol": 6e-2}
    torch.testing.assert_close(turned, expected, **loose)
    torch.testing.assert_close(pages, others, **loose)
    torch.testing.assert_close(gate, gated_twin(product, Gate.SILU), **loose)
    torch.testing.assert_close(fused, gated_twin(product, Gate.SILU), **loose)
    counted = (slots.uses_SV - before).gather(1, token.long()[:, None])
    assert (counted == 2).all()
