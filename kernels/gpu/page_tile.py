"""Where a tile of a request's keys or values lies, and how launchers describe pages to kernels.

Legend: B pages, T tokens of a page, G key/value heads, D head dim, K positions of a tile.
"""

import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.page_scales import QUANTISED, PageScales


@triton.jit
def pointers(
    head, table, position, end, page_stride,
    T: tl.constexpr, D: tl.constexpr, TILE: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    """`[TILE, PADDED]` pointers to positions `position …` of a request; `head` is where page 0 has the head's keys or values.

    Where tiles do not cross pages one page is looked up a tile, else one a position, and none from `end` on.
    """
    at = tl.arange(0, TILE)
    if T % TILE == 0:
        page = tl.load(table + position // T).to(tl.int64)
        tile = head + page * page_stride + (position % T) * D
        rows = tile + at * D
    else:
        pages = tl.load(table + (position + at) // T, mask=position + at < end, other=0)
        rows = head + pages.to(tl.int64) * page_stride + ((position + at) % T) * D
    return rows[:, None] + tl.arange(0, PADDED)[None, :]


def check_pages(
    q_NHD: torch.Tensor, pages_B2GTD: torch.Tensor, scales: PageScales | None
) -> tuple[int, int, int]:
    """G, T and D; asserts what kernels rely on. Pages are of the type of `q_NHD`, or codes with `scales`."""
    _, two, heads_kv, tokens, dim = pages_B2GTD.shape
    assert (two, dim) == (2, q_NHD.shape[2]), (pages_B2GTD.shape, q_NHD.shape)
    inner = (heads_kv * tokens * dim, tokens * dim, dim, 1)
    assert pages_B2GTD.stride()[1:] == inner, pages_B2GTD.stride()
    assert q_NHD.stride(2) == 1, q_NHD.stride()
    assert q_NHD.shape[1] % heads_kv == 0, (q_NHD.shape, heads_kv)
    if scales is None:
        assert pages_B2GTD.dtype == q_NHD.dtype, (pages_B2GTD.dtype, q_NHD.dtype)
    else:
        assert pages_B2GTD.dtype in QUANTISED, pages_B2GTD.dtype
        for scale_G in (scales.k_G, scales.v_G):
            assert scale_G.dtype == torch.float32, scale_G.dtype
            assert scale_G.shape == (heads_kv,), scale_G.shape
    return heads_kv, tokens, dim
