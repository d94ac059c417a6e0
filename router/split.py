"""Local or apart: is it worth while to prefill this prompt on another worker than the one that will decode it?"""

from dataclasses import dataclass
from enum import StrEnum

from tercet.latency import UNFITTED
from tercet.router.forecast import ttft_s
from tercet.router.policy import Ask, WorkerView

LOCAL_GAIN_MIN = 1.5
"""Prefilling among running decodes slows them all, so the prefill pool must promise a first token so many times later
before that price is paid."""


class SplitReason(StrEnum):
    """Why a request was split or not; shown with every request."""

    SHORT = "short"
    """Local: what its decode worker lacks is not worth a hand-off."""
    NO_PREFILL = "no_prefill"
    """Local: no prefill worker may be asked."""
    PREFILL_SLOWER = "prefill_slower"
    """Local: the prefill pool is predicted to be much later, being busy or lacking a prefix that is cached here."""
    APART = "apart"
    """Prefilled by the prefill pool, then handed off."""


def predict_ttft_s(ask: Ask, view: WorkerView) -> float | None:
    """Seconds until this worker has computed what is ahead of the request and the request's own missing tokens.

    None while the worker has not fitted its latency model.
    """
    if view.report is None or view.report.prefill_coefficients == UNFITTED:
        return None
    return ttft_s(ask, view, view.report.prefill_coefficients)


@dataclass(frozen=True, slots=True)
class Split:
    """The rule; `local_tokens_max` is the longest uncached part that is always prefilled where it is decoded."""

    local_tokens_max: int

    def decide(self, ask: Ask, decode: WorkerView, prefill: WorkerView | None) -> SplitReason:
        """`decode` and `prefill` are the best worker of each pool for this request."""
        if prefill is None:
            return SplitReason.NO_PREFILL
        if decode.miss_tokens(ask) <= self.local_tokens_max:
            return SplitReason.SHORT
        here_s, there_s = predict_ttft_s(ask, decode), predict_ttft_s(ask, prefill)
        if here_s is not None and there_s is not None and there_s > LOCAL_GAIN_MIN * here_s:
            return SplitReason.PREFILL_SLOWER
        return SplitReason.APART
