"""A cable made in user space, for kernels without netem: it delays what it carries, and loses some of it."""

import fcntl
import os
import random
import selectors
import struct
import threading
import time
from collections import deque

from netlab.namespaces import inside

FRAME_BYTES_MAX = 65536
QUEUE_FRAMES_MAX = 4096
"""Like a switch without memory left, a full cable drops what comes."""
IDLE_S = 0.05
"""How soon `close` is noticed."""

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000


def open_tap(pid: int, name: str) -> int:
    """A network card in the network of that process; what it sends can be read, what is written it receives."""
    with inside(pid):
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


class Wire:
    """Carries frames between two cards on a thread of its own; owns both descriptors."""

    def __init__(self, left: int, right: int) -> None:
        self.delay_s = 0.0
        """Each way."""
        self.loss = 0.0
        """The share of frames that get lost, each way."""
        self._ends = (left, right)
        self._chance = random.Random(7)
        self._closing = False
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        for end in self._ends:
            os.close(end)

    def _carry(self) -> None:
        under_way: deque[tuple[float, int, bytes]] = deque()
        with selectors.DefaultSelector() as ready:
            for end, other in (self._ends, self._ends[::-1]):
                ready.register(end, selectors.EVENT_READ, other)
            while not self._closing:
                pause_s = max(under_way[0][0] - time.monotonic(), 0) if under_way else IDLE_S
                for key, _ in ready.select(min(pause_s, IDLE_S)):
                    due_s = time.monotonic() + self.delay_s
                    for frame in _frames(key.fd):
                        if self._chance.random() >= self.loss and len(under_way) < QUEUE_FRAMES_MAX:
                            under_way.append((due_s, key.data, frame))
                while under_way and under_way[0][0] <= time.monotonic():
                    _, end, frame = under_way.popleft()
                    _send(end, frame)


def _frames(end: int) -> list[bytes]:
    """What a card has sent."""
    frames: list[bytes] = []
    while len(frames) < 64:
        try:
            frames.append(os.read(end, FRAME_BYTES_MAX))
        except (BlockingIOError, OSError):
            break
    return frames


def _send(end: int, frame: bytes) -> None:
    try:
        os.write(end, frame)
    except OSError:
        return  # a card that is down, or its host gone: that is what becomes of frames
