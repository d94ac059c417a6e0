"""Counts calls and tokens against the limits, by the front door's clock."""

from collections.abc import Callable

from tercet.clock import Clock
from tercet.config import LimitsConfig
from tercet.errors import RateLimited
from tercet.router.limits import LimitKind, Limits


class Meter:
    """One front door's, for the model it serves."""

    def __init__(
        self,
        limits: LimitsConfig,
        model: str,
        clock: Clock,
        refused: Callable[[LimitKind], None],
    ) -> None:
        self._limits, self._model, self._clock = Limits(limits), model, clock
        self._refused = refused

    def admit(self, tenant: str, prompt_tokens: int) -> None:
        """Count a call that comes now. Raises RateLimited, and counts nothing, when a limit is reached."""
        refusal = self._limits.admit(tenant, self._model, prompt_tokens, self._clock.now_s())
        if refusal is not None:
            self._refused(refusal.kind)
            raise RateLimited(refusal.reason, refusal.retry_after_s)

    def generated(self, tenant: str, tokens: int) -> None:
        """Count output of an admitted call."""
        self._limits.generated(tenant, self._model, tokens, self._clock.now_s())
