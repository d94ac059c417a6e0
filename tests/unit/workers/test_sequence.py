"""A sequence stores facts; everything else follows from them."""

from tercet.blocks import hash_blocks
from tercet.ids import FIRST_EPOCH, BlockId, RequestId
from tercet.request import RequestSpec, Sampling
from tercet.workers.sequence import Sequence


def make_sequence(
    tokens: int, *, tenant: str = "", priority: int = 0, arrival: int = 0
) -> Sequence:
    prompt = list(range(tokens))
    spec = RequestSpec(RequestId("r"), prompt, Sampling(), priority, tenant_salt=tenant)
    return Sequence(spec, FIRST_EPOCH, "f", arrival, list(prompt))


def test_hashes_grow_with_the_log_and_equal_those_of_the_whole() -> None:
    sequence = make_sequence(6, tenant="t")
    assert len(sequence.block_hashes(4)) == 1
    for token in range(100, 111):
        sequence.tokens.append(token)
        domain = sequence.spec.hash_domain
        assert sequence.block_hashes(4) == list(hash_blocks(sequence.tokens, 4, domain))


def test_decoding_is_lacking_the_kv_of_the_last_token_only() -> None:
    sequence = make_sequence(6)
    assert sequence.remaining == 6
    sequence.computed = 6
    sequence.tokens.append(50)
    assert (sequence.remaining, sequence.output, sequence.output_tokens) == (1, [50], 1)


def test_higher_priority_ranks_first_and_then_earlier_arrival() -> None:
    late, early = make_sequence(1, arrival=2), make_sequence(1, arrival=1)
    urgent = make_sequence(1, arrival=3, priority=1)
    assert sorted([late, early, urgent], key=lambda s: s.rank) == [urgent, early, late]


def test_forgetting_blocks_forgets_their_kv_and_keeps_the_log() -> None:
    sequence = make_sequence(6)
    sequence.blocks, sequence.computed, sequence.registered_blocks = [BlockId(3), BlockId(1)], 5, 1
    assert sequence.forget_blocks() == [3, 1]
    assert (sequence.blocks, sequence.computed, sequence.registered_blocks) == ([], 0, 0)
    assert sequence.remaining == 6


def test_only_unmodified_greedy_sampling_is_plain() -> None:
    def plain(**sampling: object) -> bool:
        spec = RequestSpec(RequestId("r"), [1], Sampling(**sampling))
        return Sequence(spec, FIRST_EPOCH, "f", 0, [1]).plain

    assert plain()
    assert plain(seed=4, max_tokens=3, top_p=0.5, stop_token_ids=(3,)), "greedy needs no cuts"
    for change in (
        {"temperature": 0.1},
        {"repetition_penalty": 1.1},
        {"presence_penalty": 0.1},
        {"frequency_penalty": -0.1},
        {"logit_bias": {1: 1.0}},
        {"min_tokens": 1},
        {"logprobs": 0},
    ):
        assert not plain(**change), change
