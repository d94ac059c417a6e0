"""The first frame each way: who is there, and may they talk? Protocol versions are compared before anything is decoded.

A process of another version may have laid out its `Hello` differently; all that is ever assumed of it is an array whose
first two elements are the word "Hello" and the version number. It is answered by a `Refuse`, which never changes.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from tercet.config import LinkConfig
from tercet.errors import PeerLost, PeerRefused
from tercet.link.address import client_tls, uses_unix
from tercet.link.connection import In, Link, encode
from tercet.link.frames import Frames
from tercet.wire import PROTOCOL_VERSION, Endpoint, Hello, Refuse, Welcome

HANDSHAKE_BYTES_MAX = 2**20
"""Bound of a `Hello`, much smaller than that of later frames: it comes from someone not yet known."""

Greet = Callable[[Hello], Welcome | Refuse]

_HELLO = msgspec.msgpack.Decoder(list[Hello])
_ANSWER = msgspec.msgpack.Decoder(list[Welcome | Refuse])


class Opening(NamedTuple):
    """What can be read of a first message of any version."""

    word: str
    second: object
    """The protocol version of a `Hello` or `Welcome`, the reason of a `Refuse`."""


def opening(frame: bytes) -> Opening:
    """Reads the start of a first frame, whatever follows it; raises `PeerLost` if it is none of ours."""
    try:
        word, second, *_ = msgspec.msgpack.decode(frame)[0]
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as exc:
        raise PeerLost("first frame is not one of ours") from exc
    return Opening(str(word), second)


def judge(frame: bytes, greet: Greet) -> tuple[Hello | None, Welcome | Refuse]:
    """The answer to a first frame; the `Hello` is None when the versions differ and it was not read."""
    word, version = opening(frame)
    if word != Hello.__name__:
        return None, Refuse(f"expected a Hello, got {word!r}")
    if version != PROTOCOL_VERSION:
        return None, Refuse(f"you speak protocol {version}, this worker speaks {PROTOCOL_VERSION}")
    try:
        (hello,) = _HELLO.decode(frame)
    except (msgspec.MsgspecError, ValueError) as exc:
        return None, Refuse(f"malformed Hello: {exc}")
    return hello, greet(hello)


async def connect(
    endpoint: Endpoint, hello: Hello, inbound: object, config: LinkConfig, host_id: str
) -> tuple[Link[In], Welcome]:
    """Open a link to a worker. `inbound` is the union of messages it may send, `host_id` our own.

    Raises `PeerRefused` when it says no, `PeerLost` when it cannot be reached or does not answer within `dead_after_s`.
    """
    peer = f"{endpoint.worker}:{endpoint.incarnation}"
    try:
        async with asyncio.timeout(config.dead_after_s):
            frames = await _open(endpoint, config, host_id)
            frames.peer = peer
            try:
                frames.send(encode(hello))
                welcome = _accepted(await frames.receive(), hello)
            except BaseException as exc:
                frames.abort(f"handshake failed: {exc}")
                raise
    except TimeoutError as exc:
        raise PeerLost(f"{peer}: no answer within {config.dead_after_s:g} s") from exc
    except OSError as exc:  # also ssl.SSLError
        raise PeerLost(f"{peer}: {exc}") from exc
    return Link(frames, peer, inbound, config), welcome


async def _open(endpoint: Endpoint, config: LinkConfig, host_id: str) -> Frames:
    loop = asyncio.get_running_loop()
    frames = Frames(config.frame_bytes_max)
    if uses_unix(endpoint, host_id, config.tls):
        await loop.create_unix_connection(lambda: frames, endpoint.unix)
    else:
        tls = client_tls(config.tls)
        await loop.create_connection(lambda: frames, endpoint.host, endpoint.port, ssl=tls)
    return frames


def _accepted(frame: bytes, hello: Hello) -> Welcome:
    word, version = opening(frame)
    if word == Welcome.__name__ and version != PROTOCOL_VERSION:
        raise PeerRefused(f"it speaks protocol {version}, this process {PROTOCOL_VERSION}")
    try:
        (answer,) = _ANSWER.decode(frame)
    except (msgspec.MsgspecError, ValueError) as exc:
        raise PeerLost(f"malformed answer to Hello: {exc}") from exc
    if isinstance(answer, Refuse):
        raise PeerRefused(answer.reason)
    if answer.incarnation != hello.expects:
        raise PeerRefused(f"expected incarnation {hello.expects}, found {answer.incarnation}")
    return answer
