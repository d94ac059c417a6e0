"""The published files themselves, against figures others computed from them."""

import os
import time
from pathlib import Path

import pytest

from tercet.simulator.traces import (
    ClosedTrace,
    ReadOptions,
    Trace,
    arrival_statistics,
    length_statistics,
    load_trace,
)

FOLDER = Path(os.environ.get("TERCET_TRACES", ""))

pytestmark = pytest.mark.skipif(
    "TERCET_TRACES" not in os.environ,
    reason="TERCET_TRACES names no folder with mooncake/, azure/, ragpulse/, servegen/, kvcachetester/",
)


@pytest.mark.parametrize(
    ("file", "requests", "rate_per_s", "gap_cv", "prompt_p50", "output_p99", "hit_share"),
    [
        ("mooncake/conversation_trace.jsonl", 5719, 3.18, 2.92, 7640, 1105, 0.347),
        ("mooncake/synthetic_trace.jsonl", 1925, 3.77, 1.00, 3616, 776, 0.322),
        ("azure/AzureLLMInferenceTrace_code.csv", 5100, 3.10, 13.7, 1473, 232, 0),
        ("azure/AzureLLMInferenceTrace_conv.csv", 9754, 5.56, 1.07, 1035, 612, 0),
        ("ragpulse/0_trace.jsonl", 4354, 0.0126, 2.84, 3141, 904, 0.315),
    ],
)
def test_a_trace_has_its_published_figures(
    file: str,
    requests: int,
    rate_per_s: float,
    gap_cv: float,
    prompt_p50: int,
    output_p99: int,
    hit_share: float,
) -> None:
    trace = load_trace(FOLDER / file)
    assert isinstance(trace, Trace)
    times, lengths = arrival_statistics(trace), length_statistics(trace)
    assert lengths.requests == requests
    assert times.rate_per_s == pytest.approx(rate_per_s, rel=0.005)
    assert times.gap_cv == pytest.approx(gap_cv, abs=0.05)
    assert lengths.prompt.p50 == pytest.approx(prompt_p50, abs=1)
    assert lengths.output.p99 == pytest.approx(output_p99, rel=0.01)
    assert lengths.ideal_hit_share == pytest.approx(hit_share, abs=0.0005)


def test_a_long_conversation_trace_loads_in_well_under_a_second() -> None:
    start_s = time.process_time()
    load_trace(FOLDER / "mooncake/conversation_trace.jsonl")
    assert time.process_time() - start_s < 0.6


def test_agents_find_nearly_everything_within_their_sessions() -> None:
    trace = load_trace(FOLDER / "kvcachetester/agentic_conversations.jsonl.xz", lazy=True)
    assert isinstance(trace, ClosedTrace)
    assert length_statistics(trace).ideal_hit_share == pytest.approx(0.959, abs=0.0005)
    agents = [session for session in trace.sessions if session.spawned]
    assert len(trace.sessions) - len(agents) == 200
    turns = [len(session.turns) for session in trace.sessions if not session.spawned]
    assert sum(turns) == 11_657


@pytest.mark.parametrize(
    ("folder", "rate_per_s"), [("multimodal/mm-image", 9.25), ("reason/deepseek-r1", 13.9)]
)
def test_drawn_clients_have_the_published_rates(folder: str, rate_per_s: float) -> None:
    options = ReadOptions(block_tokens=4096, span_s=43_200)
    trace = load_trace(FOLDER / "servegen" / folder, options=options, lazy=True)
    assert len(trace.arrivals if isinstance(trace, Trace) else ()) / 43_200 == pytest.approx(
        rate_per_s, rel=0.02
    )
