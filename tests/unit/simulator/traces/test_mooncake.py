"""Mooncake's JSON lines: ids of 512-token blocks that determine their whole prefix."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.errors import TraceError
from tercet.simulator.traces import Trace, load_trace

Written = Callable[..., Path]


def line(timestamp: float, tokens: int, ids: list[int], output: int = 10) -> dict[str, object]:
    lengths = {"input_length": tokens, "output_length": output}
    return {"timestamp": timestamp, **lengths, "hash_ids": ids}


def test_only_full_blocks_have_names(written: Written) -> None:
    trace = load_trace(written("t.jsonl", [line(0, 1000, [0, 1]), line(3000, 1024, [0, 1])]))
    assert isinstance(trace, Trace)
    assert trace.block_tokens == 512
    assert [len(arrival.names) for arrival in trace.arrivals] == [1, 2]


def test_equal_ids_are_equal_names_within_a_file_and_in_no_other(written: Written) -> None:
    lines = [line(0, 1024, [0, 1]), line(0, 1024, [0, 2])]
    one, other = (load_trace(written(name, lines)) for name in ("a.jsonl", "b.jsonl"))
    assert isinstance(one, Trace)
    assert isinstance(other, Trace)
    (a, b), c = (arrival.names for arrival in one.arrivals), other.arrivals[0].names
    assert a[0] == b[0]
    assert len({a[0], a[1], b[1], c[0], c[1]}) == 5


def test_times_are_seconds_since_the_first_request(written: Written) -> None:
    trace = load_trace(written("t.jsonl", [line(6000, 512, [0]), line(7500, 512, [0])]))
    assert isinstance(trace, Trace)
    assert [arrival.at_s for arrival in trace.arrivals] == [0.0, 1.5]


def test_a_request_without_output_is_remarks_and_counted(written: Written) -> None:
    trace = load_trace(written("t.jsonl", [line(0, 512, [0], output=0), line(0, 512, [0])]))
    assert isinstance(trace, Trace)
    assert len(trace.arrivals) == 1
    assert trace.remarks == {"no output: left out": 1}


@pytest.mark.parametrize(
    ("bad", "field", "reason"),
    [
        (line(0, 1024, [0]), "hash_ids", "1 ids, where 1024 tokens are 2 blocks"),
        (line(0, 0, []), "input_length", ">= 1"),
        ({**line(0, 5, [1]), "output_length": "many"}, "output_length", "Expected `int`"),
        ({"timestamp": 0, "hash_ids": []}, "", "missing required field `input_length`"),
        ('{"timestamp": 0, "hash_ids": [', "", "truncated"),
    ],
)
def test_a_wrong_line_is_refused_with_its_number_field_and_reason(
    written: Written, bad: object, field: str, reason: str
) -> None:
    path = written("t.jsonl", [line(0, 512, [0]), "", bad])
    with pytest.raises(TraceError) as refusal:
        load_trace(path)
    assert (refusal.value.file, refusal.value.line, refusal.value.field) == (str(path), 3, field)
    assert reason in refusal.value.reason
