"""A front door's view of the cluster: polls the controller for ever, and keeps the last news when there is none.

Losing the controller is nothing here but silence; whoever is told the membership goes on with the last one.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from tercet.cluster.status import FrontDoorReport
from tercet.errors import PeerLost
from tercet.wire import Membership

POLL_S = 1.0
"""How long the controller may hold a poll; also the age of the figures in its status."""
RETRY_S = 0.2
RETRY_S_MAX = 2.0

logger = logging.getLogger(__name__)


class Poll(Protocol):
    """Asks whichever controller there is now."""

    async def __call__(
        self, after_version: int, wait_s: float, report: FrontDoorReport
    ) -> Membership | None:
        """Membership newer than `after_version`, None after `wait_s`; raises PeerLost when there is no controller."""


class MembershipFeed:
    """Calls `update` with every new membership, and tells the controller `report()` with every poll."""

    def __init__(
        self,
        poll: Poll,
        update: Callable[[Membership], None],
        report: Callable[[], FrontDoorReport],
    ) -> None:
        self._poll = poll
        self._update = update
        self._report = report
        self._version = -1

    async def run(self) -> None:
        """Poll until cancelled."""
        delay_s = RETRY_S
        while True:
            try:
                await self._ask()
                delay_s = RETRY_S
            except (PeerLost, TimeoutError) as exc:
                if delay_s == RETRY_S:
                    logger.warning("no word from the controller: %r", exc)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_S_MAX)

    async def _ask(self) -> None:
        async with asyncio.timeout(2 * POLL_S):
            membership = await self._poll(self._version, POLL_S, self._report())
        if membership is not None:
            self._version = membership.version
            self._update(membership)
