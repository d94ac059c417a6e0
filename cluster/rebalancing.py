"""Looks again and again how full the decode workers are, and tells those that are too full who takes something from them.

A worker that is told so picks requests and asks their front doors, which decide. Losing this loses nothing but balance.
"""

import asyncio
import logging
from collections.abc import Mapping

from tercet.clock import Clock
from tercet.cluster.census import FIGURES_TIMEOUT_S, Census
from tercet.cluster.fleet import WorkerProcess
from tercet.cluster.migration import Planner, Relieve, Standing
from tercet.cluster.seat import Phase
from tercet.cluster.state import ClusterState
from tercet.config import ClusterConfig
from tercet.errors import PeerLost, PeerRefused
from tercet.ids import Incarnation
from tercet.role import Role

logger = logging.getLogger(__name__)


class Rebalancing:
    """`run` for as long as there are workers to be looked at."""

    def __init__(
        self,
        config: ClusterConfig,
        census: Census,
        state: ClusterState,
        processes: Mapping[Incarnation, WorkerProcess],
        clock: Clock,
    ) -> None:
        self._config, self._planner = config.migration, Planner(config.migration)
        self._block_tokens = config.engine_of(Role.DECODE).block_tokens
        self._census, self._state, self._processes, self._clock = census, state, processes, clock

    async def run(self) -> None:
        """Until cancelled; ends at once where it is not wanted."""
        while self._config.enabled:
            await asyncio.sleep(self._config.period_s)
            for order in self._planner.plan(await self._standings(), self._clock.now_s()):
                await self._carry_out(order)

    async def _standings(self) -> list[Standing]:
        """Of the decode workers that are up and answer; with fewer than two nobody need be asked."""
        seats = [
            seat
            for seat in self._state.seats.values()
            if seat.role is Role.DECODE and seat.phase is Phase.UP
        ]
        figures = await self._census.figures(seats) if len(seats) > 1 else []
        return [
            Standing.of(
                seat.worker,
                seat.incarnation,
                own.worker.load,
                self._block_tokens,
                self._config.headroom_tokens,
            )
            for seat, own in zip(seats, figures, strict=False)
            if own is not None and own.worker is not None
        ]

    async def _carry_out(self, order: Relieve) -> None:
        seat = self._state.seats.get(order.source)
        process = self._processes.get(seat.incarnation) if seat is not None else None
        if process is None:
            return  # it was lost while the others answered
        logger.info("%s gives %d tokens to %s", order.source, order.tokens, order.destination)
        try:
            async with asyncio.timeout(FIGURES_TIMEOUT_S):
                await process.relieve(order.destination, order.tokens)
        except (TimeoutError, PeerLost, PeerRefused) as exc:
            logger.warning("%s was not told: %r", order.source, exc)
