"""The listening side: accepts connections, checks who they are, and owns the task that serves each of them."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from tercet.config import LinkConfig
from tercet.errors import PeerLost
from tercet.ids import Incarnation
from tercet.link.address import SocketFile, server_tls
from tercet.link.connection import Link, encode
from tercet.link.frames import Frames
from tercet.link.handshake import HANDSHAKE_BYTES_MAX, Greet, judge
from tercet.wire import Hello, Message, Refuse, Welcome

logger = logging.getLogger(__name__)

CONNECTIONS_MAX = 1024
"""More than this many at once are hung up on: no cluster of ours comes near it."""

Handle = Callable[[Hello, Link[Message]], Awaitable[None]]


class LinkServer:
    """Listens on TCP and, if given a path, on a unix socket.

    `greet` answers a `Hello` of the right protocol, cluster and incarnation with `Welcome` or a further `Refuse`;
    `handle` serves one link to its end and may let `PeerLost` escape. `inbound` is the union of messages clients send.
    """

    def __init__(
        self,
        greet: Greet,
        handle: Handle,
        inbound: object,
        config: LinkConfig,
        *,
        cluster: str,
        incarnation: Incarnation,
    ) -> None:
        self._greet = greet
        self._handle = handle
        self._inbound = inbound
        self._config = config
        self._cluster = cluster
        self._incarnation = incarnation
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket_file: SocketFile | None = None

    async def listen(self, host: str, port: int = 0, unix: Path | None = None) -> int:
        """Start accepting; returns the TCP port. A socket file left behind by a former life is replaced."""
        loop = asyncio.get_running_loop()
        tls = server_tls(self._config.tls)
        handshake_s = self._config.dead_after_s if tls else None
        tcp = await loop.create_server(
            self._accept, host, port, ssl=tls, ssl_handshake_timeout=handshake_s
        )
        self._listeners.append(tcp)
        if unix is not None and self._config.tls is None:
            self._socket_file = SocketFile(unix)
            self._listeners.append(await loop.create_unix_server(self._accept, str(unix)))
            self._socket_file.bound()
        bound: int = tcp.sockets[0].getsockname()[1]
        return bound

    async def close(self) -> None:
        """Stop accepting, end every link and wait for its task. Idempotent."""
        for listener in self._listeners:
            listener.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for listener in self._listeners:
            await listener.wait_closed()
        self._listeners.clear()
        if self._socket_file is not None:
            self._socket_file.remove()

    @property
    def links(self) -> int:
        """Connections being served, those in their handshake included."""
        return len(self._tasks)

    def _accept(self) -> Frames:
        return Frames(HANDSHAKE_BYTES_MAX, self._opened)

    def _opened(self, frames: Frames) -> None:
        if len(self._tasks) >= CONNECTIONS_MAX:
            frames.abort("too many connections")
            return
        task = asyncio.get_running_loop().create_task(self._serve(frames))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, frames: Frames) -> None:
        try:
            async with asyncio.timeout(self._config.dead_after_s):
                hello, answer = judge(await frames.receive(), self._judge)
            if hello is None or isinstance(answer, Refuse):
                frames.send(encode(answer))
                await frames.close(self._config.dead_after_s)
                return
            await self._serve_link(frames, hello, answer)
        except (PeerLost, TimeoutError) as exc:
            logger.info("link ended: %s", exc)
        except Exception:
            logger.exception("a link's handler failed")
        finally:
            frames.abort("done")

    async def _serve_link(self, frames: Frames, hello: Hello, welcome: Welcome) -> None:
        frames.frame_bytes_max = self._config.frame_bytes_max
        frames.send(encode(welcome))
        peer = f"{hello.sender}:{hello.incarnation}"
        link: Link[Message] = Link(frames, peer, self._inbound, self._config)
        try:
            await self._handle(hello, link)
        finally:
            await link.close()

    def _judge(self, hello: Hello) -> Welcome | Refuse:
        if hello.cluster != self._cluster:
            return Refuse(f"this is cluster {self._cluster!r}, not {hello.cluster!r}")
        if hello.expects != self._incarnation:
            return Refuse(f"incarnation {hello.expects} is gone; this is {self._incarnation}")
        return self._greet(hello)
