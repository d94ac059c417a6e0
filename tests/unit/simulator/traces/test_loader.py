"""Finding the format, and the order of what it reads."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from tercet.errors import TraceError
from tercet.simulator.traces import Trace, head, load_trace

Written = Callable[..., Path]


def line(timestamp: float) -> dict[str, object]:
    return {"timestamp": timestamp, "input_length": 5, "output_length": 1, "hash_ids": [0]}


def test_arrivals_are_sorted_when_loaded(written: Written) -> None:
    trace = load_trace(written("t.jsonl", [line(9000), line(2000), line(3000)]))
    assert isinstance(trace, Trace)
    assert [arrival.at_s for arrival in trace.arrivals] == [0, 1, 7]


def test_a_lazy_trace_is_read_no_further_than_it_is_walked(written: Written) -> None:
    path = written("t.jsonl", [line(0), line(1000), "not even JSON"])
    trace = load_trace(path, lazy=True)
    assert isinstance(trace, Trace)
    assert [arrival.at_s for arrival in islice(trace.arrivals, 2)] == [0, 1]
    assert [arrival.at_s for arrival in head(trace, 2).arrivals] == [0, 1]
    with pytest.raises(TraceError, match=r"t.jsonl:3: "):
        list(trace.arrivals)


def test_a_lazy_trace_equals_the_loaded_one_on_every_walk(written: Written) -> None:
    path = written("t.jsonl", [line(0), line(1000), line(4000)])
    lazy, loaded = load_trace(path, lazy=True), load_trace(path)
    assert isinstance(lazy, Trace)
    assert isinstance(loaded, Trace)
    assert list(lazy.arrivals) == list(lazy.arrivals) == list(loaded.arrivals)
    assert len(lazy.arrivals) == 3
    assert lazy.arrivals[-1] == loaded.arrivals[-1]
    assert lazy.arrivals[:2] == loaded.arrivals[:2]


def test_a_lazy_trace_out_of_order_is_refused(written: Written) -> None:
    trace = load_trace(written("t.jsonl", [line(9000), line(2000)]), lazy=True)
    assert isinstance(trace, Trace)
    with pytest.raises(TraceError, match=r"at 2\.0 s follows one at 9\.0 s; sort the file"):
        list(trace.arrivals)


@pytest.mark.parametrize(
    ("name", "lines", "format", "reason"),
    [
        ("t.txt", ["once upon a time"], "", "of no known format; name one of mooncake, azure"),
        ("t.txt", ["{}"], "moonshine", "unknown format 'moonshine'; there are mooncake, azure"),
        ("t.jsonl", [], "mooncake", "holds no request"),
    ],
)
def test_what_is_no_trace_is_refused_with_what_to_do(
    written: Written, name: str, lines: list[str], format: str, reason: str
) -> None:
    with pytest.raises(TraceError, match=reason):
        load_trace(written(name, lines), format)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match=r"none\.jsonl: cannot be read: No such file"):
        load_trace(tmp_path / "none.jsonl")
