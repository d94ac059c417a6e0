"""What can never be served is known before it disturbs anybody; whether a log is complete follows from the log."""

import math

import pytest

from tercet.ids import RequestId
from tercet.request import FinishReason, RequestSpec, Sampling
from tercet.workers.limits import Limits

LIMITS = Limits(
    vocab_size=10,
    context_tokens_max=30,
    eos_token_ids=frozenset({9}),
    block_tokens=4,
    blocks=4,
)


def make_spec(prompt: list[int], **sampling: object) -> RequestSpec:
    return RequestSpec(RequestId("r"), prompt, Sampling(**sampling))


def objection(prompt: list[int], *output: int, hand_off: bool = False, **sampling: object) -> str:
    spec = make_spec(prompt, **sampling)
    return LIMITS.objection(spec, [*prompt, *output], hand_off=hand_off) or ""


def finish(prompt: list[int], *output: int, **sampling: object) -> FinishReason | None:
    return LIMITS.finish_of(make_spec(prompt, **sampling), [*prompt, *output])


def test_a_prompt_must_leave_a_block_for_the_next_token() -> None:
    assert not objection([1] * 15)
    assert "KV blocks" in objection([1] * 16)
    assert not objection([1] * 16, max_tokens=1), "the only output token never gets KV"
    assert not objection([1] * 16, hand_off=True), "the next token is another worker's"
    assert "KV blocks" in objection([1] * 17, hand_off=True)


def test_a_prompt_must_leave_room_in_the_context() -> None:
    assert "context" in objection([1] * 30)
    assert "context" not in objection([1] * 29)


@pytest.mark.parametrize("tokens", [[10], [-1], [3, 99]])
def test_tokens_must_be_in_the_vocabulary(tokens: list[int]) -> None:
    assert "vocabulary" in objection(tokens)
    assert "vocabulary" in objection([1], *tokens)


def test_an_empty_prompt_has_no_last_token_to_continue() -> None:
    assert "empty" in objection([])


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("min_p", -1.0),
        ("top_k", -1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", math.inf),
        ("logit_bias", {10: 1.0}),
        ("logit_bias", {1: math.nan}),
        ("logprobs", -1),
    ],
)
def test_sampling_that_would_break_a_batch_is_named(field: str, value: object) -> None:
    assert field in objection([1], **{field: value})


def test_a_log_ends_with_an_end_token_unless_that_is_ignored_or_too_early() -> None:
    assert finish([1], 9) is FinishReason.STOP
    assert finish([9]) is None, "an end token of the prompt ends nothing"
    assert finish([1], 9, ignore_eos=True) is None
    assert finish([1], 5, stop_token_ids=(5,), ignore_eos=True) is FinishReason.STOP
    assert finish([1], 9, min_tokens=2) is None
    assert finish([1], 2, 9, min_tokens=2) is FinishReason.STOP


def test_a_log_ends_with_its_budget_or_the_context() -> None:
    assert finish([1], 2, 3, max_tokens=2) is FinishReason.LENGTH
    assert finish([1], 2, max_tokens=2) is None
    assert finish([1] * 28, 2, 2, max_tokens=99) is FinishReason.LENGTH
    assert finish([1] * 28, 2, max_tokens=99) is None
    assert finish([1], 2, 9, max_tokens=2) is FinishReason.STOP, "the model was done by itself"
