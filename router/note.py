"""Why a request went where it went, in the form in which records keep it."""

import msgspec

from tercet.ids import WorkerId
from tercet.role import Role
from tercet.router.policy import Ask, Choice, Scored
from tercet.router.routes import CANDIDATES_MAX
from tercet.router.split import predict_ttft_s


class CandidateNote(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One worker that was considered, as it looked then."""

    worker: WorkerId
    hit_tokens: int
    """Leading tokens of the request that it was thought to have cached."""
    load_tokens: int
    cost_tokens: float
    predicted_ttft_ms: float | None = None
    """From the dispatch on; None where nobody could say, or it was not to compute the prompt."""


class ChoiceNote(msgspec.Struct, frozen=True, kw_only=True):
    """One choice of a policy."""

    role: Role
    worker: WorkerId
    reason: str
    """The policy's own word; empty where the lowest cost is all there is to say."""
    considered: int
    candidates: tuple[CandidateNote, ...]
    """The chosen one, then the cheapest others."""


def note_of(choice: Choice, ask: Ask | None = None) -> ChoiceNote:
    """What is worth keeping of a choice; views are not kept.

    With `ask`, of a worker that would compute the prompt, a first token that the policy did not predict is predicted here.
    """
    kept = choice.shortened(CANDIDATES_MAX)
    return ChoiceNote(
        role=choice.view.endpoint.role,
        worker=choice.view.worker,
        reason=choice.reason,
        considered=choice.considered,
        candidates=tuple(_candidate(scored, ask) for scored in kept.candidates),
    )


def _candidate(scored: Scored, ask: Ask | None) -> CandidateNote:
    view, ttft_s = scored.view, scored.predicted_ttft_s
    if ttft_s is None and ask is not None:
        ttft_s = predict_ttft_s(ask, view)
    return CandidateNote(
        worker=view.worker,
        hit_tokens=view.hit_tokens,
        load_tokens=view.load_tokens,
        cost_tokens=round(scored.cost_tokens, 1),
        predicted_ttft_ms=None if ttft_s is None else round(ttft_s * 1e3, 3),
    )
