"""What records keep of a choice: the chosen worker and the closest others, however many there were."""

from collections.abc import Callable

import msgspec
import pytest

from tercet.router.note import CANDIDATES_MAX, ChoiceNote, note_of
from tercet.router.policy import Choice, Scored, WorkerView
from tercet.wire import Endpoint

MakeEndpoint = Callable[..., Endpoint]


@pytest.fixture
def choice(endpoint: MakeEndpoint) -> Choice:
    """Ten candidates that cost 9 … 0; the one that costs 7 was chosen."""
    views = [
        WorkerView(endpoint(f"prefill-{number}"), None, 0.0, False, 1, 2, 0, hit_tokens=number)
        for number in range(10)
    ]
    scored = tuple(Scored(view, 9.0 - n, predicted_ttft_s=0.5) for n, view in enumerate(views))
    return Choice(views[2], scored, reason="affinity")


def test_a_note_names_the_chosen_one_first_and_then_the_cheapest(choice: Choice) -> None:
    note = note_of(choice)
    assert (note.worker, note.role, note.reason) == ("prefill-2", "prefill", "affinity")
    assert note.considered == 10
    assert len(note.candidates) == CANDIDATES_MAX
    costs = [(candidate.worker, candidate.cost_tokens) for candidate in note.candidates]
    assert costs == [("prefill-2", 7), ("prefill-9", 0), ("prefill-8", 1), ("prefill-7", 2)]
    first = note.candidates[0]
    assert (first.hit_tokens, first.load_tokens, first.predicted_ttft_ms) == (2, 2, 500)


def test_a_note_can_be_written_and_read(choice: Choice) -> None:
    note = note_of(choice)
    assert msgspec.json.decode(msgspec.json.encode(note), type=ChoiceNote) == note
