"""Azure's CSV: times and lengths, contents unknown."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.errors import TraceError
from tercet.simulator.traces import ReadOptions, Trace, load_trace

Written = Callable[..., Path]
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens"


def test_requests_are_timed_from_the_first_and_share_nothing(written: Written) -> None:
    rows = [HEADER, "2023-11-16 18:17:03.9799600,40,10", "2023-11-16 18:17:04.0319600,47,8"]
    trace = load_trace(written("a.csv", rows), options=ReadOptions(block_tokens=16))
    assert isinstance(trace, Trace)
    one, other = trace.arrivals
    assert (one.at_s, other.at_s) == (0.0, pytest.approx(0.052))
    assert (one.prompt_tokens, one.output_tokens) == (40, 10)
    assert len({*one.names, *other.names}) == 2 + 2


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("yesterday,40,10", "TIMESTAMP"),
        ("2023-11-16 18:17:03,none,10", "ContextTokens"),
        ("2023-11-16 18:17:03,40,-1", "GeneratedTokens"),
        ("2023-11-16 18:17:03,40", "GeneratedTokens"),
    ],
)
def test_a_wrong_row_is_refused_with_its_line_and_field(
    written: Written, row: str, field: str
) -> None:
    with pytest.raises(TraceError) as refusal:
        load_trace(written("a.csv", [HEADER, "2023-11-16 18:17:03,40,10", row]))
    assert (refusal.value.line, refusal.value.field) == (3, field)
