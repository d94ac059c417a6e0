"""How a front door reaches the controller, through Ray."""

import asyncio

import msgspec
import ray
from ray.exceptions import RayError

from tercet.cluster.ray_control import controller_name
from tercet.cluster.ray_runtime import NAMESPACE
from tercet.cluster.status import FrontDoorReport
from tercet.errors import PeerLost
from tercet.wire import Membership


class RayPoll:
    """A `Poll` of the controller of one cluster."""

    def __init__(self, cluster: str) -> None:
        self._name = controller_name(cluster)

    async def __call__(
        self, after_version: int, wait_s: float, report: FrontDoorReport
    ) -> Membership | None:
        encoded = msgspec.msgpack.encode(report)
        try:
            # Looked up with every poll: a controller that was replaced has the same name and another handle.
            controller = await asyncio.to_thread(ray.get_actor, self._name, NAMESPACE)
            news = await controller.membership.remote(after_version, wait_s, encoded)
        except (RayError, ValueError) as exc:  # ValueError: no such actor now
            raise PeerLost(type(exc).__name__) from exc
        return None if news is None else msgspec.msgpack.decode(news, type=Membership)
