"""One pull of all ranks: what they say about their parts, made into what is said about the whole. Pure.

Every rank proves its own part: it reads its heads, then rank 0's generation words at the peer, and compares. A word that is
still the one published when it is read *after* the data proves that data, so parts proven one by one prove the whole.
"""

from dataclasses import dataclass, field

from tercet.workers.transfer.base import JobId, Pulled, PullFailed, Settled, TransferEvent


@dataclass(slots=True)
class _Joint:
    waiting: set[int]
    """Ranks that have not answered."""
    lingering: set[int] = field(default_factory=set)
    """Ranks that have failed and whose memory may still be written."""
    pulled: list[Pulled] = field(default_factory=list)
    failed: bool = False


class JointPulls:
    """The pulls that are not over, of `ranks` ranks."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._joint: dict[JobId, _Joint] = {}

    def __len__(self) -> int:
        return len(self._joint)

    def begin(self, job: JobId) -> None:
        """All ranks are asked for their part of it."""
        assert job not in self._joint, f"{job} was begun twice"
        self._joint[job] = _Joint(waiting=set(range(self._ranks)))

    def hear(self, rank: int, event: TransferEvent) -> TransferEvent | None:
        """What a rank says; returns what is to be said of the whole, if anything is."""
        joint = self._joint[event.job]
        match event:
            case Pulled():
                joint.waiting.remove(rank)
                joint.pulled.append(event)
            case PullFailed():
                joint.waiting.remove(rank)
                if event.in_flight:
                    joint.lingering.add(rank)
            case Settled():
                joint.lingering.remove(rank)
        over = not joint.waiting and not joint.lingering
        if over:
            del self._joint[event.job]
        if isinstance(event, PullFailed) and not joint.failed:
            joint.failed = True
            return PullFailed(event.job, event.reason, in_flight=not over)
        if not over:
            return None
        return Settled(event.job) if joint.failed else _whole(joint.pulled)


def _whole(parts: list[Pulled]) -> Pulled:
    """Ranks pull at the same time."""
    return Pulled(
        parts[0].job,
        bytes=sum(part.bytes for part in parts),
        seconds=max(part.seconds for part in parts),
    )
