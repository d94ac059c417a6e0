"""The Ray Serve deployment that holds a front door, with HTTP and gRPC on servers of its own.

Serve's proxies would cost a Ray call with every message; a server inside the replica costs none. Serve's HTTP proxy reaches
the replica all the same, where there is one, and is the only way in where it must be.
"""

import asyncio
import logging
import os

import msgspec
import ray
from fastapi import FastAPI

from tercet.app.control import ensure_controller
from tercet.cluster.membership_feed import MembershipFeed
from tercet.cluster.ray_membership import RayPoll
from tercet.cluster.status import FrontDoorReport
from tercet.config import ClusterConfig
from tercet.ids import FrontDoorId, new_incarnation
from tercet.router.collector import spare_startup
from tercet.router.front_door import FrontDoor
from tercet.router.http import build_api
from tercet.router.http_server import HttpServer, start_http
from tercet.router.rpc import RpcServer, start_grpc
from tercet.router.service import Service

DEPLOYMENT = "FrontDoor"
STOP_GRACE_S = 5.0
"""How long requests in flight may go on when a replica is told to end."""
BIND_TRIES = 20
BIND_RETRY_S = 0.5
"""A replica that takes over from one on the same host may have to wait for its port."""
ANY_HOST = ("0.0.0.0", "::")
CONTROL_CALLS_MAX = 256
"""Places at Serve beyond those of requests, for status, metrics and refusals."""

logger = logging.getLogger(__name__)


class FrontDoorReplica:
    """One front door in one replica. Makes sure that the cluster behind it exists, then follows its membership."""

    async def __init__(self, config: bytes) -> None:  # type: ignore[misc]  # Serve awaits it
        self._config = msgspec.msgpack.decode(config, type=ClusterConfig)
        await asyncio.to_thread(ensure_controller, self._config)
        door = FrontDoorId(f"door-{new_incarnation()}")
        self._front_door = FrontDoor(self._config, door)
        self._service = Service.load(self._config, self._front_door)
        await self._front_door.start()
        self._rpc = await self._listen()
        self._http = self._listen_http()
        feed = MembershipFeed(RayPoll(self._config.name), self._front_door.update, self._report)
        host = self._config.front_door.host
        self._host = ray.util.get_node_ip_address() if host in ANY_HOST else host
        self._feed = asyncio.create_task(feed.run())
        spare_startup()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return build_api(lambda: self._service)

    async def check_health(self) -> None:
        """Called by Serve, which replaces the replica when this raises."""
        if self._http is not None:
            self._http.check()
        if self._feed.done():
            self._feed.result()
            raise RuntimeError("the membership feed has ended")

    async def __del__(self) -> None:
        """Called by Serve, once, when the replica is to end and its requests are done or out of time."""
        self._feed.cancel()
        await asyncio.gather(self._feed, return_exceptions=True)
        async with asyncio.TaskGroup() as stopping:
            stopping.create_task(self._rpc.server.stop(STOP_GRACE_S))
            if self._http is not None:
                stopping.create_task(self._http.stop(STOP_GRACE_S))
        await self._front_door.stop()

    async def _listen(self) -> RpcServer:
        host, port = self._config.front_door.host, self._config.front_door.grpc_port
        for attempt in range(BIND_TRIES):
            try:
                return await start_grpc(self._service, host, port)
            except RuntimeError as exc:
                if attempt == BIND_TRIES - 1:
                    raise
                logger.info("waiting for port %d: %s", port, exc)
                await asyncio.sleep(BIND_RETRY_S)
        raise AssertionError("unreachable")

    def _listen_http(self) -> HttpServer | None:
        """None where Serve's proxy is the way in."""
        door = self._config.front_door
        if door.serve_proxy is not False:
            return None
        return start_http(build_api(lambda: self._service), door.host, door.http_port)

    def _report(self) -> FrontDoorReport:
        status = self._front_door.status()
        return FrontDoorReport(
            front_door=status.front_door,
            grpc=f"{self._host}:{self._rpc.port}",
            in_flight=status.in_flight,
            queued=status.queued,
            turned_away=status.turned_away,
            workers=sum(seen.connected for seen in status.workers),
            busy=tuple(seen.incarnation for seen in status.workers if seen.outstanding),
            membership_version=status.membership_version,
            pid=os.getpid(),
            ttft_accuracy=status.ttft_accuracy,
        )
