"""What the engine has to say: events about sequences, put into words and kept until the step ends.

Decides nothing; it only remembers, in each sequence, what has been said and published already.
"""

from tercet.ids import BlockId, Epoch, RequestId, WorkerId
from tercet.request import FinishReason, TokenLogprobs
from tercet.wire import Failed, MoveWanted, Refused, Started, Tokens
from tercet.workers.block_pool import BlockPool
from tercet.workers.events import (
    Absent,
    Ended,
    Event,
    Extended,
    Held,
    Published,
    Reserved,
    Said,
    Thaw,
)
from tercet.workers.sequence import Sequence


class Outbox:
    """Events in the order in which they happened. Bounded by what one step and the commands before it can cause."""

    def __init__(self, pool: BlockPool) -> None:
        self._pool = pool
        self._events: list[Event] = []

    def __bool__(self) -> bool:
        return bool(self._events)

    def take(self) -> list[Event]:
        """Everything since the last call."""
        events, self._events = self._events, []
        return events

    def tokens(
        self,
        sequence: Sequence,
        logprobs: list[TokenLogprobs] | None,
        finish: FinishReason | None,
    ) -> None:
        """The output that the owner does not know yet; with `finish` also the bill."""
        first, sequence.known_output = sequence.known_output, sequence.output_tokens
        message = Tokens(
            sequence.id,
            sequence.epoch,
            first,
            sequence.tokens[sequence.prompt_tokens + first :],
            logprobs,
            finish,
            sequence.usage if finish else None,
        )
        self._events.append(Said(sequence.owner, message))

    def started(self, sequence: Sequence) -> None:
        """A hand-off begins to execute."""
        self._events.append(Said(sequence.owner, Started(sequence.id, sequence.epoch)))

    def refused(
        self, sequence: Sequence, reason: str, retry_after_s: float, pending_tokens: int
    ) -> None:
        """Not taken, but may be later or elsewhere; `ended` follows."""
        message = Refused(sequence.id, sequence.epoch, reason, retry_after_s, pending_tokens)
        self._events.append(Said(sequence.owner, message))

    def failed(self, sequence: Sequence, reason: str, *, retryable: bool) -> None:
        """Given up; `ended` follows when the blocks are gone."""
        message = Failed(sequence.id, sequence.epoch, reason, retryable)
        self._events.append(Said(sequence.owner, message))

    def wants_move(self, sequence: Sequence, to: WorkerId) -> None:
        """Its owner may have it moved."""
        message = MoveWanted(sequence.id, sequence.epoch, to)
        self._events.append(Said(sequence.owner, message))

    def reserved(self, sequence: Sequence) -> None:
        """Blocks wait for KV, except for those that the prefix cache had."""
        blocks = tuple(sequence.blocks)
        held = sequence.registered_blocks
        self._events.append(Reserved(sequence.id, sequence.epoch, blocks, held))

    def published(self, sequence: Sequence, upto: int, tokens: int) -> None:
        """The first `upto` blocks, holding `tokens` tokens, are final; says those that it has not said before."""
        first = sequence.published_blocks
        if upto <= first:
            return
        sequence.published_blocks = upto
        blocks = tuple(sequence.blocks[first:upto])
        generations = self._pool.generations(blocks)
        self._events.append(
            Published(
                sequence.id,
                sequence.epoch,
                first,
                blocks,
                generations,
                tokens,
                sequence.exposure,
            )
        )

    def exposed(self, sequence: Sequence) -> None:
        """From now on its KV is published as it grows; says so at once, even when there is none yet."""
        event = Published(sequence.id, sequence.epoch, 0, (), (), 0, sequence.exposure)
        self._events.append(event)

    def held(self, sequence: Sequence) -> None:
        """Everything is published, and the blocks stay until they are released."""
        event = Held(
            sequence.id,
            sequence.epoch,
            sequence.owner,
            tuple(sequence.output),
            sequence.computed,
            sequence.cached_tokens or 0,
            sequence.computed_tokens,
            tuple(sequence.logprobs) if sequence.logprobs else None,
            sequence.exposure,
        )
        self._events.append(event)

    def extended(self, sequence: Sequence, blocks: list[BlockId]) -> None:
        """So many more blocks are reserved."""
        self._events.append(Extended(sequence.id, sequence.epoch, tuple(blocks)))

    def absent(self, request: RequestId, epoch: Epoch, exposure: int) -> None:
        """No such request runs here."""
        self._events.append(Absent(request, epoch, exposure))

    def missing(self, command: Thaw) -> None:
        """There is no such request here to run on."""
        message = Failed(command.request, command.epoch, "it is not here any more")
        self._events.append(Said(command.owner, message))

    def ended(self, sequence: Sequence) -> None:
        """Nothing is kept of it."""
        self._events.append(Ended(sequence.id, sequence.epoch))
