"""The line about a call's route: it says what records say, and is never too long for a header."""

import json

import pytest

from tercet.errors import InvalidRequest
from tercet.ids import RequestId, WorkerId
from tercet.role import Role
from tercet.router.call import CHOICES_MAX
from tercet.router.explanation import ROUTE_CHARS_MAX, asks_for_route, route_line
from tercet.router.note import CandidateNote, ChoiceNote
from tercet.router.record import RequestRecord


def candidate(worker: str) -> CandidateNote:
    return CandidateNote(
        worker=WorkerId(worker),
        hit_tokens=512,
        load_tokens=4096,
        cost_tokens=7680.5,
        predicted_ttft_ms=123.456,
    )


def choice(role: Role, workers: int = 4) -> ChoiceNote:
    candidates = tuple(candidate(f"{role}-{number}") for number in range(workers))
    return ChoiceNote(
        role=role,
        worker=WorkerId(f"{role}-0"),
        reason="affinity",
        considered=9,
        candidates=candidates,
    )


RECORD = RequestRecord(
    request=RequestId("r"),
    reason="apart",
    queue_ms=12.34567,
    waits=2,
    refusals=1,
    predicted_ttft_ms=123.456,
    choices=(choice(Role.PREFILL), choice(Role.DECODE)),
)


def test_a_line_has_candidates_choices_reasons_and_waits() -> None:
    line = json.loads(route_line({0: RECORD}, choices=1))
    [route] = line.pop("routes")
    assert line == {}
    assert (route["index"], route["reason"], route["waits"], route["refusals"]) == (
        0,
        "apart",
        2,
        1,
    )
    assert route["queue_ms"] == 12.346
    prefill, decode = route["choices"]
    assert (prefill["role"], prefill["worker"], prefill["reason"]) == (
        "prefill",
        "prefill-0",
        "affinity",
    )
    assert decode["considered"] == 9
    assert prefill["candidates"][1] == {
        "worker": "prefill-1",
        "hit_tokens": 512,
        "load_tokens": 4096,
        "cost_tokens": 7680.5,
        "predicted_ttft_ms": 123.456,
    }


@pytest.mark.parametrize("count", [2, 3, 8, 16, CHOICES_MAX])
def test_however_many_choices_the_line_fits_and_says_what_it_leaves_out(count: int) -> None:
    text = route_line({index: RECORD for index in range(count)}, count)
    assert len(text) <= ROUTE_CHARS_MAX
    line = json.loads(text)
    assert len(line["routes"]) + line.get("left_out", 0) == count
    assert [route["index"] for route in line["routes"]] == list(range(len(line["routes"])))
    assert all(route["choices"][0]["worker"] == "prefill-0" for route in line["routes"])


def test_candidates_go_before_choices_do() -> None:
    shown = [
        len(json.loads(route_line({index: RECORD for index in range(count)}, count))["routes"])
        for count in (2, 4, 8)
    ]
    assert shown == [2, 4, 8]


def test_choices_without_a_worker_are_counted() -> None:
    assert json.loads(route_line({1: RECORD}, choices=4))["waiting"] == 3


def test_a_line_is_ascii_whatever_a_policy_says() -> None:
    odd = RequestRecord(
        request=RequestId("r"),
        choices=(
            ChoiceNote(
                role=Role.DECODE,
                worker=WorkerId("d"),
                reason="größer\n",
                considered=0,
                candidates=(),
            ),
        ),
    )
    text = route_line({0: odd}, choices=1)
    assert text.isascii()
    assert text.isprintable()


def test_only_1_asks_and_nonsense_is_refused() -> None:
    assert asks_for_route("1")
    assert not asks_for_route("0")
    assert not asks_for_route(None)
    with pytest.raises(InvalidRequest, match="must be 1 or 0, is 'yes'"):
        asks_for_route("yes")
