"""Length-prefixed frames over one asyncio transport; knows bytes, not messages.

Receiving is bounded by not reading: when more than `inbox_bytes_max` waits to be taken, the socket is paused and the
sender feels it. Sending never blocks; whoever sends looks at `outbox_bytes`.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from typing import cast

from tercet.errors import PeerLost

HEADER_BYTES = 4
_INBOX_BYTES_MAX = 8 * 2**20
_OUTBOX_LOW_BYTES = 64 * 2**10
_OUTBOX_HIGH_BYTES = 256 * 2**10


class Frames(asyncio.Protocol):
    """One connection as a sequence of frames in each direction. Belongs to one event loop."""

    def __init__(
        self, frame_bytes_max: int, on_open: Callable[["Frames"], None] | None = None
    ) -> None:
        self.frame_bytes_max = frame_bytes_max
        self.heard_s = 0.0
        """Loop time of the last byte received."""
        self.sent_s = 0.0
        """Loop time of the last frame sent."""
        self.peer = "unconnected peer"
        self.lost: str | None = None
        """Why the connection ended; None while it stands."""
        self._on_open = on_open
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._partial = bytearray()
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()

    # ---- receiving ---------------------------------------------------------------------------------------------------

    async def receive(self) -> bytes:
        """The next frame's content. What arrived before a loss is still delivered; then raises `PeerLost`."""
        while not self._inbox:
            if self.lost is not None:
                raise PeerLost(f"{self.peer}: {self.lost}")
            assert self._reader is None, "a connection has one reader"
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        frame = self._inbox.popleft()
        self._inbox_bytes -= len(frame)
        if self.paused and self._inbox_bytes <= _INBOX_BYTES_MAX // 2 and self._transport:
            self.heard_s = self._loop.time()
            self._transport.resume_reading()
        return frame

    @property
    def paused(self) -> bool:
        """Whether we are the ones who do not listen: then the peer's silence says nothing."""
        return self._transport is not None and not self._transport.is_reading()

    def data_received(self, data: bytes) -> None:
        self.heard_s = self._loop.time()
        self._partial += data
        while len(self._partial) >= HEADER_BYTES:
            size = int.from_bytes(self._partial[:HEADER_BYTES], "little")
            if size > self.frame_bytes_max:
                self.abort(f"sent a frame of {size} bytes, more than {self.frame_bytes_max}")
                return
            end = HEADER_BYTES + size
            if len(self._partial) < end:
                break
            self._inbox.append(bytes(memoryview(self._partial)[HEADER_BYTES:end]))
            self._inbox_bytes += size
            del self._partial[:end]
        if self._inbox_bytes > _INBOX_BYTES_MAX and self._transport and not self.paused:
            self._transport.pause_reading()
        self._wake_reader()

    # ---- sending -----------------------------------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Hand one frame to the socket; nothing happens after a loss."""
        if self._transport is not None and self.lost is None:
            self.sent_s = self._loop.time()
            self._transport.write(len(frame).to_bytes(HEADER_BYTES, "little") + frame)

    @property
    def outbox_bytes(self) -> int:
        """Bytes that the peer's slowness keeps here."""
        return self._transport.get_write_buffer_size() if self._transport else 0

    async def drained(self) -> None:
        """Waits until little is left to send, or the connection is lost."""
        await self._writable.wait()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # ---- life --------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # Not `isinstance`: uvloop, which Ray runs on, has transports that only behave like asyncio's.
        self._transport = transport = cast(asyncio.Transport, transport)
        self.heard_s = self.sent_s = self._loop.time()
        transport.set_write_buffer_limits(_OUTBOX_HIGH_BYTES, _OUTBOX_LOW_BYTES)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._on_open is not None:
            self._on_open(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"connection failed: {exc}" if exc else "connection closed")
        self._gone.set()

    def abort(self, reason: str) -> None:
        """End the connection now; what waits to be sent is discarded."""
        self._end(reason)
        if self._transport is not None:
            self._transport.abort()

    async def close(self, timeout_s: float) -> None:
        """Send what is waiting, then end; after `timeout_s` end all the same."""
        self._end("closed by us")
        if self._transport is None:
            return
        self._transport.close()
        try:
            async with asyncio.timeout(timeout_s):
                await self._gone.wait()
        except TimeoutError:
            self._transport.abort()
            await self._gone.wait()

    def _end(self, reason: str) -> None:
        if self.lost is None:
            self.lost = reason
        self._writable.set()
        self._wake_reader()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
