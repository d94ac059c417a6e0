"""Agentic sessions: turns that wait for each other, and sub-agents."""

import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pytest

from tercet.errors import TraceError
from tercet.simulator.traces import ClosedTrace, Spawn, load_trace, spread_sessions

Written = Callable[..., Path]


def request(t: float, ids: list[int], **more: object) -> dict[str, object]:
    lengths = {"in": 64 * len(ids) + 1, "out": 5}
    return {"type": "n", "t": t, **lengths, "hash_ids": ids, "api_time": 2.0, **more}


def sub_agent(t: float, *requests: object) -> dict[str, object]:
    return {"type": "subagent", "t": t, "requests": requests, "agent_id": "agent_001"}


def conversation(id: str, *requests: object, **more: object) -> dict[str, object]:
    return {
        "id": id,
        "block_size": 64,
        "hash_id_scope": "local",
        "requests": requests,
        **more,
    }


def loaded(path: Path) -> ClosedTrace:
    trace = load_trace(path)
    assert isinstance(trace, ClosedTrace)
    return trace


def test_turns_think_as_recorded_but_never_longer_than_the_recording_lasts(
    written: Written,
) -> None:
    requests = [
        request(0, [1]),
        request(10, [1, 2], think_time=7.0),
        request(13, [1, 2], think_time=30.0, type="s"),
        request(20, [1, 2], think_time=-1.0),
    ]
    (session,) = loaded(written("s.jsonl", [conversation("a", *requests)])).sessions
    assert [turn.think_s for turn in session.turns] == [0, 7, 3, 0]
    assert session.turns[1].names[:1] == session.turns[0].names


def test_names_hold_within_one_conversation_only(written: Written) -> None:
    lines = [conversation("a", request(0, [1])), conversation("b", request(0, [1]))]
    one, other = loaded(written("s.jsonl", lines)).sessions
    assert one.turns[0].names != other.turns[0].names


def test_sub_agents_are_sessions_started_by_the_turn_before_them(written: Written) -> None:
    agents = [sub_agent(5, request(0, [1]), sub_agent(4, request(0, [7]))), sub_agent(6)]
    line = conversation(
        "a", request(0, [1]), *agents, request(9, [1]), sub_agent(12, request(0, [8]))
    )
    parent, first, nested, last = loaded(written("s.jsonl", [line])).sessions
    assert [session.id for session in (first, nested, last)] == ["a/1", "a/1/1", "a/3"]
    assert len(parent.turns) == 2
    assert first.turns[0].names == parent.turns[0].names
    assert (first.starts_s, first.spawned) == (5, Spawn("a", 0, 3.0))
    assert (nested.starts_s, nested.spawned) == (9, Spawn("a/1", 0, 2.0))
    assert (last.starts_s, last.spawned) == (12, Spawn("a", 1, 1.0))


def test_a_request_that_generated_nothing_generates_one_token(written: Written) -> None:
    (session,) = loaded(written("s.jsonl", [conversation("a", request(0, [1], out=0))])).sessions
    assert session.turns[0].output_tokens == 1


def test_compressed_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl.xz"
    with lzma.open(path, "wt") as file:
        file.write(json.dumps(conversation("a", request(0, [1]))))
    assert [session.id for session in loaded(path).sessions] == ["a"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TraceError, match="cannot be read"):
        load_trace(path)


def test_sessions_spread_and_their_sub_agents_go_with_them(written: Written) -> None:
    line = conversation("a", request(0, [1]), sub_agent(5, request(0, [1])))
    trace = loaded(written("s.jsonl", [line] * 500))
    starts = [session.starts_s for session in spread_sessions(trace, 2.0, seed=3).sessions]
    assert all(
        child - parent == pytest.approx(5)
        for parent, child in zip(starts[0::2], starts[1::2], strict=True)
    )
    assert starts[0::2] == sorted(starts[0::2])
    assert starts[-2] == pytest.approx(250, rel=0.2)
    assert spread_sessions(trace, 2.0, seed=3) == spread_sessions(trace, 2.0, seed=3)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        (conversation("a", request(0, [1]), block_size=16), "block_size"),
        (conversation("a", request(0, [1], **{"in": 128})), "requests"),
        (conversation("a", request(-1, [1])), "requests[0].t"),
        (conversation("a", request(0, [1], type="x")), "requests[0].type"),
    ],
)
def test_a_wrong_session_is_refused_with_its_line_and_field(
    written: Written, line: object, field: str
) -> None:
    with pytest.raises(TraceError) as refusal:
        load_trace(written("s.jsonl", [conversation("a", request(0, [1])), line]))
    assert (refusal.value.line, refusal.value.field) == (2, field)
