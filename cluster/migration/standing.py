"""How full one decode worker is, or counts as being."""

from dataclasses import dataclass

from tercet.ids import Incarnation, WorkerId
from tercet.wire import LoadReport


@dataclass(frozen=True, slots=True)
class Standing:
    """One worker, by its own figures; tokens of KV."""

    worker: WorkerId
    incarnation: Incarnation
    capacity_tokens: int
    usage_tokens: int
    """With what it does not hold, but counts as holding: a prompt that finds no room, and the headroom of important requests."""
    running_tokens: int
    """The contexts of its running requests, of which some may be given away."""
    batch: int
    """Requests that grow, or are about to."""

    @classmethod
    def of(
        cls,
        worker: WorkerId,
        incarnation: Incarnation,
        load: LoadReport,
        block_tokens: int,
        headroom_tokens: int,
    ) -> "Standing":
        """The virtual usage of Llumnix, algorithm 1: of a queue only its head counts, and headroom once a worker."""
        used_tokens = load.blocks_used * block_tokens + load.head_tokens
        return cls(
            worker,
            incarnation,
            capacity_tokens=(load.blocks_total - load.quarantined_blocks) * block_tokens,
            usage_tokens=used_tokens + (headroom_tokens if load.urgent else 0),
            running_tokens=load.context_tokens,
            batch=load.running + load.pulling + bool(load.head_tokens),
        )

    @property
    def free_tokens(self) -> int:
        """Negative when it counts as holding more than it can."""
        return self.capacity_tokens - self.usage_tokens

    @property
    def freeness(self) -> float:
        """Decode steps until it is full, every request growing by a token in each."""
        return self.free_tokens / max(1, self.batch)

    def without(self, tokens: int) -> "Standing":
        """As it would be with one request of so many tokens less, or more where they are negative."""
        one = 1 if tokens > 0 else -1
        return Standing(
            self.worker,
            self.incarnation,
            self.capacity_tokens,
            self.usage_tokens - tokens,
            self.running_tokens - tokens,
            self.batch - one,
        )
