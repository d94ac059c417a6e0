import pytest
import torch

from tercet.kernels.activation import Form, NativeActivation

DTYPES = [(torch.float32, 1e-6), (torch.bfloat16, 1e-2)]


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("shape", [(1, 1, 64), (3, 5, 7), (2, 24), (130, 513), (33,)])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_kernel_agrees_with_its_twin(
    form: Form, shape: tuple[int, ...], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    x = 6 * torch.randn(shape).to(dtype)
    out = NativeActivation(dtype)(x, form)
    assert out.dtype == dtype
    torch.testing.assert_close(out, form.twin(x), atol=tolerance, rtol=2 * tolerance)


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_element_is_the_same_wherever_it_stands_and_whoever_computes_it(
    form: Form, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    wide = 20 * torch.randn(2, 97, 200).to(dtype)
    x = wide[..., :119]  # rows lie apart, and end within a vector
    one, three = NativeActivation(dtype), NativeActivation(dtype, threads=3)
    whole = three(x, form)
    assert torch.equal(whole, one(x.contiguous(), form))
    alone = torch.stack([one(element[None], form)[0] for element in x[0, :4].flatten()])
    assert torch.equal(whole[0, :4].flatten(), alone)


@pytest.mark.parametrize("form", Form)
def test_the_ends_of_the_numbers_are_as_they_should_be(form: Form) -> None:
    x = torch.tensor([0.0, -0.0, 1e30, -1e30, torch.inf, 3e-39, -88.0, -104.0])
    out = NativeActivation(torch.float32)(x, form)
    torch.testing.assert_close(out[:6], torch.tensor([0.0, 0.0, 1e30, 0.0, torch.inf, 1.5e-39]))
    assert (out[6:].abs() < 1e-30).all()
    assert NativeActivation(torch.float32)(torch.tensor([torch.nan]), form).isnan().all()


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("shape", [(1, 64), (3, 119), (130, 513)])
@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_a_gate_is_the_activation_of_one_half_times_the_other(
    form: Form, shape: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    torch.manual_seed(0)
    rows, depth = shape
    x = 3 * torch.randn(rows, 2 * depth).to(dtype)
    one, three = NativeActivation(dtype), NativeActivation(dtype, threads=3)
    out = one.gated(x, form)
    gate, up = x.float().chunk(2, dim=1)
    expected = (form.twin(gate) * up).to(dtype)
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=2 * tolerance)
    assert torch.equal(out, three.gated(x, form))
    assert torch.equal(out[:1], one.gated(x[:1], form))
