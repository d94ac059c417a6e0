"""The C++ kernel against its plain-torch twin, and the twin against textbook attention over unpaged tensors."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tercet.kernels import reference
from tercet.kernels.paged_attention import NativePagedAttention, best_paged_attention
from tercet.kernels.paged_batch import PagedBatch
from tercet.kernels.softmax_rule import SoftmaxRule

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}


@dataclass
class Case:
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    pages: torch.Tensor
    batch: PagedBatch
    histories: list[tuple[torch.Tensor, torch.Tensor]]
    """Each request's keys and values before this step, `[context, G, D]`."""


def make_case(
    runs: list[tuple[int, int]],
    *,
    heads: int = 4,
    kv_heads: int = 2,
    dim: int = 16,
    page_tokens: int = 4,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> Case:
    """A layer's input for requests given as (tokens before, new rows), in pages dealt at random."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    needed = [-(-(context + rows) // page_tokens) for context, rows in runs]
    order = torch.randperm(sum(needed) + 3, generator=generator).tolist()
    tables = [[order.pop() for _ in range(count)] for count in needed]
    pool = normal(sum(needed) + 3, 3, 2, kv_heads, page_tokens, dim)
    pages = pool[:, 1]  # one layer of a pool: strided, as in use
    histories = []
    for (context, _), table in zip(runs, tables, strict=True):
        k, v = normal(context, kv_heads, dim), normal(context, kv_heads, dim)
        for at in range(context):
            pages[table[at // page_tokens], 0, :, at % page_tokens] = k[at]
            pages[table[at // page_tokens], 1, :, at % page_tokens] = v[at]
        histories.append((k, v))
    rows = sum(length for _, length in runs)
    batch = PagedBatch.of(
        [length for _, length in runs], [context for context, _ in runs], tables, page_tokens
    )
    return Case(
        q=normal(heads, rows, dim).transpose(0, 1),
        k=normal(kv_heads, rows, dim).transpose(0, 1),
        v=normal(rows, kv_heads, dim),
        pages=pages,
        batch=batch,
        histories=histories,
    )


def textbook(case: Case, rule: SoftmaxRule) -> torch.Tensor:
    """Row by row and head by head, over whole sequences, in double precision."""
    out = torch.empty(case.q.shape, dtype=torch.float64)
    group = case.q.shape[1] // case.k.shape[1]
    for request, (old_k, old_v) in enumerate(case.histories):
        begin, end = case.batch.query_starts[request], case.batch.query_starts[request + 1]
        k = torch.cat([old_k, case.k[begin:end]]).double()
        v = torch.cat([old_v, case.v[begin:end]]).double()
        for row in range(begin, end):
            at = len(old_k) + row - begin
            first = max(0, at - rule.window + 1) if rule.window else 0
            for head in range(case.q.shape[1]):
                keys, values = k[first : at + 1, head // group], v[first : at + 1, head // group]
                scores = keys @ case.q[row, head].double() * rule.scale
                if rule.softcap:
                    scores = rule.softcap * torch.tanh(scores / rule.softcap)
                if rule.sinks is not None:
                    scores = torch.cat([scores, rule.sinks[head : head + 1].double()])
                weights = scores.softmax(0)[: len(values)]
                out[row, head] = weights @ values
    return out


MIXED = [(0, 9), (13, 1), (0, 1), (5, 6), (40, 1), (8, 3)]
RULES = [
    SoftmaxRule(scale=0.25),
    SoftmaxRule(scale=0.25, window=7),
    SoftmaxRule(scale=1.5, softcap=2.0),
    SoftmaxRule(scale=0.25, sinks=torch.tensor([0.5, -1.0, 3.0, 0.0])),
    SoftmaxRule(scale=0.7, window=3, softcap=5.0, sinks=torch.tensor([0.5, -1.0, 3.0, 0.0])),
]


@pytest.fixture(scope="module")
def native() -> dict[torch.dtype, NativePagedAttention]:
    return {dtype: NativePagedAttention(dtype) for dtype in TOLERANCE}


@pytest.mark.parametrize("rule", RULES)
def test_twin_is_textbook_attention(rule: SoftmaxRule) -> None:
    case = make_case(MIXED)
    out = reference.paged_attention(case.q, case.k, case.v, case.pages, case.batch, rule)
    torch.testing.assert_close(out.double(), textbook(case, rule), atol=2e-6, rtol=0)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("rule", RULES)
def test_kernel_agrees_with_textbook(
    native: dict[torch.dtype, NativePagedAttention], rule: SoftmaxRule, dtype: torch.dtype
) -> None:
    case = make_case(MIXED, dtype=dtype)
    out = native[dtype](case.q, case.k, case.v, case.pages, case.batch, rule)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out.double(), textbook(case, rule), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
def test_both_write_the_same_pages_and_nothing_else(
    native: dict[torch.dtype, NativePagedAttention], dtype: torch.dtype
) -> None:
    ours, twin = make_case(MIXED, dtype=dtype), make_case(MIXED, dtype=dtype)
    before = ours.pages.clone()
    native[dtype](ours.q, ours.k, ours.v, ours.pages, ours.batch, RULES[0])
    reference.paged_attention(twin.q, twin.k, twin.v, twin.pages, twin.batch, RULES[0])
    assert torch.equal(ours.pages, twin.pages)
    changed = (ours.pages != before).any(dim=-1).sum()
    assert changed == 2 * 2 * ours.batch.rows  # keys and values, two heads


@settings(max_examples=40, deadline=None)
@given(
    runs=st.lists(st.tuples(st.integers(0, 150), st.integers(1, 90)), min_size=1, max_size=4),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (16, 1), (9, 3)]),
    dim=st.sampled_from([8, 24, 64, 72]),
    page_tokens=st.sampled_from([1, 5, 16, 64]),
    window=st.sampled_from([0, 1, 17, 64]),
    seed=st.integers(0, 1000),
)
def test_kernel_agrees_with_its_twin_on_odd_shapes(
    native: dict[torch.dtype, NativePagedAttention],
    runs: list[tuple[int, int]],
    heads: tuple[int, int],
    dim: int,
    page_tokens: int,
    window: int,
    seed: int,
) -> None:
    shape = dict(heads=heads[0], kv_heads=heads[1], dim=dim, page_tokens=page_tokens, seed=seed)
    case, rule = make_case(runs, **shape), SoftmaxRule(scale=dim**-0.5, window=window)
    out = native[torch.float32](case.q, case.k, case.v, case.pages, case.batch, rule)
    twin = reference.paged_attention(case.q, case.k, case.v, case.pages, case.batch, rule)
    torch.testing.assert_close(out, twin, atol=5e-6, rtol=0)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("dim", [24, 64])
@pytest.mark.parametrize("rule", RULES[:3] + RULES[4:])
def test_a_row_does_not_depend_on_the_rows_computed_with_it(
    native: dict[torch.dtype, NativePagedAttention],
    rule: SoftmaxRule,
    dim: int,
    dtype: torch.dtype,
) -> None:
    case = make_case([(0, 150)], dim=dim, dtype=dtype)
    attend, table = native[dtype], case.batch.tables.tolist()

    def rows(begin: int, end: int) -> torch.Tensor:
        batch = PagedBatch.of([end - begin], [begin], table, case.batch.page_tokens)
        parts = (tensor[begin:end] for tensor in (case.q, case.k, case.v))
        return attend(*parts, case.pages, batch, rule)

    whole = rows(0, 150)
    one_by_one = torch.cat([rows(row, row + 1) for row in range(150)])
    chunked = torch.cat([rows(0, 7), rows(7, 70), rows(70, 150)])
    assert torch.equal(whole, one_by_one)
    assert torch.equal(whole, chunked)


def test_large_scores_do_not_overflow(native: dict[torch.dtype, NativePagedAttention]) -> None:
    case, rule = make_case([(200, 1), (30, 40)]), SoftmaxRule(scale=400.0)
    out = native[torch.float32](case.q, case.k, case.v, case.pages, case.batch, rule)
    assert torch.isfinite(out).all()
    torch.testing.assert_close(out.double(), textbook(case, rule), atol=1e-3, rtol=0)


def test_two_threads_give_the_very_same_result(
    native: dict[torch.dtype, NativePagedAttention],
) -> None:
    case = make_case(MIXED)
    one = native[torch.float32](case.q, case.k, case.v, case.pages, case.batch, RULES[0])
    kernel = NativePagedAttention(torch.float32, threads=2)
    assert torch.equal(one, kernel(case.q, case.k, case.v, case.pages, case.batch, RULES[0]))


def test_shapes_the_kernel_cannot_do_fall_back_to_the_twin() -> None:
    cpu = torch.device("cpu")
    twin = reference.paged_attention
    assert best_paged_attention(cpu, torch.float16, 64, 4, 1) is twin
    assert best_paged_attention(cpu, torch.float32, 60, 4, 1) is twin
    assert best_paged_attention(cpu, torch.float32, 64, 71, 1) is twin
    assert isinstance(best_paged_attention(cpu, torch.float32, 64, 4, 1), NativePagedAttention)


def test_wrong_shapes_are_refused_before_the_kernel_runs(
    native: dict[torch.dtype, NativePagedAttention],
) -> None:
    case = make_case(MIXED)
    with pytest.raises(AssertionError):
        native[torch.float32](case.q[:-1], case.k, case.v, case.pages, case.batch, RULES[0])
    with pytest.raises(AssertionError):
        native[torch.float32](case.q.double(), case.k, case.v, case.pages, case.batch, RULES[0])
