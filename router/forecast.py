"""When the first token would come: the one prediction that the split and every predicting policy share."""

from tercet.latency import Coefficients, attended_tokens
from tercet.router.policy import Ask, WorkerView
from tercet.wire import LoadReport


def ttft_s(ask: Ask, view: WorkerView, coefficients: Coefficients) -> float:
    """Seconds from the dispatch until what is ahead and the request's own missing tokens are computed.

    Pending prompts count by their linear term alone: their lengths are not known here, and attention is the smaller part
    up to several thousand tokens.
    """
    own_s = prefill_s(view.miss_tokens(ask), ask.tokens, coefficients)
    return coefficients[1] * view.ahead_tokens + own_s


def prefill_s(tokens: int, context: int, coefficients: Coefficients) -> float:
    """Seconds to compute the last `tokens` tokens of a sequence of `context` tokens."""
    fixed_s, token_s, attended_s = coefficients
    return fixed_s + token_s * tokens + attended_s * attended_tokens(tokens, context)


class Forecast:
    """Predicts for the workers of one pool, which are equal: one that has not measured itself yet borrows the last fit seen,
    and before the first fit all are thought to compute `assumed_tokens_per_s`, so that comparing seconds is comparing tokens.
    """

    def __init__(self, assumed_tokens_per_s: float) -> None:
        assert assumed_tokens_per_s > 0, assumed_tokens_per_s
        self._fit: Coefficients = (0.0, 1.0 / assumed_tokens_per_s, 0.0)

    def ttft_s(self, ask: Ask, view: WorkerView) -> float:
        """Seconds until the first token if the request went there now."""
        return ttft_s(ask, view, self.coefficients(view.report))

    def coefficients(self, report: LoadReport | None) -> Coefficients:
        """A worker's fit: its own, the last seen of another one, or the assumption.

        One that finds tokens free of cost is no fit: whoever has it would look idle whatever it has to do.
        """
        if report is not None and report.prefill_coefficients[1] > 0:
            self._fit = report.prefill_coefficients
        return self._fit
