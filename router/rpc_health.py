"""The standard gRPC health service: SERVING while a request sent now would find a worker."""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
from grpc_health.v1 import health_pb2

WATCH_PERIOD_S = 0.25
"""How late a watcher may learn of a change."""


class Health:
    """Answers for the server as a whole (the empty name) and for each of `services`; all are ready together."""

    def __init__(self, ready: Callable[[], bool], services: tuple[str, ...]) -> None:
        self._ready = ready
        self._names = ("", *services)

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        if request.service not in self._names:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {request.service!r}")
        return health_pb2.HealthCheckResponse(status=self._status(request.service))

    async def List(
        self, request: health_pb2.HealthListRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthListResponse:
        statuses = {
            name: health_pb2.HealthCheckResponse(status=self._status(name)) for name in self._names
        }
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        told = None
        while True:  # until the watcher leaves, which cancels this
            status = self._status(request.service)
            if status != told:
                yield health_pb2.HealthCheckResponse(status=status)
                told = status
            await asyncio.sleep(WATCH_PERIOD_S)

    def _status(self, name: str) -> int:
        statuses = health_pb2.HealthCheckResponse.ServingStatus
        if name not in self._names:
            return int(statuses.Value("SERVICE_UNKNOWN"))
        return int(statuses.Value("SERVING" if self._ready() else "NOT_SERVING"))
