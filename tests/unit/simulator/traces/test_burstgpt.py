"""BurstGPT's CSV: what a session is taken to share, and what is left out."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.errors import TraceError
from tercet.simulator.traces import ReadOptions, Trace, load_trace

Written = Callable[..., Path]
HEADER = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
)


def loaded(written: Written, *rows: str) -> Trace:
    trace = load_trace(written("b.csv", [HEADER, *rows]), options=ReadOptions(block_tokens=10))
    assert isinstance(trace, Trace)
    return trace


def row(at_s: float, session: str, prompt: int, output: int) -> str:
    return f"{at_s},{session},1,GPT-4,{prompt},{output},{prompt + output},Conversation log"


def test_a_prompt_long_enough_continues_its_session(written: Written) -> None:
    trace = loaded(written, row(5, "a", 30, 12), row(9, "a", 42, 1), row(9, "b", 42, 1))
    first, second, other = trace.arrivals
    assert second.names[:3] == first.names
    assert not set(other.names) & set(second.names)
    assert (second.at_s, second.session, second.tenant) == (4, "a", "GPT-4")


def test_a_prompt_too_short_for_what_was_said_starts_anew(written: Written) -> None:
    first, second, third = loaded(
        written, row(5, "a", 30, 12), row(9, "a", 41, 9), row(10, "a", 50, 9)
    ).arrivals
    assert not set(first.names) & set(second.names)
    assert third.names[:4] == second.names


def test_requests_without_a_session_share_nothing(written: Written) -> None:
    one, other = loaded(written, row(5, "", 30, 1), row(9, "", 40, 1)).arrivals
    assert not set(one.names) & set(other.names)


def test_failed_requests_are_left_out_and_counted(written: Written) -> None:
    trace = loaded(written, row(5, "a", 30, 0), row(6, "a", 30, 3), row(7, "a", 0, 0))
    assert len(trace.arrivals) == 1
    assert trace.remarks == {"failed: left out": 2}


@pytest.mark.parametrize(
    ("wrong", "field"),
    [("nan,a,1,GPT-4,5,5,10,x", "Timestamp"), ("1,a,1,GPT-4,5,five,10,x", "Response tokens")],
)
def test_a_wrong_row_is_refused_with_its_line_and_field(
    written: Written, wrong: str, field: str
) -> None:
    with pytest.raises(TraceError) as refusal:
        loaded(written, row(0, "a", 5, 5), wrong)
    assert (refusal.value.line, refusal.value.field) == (3, field)


def test_files_from_before_there_were_sessions_are_read_too(written: Written) -> None:
    header = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
    trace = load_trace(written("b.csv", [header, "5,ChatGPT,472,18,490,API log"]))
    assert isinstance(trace, Trace)
    assert trace.arrivals[0].session == ""
