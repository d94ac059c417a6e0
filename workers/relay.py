"""What front doors say of the prompts they send here, kept until the next report and then passed on to the other ones.

So front doors learn from each other without knowing each other. The worker reads nothing of it: these are the front doors'
names, not its cache's hashes, and whether what they stand for is still cached is nobody's business here.
"""

from collections import deque

from tercet.wire import NAME_BYTES

NAMES_MAX = 1024
"""Kept between two reports, 8 KiB: prompts of half a million tokens, more than a worker takes in that time."""


class Relay:
    """Members are sessions of front doors that learn. With fewer than two of them nothing is kept."""

    def __init__(self, names_max: int = NAMES_MAX) -> None:
        self.names_dropped = 0
        """Since the start."""
        self._names_max = names_max
        self._members: set[str] = set()
        self._said: deque[tuple[str, bytes]] = deque()
        self._names = 0

    def __len__(self) -> int:
        return len(self._members)

    def join(self, owner: str) -> None:
        self._members.add(owner)

    def leave(self, owner: str) -> None:
        """Idempotent, and fine for who never joined."""
        self._members.discard(owner)

    def note(self, owner: str, names: bytes) -> None:
        """`owner` sent a prompt with these prefixes. Where they are too many, the oldest prompts are dropped."""
        if not names or len(self._members) < 2:
            return
        self._said.appendleft((owner, names))
        self._names += len(names) // NAME_BYTES
        while self._names > self._names_max:
            _, oldest = self._said.pop()
            self._names -= len(oldest) // NAME_BYTES
            self.names_dropped += len(oldest) // NAME_BYTES

    def take(self) -> dict[str, bytes]:
        """What each member may learn of the others since the last call; members without news are left out."""
        if not self._said:
            return {}
        said, self._said, self._names = self._said, deque(), 0
        news = {
            member: b"".join(names for owner, names in said if owner != member)
            for member in self._members
        }
        return {member: names for member, names in news.items() if names}
