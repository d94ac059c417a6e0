import pytest
import torch

from tercet.kernels.gpu.kv_write import kv_write, kv_write_twin

pytestmark = pytest.mark.usefixtures("on_device")


@pytest.mark.parametrize("codes", [None, torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize(
    "shape",
    [
        dict(dtype=torch.float32, kv_heads=3, heads=3, dim=24, page_tokens=4),
        dict(dtype=torch.bfloat16, kv_heads=2, dim=96, page_tokens=16),
    ],
)
def test_rows_come_to_stand_where_the_twin_puts_them_and_nothing_else_changes(
    make_case, shape, codes
) -> None:
    case = make_case([(5, 3), (0, 1), (17, 6)], codes=codes, **shape)
    case.batch.positions_N[4] = -1  # a row that stands for none
    k, v = (torch.randn(x.shape).to(x.dtype) * 4 for x in (case.k, case.v))
    k[0, 0, 0], v[2, 1, 3] = 1e4, -1e4  # beyond every code
    mine, theirs = case.pages.clone(), case.pages.clone()
    kv_write(k, v, mine, case.batch, case.scales)
    kv_write_twin(k, v, theirs, case.batch, case.scales)
    raw = torch.uint8 if codes else torch.int16 if k.dtype == torch.bfloat16 else torch.int32
    assert torch.equal(mine.view(raw), theirs.view(raw))
    assert not torch.equal(mine.view(raw), case.pages.view(raw))


def test_rows_that_lie_apart_are_found(make_case) -> None:
    case = make_case([(5, 3)], dim=8)
    k, v = torch.randn(2, 2, 3, 8).transpose(1, 2)
    mine, theirs = case.pages.clone(), case.pages.clone()
    kv_write(k, v, mine, case.batch)
    kv_write_twin(k, v, theirs, case.batch)
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
