"""Why a request went where it went, in the form in which records keep it."""

from collections.abc import Sequence
from heapq import nsmallest

import msgspec

from tercet.ids import WorkerId
from tercet.role import Role
from tercet.router.policy import Choice, Scored

CANDIDATES_MAX = 4
"""Candidates kept with a record; how many there were is kept too."""


class CandidateNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One worker that was considered, as it looked then."""

    worker: WorkerId
    hit_tokens: int
    """Leading tokens of the request that it was thought to have cached."""
    load_tokens: int
    cost_tokens: float
    predicted_ttft_ms: float | None = None


class ChoiceNote(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of a policy."""

    role: Role
    worker: WorkerId
    reason: str
    """The policy's own word; empty where the lowest cost is all there is to say."""
    considered: int
    candidates: tuple[CandidateNote, ...]
    """The chosen one, then the cheapest others."""


def note_of(choice: Choice) -> ChoiceNote:
    """What is worth keeping of a choice; views are not kept."""
    chosen = choice.view.worker
    own = [scored for scored in choice.candidates if scored.view.worker == chosen]
    return ChoiceNote(
        role=choice.view.endpoint.role,
        worker=chosen,
        reason=choice.reason,
        considered=len(choice.candidates),
        candidates=tuple(map(_candidate, own + _cheapest(choice.candidates, chosen))),
    )


def _cheapest(candidates: Sequence[Scored], besides: WorkerId) -> list[Scored]:
    others = (scored for scored in candidates if scored.view.worker != besides)
    return nsmallest(CANDIDATES_MAX - 1, others, key=lambda scored: scored.cost_tokens)


def _candidate(scored: Scored) -> CandidateNote:
    view, ttft_s = scored.view, scored.predicted_ttft_s
    return CandidateNote(
        worker=view.worker,
        hit_tokens=view.hit_tokens,
        load_tokens=view.load_tokens,
        cost_tokens=scored.cost_tokens,
        predicted_ttft_ms=None if ttft_s is None else ttft_s * 1e3,
    )
