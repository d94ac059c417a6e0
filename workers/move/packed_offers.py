"""What is said to a reader that asked for packed blocks: the same as to others and in the same order, offers when they are packed.

Stands between a `Departure`, which knows nothing of codecs, and its reader. Pure.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from tercet.ids import BlockId
from tercet.wire import Commit, Gone, Ready
from tercet.workers.move.signals import Pack, Packed, SourceCommand, ToReader, Unstage
from tercet.workers.transfer.codec_choice import Codec


@dataclass(frozen=True, slots=True)
class PackingTerms:
    """What a source is ready to pack."""

    codecs: frozenset[Codec] = frozenset()
    blocks_min: int = 1
    """Fewer in one offer travel as they are."""
    blocks_max: int = 1
    """More are packed part by part, so that the first can be read while the next are packed."""


@dataclass(slots=True)
class _Line:
    """What waits to be said. `number` is that of the order it waits for; zero when only for those before it."""

    number: int
    message: Ready | Commit


@dataclass(slots=True)
class PackedOffers:
    """For one reader of one departure. Slots are kept until the reader has their blocks, or until `close`."""

    reader: str
    codec: Codec
    terms: PackingTerms
    numbers: Iterator[int]
    """Of orders; unique among all departures."""
    waiting: deque[_Line] = field(default_factory=deque)
    kept: deque[tuple[int, tuple[BlockId, ...]]] = field(default_factory=deque)
    """Slots, by the number of the block behind the last of theirs."""

    def pass_on(self, command: SourceCommand) -> list[SourceCommand]:
        """What becomes of a departure's command."""
        if not isinstance(command, ToReader) or command.reader != self.reader:
            return [command]
        match command.message:
            case Ready() as ready if len(ready.blocks) >= self.terms.blocks_min:
                return [self._order(part) for part in self._parts(ready)]
            case Ready() | Commit() as message if self.waiting:
                self.waiting.append(_Line(0, message))
                return []
            case Ready() | Commit() | Gone():
                return [command]

    def on_packed(self, event: Packed) -> list[SourceCommand]:
        """An order was carried out; without words it was not, and the blocks are offered as they are."""
        line = next((line for line in self.waiting if line.number == event.number), None)
        if line is None:
            return event.given_up()
        assert isinstance(line.message, Ready), line
        line.number = 0
        commands: list[SourceCommand] = []
        if event.generations:
            ready = line.message
            self.kept.append((ready.first + len(ready.blocks), event.slots))
            line.message = msgspec.structs.replace(
                ready,
                slots=list(event.slots),
                slot_generations=list(event.generations),
                pack_s=event.seconds,
            )
        else:
            commands = event.given_up()
        while self.waiting and not self.waiting[0].number:
            commands.append(ToReader(self.reader, self.waiting.popleft().message))
        return commands

    def took(self, blocks: int) -> list[SourceCommand]:
        """The reader has what lies below this block number."""
        freed = [slots for end, slots in self.kept if end <= blocks]
        self.kept = deque(each for each in self.kept if each[0] > blocks)
        return [Unstage(slots) for slots in freed]

    def close(self) -> list[SourceCommand]:
        """The reader is gone, or done; what waits is not said any more."""
        self.waiting.clear()
        freed = [Unstage(slots) for _, slots in self.kept]
        self.kept.clear()
        return list(freed)

    def _parts(self, ready: Ready) -> Iterator[Ready]:
        """Equal ones, as few as may be; each says how much is published in all."""
        blocks = len(ready.blocks)
        parts = -(-blocks // self.terms.blocks_max)
        for i in range(parts):
            begin, end = i * blocks // parts, (i + 1) * blocks // parts
            yield msgspec.structs.replace(
                ready,
                first=ready.first + begin,
                blocks=ready.blocks[begin:end],
                generations=ready.generations[begin:end],
            )

    def _order(self, part: Ready) -> Pack:
        number = next(self.numbers)
        self.waiting.append(_Line(number, part))
        blocks, generations = tuple(part.blocks), tuple(part.generations)
        return Pack(part.request, part.epoch, number, blocks, generations, self.codec)
