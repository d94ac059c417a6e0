"""Ports of the front door: which are free, and which are taken."""

import socket

import msgspec

from tercet.config import ClusterConfig
from tercet.errors import TercetError

RAY_WORKER_PORTS = range(10002, 20000)
"""Where Ray puts its workers by default; nothing else may listen there."""


def with_free_ports(config: ClusterConfig) -> ClusterConfig:
    """The configuration with a free HTTP port in place of 0, which Serve would take literally."""
    door = config.front_door
    if door.http_port != 0:
        return config
    door = msgspec.structs.replace(door, http_port=free_port(door.host))
    return msgspec.structs.replace(config, front_door=door)


def avoid_taken_ports(config: ClusterConfig) -> ClusterConfig:
    """The configuration with any free port in place of those that are taken."""
    door = config.front_door
    ports = [0 if is_taken(door.host, port) else port for port in (door.http_port, door.grpc_port)]
    door = msgspec.structs.replace(door, http_port=ports[0], grpc_port=ports[1])
    return msgspec.structs.replace(config, front_door=door)


def check_ports(config: ClusterConfig) -> None:
    """Raises TercetError, with the way out, when a port that the front door needs on this machine is taken."""
    door = config.front_door
    for name, port in (("http_port", door.http_port), ("grpc_port", door.grpc_port)):
        if port and is_taken(door.host, port):
            raise TercetError(
                f"port {port} of {door.host} is taken; set front_door.{name} to another one, or to 0 for any"
            )


def is_taken(host: str, port: int) -> bool:
    """Whether somebody listens there now."""
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: recent connections do not count
        try:
            probe.bind((host, port))
        except OSError:
            return True
    return False


def free_port(host: str) -> int:
    """A port that is free now."""
    while True:
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = int(probe.getsockname()[1])
        if port not in RAY_WORKER_PORTS:
            return port
