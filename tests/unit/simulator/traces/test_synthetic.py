"""Made-up workloads share what their description says, and are the same for the same seed."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import msgspec
import pytest

from tercet.errors import TraceError
from tercet.simulator.traces import ReadOptions, Trace, Workload, generated, load_trace

Written = Callable[..., Path]

CHAT = """\
clients:
  - name: chat
    starts_per_s: 0.5
    cv: 2
    input: {is: fixed, value: 30}
    output: {is: fixed, value: 10}
    turns: {is: fixed, value: 3}
    think_s: 5
    system: {count: 4, tokens: 100}
  - name: batch
    starts_per_s: 1
    gaps: weibull
    input: {is: lognormal, p50: 200, p99: 900}
    output: {is: fixed, value: 1}
    priority: 2
"""


def made(text: str = CHAT, seed: int = 0, span_s: float = 400) -> Trace:
    options = ReadOptions(block_tokens=16, seed=seed, span_s=span_s)
    return generated(msgspec.yaml.decode(text, type=Workload), options)


def test_arrivals_are_in_order_within_the_span_and_drawn_by_seed() -> None:
    trace = made()
    times = [arrival.at_s for arrival in trace.arrivals]
    assert times == sorted(times)
    assert 0 < times[0] < times[-1] < 400
    assert list(trace.arrivals) == list(made().arrivals) != list(made(seed=1).arrivals)


def test_every_turn_begins_with_all_turns_before_it() -> None:
    chat = [arrival for arrival in made().arrivals if arrival.tenant == "chat"]
    chat.sort(key=lambda arrival: (arrival.session, arrival.at_s))
    for _, session in groupby(chat, key=lambda arrival: arrival.session):
        turns = list(session)
        assert [turn.prompt_tokens for turn in turns] == [130, 170, 210][: len(turns)]
        assert [len(turn.names) for turn in turns] == [8, 10, 13][: len(turns)]
        assert all(turn.names == turns[-1].names[: len(turn.names)] for turn in turns)


def test_conversations_share_their_system_prompt_and_nothing_else() -> None:
    arrivals = made(span_s=2000).arrivals
    first = {a.session: a.names for a in arrivals if a.tenant == "chat" and len(a.names) == 8}
    assert len({names[:6] for names in first.values()}) == 4, "96 of 100 tokens are full blocks"
    assert len({names[6:] for names in first.values()}) == len(first)
    uses = sorted(
        sum(names[:6] == system for names in first.values())
        for system in {names[:6] for names in first.values()}
    )
    assert uses[-1] > 2.5 * uses[0], "the first is four times as popular as the fourth"


def test_priority_and_tenant_are_the_clients() -> None:
    batch = [arrival for arrival in made().arrivals if arrival.tenant == "batch"]
    assert {arrival.priority for arrival in batch} == {2}
    assert len(batch) == pytest.approx(400, rel=0.2)
    assert len({name for arrival in batch for name in arrival.names}) == sum(
        len(arrival.names) for arrival in batch
    )


def test_a_step_changes_the_rate() -> None:
    steps = "    steps: [{from_s: 200, starts_per_s: 10}]\n"
    late = [a for a in made(CHAT + steps).arrivals if a.tenant == "batch" and a.at_s >= 200]
    assert len(late) == pytest.approx(2000, rel=0.15)


def test_a_step_after_the_end_never_comes() -> None:
    steps = "    steps: [{from_s: 900, starts_per_s: 10}]\n"
    assert list(made(CHAT + steps).arrivals) == list(made().arrivals)


def test_a_conversation_ends_before_its_context_is_too_long() -> None:
    arrivals = made("context_tokens_max: 180\n" + CHAT).arrivals
    assert max(a.prompt_tokens + a.output_tokens for a in arrivals) == 180


def test_a_file_is_the_same_workload_on_the_clock_it_describes(written: Written) -> None:
    options = ReadOptions(block_tokens=16, span_s=400)
    trace = load_trace(written("w.yaml", [CHAT]), options=options)
    assert isinstance(trace, Trace)
    assert list(trace.arrivals) == list(made().arrivals)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [("clients: []", "clients"), (CHAT.replace("cv: 2", "cv: 20"), "clients[0].cv")],
)
def test_a_wrong_description_is_refused_with_the_field(
    written: Written, wrong: str, field: str
) -> None:
    with pytest.raises(TraceError) as refusal:
        load_trace(written("w.yaml", [wrong]))
    assert refusal.value.field == field
