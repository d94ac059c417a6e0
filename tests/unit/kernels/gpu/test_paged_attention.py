"""The kernels together, over mixed batches, against `reference.paged_attention`."""

import pytest
import torch

from tercet.kernels import reference
from tercet.kernels.gpu import paged_attention
from tercet.kernels.gpu.attention_tuning import AttentionTuning, DecodeTuning, PrefillTuning
from tercet.kernels.gpu.device_batch import DeviceBatch
from tercet.kernels.gpu.paged_attention import TritonPagedAttention
from tercet.kernels.paged_attention import best_paged_attention

PREFILL = PrefillTuning(rows=32, tile=16, warps=4, stages=2)
DECODE = DecodeTuning(tile=16, split_min=32, split_max=64, warps=4, stages=2, programs_per_sm=1)
TUNING = AttentionTuning(256, 4, DECODE, PREFILL, PREFILL)
SINKS = torch.tensor([0.5, -1.0, 3.0, 0.0])
BATCHES = {
    "mixed": [(0, 9), (13, 1), (0, 1), (5, 20), (40, 1), (8, 3)],
    "fresh": [(0, 20), (0, 1), (0, 9)],
    "decoding": [(40, 1), (3, 1)],
}


def both(case, attention: TritonPagedAttention) -> tuple[torch.Tensor, torch.Tensor]:
    """Results of the kernels and of the reference, having found the pages equal."""
    k, v = torch.randn_like(case.k), torch.randn_like(case.v)
    pages = case.pages.nan_to_num(0.0)  # the reference reads what it then hides
    twins = pages.clone()
    mine = attention(case.q, k, v, pages, case.host, case.rule)
    theirs = reference.paged_attention(case.q, k, v, twins, case.host, case.rule)
    assert torch.equal(pages, twins)
    return mine, theirs


@pytest.mark.parametrize(
    ("batch", "rule"),
    [
        ("mixed", {}),
        ("mixed", dict(window=7)),
        ("mixed", dict(window=3, softcap=5.0, sinks=SINKS, scale=0.7)),
        ("fresh", dict(window=7)),
        ("decoding", dict(sinks=SINKS)),
    ],
)
def test_it_is_the_references_attention(make_case, batch, rule) -> None:
    mine, theirs = both(make_case(BATCHES[batch], **rule), TritonPagedAttention(TUNING, 3))
    torch.testing.assert_close(mine, theirs, atol=5e-6, rtol=0)


def test_keys_that_tma_cannot_read_are_read_from_pages(make_case) -> None:
    case = make_case(BATCHES["fresh"], dim=18)
    mine, theirs = both(case, TritonPagedAttention(TUNING, 3))
    torch.testing.assert_close(mine, theirs, atol=5e-6, rtol=0)


def test_what_a_batch_needs_is_made_once_for_all_layers(make_case, monkeypatch) -> None:
    made = []
    monkeypatch.setattr(
        paged_attention,
        "DeviceBatch",
        type("Noting", (), {"of": lambda *a: made.append(a) or of(*a)}),
    )
    of, attention = DeviceBatch.of, TritonPagedAttention(TUNING, 3)
    one, other = make_case(BATCHES["decoding"]), make_case(BATCHES["fresh"])
    for case in (one, one, other, one):
        mine, theirs = both(case, attention)
        torch.testing.assert_close(mine, theirs, atol=5e-6, rtol=0)
    assert [host for host, _ in made] == [one.host, other.host, one.host]


def test_it_is_chosen_on_gpus_where_shapes_fit(monkeypatch) -> None:
    own = TritonPagedAttention(TUNING, 3)
    monkeypatch.setattr(TritonPagedAttention, "on", lambda *_: own)
    cuda = torch.device("cuda")
    assert best_paged_attention(cuda, torch.bfloat16, 128, 4, 1) is own
    assert best_paged_attention(cuda, torch.bfloat16, 512, 4, 1) is reference.paged_attention
    assert best_paged_attention(cuda, torch.bfloat16, 128, 71, 1) is reference.paged_attention
