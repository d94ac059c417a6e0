import pytest
import torch

from tercet.kernels.gpu.decoded import decoded, decoded_twin

pytestmark = pytest.mark.usefixtures("on_device")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("n", "k", "group"), [(5, 1100, 128), (3, 200, 200), (7, 64, 128)])
def test_kernel_agrees_with_its_twin(n: int, k: int, group: int, dtype: torch.dtype) -> None:
    torch.manual_seed(n)
    codes = (torch.randn(n, k) * 60).clamp(-448, 448).to(torch.float8_e4m3fn)
    scales = torch.rand(n, -(-k // group)) / 30
    out = decoded(codes, scales, group, dtype)
    tolerance = 1e-2 if dtype == torch.bfloat16 else 0  # the interpreter cuts off what a GPU rounds
    twin = decoded_twin(codes, scales, group, dtype)
    torch.testing.assert_close(out, twin, atol=0, rtol=tolerance)


def test_rows_may_lie_apart() -> None:
    codes, scales = torch.randn(6, 64).to(torch.float8_e4m3fn), torch.rand(6, 2)
    out = decoded(codes[::2, :32], scales[::2, :1], 32, torch.float32)
    assert torch.equal(out, decoded_twin(codes[::2, :32], scales[::2, :1], 32, torch.float32))


def launch(n: int, k: int, group: int) -> None:
    codes = torch.empty(n, k, dtype=torch.float8_e4m3fn)
    decoded(codes, torch.empty(n, -(-k // group)), group, torch.bfloat16)


@pytest.mark.parametrize("group", [128, 4096])
def test_the_kernel_compiles_without_spills(compiled, group: int) -> None:
    (kernel,) = compiled(launch, 4096, 4096, group)
    kernel.check()
