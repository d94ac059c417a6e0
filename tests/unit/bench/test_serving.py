"""The comparison over HTTP reads streams rightly, compares the right rows, and leaves no process behind."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

PEERS = Path(__file__).parents[3] / "bench" / "peers"


@pytest.fixture
def part(monkeypatch: pytest.MonkeyPatch) -> object:
    """Imports a module of the comparison, as its script does."""
    monkeypatch.syspath_prepend(str(PEERS))

    def load(name: str) -> ModuleType:
        return importlib.import_module(name)

    return load


def stream(*texts: str) -> bytes:
    events = [
        f'data: {{"id": "x", "choices": [{{"index": 0, "text": "{text}"}}]}}' for text in texts
    ]
    return "\n\n".join([*events, "data: [DONE]", ""]).encode()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_events_count_when_their_last_byte_has_come(part, cut: int) -> None:
    data = stream("w1", " w22", " w3 w4")
    answer = part("streams").read(1.0, [(2.0, data[:cut]), (3.0, data[cut:])], 4)
    assert answer.words == ("w1", "w22", "w3", "w4")
    first = 2.0 if cut > len(data.split(b"\n\n")[0]) + 1 else 3.0
    assert answer.came_s == (first, 3.0, 3.0)
    assert answer.ttft_s == first - 1.0


@pytest.mark.parametrize("data", [stream("w1"), stream("w1", " w2").replace(b"[DONE]", b"{}")])
def test_a_stream_that_is_cut_short_is_refused(part, data: bytes) -> None:
    with pytest.raises((ConnectionError, ValueError)):
        part("streams").read(0.0, [(1.0, data)], 2)


def test_each_side_is_compared_with_its_better_number_of_threads(part) -> None:
    figures, streams = part("serving_figures"), part("streams")
    setting = figures.Setting("aggregated", "50M", "float32", 1)
    rounds = [
        figures.round_of(
            setting, side, threads, 1, [streams.Answer(0.0, (0.5, took_s), ("w1", word))], 0.1, 1.0
        )
        for side, threads, took_s, word in (
            ("tercet", 1, 2.0, "w2"), ("tercet", 2, 1.0, "w3"), ("vLLM", 1, 3.0, "w3"), ("vLLM", 2, 4.0, "w9"),
        )
    ]  # fmt: skip
    [ratio] = figures.ratios_of(figures.rows_of(rounds), rounds)
    assert ratio.threads == (2, 1)
    assert ratio.tokens_per_s == pytest.approx(3.0)
    assert (ratio.same_tokens, ratio.answers) == (1, 1)


async def test_a_server_ends_with_whatever_it_has_started(part, tmp_path: Path) -> None:
    tree = importlib.import_module("tercet.cluster.process_tree")
    command = ["sh", "-c", "trap 'exit 0' TERM; sleep 60 & echo up; wait"]
    async with part("servers").server(command, tmp_path / "log") as serving:
        await serving.until_said("up")
        family = tree.descendants(serving.pid)
        assert [each.command for each in family] == ["sleep 60"]
    assert not any(each.alive for each in family)
