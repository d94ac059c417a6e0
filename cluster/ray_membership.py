"""A front door's view of the cluster: polls the controller for ever, and keeps the last news when there is none.

Losing the controller is nothing here but silence; whoever is told the membership goes on with the last one.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec
import ray
from ray.exceptions import RayError

from tercet.cluster.ray_control import controller_name
from tercet.cluster.ray_runtime import NAMESPACE
from tercet.cluster.status import FrontDoorReport
from tercet.wire import Membership

POLL_S = 1.0
"""How long the controller may hold a poll; also the age of the figures in its status."""
RETRY_S = 0.2
RETRY_S_MAX = 2.0

logger = logging.getLogger(__name__)


class MembershipFeed:
    """Calls `update` with every new membership, and tells the controller `report()` with every poll."""

    def __init__(
        self,
        cluster: str,
        update: Callable[[Membership], None],
        report: Callable[[], FrontDoorReport],
    ) -> None:
        self._name = controller_name(cluster)
        self._update = update
        self._report = report
        self._version = -1

    async def run(self) -> None:
        """Poll until cancelled."""
        delay_s = RETRY_S
        while True:
            try:
                await self._poll()
                delay_s = RETRY_S
            except (RayError, ValueError, TimeoutError) as exc:  # ValueError: no such actor now
                if delay_s == RETRY_S:
                    logger.warning("no word from the controller: %s", type(exc).__name__)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, RETRY_S_MAX)

    async def _poll(self) -> None:
        # Looked up with every poll: a controller that was replaced has the same name and another handle.
        controller = await asyncio.to_thread(ray.get_actor, self._name, NAMESPACE)
        report = msgspec.msgpack.encode(self._report())
        call = controller.membership.remote(self._version, POLL_S, report)
        async with asyncio.timeout(2 * POLL_S):
            encoded = await call
        if encoded is None:
            return
        membership = msgspec.msgpack.decode(encoded, type=Membership)
        self._version = membership.version
        self._update(membership)
