"""Messages between a worker and its followers: a socket pair, each message behind its length."""

import socket
import struct
import threading
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec

from tercet.errors import PeerLost

T = TypeVar("T")

_LENGTH = struct.Struct("<I")


class Pipe(Generic[T]):
    """One end; `T` is what comes out of it. Any thread may send, one thread at a time receives."""

    def __init__(self, end: socket.socket, kind: object) -> None:
        """`kind` is `T`, which mypy takes for no type where it is a union."""
        self._socket = end
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)
        self._sending = threading.Lock()

    def send(self, message: msgspec.Struct) -> None:
        """Blocks while the other end does not read; raises PeerLost when there is none."""
        self.send_encoded(msgspec.msgpack.encode(message))

    def send_encoded(self, body: bytes) -> None:
        """As `send`, for what goes to several."""
        try:
            with self._sending:
                self._socket.sendall(_LENGTH.pack(len(body)) + body)
        except OSError as exc:
            raise PeerLost(f"a rank is gone: {exc}") from exc

    def receive(self) -> T | None:
        """The next message; None when the other end is closed."""
        head = self._read(_LENGTH.size)
        if head is None:
            return None
        body = self._read(*_LENGTH.unpack(head))
        return None if body is None else self._decoder.decode(body)

    def close(self) -> None:
        """Both directions end at once, also for who blocks in `receive`. Idempotent."""
        with suppress(OSError):  # the other end was quicker
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _read(self, count: int) -> bytes | None:
        got = bytearray()
        while len(got) < count:
            try:
                piece = self._socket.recv(count - len(got))
            except OSError:
                return None
            if not piece:
                return None
            got += piece
        return bytes(got)
