"""What every worker says about itself now, and what there is to say about every seat."""

import asyncio
from collections.abc import Iterable, Mapping

from tercet.clock import Clock
from tercet.cluster.fleet import Fleet, WorkerProcess
from tercet.cluster.placement import Bundle, Room, shortage
from tercet.cluster.seat import Phase, Seat, seat_order
from tercet.cluster.state import ClusterState
from tercet.cluster.status import ProcessFigures, WorkerReport
from tercet.config import Pools
from tercet.errors import PeerLost, PeerRefused
from tercet.ids import Incarnation

FIGURES_TIMEOUT_S = 1.0
ANSWERS = (Phase.UP, Phase.DRAINING)


class Census:
    """Asks the processes of `processes`, which others fill; decides nothing."""

    def __init__(
        self,
        pools: Pools,
        fleet: Fleet,
        state: ClusterState,
        processes: Mapping[Incarnation, WorkerProcess],
        clock: Clock,
    ) -> None:
        self._pools, self._fleet, self._state = pools, fleet, state
        self._processes, self._clock = processes, clock

    async def figures(self, seats: Iterable[Seat]) -> list[ProcessFigures | None]:
        """None for who neither is up nor drains, or does not answer within `FIGURES_TIMEOUT_S`."""
        return await asyncio.gather(*(self._figures(seat) for seat in seats))

    async def reports(self) -> list[WorkerReport]:
        """All seats, in the order in which people read them."""
        seats = sorted(self._state.seats.values(), key=seat_order)
        figures = await self.figures(seats)
        pending = any(seat.phase is Phase.PENDING for seat in seats)
        room = await self._fleet.room() if pending else Room((), {})
        reports = []
        for seat, own in zip(seats, figures, strict=True):
            reason = seat.reason
            if seat.phase is Phase.PENDING:
                reason = shortage(Bundle.of(self._pools.of(seat.role)), room)
            reports.append(_report(seat, reason, own, self._clock.now_s()))
        return reports

    async def _figures(self, seat: Seat) -> ProcessFigures | None:
        process = self._processes.get(seat.incarnation)
        if process is None or seat.phase not in ANSWERS:
            return None
        try:
            async with asyncio.timeout(FIGURES_TIMEOUT_S):
                return await process.figures()
        except (TimeoutError, PeerLost, PeerRefused):
            return None


def _report(seat: Seat, reason: str, figures: ProcessFigures | None, now_s: float) -> WorkerReport:
    where = seat.endpoint
    return WorkerReport(
        worker=seat.worker,
        role=seat.role,
        phase=seat.phase,
        incarnation=seat.incarnation,
        address=f"{where.host}:{where.port}" if where is not None else "",
        phase_s=now_s - seat.since_s,
        restarts=seat.restarts,
        failures=seat.failures,
        crash_looping=seat.crash_looping,
        reason=reason,
        figures=figures,
    )
