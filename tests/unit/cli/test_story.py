"""What `tercet why` prints: each stage with its reason, and who else was considered."""

import re
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from tercet.cli.story import CHOICE_WORDS, SPLIT_WORDS, story
from tercet.ids import FrontDoorId, RequestId, WorkerId
from tercet.request import FinishReason
from tercet.role import Role
from tercet.router.dispatch import Detour
from tercet.router.dualmap import PairReason
from tercet.router.explanation import Explanation
from tercet.router.freeness import FreenessReason
from tercet.router.moves import MoveNote
from tercet.router.note import CandidateNote, ChoiceNote
from tercet.router.record import Outcome, RequestRecord
from tercet.router.split import SplitReason


def candidate(worker: str, hit_tokens: int, ttft_ms: float | None) -> CandidateNote:
    return CandidateNote(
        worker=WorkerId(worker),
        hit_tokens=hit_tokens,
        load_tokens=2048,
        cost_tokens=3000.0,
        predicted_ttft_ms=ttft_ms,
    )


PREFILL = ChoiceNote(
    role=Role.PREFILL,
    worker=WorkerId("prefill-3"),
    reason="affinity",
    considered=8,
    candidates=(candidate("prefill-3", 384, 20.5), candidate("prefill-1", 0, 44.0)),
)
DECODE = ChoiceNote(
    role=Role.DECODE,
    worker=WorkerId("decode-1"),
    reason="",
    considered=1,
    candidates=(candidate("decode-1", 0, None),),
)
APART = RequestRecord(
    request=RequestId("chatcmpl-1"),
    session="talk",
    tenant="acme",
    prefill_worker=WorkerId("prefill-3"),
    decode_worker=WorkerId("decode-1"),
    reason="apart",
    choices=(PREFILL, DECODE),
    prompt_tokens=417,
    cached_tokens=384,
    output_tokens=32,
    pulled_tokens=416,
    pulled_bytes=3 * 2**20,
    pull_ms=1.2,
    pull_exposed_ms=0.4,
    queue_ms=12.3,
    ttft_ms=35.6,
    dispatch_ttft_ms=23.3,
    predicted_ttft_ms=20.5,
    itl_ms=4.1,
    total_ms=163.0,
    refusals=1,
    waits=2,
    outcome=Outcome.LENGTH,
    finish=FinishReason.LENGTH,
)


def show(*records: RequestRecord, waiting: int = 0, width: int = 120) -> str:
    explanation = Explanation(
        front_door=FrontDoorId("door-1"), kept=1, kept_max=9, waiting=waiting, requests=records
    )
    screen = StringIO()
    Console(file=screen, width=width).print(*story(explanation), sep="\n")
    return screen.getvalue()


def line(text: str, stage: str) -> str:
    """The line of one stage, its blanks made single."""
    begin = re.compile(rf"\s*([\d.]+ ms)?\s*{stage} ")
    [found] = [each for each in text.splitlines() if begin.match(each)]
    return " ".join(found.split())


def test_every_stage_has_a_line() -> None:
    text = show(APART)
    assert "chatcmpl-1 at front door door-1" in text
    assert line(text, "admitted") == (
        "0.0 ms admitted 417 prompt tokens, tenant 'acme', session 'talk'"
    )
    assert line(text, "waited") == (
        "waited 12.3 ms until a worker was first asked, 2 times no worker could be asked, 1 worker refused"
    )
    assert line(text, "prefilled").startswith("12.3 ms prefilled apart: by the prefill pool")
    assert "chosen prefill-3 to prefill by affinity: it has usefully more" in " ".join(text.split())
    assert "chosen decode-1 to decode: it costs least" in " ".join(text.split())
    assert line(text, "handed off") == (
        "handed off to decode-1: 416 tokens pulled, 3.00 MiB in 1.2 ms, which delayed the second token by 0.4 ms"
    )
    assert line(text, "first token") == (
        "35.6 ms first token 23.3 ms from the dispatch; predicted 20.5 ms, 2.8 ms later"
    )
    assert line(text, "finished").startswith("163.0 ms finished length; 32 tokens, one in 4.1 ms")


def test_kv_that_travelled_packed_is_said_to_have() -> None:
    packed = msgspec.structs.replace(APART, pulled_codec="int8")
    assert "3.00 MiB packed as int8 in 1.2 ms" in line(show(packed), "handed off")


def test_the_chosen_candidate_is_marked_and_the_others_are_beside_it() -> None:
    text = show(APART, width=80)
    assert "Candidates: prefill 2 of 8, decode 1 of 1" in text
    rows = [row.split() for row in text.splitlines()]
    assert ["→", "prefill-3", "384", "2048", "3000", "20.5"] in rows
    assert ["prefill-1", "0", "2048", "3000", "44.0"] in rows
    assert ["→", "decode-1", "0", "2048", "3000", "-"] in rows


def test_one_worker_that_does_everything_hands_nothing_off() -> None:
    local = msgspec.structs.replace(APART, prefill_worker=None, reason="short", choices=(DECODE,))
    text = show(local)
    assert "decode-1 to do everything" in text
    assert "handed off" not in text.replace("hand-off", "").replace("then handed off", "")
    assert "too little to compute for a hand-off" in text


@pytest.mark.parametrize(
    ("change", "stage", "told"),
    [
        ({"queue_ms": 0.1, "waits": 0, "refusals": 0}, "waited", "waited not at all"),
        ({"recomputed": True}, "handed off", "could not pull the KV and computed it itself"),
        ({"predicted_ttft_ms": None}, "first token", "not predicted"),
        ({"dispatch_ttft_ms": 20.0}, "first token", "0.5 ms earlier"),
        (
            {"dispatch_ttft_ms": None, "ttft_ms": None, "outcome": Outcome.RUNNING},
            "first token",
            "not yet; predicted 20.5 ms",
        ),
        ({"outcome": Outcome.RUNNING}, "running", "32 tokens so far"),
        ({"outcome": Outcome.FAILED, "error": "all lost"}, "finished", "failed: all lost"),
    ],
)
def test_what_was_different_is_told(change: dict[str, object], stage: str, told: str) -> None:
    assert told in line(show(msgspec.structs.replace(APART, **change)), stage)


def move_note(**facts: object) -> MoveNote:
    ways = {"source": WorkerId("decode-1"), "destination": WorkerId("decode-2"), "at_ms": 90.0}
    return MoveNote(**ways, **facts)  # type: ignore[arg-type]


def test_moves_are_told_in_their_order() -> None:
    moves = (
        move_note(took_ms=4.0, reason="decode-2 declined: no blocks"),
        move_note(took_ms=6.5, stall_ms=3.25),
        move_note(),
    )
    text = show(msgspec.structs.replace(APART, moves=moves, outcome=Outcome.RUNNING))
    told = [" ".join(each.split()) for each in text.splitlines() if "decode-1 → decode-2" in each]
    assert told == [
        "90.0 ms to move decode-1 → decode-2: stayed at decode-1, after 4.0 ms: decode-2 declined: no blocks",
        "90.0 ms moved decode-1 → decode-2: taken over after 6.5 ms, with 3.2 ms between two tokens",
        "90.0 ms to move decode-1 → decode-2: under way",
    ]


def test_a_request_that_never_got_a_worker_has_a_story_too() -> None:
    refused = RequestRecord(
        request=RequestId("r"), outcome=Outcome.OVERLOADED, error="every worker is full", waits=7
    )
    text = show(refused)
    assert "7 times no worker could be asked" in text
    assert "overloaded: every worker is full" in text


def test_choices_without_a_worker_are_counted() -> None:
    assert "2 more of this call at door-1 wait for a worker" in show(waiting=2)


def test_every_reason_has_words_and_a_strangers_reason_stands_for_itself() -> None:
    assert set(SPLIT_WORDS) == set(SplitReason)
    assert set(CHOICE_WORDS) == {*PairReason, *FreenessReason, *Detour}
    odd = msgspec.structs.replace(DECODE, reason="owner")
    assert "decode-1 to decode by owner" in show(msgspec.structs.replace(APART, choices=(odd,)))
