"""The standard services beside ours: health and reflection."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)

from tercet.router.fake_source import FakeSource
from tercet.router.rpc import start_grpc
from tercet.router.service import Service

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def target(service: Service) -> AsyncIterator[str]:
    server, port = await start_grpc(service, "127.0.0.1", 0)
    yield f"127.0.0.1:{port}"
    await server.stop(grace=None)


@pytest.fixture
async def health(target: str) -> AsyncIterator[health_pb2_grpc.HealthStub]:
    async with grpc.aio.insecure_channel(target) as channel:
        yield health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("name", ["", "tercet.v1.Tercet"])
async def test_health_follows_the_workers(
    health: health_pb2_grpc.HealthStub, source: FakeSource, name: str
) -> None:
    request = health_pb2.HealthCheckRequest(service=name)
    assert (await health.Check(request)).status == SERVING
    source.ready = False
    assert (await health.Check(request)).status == NOT_SERVING
    listed = (await health.List(health_pb2.HealthListRequest())).statuses
    assert listed[name].status == NOT_SERVING


async def test_an_unknown_service_has_no_health(health: health_pb2_grpc.HealthStub) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health.Check(health_pb2.HealthCheckRequest(service="other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_is_told_of_changes(
    health: health_pb2_grpc.HealthStub, source: FakeSource
) -> None:
    watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    assert (await watch.read()).status == SERVING
    source.ready = False
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()


async def test_reflection_shows_the_api(target: str) -> None:
    def look() -> list[str]:
        with grpc.insecure_channel(target) as channel:
            pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
            service = pool.FindServiceByName("tercet.v1.Tercet")
            return [method.name for method in service.methods]

    methods = await asyncio.to_thread(look)
    assert methods == ["Generate", "GenerateStream", "Cancel", "Explain", "Move", "ListModels"]


async def test_a_port_that_is_taken_is_an_error(service: Service, target: str) -> None:
    with pytest.raises(RuntimeError):
        await start_grpc(service, "127.0.0.1", int(target.rpartition(":")[2]))
