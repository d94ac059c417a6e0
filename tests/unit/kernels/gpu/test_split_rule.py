"""Counted by the host as the device counts, and never more than was made room for."""

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tercet.kernels.gpu.split_rule import SPLITS_AIM, SplitRule, split_size

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RULES = [SplitRule(4, 32), SplitRule(16, 16), SplitRule(128, 512)]


@triton.jit
def size_kernel(ends, sizes, N: tl.constexpr, LEAST: tl.constexpr, DOUBLINGS: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(sizes + at, split_size(tl.load(ends + at), LEAST, DOUBLINGS))


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_host_and_device_cut_alike(rule: SplitRule) -> None:
    ends = torch.arange(1, 1025, dtype=torch.int32, device=DEVICE) * 9
    sizes = torch.zeros_like(ends)
    size_kernel[1,](ends, sizes, N=len(ends), LEAST=rule.least, DOUBLINGS=rule.doublings)
    assert rule.counts(ends.cpu().numpy()).tolist() == (-(-ends // sizes)).tolist()
    assert set(sizes.tolist()) <= {rule.least << i for i in range(rule.doublings + 1)}


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_a_request_has_as_many_splits_as_it_is_meant_to_have(rule: SplitRule) -> None:
    ends = np.arange(1, 9 * rule.most * SPLITS_AIM)
    counts = rule.counts(ends)
    most = np.array([rule.count_max(int(end)) for end in ends[::7]])
    assert (counts[::7] <= most).all()
    longest = ends >= rule.most * SPLITS_AIM
    assert (counts[longest] == -(-ends[longest] // rule.most)).all()
    middle = (ends > rule.least * SPLITS_AIM) & ~longest
    assert (counts[middle] >= SPLITS_AIM // 2).all()
    assert (counts[~longest] <= SPLITS_AIM).all()


def test_lengths_must_be_doublings_of_each_other() -> None:
    with pytest.raises(AssertionError):
        SplitRule(16, 48)
