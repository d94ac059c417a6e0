"""The toy runner must be honest: the same context gives the same logits, and any damage to its KV changes them."""

import torch

from tercet.config import EngineConfig
from tercet.workers.runner import Slice
from tercet.workers.toy_runner import ToyRunner

CONFIG = EngineConfig(block_tokens=4, kv_blocks=8)
TOKENS = [5, 6, 7, 8, 9, 10]


def test_logits_do_not_depend_on_chunks_blocks_or_the_rest_of_the_batch() -> None:
    whole = ToyRunner(CONFIG).forward([Slice(TOKENS, 0, [0, 1], True)])
    runner = ToyRunner(CONFIG)
    none = runner.forward([Slice(TOKENS[:3], 0, [7, 2], False), Slice([1, 2], 0, [0], False)])
    assert none.shape == (0, runner.vocab_size)
    rest = runner.forward([Slice([3], 2, [0], True), Slice(TOKENS[3:], 3, [7, 2], True)])
    assert torch.equal(rest[1], whole[0])
    assert not torch.equal(rest[0], whole[0])
    assert whole.dtype == torch.float32


def test_damage_to_any_earlier_token_changes_the_logits() -> None:
    runner = ToyRunner(CONFIG)
    good = runner.forward([Slice(TOKENS, 0, [3, 4], True)])
    for block, slot in ((3, 0), (3, 3), (4, 0)):
        kept = runner.kv.tensor[block].clone()
        runner.kv.tensor[block, -1, 1, 0, slot, -1] += 1
        assert not torch.equal(runner.forward([Slice(TOKENS[5:], 5, [3, 4], True)]), good)
        runner.kv.tensor[block] = kept
    swapped = runner.kv.tensor[3].clone()
    runner.kv.tensor[3], runner.kv.tensor[4] = runner.kv.tensor[4].clone(), swapped
    assert not torch.equal(runner.forward([Slice(TOKENS[5:], 5, [3, 4], True)]), good)


def test_copied_blocks_give_the_same_logits_elsewhere() -> None:
    source, destination = ToyRunner(CONFIG), ToyRunner(CONFIG)
    source.forward([Slice(TOKENS, 0, [1, 2], False)])
    destination.kv.tensor[[6, 5]] = source.kv.tensor[[1, 2]]
    ours = source.forward([Slice([11], 6, [1, 2], True)])
    assert torch.equal(destination.forward([Slice([11], 6, [6, 5], True)]), ours)
