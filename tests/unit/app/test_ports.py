import socket

import pytest

from tercet.app.ports import (
    RAY_WORKER_PORTS,
    avoid_taken_ports,
    check_ports,
    free_port,
    with_free_ports,
)
from tercet.config import ClusterConfig, FrontDoorConfig, ModelConfig
from tercet.errors import TercetError

HOST = "127.0.0.1"


@pytest.fixture
def taken():
    """A port somebody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def config(http_port: int, grpc_port: int) -> ClusterConfig:
    door = FrontDoorConfig(host=HOST, http_port=http_port, grpc_port=grpc_port)
    return ClusterConfig(model=ModelConfig(path="m"), front_door=door)


def test_a_taken_port_is_refused_with_the_way_out(taken):
    with pytest.raises(TercetError, match=f"port {taken} .* set front_door.grpc_port"):
        check_ports(config(0, taken))
    check_ports(config(free_port(HOST), 0))


def test_free_ports_take_the_place_of_taken_ones_alone(taken):
    free = free_port(HOST)
    door = avoid_taken_ports(config(taken, free)).front_door
    assert (door.http_port, door.grpc_port) == (0, free)


def test_http_port_zero_becomes_a_port_that_serve_can_use():
    chosen = with_free_ports(config(0, 0)).front_door
    assert chosen.http_port > 0
    assert chosen.http_port not in RAY_WORKER_PORTS
    assert chosen.grpc_port == 0
    assert with_free_ports(config(8123, 0)).front_door.http_port == 8123
