"""Framed, multiplexed connections between our own processes: one per pair, many requests each.

The frame is a 4-byte little-endian length and a msgpack array of `tercet.wire` messages. This package knows sockets,
TLS, the handshake and heartbeats; it does not know what the messages mean.
"""

from tercet.link.address import host_id
from tercet.link.connection import Link
from tercet.link.handshake import connect
from tercet.link.server import LinkServer

__all__ = ["Link", "LinkServer", "connect", "host_id"]
