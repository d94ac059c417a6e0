"""RAGPulse's components: names along their concatenation."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.errors import TraceError
from tercet.simulator.traces import Arrival, ReadOptions, Trace, load_trace

Written = Callable[..., Path]


def line(tokens: int, passages: list[int], user: list[int], system: int = 1) -> dict[str, object]:
    ids = {"sys_prompt": [system], "passages_ids": passages, "user_input": user}
    lengths = {"input_length": tokens, "output_length": 3}
    return {"timestamp": "82", **lengths, "hash_ids": ids, "session_id": "s-1"}


def arrivals(written: Written, *lines: dict[str, object]) -> list[Arrival]:
    """With a system prompt of 15 tokens, passages 1 and 2 of 10 each, user inputs 1 and 2 of 5 each."""
    written("1_sys_prompt.jsonl", [{"sys_prompt_id": 1, "token_length": 15}])
    written("2_passages.jsonl", [{"passage_id": id, "token_length": 10} for id in (1, 2)])
    written("4_user_input.jsonl", [{"user_input_id": id, "token_length": 5} for id in (1, 2)])
    path = written("0_trace.jsonl", lines)
    trace = load_trace(path, options=ReadOptions(block_tokens=10))
    assert isinstance(trace, Trace)
    return list(trace.arrivals)


def common(one: Arrival, other: Arrival) -> int:
    """Blocks; what differs once must differ to the end."""
    same = [a == b for a, b in zip(one.names, other.names, strict=False)]
    assert same == sorted(same, reverse=True)
    return sum(same)


def test_blocks_are_shared_as_far_as_the_components_before_their_end(written: Written) -> None:
    one, other, swapped = arrivals(
        written, line(40, [1, 2], [1]), line(40, [1, 2], [2]), line(40, [2, 1], [1])
    )
    assert [len(arrival.names) for arrival in (one, other, swapped)] == [4, 4, 4]
    assert common(one, other) == 3, "35 tokens in common"
    assert common(one, swapped) == 1, "15 tokens in common"


def test_equal_components_are_equal_names_but_for_what_they_leave_over(written: Written) -> None:
    one, other = arrivals(written, line(51, [1, 2], [1]), line(51, [1, 2], [1]))
    assert common(one, other) == 4, "components of 40 tokens in a prompt of 51"


def test_what_follows_a_component_of_unknown_length_is_shared_with_nobody(written: Written) -> None:
    one, other = arrivals(written, line(40, [1, 99], [1]), line(40, [1, 99], [1]))
    assert len(one.names) == 4
    assert common(one, other) == 2


def test_without_any_lengths_nothing_is_shared_and_the_trace_says_so(written: Written) -> None:
    trace = load_trace(written("0_trace.jsonl", [line(200, [1], [1]), line(200, [1], [1])]))
    assert isinstance(trace, Trace)
    one, other = trace.arrivals
    assert common(one, other) == 0
    assert trace.remarks == {"component of unknown length: prompt not shared from there": 2}
    assert (one.at_s, one.session) == (0, "s-1")


def test_a_wrong_component_file_is_refused_by_its_own_name(written: Written) -> None:
    written("2_passages.jsonl", [{"passage": 1, "token_length": 10}])
    with pytest.raises(TraceError, match=r"2_passages\.jsonl:1: passage_id: needs this id"):
        load_trace(written("0_trace.jsonl", [line(40, [1], [1])]))
