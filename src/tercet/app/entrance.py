"""Where HTTP comes in: straight to the front doors, or through Ray Serve's proxy."""

from dataclasses import dataclass

import msgspec

from tercet.config import FrontDoorConfig
from tercet.errors import TercetError


@dataclass(frozen=True, slots=True)
class RunningServe:
    """A Serve that was there before us, and has chosen its proxy's address for everybody."""

    host: str
    port: int
    has_proxy: bool


def choose_entrance(
    door: FrontDoorConfig, running: RunningServe | None, *, owned: bool
) -> FrontDoorConfig:
    """The front door's section with its choice made; `owned` says whether Ray is our own. Port 0 is left where we may choose.

    Raises TercetError, with the way out, when the Serve that runs does not fit.
    """
    if owned and door.serve_proxy is None:
        door = msgspec.structs.replace(door, serve_proxy=False)
    if running is None:
        return door
    if door.serve_proxy is False:
        if running.has_proxy and door.http_port == running.port:
            raise TercetError(
                f"Serve's proxy has port {running.port}; set front_door.http_port to another one"
            )
        return door
    if not running.has_proxy:
        raise TercetError(
            "Serve runs on this Ray cluster without an HTTP proxy; set front_door.serve_proxy to false"
        )
    if door.http_port not in (0, running.port):
        raise TercetError(
            f"Serve runs on this Ray cluster already, at {running.host}:{running.port};"
            f" set front_door.http_port to {running.port}, or to 0"
        )
    return msgspec.structs.replace(door, host=running.host, http_port=running.port)
