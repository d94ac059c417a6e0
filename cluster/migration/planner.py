"""Pairs workers that are too full with those that have room. Pure: standings and a time in, orders out."""

from collections.abc import Iterable
from dataclasses import dataclass

from tercet.cluster.migration.standing import Standing
from tercet.config import MigrationConfig
from tercet.ids import Incarnation, WorkerId


@dataclass(frozen=True, slots=True)
class Relieve:
    """The source is to give away requests of at most so many tokens together."""

    source: WorkerId
    destination: WorkerId
    tokens: int


class Planner:
    """Remembers who took part lately: a worker gives or takes once in `dwell_s`, so that the next look sees what came of it."""

    def __init__(self, config: MigrationConfig) -> None:
        self._config = config
        self._resting: dict[Incarnation, float] = {}
        """Until when."""

    def plan(self, standings: Iterable[Standing], now_s: float) -> list[Relieve]:
        """Fullest with freest, second fullest with second freest, as long as it helps."""
        self._resting = {
            life: until_s for life, until_s in self._resting.items() if until_s > now_s
        }
        awake = [each for each in standings if each.incarnation not in self._resting]
        config = self._config
        sources = sorted(
            (each for each in awake if each.freeness < config.low_steps),
            key=lambda each: (each.freeness, each.worker),
        )
        destinations = sorted(
            (each for each in awake if each.freeness > config.high_steps),
            key=lambda each: (-each.freeness, each.worker),
        )
        orders = []
        for source, destination in zip(sources, destinations, strict=False):
            tokens = self._tokens(source, destination)
            if tokens:
                orders.append(Relieve(source.worker, destination.worker, tokens))
                for each in (source, destination):
                    self._resting[each.incarnation] = now_s + config.dwell_s
        return orders

    def _tokens(self, source: Standing, destination: Standing) -> int:
        """So much that the gap between the two shrinks and keeps its sign, whatever the source gives of it; 0 for nothing.

        One request more or less counts in the batch, too, so a move of few tokens is the worst case there and one of many in
        memory; both are tried.
        """
        gap_tokens = destination.free_tokens - source.free_tokens
        tokens = min(self._config.tokens_max, gap_tokens // 2, source.running_tokens)
        if tokens <= 0 or source.batch < 2:
            return 0
        for moved in (1, tokens):
            if source.without(moved).freeness > destination.without(-moved).freeness:
                return 0
        return tokens
