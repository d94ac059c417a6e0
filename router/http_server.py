"""An HTTP server of our own for the API of `http.py`: uvicorn, in the process and event loop of its front door.

Front doors of one host listen on the same port, and the kernel deals new connections out among the sockets that are open.
"""

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

KEEP_ALIVE_S = 90
"""An idle connection is closed after so long; clients that pool connections should do it first."""
CONNECTIONS_WAITING_MAX = 2048
"""Not yet accepted; the kernel holds them."""


class HttpServer:
    """A running server."""

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        self._server = server
        self.port = int(listener.getsockname()[1])
        self._serving = asyncio.create_task(server.serve(sockets=[listener]))

    def check(self) -> None:
        """Raises what has ended it, if anything has."""
        if self._serving.done():
            self._serving.result()
            raise RuntimeError("the HTTP server has ended")

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let requests in flight finish for so long, cancel what is left; returns when all have ended."""
        self._server.config.timeout_graceful_shutdown = math.ceil(grace_s)
        self._server.should_exit = True
        await asyncio.gather(self._serving, return_exceptions=True)
        await asyncio.gather(*self._server.server_state.tasks, return_exceptions=True)


def start_http(api: ASGIApp, host: str, port: int) -> HttpServer:
    """Listen on `host:port`; 0 takes any free port. Raises OSError when somebody has it who does not share."""
    config = uvicorn.Config(
        api,
        log_config=None,  # logging is the process's own affair
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        backlog=CONNECTIONS_WAITING_MAX,
    )
    return HttpServer(_Server(config), listen(host, port))


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, which shares its port with others of this kind. Raises OSError."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(address)
        listener.listen(CONNECTIONS_WAITING_MAX)
    except OSError:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals belong to the process, which is not ours alone."""
        yield
