import pytest
import torch

from tercet.kernels.gpu.gated import Gate
from tercet.kernels.gpu.skinny_gemm import (
    PROGRAMS_AIM,
    Scratch,
    plan_of,
    skinny_gemm,
    skinny_gemm_twin,
)

pytestmark = pytest.mark.usefixtures("on_device")

TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}


@pytest.fixture
def scratch(on_device: None) -> Scratch:
    return Scratch(torch.get_default_device())


def inputs(
    m: int, n: int, k: int, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(m)
    return torch.randn(m, k).to(dtype), (torch.randn(n, k) * k**-0.5).to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("m", "n", "k"), [(1, 70, 1056), (5, 64, 200), (19, 6, 64), (64, 34, 1152)]
)
def test_kernel_agrees_with_its_twin(
    scratch: Scratch, m: int, n: int, k: int, dtype: torch.dtype
) -> None:
    x, weight = inputs(m, n, k, dtype)
    out, tolerance = skinny_gemm(x, weight, scratch), TOLERANCE[dtype]
    assert out.dtype == dtype
    torch.testing.assert_close(out, skinny_gemm_twin(x, weight), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("k", [96, 1056])
@pytest.mark.parametrize("gate", [None, *Gate])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("added", [False, True])
def test_what_is_fused_in_agrees_with_its_twin(
    scratch: Scratch, k: int, gate: Gate | None, biased: bool, added: bool
) -> None:
    n, outputs = 76, 38 if gate else 76
    x, weight = inputs(3, n, k)
    bias = torch.randn(n) if biased else None
    residual = torch.randn(3, outputs) if added else None
    fused = {"bias_N": bias, "gate": gate, "residual_MN": residual}
    out = skinny_gemm(x, weight, scratch, **fused)
    assert out.shape == (3, outputs)
    torch.testing.assert_close(out, skinny_gemm_twin(x, weight, **fused), atol=1e-5, rtol=1e-5)


def coded(n: int, k: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A weight of 8-bit floats and its scales, which differ by much, those of a group side by side."""
    codes = (torch.randn(n, k) * 60).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, (torch.rand(groups, n) * k**-0.5 / 30).T


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    ("n", "k", "groups"), [(70, 1056, 1), (70, 1056, 9), (64, 200, 2), (6, 64, 1)]
)
@pytest.mark.parametrize("gate", [None, Gate.SILU])
def test_weights_of_eight_bits_agree_with_their_twin(
    scratch: Scratch, n: int, k: int, groups: int, gate: Gate | None, dtype: torch.dtype
) -> None:
    x, _ = inputs(5, n, k, dtype)
    codes, scales = coded(n, k, groups)
    out = skinny_gemm(x, codes, scratch, scales_NG=scales, gate=gate)
    twin = skinny_gemm_twin(x, codes, scales_NG=scales, gate=gate)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out, twin, atol=tolerance, rtol=tolerance)


def test_eight_bits_come_before_bias_gate_and_residual(scratch: Scratch) -> None:
    (x, _), (codes, scales) = inputs(3, 76, 1056), coded(76, 1056, 9)
    fused = {"bias_N": torch.randn(76), "gate": Gate.GELU_TANH, "residual_MN": torch.randn(3, 38)}
    out = skinny_gemm(x, codes, scratch, scales_NG=scales, **fused)
    twin = skinny_gemm_twin(x, codes, scales_NG=scales, **fused)
    torch.testing.assert_close(out, twin, atol=1e-5, rtol=1e-5)
    assert torch.equal(out, skinny_gemm(x, codes, scratch, scales_NG=scales.contiguous(), **fused))


def test_a_row_does_not_feel_the_batch(scratch: Scratch) -> None:
    x, weight = inputs(7, 70, 1056)
    together = skinny_gemm(x, weight, scratch)
    for m in range(7):
        assert torch.equal(skinny_gemm(x[m : m + 1], weight, scratch)[0], together[m])


def test_whoever_counts_to_the_end_puts_the_count_back(scratch: Scratch) -> None:
    x, weight = inputs(2, 200, 1056)
    assert plan_of(200, 1056).splits > 1
    first = skinny_gemm(x, weight, scratch)
    assert not scratch.done.any()
    assert torch.equal(skinny_gemm(x, weight, scratch), first)


def test_rows_and_weights_may_lie_apart(scratch: Scratch) -> None:
    x, weight = inputs(4, 20, 128)
    expected = skinny_gemm_twin(x[::2, :64], weight[:, 64:])
    out = skinny_gemm(x[::2, :64], weight[:, 64:], scratch)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    assert skinny_gemm(x[:0], weight, scratch).shape == (0, 20)


@pytest.mark.parametrize(
    ("outputs", "k"), [(64, 64), (1024, 4096), (4096, 14336), (6144, 4096), (128256, 4096)]
)
def test_parts_of_sums_fit_the_scratch_memory(outputs: int, k: int) -> None:
    plan = plan_of(outputs, k)
    programs = -(-outputs // plan.tile) * plan.splits
    assert plan.splits == 1 or programs <= PROGRAMS_AIM
    assert plan.splits == 1 or k // plan.splits >= 512


def test_many_outputs_are_not_summed_in_parts() -> None:
    assert plan_of(4096, 14336).splits == 1
    assert plan_of(1024, 14336).splits > 1


def launch(m: int, n: int, k: int, gated: bool) -> None:
    scratch = Scratch(torch.get_default_device())
    x, weight = (torch.empty(r, k, dtype=torch.bfloat16) for r in (m, 2 * n if gated else n))
    gate = Gate.SILU if gated else None
    residual = None if gated else torch.empty(m, n, dtype=torch.bfloat16)
    skinny_gemm(x, weight, scratch, gate=gate, residual_MN=residual)


@pytest.mark.parametrize(
    ("m", "n", "k", "gated"),
    [(1, 4096, 14336, False), (64, 1024, 14336, False), (64, 12288, 4096, True)],
)
def test_the_kernel_compiles_to_wgmma_behind_asynchronous_copies(compiled, m, n, k, gated) -> None:
    (kernel,) = compiled(launch, m, n, k, gated)
    kernel.check()
    assert kernel.wgmma
    assert not kernel.mma
    assert kernel.async_copies_16b >= 16
    shared = plan_of(n, k, gated=gated).shared_bytes
    assert kernel.shared_bytes <= shared, (
        "as many programs should share a multiprocessor as planned"
    )


def launch_coded(m: int, n: int, k: int, groups: int, gated: bool) -> None:
    rows, gate = (2 * n, Gate.SILU) if gated else (n, None)
    skinny_gemm(
        torch.empty(m, k, dtype=torch.bfloat16),
        torch.empty(rows, k, dtype=torch.float8_e4m3fn),
        Scratch(torch.get_default_device()),
        scales_NG=torch.empty(groups, rows).T,
        gate=gate,
    )


@pytest.mark.parametrize(
    ("m", "n", "k", "groups", "gated"),
    [(1, 4096, 14336, 1, False), (64, 4096, 14336, 112, False), (64, 12288, 4096, 32, True)],
)
def test_eight_bits_become_sixteen_in_the_registers_of_a_wgmma(
    compiled, m, n, k, groups, gated
) -> None:
    (kernel,) = compiled(launch_coded, m, n, k, groups, gated)
    kernel.check()
    assert kernel.wgmma
    assert not kernel.mma
    assert kernel.async_copies_16b >= 8
    assert kernel.shared_bytes <= plan_of(n, k, gated=gated).shared_bytes
