"""Step times: what was in a step, what a mixed one teaches, and what a refused request is told."""

import itertools

import pytest

from tercet.ids import FIRST_EPOCH, RequestId
from tercet.latency import UNFITTED
from tercet.request import RequestSpec, Sampling
from tercet.workers.batch import Chunk
from tercet.workers.pace import RETRY_S, RETRY_S_MAX, RETRY_S_MIN, Pace, StepContents
from tercet.workers.sequence import Sequence


def make_chunk(length: int, computed: int, tokens: int) -> Chunk:
    spec = RequestSpec(RequestId("r"), [1] * length, Sampling())
    return Chunk(Sequence(spec, FIRST_EPOCH, "f", 0, [1] * length, computed=computed), tokens)


def test_contents_count_decodes_and_prefills_apart() -> None:
    chunks = [make_chunk(10, 9, 1), make_chunk(5, 4, 1), make_chunk(20, 4, 3)]
    assert StepContents.of(chunks) == StepContents(
        decodes=2, decode_context=15, prefill_tokens=3, prefill_token_context=5 + 6 + 7
    )


def test_the_last_token_of_a_chunked_prompt_costs_what_a_decode_costs() -> None:
    assert StepContents.of([make_chunk(9, 8, 1)]).decodes == 1


def teach_decodes(pace: Pace) -> None:
    for batch, context in itertools.islice(itertools.cycle([(1, 40), (4, 300), (8, 200)]), 64):
        pace.observe(StepContents(batch, context), 0.010 + 0.001 * batch + 1e-5 * context)


def test_a_mixed_step_teaches_prefill_what_its_decodes_do_not_explain() -> None:
    pace = Pace()
    teach_decodes(pace)
    for tokens in itertools.islice(itertools.cycle([16, 64, 200]), 64):
        decodes_s = 0.010 + 0.001 * 4 + 1e-5 * 300
        pace.observe(StepContents(4, 300, tokens, tokens * 50), decodes_s + 0.0002 * tokens)
    c0, c1, c2 = pace.prefill_coefficients
    assert c0 + c1 * 100 + c2 * 5000 == pytest.approx(0.020, rel=0.05)


def test_a_mixed_step_teaches_nothing_while_decodes_are_unknown() -> None:
    pace = Pace()
    for _ in range(64):
        pace.observe(StepContents(4, 300, 64, 3200), 0.03)
    assert (pace.prefill_coefficients, pace.decode_coefficients) == (UNFITTED, UNFITTED)


def test_the_refused_are_told_when_the_pending_prefill_will_be_done() -> None:
    pace = Pace()
    assert pace.retry_after_s(1000) == RETRY_S
    for tokens in itertools.islice(itertools.cycle([16, 64, 200]), 64):
        pace.observe(StepContents(0, 0, tokens, tokens * (tokens + 1) // 2), 0.001 * tokens)
    assert pace.retry_after_s(2000) == pytest.approx(2.0, rel=0.1)
    assert pace.retry_after_s(0) == RETRY_S_MIN
    assert pace.retry_after_s(10**9) == RETRY_S_MAX
