"""ServeGen's clients: rates by ten minutes, lengths by six hours."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.errors import TraceError
from tercet.simulator.traces import ReadOptions, Trace, load_trace
from tercet.simulator.traces.lengths import Fixed

Written = Callable[..., Path]
SPAN = ReadOptions(block_tokens=16, span_s=1200)


def chunk(written: Written, number: int, rates: list[str], sizes: dict[str, str] | None) -> Path:
    path = written(f"model/chunk-{number}-trace.csv", rates)
    if sizes is not None:
        text = json.dumps({"0": sizes, "21600": dict.fromkeys(sizes, "{}")})
        written(f"model/chunk-{number}-dataset.json", [text])
    return path.parent


def loaded(folder: Path, options: ReadOptions = SPAN) -> Trace:
    trace = load_trace(folder, options=options)
    assert isinstance(trace, Trace)
    return trace


TEXT = {"input_tokens": "{100: 0.5, 200: 0.5}", "output_tokens": "{7: 1.0}"}


def test_clients_send_at_their_rates_and_lengths_and_share_nothing(written: Written) -> None:
    chunk(written, 3, ["0,2,1,Gamma,1.0,0.5", "600,0,0,,0,0"], TEXT)
    folder = chunk(written, 11, ["0,0,0,,0,0", "600,4,2,Weibull,0.5,0.1"], TEXT)
    arrivals = loaded(folder).arrivals
    early = [arrival for arrival in arrivals if arrival.tenant == "chunk-3"]
    late = [arrival for arrival in arrivals if arrival.tenant == "chunk-11"]
    assert len(early) == pytest.approx(1200, rel=0.1)
    assert len(late) == pytest.approx(2400, rel=0.15)
    assert early[-1].at_s < 600 <= late[0].at_s, "the clock is the folder's"
    assert {arrival.prompt_tokens for arrival in arrivals} == {100, 200}
    assert {arrival.output_tokens for arrival in arrivals} == {7}
    names = [name for arrival in arrivals for name in arrival.names]
    assert len(set(names)) == len(names)


def test_images_count_as_prompt_tokens(written: Written) -> None:
    sizes = {
        "text_tokens": "{30: 1.0}",
        "image_count": "{2: 1.0}",
        "image_tokens": "{500: 1.0}",
        "output_tokens": "{7: 1.0}",
    }
    folder = chunk(written, 0, ["0,1,1,Gamma,1,1"], sizes)
    assert {arrival.prompt_tokens for arrival in loaded(folder).arrivals} == {1030}


def test_rates_alone_need_lengths(written: Written) -> None:
    folder = chunk(written, 0, ["0,1,1,Gamma,1,1"], None)
    with pytest.raises(TraceError, match=r"chunk-0-dataset\.json: is missing: .* give lengths"):
        loaded(folder)
    lengths = ReadOptions(span_s=600, prompt=Fixed(9), output=Fixed(3))
    assert {arrival.prompt_tokens for arrival in loaded(folder, lengths).arrivals} == {9}


def test_the_seed_decides(written: Written) -> None:
    folder = chunk(written, 0, ["0,1,1,Gamma,1,1"], TEXT)
    assert loaded(folder) == loaded(folder)
    assert loaded(folder) != loaded(folder, ReadOptions(block_tokens=16, span_s=1200, seed=1))


@pytest.mark.parametrize(
    ("rate", "sizes", "file", "line", "field"),
    [
        ("0,1,1,Pareto,1,1", TEXT, "chunk-0-trace.csv", 1, "gaps"),
        ("0,1,1,,0,0", TEXT, "chunk-0-trace.csv", 1, "gaps"),
        ("0,much,1,Gamma,1,1", TEXT, "chunk-0-trace.csv", 1, "per_s"),
        ("0,1,1,Gamma,1,1", {**TEXT, "input_tokens": "{a: b}"}, "chunk-0-dataset.json", 0, "0.input_tokens"),
        ("0,1,1,Gamma,1,1", {}, "chunk-0-dataset.json", 0, ""),
    ],
)  # fmt: skip
def test_a_wrong_folder_is_refused_with_file_line_and_field(
    written: Written, rate: str, sizes: dict[str, str], file: str, line: int, field: str
) -> None:
    with pytest.raises(TraceError) as refusal:
        loaded(chunk(written, 0, [rate], sizes))
    error = refusal.value
    assert (Path(error.file).name, error.line, error.field) == (file, line, field)
