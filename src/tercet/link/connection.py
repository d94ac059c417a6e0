"""One established connection: messages in, messages out, heartbeats, and the verdict that the other side is lost."""

import asyncio
from functools import lru_cache
from types import GenericAlias
from typing import Generic, Self, TypeVar

import msgspec

from tercet.config import LinkConfig
from tercet.errors import PeerLost
from tercet.link.frames import Frames
from tercet.wire import Message, Ping

In = TypeVar("In", bound=Message)

_ENCODER = msgspec.msgpack.Encoder()
_PING = _ENCODER.encode([Ping()])


def encode(*messages: Message) -> bytes:
    """One frame's content."""
    return _ENCODER.encode(messages)


@lru_cache(maxsize=32)
def _decoder(inbound: object) -> msgspec.msgpack.Decoder[list[Message]]:
    # A union cannot be named in a type[…]; callers state it once more in their `Link[…]`.
    kind: type[list[Message]] = GenericAlias(list, (inbound,))  # type: ignore[assignment]
    return msgspec.msgpack.Decoder(kind)


class Link(Generic[In]):
    """One connection, after its handshake, on either side; iterate it to get the messages of one frame at a time.

    The link sends heartbeats by itself and loses the peer when it was silent for `dead_after_s`, left more than
    `outbox_bytes_max` unread, or sent what cannot be decoded. It belongs to one event loop and has one reader.
    """

    def __init__(self, frames: Frames, peer: str, inbound: object, config: LinkConfig) -> None:
        self.peer = peer
        frames.peer = peer
        self._frames = frames
        self._config = config
        self._decode = _decoder(inbound).decode
        self._loop = asyncio.get_running_loop()
        self._posted: list[Message] = []
        self._closed = False
        self._watch = self._loop.call_later(config.heartbeat_s, self._beat)

    def post(self, *messages: Message) -> None:
        """Send soon; never blocks. All messages posted in one turn of the loop leave as one frame.

        Raises `PeerLost` when the link is closed or lost.
        """
        if self._closed or self._frames.lost is not None:
            raise PeerLost(f"{self.peer}: {self._frames.lost}")
        if not self._posted:
            self._loop.call_soon(self._flush)
        self._posted += messages

    async def drained(self) -> None:
        """Waits until the peer has taken most of what was posted; raises `PeerLost` if it never will."""
        await asyncio.sleep(0)  # lets what was posted in this turn reach the socket first
        await self._frames.drained()
        if self._frames.lost is not None:
            raise PeerLost(f"{self.peer}: {self._frames.lost}")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[In]:
        """The next frame's messages; raises `PeerLost` when the link is lost, ends after our own `close`."""
        while not self._closed:
            try:
                frame = await self._frames.receive()
            except PeerLost:
                if self._closed:
                    break
                self._watch.cancel()
                raise
            if frame != _PING:
                return self._decoded(frame)
        raise StopAsyncIteration

    async def close(self) -> None:
        """Send what was posted, then hang up; bounded by `dead_after_s`. Idempotent."""
        self._flush()
        self._closed = True
        self._watch.cancel()
        await self._frames.close(self._config.dead_after_s)

    def _decoded(self, frame: bytes) -> list[In]:
        try:
            return self._decode(frame)  # type: ignore[return-value]
        except msgspec.MsgspecError as exc:
            self._lose(f"sent what cannot be decoded: {exc}")
            raise PeerLost(f"{self.peer}: {self._frames.lost}") from exc

    def _flush(self) -> None:
        batch, self._posted = self._posted, []
        if batch and self._frames.lost is None:
            self._send(batch)

    def _send(self, batch: list[Message]) -> None:
        frame = encode(*batch)
        if len(frame) > self._config.frame_bytes_max and len(batch) > 1:
            middle = len(batch) // 2
            self._send(batch[:middle])
            self._send(batch[middle:])
        elif len(frame) > self._config.frame_bytes_max:
            self._lose(f"a {type(batch[0]).__name__} of {len(frame)} bytes fits no frame")
        elif self._frames.outbox_bytes > self._config.outbox_bytes_max:
            self._lose(f"does not read: {self._frames.outbox_bytes} bytes wait for it")
        else:
            self._frames.send(frame)

    def _beat(self) -> None:
        """Every `heartbeat_s`: say that we live if nothing else did, and see whether the peer does."""
        if self._frames.lost is not None:
            return
        now_s = self._loop.time()
        if not self._frames.paused and now_s - self._frames.heard_s > self._config.dead_after_s:
            self._lose(f"silent for {now_s - self._frames.heard_s:.1f} s")
            return
        if now_s - self._frames.sent_s > self._config.heartbeat_s / 2:
            self._frames.send(_PING)
        self._watch = self._loop.call_later(self._config.heartbeat_s, self._beat)

    def _lose(self, reason: str) -> None:
        self._watch.cancel()
        self._frames.abort(reason)
