"""What records keep of a choice: the chosen worker and the closest others, however many there were."""

from collections.abc import Callable

import msgspec
import pytest

from tercet.ids import RequestId
from tercet.router.note import CANDIDATES_MAX, ChoiceNote, note_of
from tercet.router.policy import Ask, Choice, Scored, WorkerView
from tercet.router.status import NO_REPORT
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


def test_the_chosen_one_is_first_also_where_all_are_kept(choice: Choice) -> None:
    few = Choice(choice.candidates[1].view, choice.candidates[:3])
    assert [each.worker for each in note_of(few).candidates] == [
        "prefill-1",
        "prefill-2",
        "prefill-0",
    ]


def test_a_choice_that_was_shortened_still_says_how_many_there_were(choice: Choice) -> None:
    assert note_of(choice.shortened(CANDIDATES_MAX)) == note_of(choice)


def test_a_note_can_be_written_and_read(choice: Choice) -> None:
    note = note_of(choice)
    assert msgspec.json.decode(msgspec.json.encode(note), type=ChoiceNote) == note


def test_a_first_token_that_the_policy_did_not_predict_is_predicted_from_the_workers_fit(
    endpoint: MakeEndpoint,
) -> None:
    fitted = msgspec.structs.replace(NO_REPORT, prefill_coefficients=(0.01, 0.001, 0.0))
    views = [
        WorkerView(endpoint("prefill-0"), fitted, 0.0, False, 100, 100, 0, hit_tokens=16),
        WorkerView(endpoint("prefill-1"), NO_REPORT, 0.0, False, 0, 0, 0),
    ]
    plain = Choice(views[0], tuple(Scored(view, 1.0) for view in views))
    first, second = note_of(plain, Ask(RequestId("r"), tokens=40)).candidates
    assert first.predicted_ttft_ms == pytest.approx(100 + 10 + 24)
    assert second.predicted_ttft_ms is None, "it has measured nothing yet"
    assert note_of(plain).candidates[0].predicted_ttft_ms is None, "it would pull, not compute"
